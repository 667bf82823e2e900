package branch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A branch of bounded size (Options.Disk) has its layers in a file system of that size, in memory: to the kernel that is the
// one bound that needs no privilege and that nothing grows past. It is gone with the processes that have it open, so its
// changes are saved to the branch's directory where they are to outlive this one: when the branch is kept, and when a commit
// fails. A commit takes them from memory.

// Place gives a branch with Options.Disk its layers: the directories "upper" and "work", in what must be an empty directory of
// a file system of its own. The caller may close the descriptor, and unmount the file system, once the overlay is mounted. Called
// again (see [Branch.Reuse]) it takes the changes over from the last one, which is gone then.
//
// It fails where the file system does not take the notes of overlayfs: tmpfs has user.* attributes since Linux 6.6.
func (b *Branch) Place(root int) error {
	if b.memory {
		return b.move(root)
	}
	b.memory, b.copies = true, true
	if err := b.place(root); err != nil {
		return err
	}
	work, err := openDir(root, "work")
	if err != nil {
		return opError("open", "work", err)
	}
	defer unix.Close(work)
	const probe = "user.overlay.sandlock"
	if err := b.sys.setxattr(work, probe, []byte("y")); err != nil {
		return fmt.Errorf("the file system in memory takes no user.* attributes (tmpfs does since Linux 6.6): %w", err)
	}
	return opError("set up", "work", b.sys.removexattr(work, probe))
}

// move copies the layers from one file system in memory to the next: a mount belongs to one namespace, and the next stage of a
// transaction has another.
func (b *Branch) move(root int) error {
	to, err := b.copyUpper(root)
	if err != nil {
		return err
	}
	err = b.sys.rename(root, saving, root, "upper", 0)
	if err == nil {
		err = b.sys.mkdir(root, "work", 0o700)
	}
	if err != nil {
		unix.Close(to)
		return opError("set up", "upper", err)
	}
	unix.Close(b.upper)
	b.upper = to
	return nil
}

// Full tells whether a branch with Options.Disk has no room left, for data or for names.
func (b *Branch) Full() bool {
	var st unix.Statfs_t
	if !b.memory || b.upper < 0 || unix.Fstatfs(b.upper, &st) != nil {
		return false
	}
	return st.Bfree == 0 || st.Ffree == 0
}

// LostError is a branch that was to be kept, or whose commit failed, and whose changes were in memory and could not be saved.
type LostError struct {
	Workdir, Dir string
	Err          error // why the commit failed; nil if the branch was to be kept
	Saving       error // why they could not be saved
}

func (e *LostError) Error() string {
	text := fmt.Sprintf("the changes to %q are lost: they were in memory, and could not be saved in %q: %v", e.Workdir, e.Dir, e.Saving)
	if c, ok := e.Err.(interface{ reason() string }); ok {
		text += "; before, " + c.reason()
	}
	return text
}

func (e *LostError) Unwrap() []error { return []error{e.Err, e.Saving} }

// errGone is a branch whose changes were in the memory of a process that is gone.
var errGone = errors.New("its changes were in memory (limits.disk), and are gone with the process that ran it")

// save moves the layers of a branch that are in memory to its directory. When it returns they are on disk.
func (b *Branch) save() error {
	if !b.memory || b.dir < 0 {
		return nil
	}
	to, err := b.copyUpper(b.dir)
	if err != nil {
		return err
	}
	err = b.sys.syncfs(b.dir)
	if err == nil {
		err = b.sys.rename(b.dir, saving, b.dir, "upper", 0)
	}
	if err == nil {
		err = b.sys.fsync(b.dir)
	}
	if err != nil {
		unix.Close(to)
		return errors.Join(err, removeTree(b.sys, b.dir, saving))
	}
	unix.Close(b.upper)
	b.upper, b.memory, b.copies = to, false, false
	return nil
}

// saving is the name of a copy of the upper until it has another.
const saving = "saving"

// copyUpper copies the upper as it is to a directory, as "saving", and opens the copy.
func (b *Branch) copyUpper(dir int) (to int, err error) {
	names := [...]string{saving, "links"}
	for _, name := range names {
		if err := removeTree(b.sys, dir, name); err != nil {
			return -1, err
		}
		if err := b.sys.mkdir(dir, name, 0o700); err != nil {
			return -1, opError("create", name, err)
		}
	}
	if to, err = openDir(dir, saving); err != nil {
		return -1, opError("open", saving, err)
	}
	links, err := openDir(dir, "links")
	if err != nil {
		unix.Close(to)
		return -1, opError("open", "links", err)
	}
	defer unix.Close(links)
	s := &saver{walk{sys: b.sys}, links}
	root, err := s.meta(b.upper, ".")
	if err == nil {
		err = s.fill(&dirs{b.upper, to})
	}
	if err == nil {
		err = s.give(to, ".", root)
	}
	if err == nil {
		err = removeTree(b.sys, dir, "links")
	}
	if err != nil {
		unix.Close(to)
		return -1, errors.Join(err, removeTree(b.sys, dir, saving))
	}
	return to, nil
}

// saver copies an upper as it is, the notes of overlayfs included.
type saver struct {
	walk
	links int // see duplicate
}

func (s *saver) fill(at *dirs) error {
	names, err := readNames(at.up)
	if err != nil {
		return opError("list upper", string(s.path), err)
	}
	for _, name := range names {
		if err := s.entry(at, name); err != nil {
			return opError("save", join(string(s.path), name), err)
		}
	}
	return nil
}

func (s *saver) entry(at *dirs, name string) error {
	st, err := lookup(at.up, name)
	switch {
	case err != nil:
		return err
	case st == nil:
		return unix.ENOENT
	case isWhiteout(st):
		return s.sys.mknod(at.low, name, unix.S_IFCHR, 0)
	}
	m, err := s.meta(at.up, name)
	if err != nil {
		return err
	}
	give := func() error { return s.give(at.low, name, m) }
	if !isDir(st) {
		return s.duplicate(at.up, name, st, at.low, name, s.links, false, give)
	}
	if err := s.sys.mkdir(at.low, name, 0o700); err != nil {
		return err
	}
	if err := s.down(at, name, name, s.fill); err != nil {
		return err
	}
	return give()
}

func (s *saver) meta(dir int, name string) (*meta, error) {
	node, err := pin(dir, name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(node)
	return metaOfAll(node, func(name string) bool {
		return overlayName(name) != "" || ours(name) && (name != "security.capability" || os.Geteuid() == 0)
	})
}

func (s *saver) give(dir int, name string, m *meta) error {
	node, err := pin(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(node)
	return setMeta(s.sys, node, m)
}
