package kernel

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is where a command's absolute paths begin. The zero value is this process's own root. Another one is the root
// directory of a mount namespace that this process is not in: what lies beneath it is what the command sees. The command
// can change neither its root nor its mounts, so one Root stands for all processes of a sandbox.
type Root struct {
	fd   int
	view *view // nil: this process's own
}

// NewRoot returns the root that a descriptor (O_PATH will do) is open on. The descriptor stays the caller's.
func NewRoot(fd int) Root { return Root{fd, newView(fd)} }

// Own reports whether the root is this process's own.
func (r Root) Own() bool { return r.view == nil }

// FD is the descriptor of a root that is not this process's own.
func (r Root) FD() int { return r.fd }

// Open opens an absolute path as open(2) does. Links are followed as the command would follow them: absolute ones begin at
// the root again. What only a process's own links lead to ("/proc/self/cwd") is out of reach beneath another root (EXDEV).
func (r Root) Open(path string, flags int) (fd int, err error) {
	if r.Own() {
		for {
			if fd, err = unix.Open(path, flags, 0); !errors.Is(err, unix.EINTR) {
				return fd, err
			}
		}
	}
	if path == "" {
		return -1, unix.ENOENT
	}
	return openScoped(r.fd, path, unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT})
}

// Real returns the path of the file that a path leads to, with every link followed, as the command would write it.
func (r Root) Real(path string) (string, error) {
	fd, err := r.Open(path, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	real, err := r.Where(fd)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: path, Err: err}
	}
	return real, nil
}

// Where returns the path of the file behind a descriptor of this process, as the command would write it. A file that
// lies elsewhere than beneath the root is refused (EACCES). What has no path, such as a pipe, has a text that does not
// begin with a slash.
func (r Root) Where(fd int) (string, error) {
	text, err := os.Readlink(Pin{FD: fd}.SelfPath())
	if err != nil || r.Own() {
		return text, err
	}
	return r.view.inside(text)
}

// maxRenames bounds how often a walk is begun anew: the kernel gives one with ".." up (EAGAIN) when anything is renamed or
// mounted meanwhile, which a command can have happen all the time.
const maxRenames = 64

// openScoped is openat2 with RESOLVE_IN_ROOT or RESOLVE_BENEATH.
func openScoped(dir int, path string, how unix.OpenHow) (fd int, err error) {
	for range maxRenames {
		fd, err = unix.Openat2(dir, path, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return fd, err
}

// walk opens the file (O_PATH) that a path names for a caller. flags are RESOLVE_… constants that the caller asked for.
func (r Root) walk(at Base, path string, follow bool, flags uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: flags | unix.RESOLVE_NO_MAGICLINKS}
	if !follow {
		how.Flags |= unix.O_NOFOLLOW
	}
	if !r.Own() {
		return r.walkBeneath(at, path, how)
	}
	dir, err := at.open(path, flags)
	if err != nil {
		return -1, err
	}
	if dir >= 0 {
		defer unix.Close(dir)
	} else {
		dir = unix.AT_FDCWD
	}
	return unix.Openat2(dir, path, &how)
}

// walkBeneath is walk beneath another root. The kernel can keep a walk beneath a directory only from its beginning on, and
// that must be the root: beneath the directory that a relative path begins at, a link to "/etc" or ".." would lead
// elsewhere than for the caller. So such a path is made an absolute one. It is not cleaned: what ".." means is for the
// kernel to say, links may stand before it.
func (r Root) walkBeneath(at Base, path string, how unix.OpenHow) (fd int, err error) {
	if path == "" {
		return -1, unix.ENOENT
	}
	const scopes = unix.RESOLVE_BENEATH | unix.RESOLVE_IN_ROOT
	absolute := strings.HasPrefix(path, "/")
	switch scope := how.Resolve & scopes; {
	case scope == unix.RESOLVE_BENEATH && absolute:
		return -1, unix.EXDEV
	case absolute && scope == 0:
		how.Resolve |= unix.RESOLVE_IN_ROOT
		return openScoped(r.fd, path, how)
	}
	dir, err := at.begin()
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	base, err := r.directory(at.TID, dir)
	if err != nil {
		return -1, err
	}
	if how.Resolve&scopes != 0 {
		return openScoped(dir, path, how) // the caller has asked to stay beneath it
	}
	how.Resolve |= unix.RESOLVE_IN_ROOT
	return openScoped(r.fd, strings.TrimSuffix(base, "/")+"/"+path, how)
}

// directory returns the path of a directory that a relative path begins at.
func (r Root) directory(tid, fd int) (string, error) {
	path, err := r.Where(fd)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR || !strings.HasPrefix(path, "/"):
		return "", unix.ENOTDIR
	case st.Nlink == 0 && strings.HasSuffix(path, deleted):
		return "", unix.ENOENT // nothing has a name in it any more
	}
	return path, r.view.mounted(tid, fd)
}

// Stat returns what a path leads to for a caller, for looking only: who acts on it pins the file.
func (r Root) Stat(at Base, path string, follow bool) (st unix.Stat_t, err error) {
	fd := -1
	if r.Own() || strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/dev/") { // it may mean the caller itself
		p, err := r.Resolve(at, path, follow, 0)
		if err != nil {
			return st, err
		}
		fd = p.FD
	} else if fd, err = r.walk(at, path, follow, 0); err != nil {
		return st, err
	}
	defer unix.Close(fd)
	err = unix.Fstat(fd, &st)
	return st, err
}
