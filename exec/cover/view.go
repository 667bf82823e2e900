package cover

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// view looks at files as the command will see them.
type view struct {
	fd     int
	own    bool
	prefix string // how the kernel calls the root to this process; "" for "/"
	buf    []byte
}

func newView(r kernel.Root) (*view, error) {
	v := &view{fd: r.FD(), buf: make([]byte, 64<<10)}
	if r.Own() {
		fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open /: %w", err)
		}
		v.fd, v.own = fd, true
	}
	// The root of another mount namespace is "/" to the kernel; a directory of this one keeps its path.
	prefix, err := os.Readlink(descriptor(v.fd))
	if err != nil {
		v.close()
		return nil, fmt.Errorf("root of the view: %w", err)
	}
	if prefix != "/" {
		v.prefix = prefix
	}
	return v, nil
}

func (v *view) close() {
	if v.own {
		_ = unix.Close(v.fd)
	}
}

func descriptor(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openRetries bounds how often an open is tried again that renames elsewhere disturbed.
const openRetries = 100

// open opens an absolute path of the view. resolve adds to RESOLVE_IN_ROOT.
func (v *view) open(p string, flags int, resolve uint64) (fd int, err error) {
	for range openRetries {
		fd, err = unix.Openat2(v.fd, p, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | resolve})
		if err != unix.EAGAIN && err != unix.EINTR { // ".." while something is renamed: openat2(2)
			break
		}
	}
	return fd, err
}

// file is what is known of one.
type file struct {
	dev, ino  uint64
	mnt       uint64
	mode      uint16
	nlink     uint32
	uid       uint32
	size      uint64
	mtime     int64
	mountRoot bool
}

func (f file) dir() bool  { return f.mode&unix.S_IFMT == unix.S_IFDIR }
func (f file) link() bool { return f.mode&unix.S_IFMT == unix.S_IFLNK }

// id names a file across mounts.
type id struct{ dev, ino uint64 }

func (f file) id() id { return id{f.dev, f.ino} }

func statAt(fd int, name string) (file, error) {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	for {
		err := unix.Statx(fd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return file{}, err
		}
		break
	}
	return file{
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino, mnt: st.Mnt_id, mode: st.Mode, nlink: st.Nlink, uid: st.Uid,
		size: st.Size, mtime: st.Mtime.Sec, mountRoot: st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
	}, nil
}

// stat looks at a path without links.
func (v *view) stat(p string) (file, error) {
	fd, err := v.open(p, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return file{}, err
	}
	defer unix.Close(fd)
	return statAt(fd, "")
}

// real returns the path of an open file in the view.
func (v *view) real(fd int) (string, error) {
	p, err := os.Readlink(descriptor(fd))
	if err != nil {
		return "", err
	}
	if v.prefix == "" {
		return p, nil
	}
	if !beneath(p, v.prefix) {
		return "", fmt.Errorf("%s lies outside of the view", p)
	}
	return path.Clean("/" + strings.TrimPrefix(p, v.prefix)), nil
}

// place is where a path leads.
type place struct {
	path string // what exists of it, links resolved
	file file
	rest []string // the elements that do not exist beneath path
	// shut: path is a directory that may not be searched, so that nothing is known of what lies in it. A file instead of a
	// directory shows by rest and file.
	shut bool
	// linked: a symbolic link is on the way.
	linked bool
}

// ErrSelf is a path that means another file to each process.
var ErrSelf = errors.New("leads to the files of a process, which are others for each one")

// resolve follows a path as the command would.
func (v *view) resolve(p string) (to place, err error) {
	for range openRetries {
		to, err = v.resolveOnce(p)
		if err != nil || to.file.nlink > 0 { // none: removed meanwhile, such as the placeholder of a sandbox that ended
			break
		}
	}
	return to, err
}

func (v *view) resolveOnce(p string) (to place, err error) {
	if elems := split(p); len(elems) >= 2 && elems[0] == "proc" && (elems[1] == "self" || elems[1] == "thread-self") {
		return place{}, ErrSelf
	}
	real, linked := p, false
	defer func() { to.linked = linked }()
	fd, err := v.open(p, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	if err == unix.ELOOP { // there is a link; only then the path has to be asked for
		linked = true
		if fd, err = v.open(p, unix.O_PATH, 0); err == nil {
			if real, err = v.real(fd); err != nil {
				_ = unix.Close(fd)
				return place{}, err
			}
			if own := "/proc/" + strconv.Itoa(os.Getpid()); beneath(real, own) && !beneath(p, own) {
				_ = unix.Close(fd)
				return place{}, ErrSelf
			}
		}
	}
	switch err {
	case nil:
		defer unix.Close(fd)
		f, err := statAt(fd, "")
		return place{path: path.Clean(real), file: f}, err
	case unix.ENOENT:
		// Mostly the last name alone is missing, in a directory that no link leads to.
		if at, name := path.Split(p); !linked && path.Clean(p) == p {
			if f, err := v.stat(path.Clean(at)); err == nil && f.dir() {
				return place{path: path.Clean(at), file: f, rest: []string{name}}, nil
			}
		}
		to, _, err := v.trace(p)
		return to, err
	case unix.ENOTDIR, unix.EACCES:
		to, _, err := v.trace(p)
		return to, err
	}
	return place{}, err
}

// maxLinks is how many links the kernel follows (MAXSYMLINKS).
const maxLinks = 40

// trace follows a path by itself, as far as it exists, and lists the links that it goes through.
func (v *view) trace(p string) (to place, through []string, err error) {
	at, rest := "/", split(p)
	here, err := v.stat(at)
	for err == nil && len(rest) > 0 {
		name := rest[0]
		if name == ".." {
			at, rest = path.Dir(at), rest[1:] // at has no links
			here, err = v.stat(at)
			continue
		}
		if !here.dir() {
			return place{path: at, file: here, rest: rest}, through, nil
		}
		next := join(at, name)
		if next == "/proc/self" || next == "/proc/thread-self" {
			return place{}, through, ErrSelf
		}
		fd, openErr := v.open(next, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS)
		switch openErr {
		case nil:
		case unix.ENOENT:
			for _, elem := range rest {
				if elem == ".." {
					return place{}, through, fmt.Errorf("a link leads through %s, which does not exist, and back", next)
				}
			}
			return place{path: at, file: here, rest: rest}, through, nil
		case unix.EACCES:
			return place{path: at, file: here, rest: rest, shut: true}, through, nil
		default:
			return place{}, through, openErr
		}
		f, statErr := statAt(fd, "")
		if statErr == nil && f.link() {
			var target string
			if target, statErr = readLink(fd); statErr == nil {
				if through = append(through, next); len(through) > maxLinks {
					statErr = unix.ELOOP
				}
				if strings.HasPrefix(target, "/") {
					at = "/"
				}
				rest = append(split(target), rest[1:]...)
			}
			_ = unix.Close(fd)
			if here, err = v.stat(at); err == nil {
				err = statErr
			}
			continue
		}
		_ = unix.Close(fd)
		at, here, rest, err = next, f, rest[1:], statErr
	}
	if err != nil {
		return place{}, through, err
	}
	return place{path: at, file: here}, through, nil
}

// readLink returns what an open link says.
func readLink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax) // not the view's, which a listing may be using
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// entry is one name in a directory. The name is valid until the next is read.
type entry struct {
	name []byte
	ino  uint64
	kind byte // DT_REG and so on; DT_UNKNOWN where the file system does not say
}

// list calls do for each entry of a directory. Listings cannot be nested.
func (v *view) list(fd int, do func(entry) error) error {
	for {
		n, err := unix.Getdents(fd, v.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for b := v.buf[:n]; len(b) > 0; {
			// struct linux_dirent64: ino, offset, length of the record, type, name (getdents64(2)).
			size := int(binary.NativeEndian.Uint16(b[16:]))
			name := b[19:size]
			if end := bytes.IndexByte(name, 0); end >= 0 {
				name = name[:end]
			}
			e := entry{name, binary.NativeEndian.Uint64(b), b[18]}
			b = b[size:]
			if string(name) == "." || string(name) == ".." {
				continue
			}
			if err := do(e); err != nil {
				return err
			}
		}
	}
}

// kindIn returns the type of an entry of an open directory.
func (e entry) kindIn(dir int) byte {
	if e.kind != unix.DT_UNKNOWN {
		return e.kind
	}
	f, err := statAt(dir, string(e.name))
	if err != nil {
		return unix.DT_UNKNOWN // gone meanwhile
	}
	return byte(f.mode >> 12) // DT_* are the bits of S_IFMT
}

// kernels reports whether an open directory is of a file system in which the kernel makes the names.
func kernels(fd int) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return false
	}
	switch fs.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
		unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.BPF_FS_MAGIC:
		return true
	}
	return false
}

// gone holds for errors that say that a name went away or became something else while it was looked at.
func gone(err error) bool { return err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP }
