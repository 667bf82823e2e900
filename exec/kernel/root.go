package kernel

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Root is where a command's absolute paths begin. The zero value is this process's own root. Another one is the root
// directory of a mount namespace that this process is not in: what lies beneath it is what the command sees.
type Root struct {
	fd    int
	other bool
}

// NewRoot returns the root that a descriptor (O_PATH will do) is open on. The descriptor stays the caller's.
func NewRoot(fd int) Root { return Root{fd, true} }

// Own reports whether the root is this process's own.
func (r Root) Own() bool { return !r.other }

// FD is the descriptor of a root that is not this process's own.
func (r Root) FD() int { return r.fd }

// Open opens an absolute path as open(2) does. Links are followed as the command would follow them: absolute ones begin at
// the root again. What only a process's own links lead to ("/proc/self/cwd") is out of reach beneath another root (EXDEV).
func (r Root) Open(path string, flags int) (fd int, err error) {
	if r.Own() {
		return unix.Open(path, flags, 0)
	}
	return unix.Openat2(r.fd, path, &unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT})
}

// Real returns the path of the file that a path leads to, with every link followed, as the command would write it.
func (r Root) Real(path string) (string, error) {
	fd, err := r.Open(path, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
}
