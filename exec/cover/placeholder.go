package cover

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A placeholder is an empty file at a path that is to stay missing. It is made on the host, for the time of the run, and
// covered like any other file. The protocol between all who use one:
//
//   - It is known by its looks: a regular file, empty, with one name, with mode 01444 and the time of the epoch. No program
//     makes such a file by chance: the sticky bit means nothing on files. So one that a killed sandbox left is found by the
//     next, and a file that somebody wrote to is none any more.
//   - It appears at its name with these looks and locked (an unnamed file is linked there, O_TMPFILE), so nobody ever sees
//     half of one.
//   - Who uses it holds a shared lock (flock(2)) on it for the whole run, on an open file that the init process of the
//     sandbox inherits. Whoever opens it to join locks it, and then looks whether the name still means this file: if not, its
//     last user has just removed it, and the joiner starts again.
//   - Who ends turns his lock into an exclusive one without waiting. That fails while there are others; the last succeeds
//     (see removal.go: also when two end at once, one of them does) and removes the file while it holds the lock.
//   - What is removed is our file: the cover is unmounted first, which fails once the name means another file, as the kernel
//     takes mounts off what is removed or replaced (detach_mounts in fs/namespace.c); where no cover was mounted, the inode
//     is compared. Between that and the removal lies a moment in which somebody on the host could still put his own file
//     there; no system call removes a name on condition.
//
// Directories on the way are made as mkdir(1) would and marked with an extended attribute, so that whoever is last removes
// them, if they are empty. Where the file system has no such attributes, only their maker does.
//
// Limits: a placeholder of another user can be joined (it is readable) but perhaps not removed. On NFS an exclusive lock
// takes a file opened for writing, so there placeholders stay. One in a directory that was moved meanwhile stays. Where a file
// system does not keep modes (FAT), placeholders are neither shared nor found again. In the kernel's own file systems, where
// names come and go by themselves (/proc, /sys, control groups), nothing is kept missing.

const (
	placeholderMode = unix.S_IFREG | unix.S_ISVTX | 0o444
	directoryMark   = "user.sandlock.placeholder"
)

// joinTimeout bounds the wait for somebody who is just about to remove a placeholder.
const joinTimeout = 5 * time.Second

func isPlaceholder(f file) bool {
	return f.mode == placeholderMode && f.size == 0 && f.nlink == 1 && f.mtime == 0
}

// missing is a path that is to stay missing.
type missing struct {
	rule  Rule
	kind  Kind // how to cover what is there, should something be there by now
	at    string
	names []string
}

func (m missing) path() string { return join(m.at, m.names...) }

// Placeholder is one of the files that stand for missing paths while the sandbox runs.
type Placeholder struct {
	Path string // in the view
	Name string // in Dir
	Dir  int    // O_PATH descriptor of the directory; shared with others in it
	FD   int    // open file that holds the lock
	id   id
}

// madeDir is a directory that was made on the way to a placeholder, by this sandbox or another.
type madeDir struct {
	path, name string
	dir        int // of the directory above
	id         id
}

var (
	errExists  = errors.New("something else appeared there")
	errRetry   = errors.New("changes too fast")
	errNowhere = errors.New("nobody can make anything there")
)

// place makes the placeholders.
func (p *planner) place() {
	slices.SortStableFunc(p.missing, func(a, b missing) int { return strings.Compare(a.path(), b.path()) })
	for i := 0; i < len(p.missing); i++ { // what appeared meanwhile may add to the list
		if len(p.problems) > 0 {
			return // nothing is made on the host for a start that fails
		}
		m := p.missing[i]
		name := m.path()
		if c, ok := p.covers[name]; ok && c.Kind >= ReadOnly || p.kept(name, ReadOnly) {
			continue
		}
		if len(p.plan.Placeholders) >= maxPlaceholders {
			p.fail(m.rule, name, fmt.Errorf("more than %d missing paths would have to be kept missing", maxPlaceholders))
			return
		}
		if p.making != nil {
			if err := p.making(); err != nil {
				p.fail(m.rule, name, err)
				return
			}
			p.making = nil
		}
		p.hold(m)
	}
}

// holdTries bounds how often a path is looked at again that others change meanwhile.
const holdTries = 20

func (p *planner) hold(m missing) {
	name := m.path()
	var err error
	for try := 0; try < holdTries; try++ {
		outer, _ := p.grants.writable(name)
		if err = p.plan.hold(p.view, m, outer); !errors.Is(err, errRetry) {
			break
		}
	}
	switch {
	case err == nil:
		p.add(m.rule, name, file{mode: placeholderMode}, Closed, true)
	case errors.Is(err, errNowhere):
	case errors.Is(err, errExists):
		to, err := p.view.resolve(name)
		if err != nil {
			p.fail(m.rule, name, err)
			return
		}
		if n := len(p.missing); n > 4*maxPlaceholders {
			p.fail(m.rule, name, errRetry)
			return
		}
		p.take(m.rule, name, to, m.kind)
	default:
		p.fail(m.rule, name, fmt.Errorf("keep it missing: %w", err))
	}
}

// hold makes a placeholder, or joins the one that is there.
func (p *Plan) hold(v *view, m missing, outer string) error {
	at, err := v.open(m.at, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return raced(err)
	}
	if kernels(at) {
		_ = unix.Close(at)
		return errNowhere
	}
	dir, err := p.keep(at)
	if err != nil {
		return err
	}
	where := m.at
	for _, name := range m.names[:len(m.names)-1] {
		if err := makeDir(dir, name); err == nil {
			if err := p.made(dir, join(where, name), name); err != nil {
				return err
			}
		} else if err != unix.EEXIST {
			return refused(dir, err)
		}
		next, err := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return raced(err)
		}
		if dir, err = p.keep(next); err != nil {
			return err
		}
		where = join(where, name)
	}
	name := m.names[len(m.names)-1]
	fd, err := create(dir, name)
	if err == unix.EEXIST {
		fd, err = adopt(dir, name)
	}
	if err != nil {
		return refused(dir, err)
	}
	f, err := statAt(fd, "")
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	p.Placeholders = append(p.Placeholders, &Placeholder{Path: join(where, name), Name: name, Dir: dir, FD: fd, id: f.id()})
	return p.marked(v, where, outer)
}

// raced turns errors that say that somebody changed the directories meanwhile.
func raced(err error) error {
	if gone(err) {
		return errExists
	}
	return err
}

// refused tells why nothing can be made in a directory. It is errNowhere if the command could not, either: it is the same user
// with fewer rights.
func refused(dir int, err error) error {
	switch err {
	case unix.ENOENT, unix.ENOTDIR: // the directory was removed; a sandbox that ended does that
		return errRetry
	case unix.EROFS, unix.EPERM: // a read-only mount or file system; one in which nobody makes files, or an immutable directory
		return errNowhere
	case unix.EACCES:
		f, statErr := statAt(dir, "")
		if statErr != nil {
			return statErr
		}
		if f.uid == uid() && f.mode&0o300 != 0o300 {
			// chmod(2) takes no right of Landlock's.
			return fmt.Errorf("its directory is not writable now, but the command could make it so (chmod u+wx it, or take it off the write grants): %w", err)
		}
		return errNowhere
	}
	return err
}

// create makes a placeholder appear.
func create(dir int, name string) (fd int, err error) {
	fd, err = unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o444)
	switch err {
	case nil:
		if err = prepare(fd); err == nil {
			err = unix.Linkat(unix.AT_FDCWD, descriptor(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
		}
	case unix.EOPNOTSUPP, unix.EISDIR, unix.EINVAL, unix.ENOSYS:
		return createNamed(dir, name)
	default:
		return -1, err
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// createNamed is create for file systems without unnamed files. The file is made under another name and renamed, so here too
// it appears at once.
func createNamed(dir int, name string) (fd int, err error) {
	temporary := temporaryName()
	fd, err = unix.Openat(dir, temporary, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return -1, err
	}
	if err = prepare(fd); err == nil {
		err = unix.Renameat2(dir, temporary, dir, name, unix.RENAME_NOREPLACE)
		if err == unix.EINVAL || err == unix.ENOSYS {
			// For a moment it has two names; who sees it then waits, see adopt.
			err = unix.Linkat(dir, temporary, dir, name, 0)
		}
	}
	if removeErr := unix.Unlinkat(dir, temporary, 0); err == nil && removeErr != unix.ENOENT {
		err = removeErr
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// temporaryName is a name that nobody else has.
func temporaryName() string {
	return ".sandlock-" + strconv.Itoa(unix.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
}

// makeDir makes a directory appear with its mark, so that whoever comes to use it knows that it goes with its last user. Where
// the file system keeps no marks, or renames nothing without replacing, only this sandbox knows.
func makeDir(dir int, name string) error {
	temporary := temporaryName()
	if err := unix.Mkdirat(dir, temporary, 0o755); err != nil {
		return err
	}
	// The path has no links: the kernel just made it.
	_ = unix.Lsetxattr(descriptor(dir)+"/"+temporary, directoryMark, []byte("1"), 0)
	err := unix.Renameat2(dir, temporary, dir, name, unix.RENAME_NOREPLACE)
	if err == nil {
		return nil
	}
	_ = unix.Unlinkat(dir, temporary, unix.AT_REMOVEDIR)
	if err == unix.EINVAL || err == unix.ENOSYS {
		return unix.Mkdirat(dir, name, 0o755)
	}
	return err
}

// prepare locks a new file and gives it its looks. Times come last: what is before would change them.
func prepare(fd int) error {
	if err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, placeholderMode&^unix.S_IFMT); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", make([]unix.Timespec, 2), unix.AT_EMPTY_PATH)
}

// adopt opens and locks a placeholder that is there.
func adopt(dir int, name string) (fd int, err error) {
	for end := time.Now().Add(joinTimeout); ; time.Sleep(time.Millisecond) {
		f, err := statAt(dir, name)
		if err == unix.ENOENT {
			return -1, errRetry
		}
		if err != nil {
			return -1, err
		}
		half := f
		if half.nlink == 2 {
			half.nlink = 1
		}
		switch {
		case isPlaceholder(f):
			if fd, err := lock(dir, name, f); err != errRetry {
				return fd, err
			}
		case !isPlaceholder(half):
			return -1, errExists
		}
		if time.Now().After(end) {
			if half != f {
				return -1, errExists
			}
			return -1, fmt.Errorf("placeholder is locked by somebody: %w", unix.EWOULDBLOCK)
		}
	}
}

// lock takes a user's lock on a placeholder.
func lock(dir int, name string, want file) (fd int, err error) {
	fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if gone(err) {
			err = errRetry
		}
		return -1, err
	}
	if err = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); err == nil {
		var now, named file
		if now, err = statAt(fd, ""); err == nil {
			// Its last user may have removed it before the lock was taken.
			if named, err = statAt(dir, name); err == nil && isPlaceholder(now) && now.id() == want.id() && named.id() == now.id() {
				return fd, nil
			}
		}
		err = errRetry
	} else if err == unix.EWOULDBLOCK {
		err = errRetry // somebody is about to remove it
	}
	_ = unix.Close(fd)
	return -1, err
}

// made notes a directory that is to be removed at the end.
func (p *Plan) made(dir int, full, name string) error {
	f, err := statAt(dir, name)
	if err != nil {
		return raced(err)
	}
	for _, d := range p.dirs {
		if d.path == full && d.id == f.id() {
			return nil
		}
	}
	p.dirs = append(p.dirs, madeDir{path: full, name: name, dir: dir, id: f.id()})
	return nil
}

// marked finds the directories between a write grant and a placeholder that a sandbox made.
func (p *Plan) marked(v *view, where, outer string) error {
	for where != outer {
		parent, err := v.open(path.Dir(where), unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			return raced(err)
		}
		name := path.Base(where)
		var value [1]byte
		_, err = unix.Lgetxattr(descriptor(parent)+"/"+name, directoryMark, value[:])
		if err != nil {
			_ = unix.Close(parent)
			return nil
		}
		dir, err := p.keep(parent)
		if err != nil {
			return err
		}
		if err := p.made(dir, where, name); err != nil {
			return err
		}
		where = path.Dir(where)
	}
	return nil
}

// keep holds a directory open until the plan is closed. Of several descriptors of one directory the first stays.
func (p *Plan) keep(fd int) (int, error) {
	f, err := statAt(fd, "")
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	key := [3]uint64{f.dev, f.ino, f.mnt}
	if first, ok := p.open[key]; ok {
		_ = unix.Close(fd)
		return first, nil
	}
	if p.open == nil {
		p.open = map[[3]uint64]int{}
	}
	p.open[key] = fd
	return fd, nil
}
