package kernel

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Find pins what a path leads to for a caller, by whatever way and whosever it is: it is for looking only, for handlers that
// leave every file to the kernel that they do not know. Unlike for [Root.Resolve] "/proc/self" means the caller also where a
// link or a directory leads there, and links of processes and descriptors are followed. A file without a path in the command's
// view has none in the pin.
func (r Root) Find(at Base, path string, follow bool, flags uint64) (Pin, error) {
	if path == "" {
		return Pin{}, unix.ENOENT
	}
	// Most paths need no more than one call of the kernel. What differs between this process and the caller beneath "self" is
	// seen by a caller that asks for a file of a process; none of these asks for one here.
	fd, err := r.walk(at, path, follow, flags)
	if err != nil {
		if fd, err = r.walkSteps(at, path, follow, flags); err != nil {
			return Pin{}, err
		}
	}
	p := Pin{FD: fd}
	if where, err := r.Where(fd); err == nil && strings.HasPrefix(where, "/") {
		p.Path = strings.TrimSuffix(where, deleted)
	}
	return p, nil
}

// maxLinks is how many links the kernel follows for a path (MAXSYMLINKS).
const maxLinks = 40

// steps is a walk that goes from name to name.
type steps struct {
	root   Root
	tid    int // of the caller
	flags  uint64
	top    int // where absolute links begin
	at     int
	names  []string // that are left
	links  int
	follow bool // a link at the end
}

// walkSteps is walk for a path that leads through what the kernel shows each process in its own way: a name after the other.
func (r Root) walkSteps(from Base, path string, follow bool, flags uint64) (fd int, err error) {
	const scopes = unix.RESOLVE_BENEATH | unix.RESOLVE_IN_ROOT
	absolute := strings.HasPrefix(path, "/")
	if absolute && flags&unix.RESOLVE_BENEATH != 0 {
		return -1, unix.EXDEV
	}
	w := steps{root: r, tid: from.TID, flags: flags, follow: follow}
	scoped := flags&scopes != 0
	if scoped {
		w.top, err = from.begin()
	} else {
		w.top, err = r.top()
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(w.top)
	if absolute || scoped {
		w.at, err = duplicate(w.top)
	} else {
		w.at, err = from.begin()
	}
	if err != nil {
		return -1, err
	}
	w.names = strings.Split(strings.TrimLeft(path, "/"), "/")
	for len(w.names) > 0 && err == nil {
		err = w.step()
	}
	if err != nil {
		_ = unix.Close(w.at)
		return -1, err
	}
	return w.at, nil
}

// top opens the root.
func (r Root) top() (int, error) {
	if !r.Own() {
		return duplicate(r.fd)
	}
	return unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

func duplicate(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

// move goes on at another file.
func (w *steps) move(fd int, err error) error {
	if err != nil {
		return err
	}
	_ = unix.Close(w.at)
	w.at = fd
	return nil
}

// step takes the next name.
func (w *steps) step() error {
	const place = unix.O_PATH | unix.O_CLOEXEC
	name := w.names[0]
	w.names = w.names[1:]
	switch name {
	case "", ".":
		return w.move(unix.Openat(w.at, ".", place|unix.O_DIRECTORY, 0))
	case "..":
		if samePlace(w.at, w.top) {
			if w.flags&unix.RESOLVE_BENEATH != 0 {
				return unix.EXDEV
			}
			return nil
		}
		return w.move(unix.Openat(w.at, "..", place|unix.O_DIRECTORY, 0))
	}
	fd, err := unix.Openat(w.at, name, place|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, mode, err := Pin{FD: fd}.ID()
	if err != nil || mode&unix.S_IFMT != unix.S_IFLNK || len(w.names) == 0 && !w.follow {
		if err != nil {
			_ = unix.Close(fd)
			return err
		}
		return w.move(fd, nil)
	}
	defer unix.Close(fd)
	if w.links++; w.links > maxLinks || w.flags&unix.RESOLVE_NO_SYMLINKS != 0 {
		return unix.ELOOP
	}
	return w.link(fd, name)
}

// link follows a symbolic link that the walk is at.
func (w *steps) link(fd int, name string) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	ofProc := fs.Type == unix.PROC_SUPER_MAGIC
	text, err := w.text(fd, name, ofProc)
	if err != nil {
		return err
	}
	if ofProc && (strings.HasPrefix(text, "/") || strings.Contains(text, ":")) {
		// It leads to the file itself, wherever that is, and the text is for people.
		const withheld = unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_BENEATH | unix.RESOLVE_IN_ROOT
		if w.flags&withheld != 0 {
			return unix.ELOOP
		}
		return w.move(unix.Openat(w.at, name, unix.O_PATH|unix.O_CLOEXEC, 0))
	}
	if strings.HasPrefix(text, "/") {
		if w.flags&unix.RESOLVE_BENEATH != 0 {
			return unix.EXDEV
		}
		if err := w.move(duplicate(w.top)); err != nil {
			return err
		}
		text = strings.TrimLeft(text, "/")
	}
	w.names = append(strings.Split(text, "/"), w.names...)
	return nil
}

// text reads a link as the caller would.
func (w *steps) text(fd int, name string, ofProc bool) (string, error) {
	thread := name == "thread-self"
	if ofProc && (thread || name == "self") {
		if !w.root.Own() {
			return w.root.view.self(w.tid, thread)
		}
		pid, err := ThreadGroup(w.tid)
		if err != nil {
			return "", unix.ESRCH
		}
		if thread {
			return strconv.Itoa(pid) + "/task/" + strconv.Itoa(w.tid), nil
		}
		return strconv.Itoa(pid), nil
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", unix.ENOENT
	}
	return string(buf[:n]), nil
}

// samePlace reports whether two descriptors are of the same directory, reached by the same mount.
func samePlace(a, b int) bool {
	const mask = unix.STATX_INO | unix.STATX_MNT_ID
	var x, y unix.Statx_t
	if unix.Statx(a, "", unix.AT_EMPTY_PATH, mask, &x) != nil || unix.Statx(b, "", unix.AT_EMPTY_PATH, mask, &y) != nil {
		return false
	}
	return x.Ino == y.Ino && x.Mnt_id == y.Mnt_id && x.Dev_major == y.Dev_major && x.Dev_minor == y.Dev_minor
}
