// Package opens reads the calls that open files: open, openat, openat2 and creat. Handlers that answer some of them share it.
//
// In: a notified call. Out: a [Request] in the terms of open(2), whatever the call. It decides nothing.
package opens

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Spec says where a call has its arguments.
type Spec struct {
	Name string
	read func(*supervise.Call) (Request, error)
	dir  int // -1: the working directory
	path int
}

// Request is an open.
type Request struct {
	TID     int
	Dir     int32 // descriptor of the caller's that a relative path begins at, or kernel.AtCWD
	Path    string
	Flags   int    // O_…
	Mode    uint32 // of a file to be created
	Resolve uint64 // RESOLVE_…
}

// specs are the calls that open files.
var specs = []Spec{
	{Name: "open", dir: -1, path: 0, read: func(c *supervise.Call) (Request, error) {
		return Request{Flags: int(c.Arg32(1)), Mode: uint32(c.Args[2])}, nil
	}},
	{Name: "openat", dir: 0, path: 1, read: func(c *supervise.Call) (Request, error) {
		return Request{Flags: int(c.Arg32(2)), Mode: uint32(c.Args[3])}, nil
	}},
	{Name: "openat2", dir: 0, path: 1, read: readHow},
	{Name: "creat", dir: -1, path: 0, read: func(c *supervise.Call) (Request, error) {
		return Request{Flags: unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC, Mode: uint32(c.Args[1])}, nil
	}},
}

// Named returns the call of a name, which must be one that opens files.
func Named(name string) Spec {
	for _, s := range specs {
		if s.Name == name {
			return s
		}
	}
	panic(name + " opens no file")
}

// Readers returns the calls that can open a file for reading: all but creat.
func Readers(arch abi.Arch) map[abi.Sysno]Spec {
	m := map[abi.Sysno]Spec{}
	for _, s := range specs {
		if nr, ok := abi.SyscallNumber(arch, s.Name); ok && s.Name != "creat" {
			m[nr] = s
		}
	}
	return m
}

// Read returns what is asked for, but for the path. The error is an errno: the kernel's for an open_how that it refuses.
func (s Spec) Read(c *supervise.Call) (Request, error) {
	r, err := s.read(c)
	r.TID, r.Dir = c.TID, kernel.AtCWD
	if s.dir >= 0 {
		r.Dir = c.Arg32(s.dir)
	}
	return r, err
}

// ReadPath reads the path as well.
func (s Spec) ReadPath(c *supervise.Call, r *Request) (err error) {
	r.Path, err = c.Path(s.path)
	return err
}

// Known are the flags that the kernel knows. openat2 refuses others, the other calls ignore them.
const Known = unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL | unix.O_NOCTTY | unix.O_TRUNC | unix.O_APPEND | unix.O_NONBLOCK |
	unix.O_DSYNC | unix.O_SYNC | unix.O_ASYNC | unix.O_DIRECT | unix.O_LARGEFILE | unix.O_DIRECTORY | unix.O_NOFOLLOW |
	unix.O_NOATIME | unix.O_CLOEXEC | unix.O_PATH | unix.O_TMPFILE

// readHow takes struct open_how. Fields that are not known yet must be zero, as for a kernel that does not know them.
func readHow(c *supervise.Call) (Request, error) {
	const known, most = 24, 4096
	size := c.Args[3]
	if size < known {
		return Request{}, unix.EINVAL
	}
	if size > most {
		return Request{}, unix.E2BIG
	}
	how := make([]byte, size)
	if err := c.Bytes(c.Args[2], how); err != nil {
		return Request{}, err
	}
	for _, b := range how[known:] {
		if b != 0 {
			return Request{}, unix.E2BIG
		}
	}
	flags, mode, resolve := binary.NativeEndian.Uint64(how), binary.NativeEndian.Uint64(how[8:]), binary.NativeEndian.Uint64(how[16:])
	creates := flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0
	if flags&^uint64(Known) != 0 || mode&^0o7777 != 0 || mode != 0 && !creates {
		return Request{}, unix.EINVAL
	}
	return Request{Flags: int(flags), Mode: uint32(mode), Resolve: resolve}, nil
}

// Reads reports whether an existing file may be read through what is opened.
func (r *Request) Reads() bool {
	return r.Flags&(unix.O_PATH|unix.O_DIRECTORY) == 0 && r.Flags&unix.O_ACCMODE != unix.O_WRONLY &&
		r.Flags&(unix.O_CREAT|unix.O_EXCL) != unix.O_CREAT|unix.O_EXCL
}

// Follows reports whether a symbolic link at the end of the path is followed.
func (r *Request) Follows() bool { return r.Flags&unix.O_NOFOLLOW == 0 }

// Base is where the path begins.
func (r *Request) Base() kernel.Base { return kernel.Base{TID: r.TID, DirFD: r.Dir} }

// Look returns what the path leads to, without acting on it: who acts on it pins the file.
func (r *Request) Look(root kernel.Root, follow bool) (st unix.Stat_t, err error) {
	if root.Own() {
		return Look(r.seen(), follow)
	}
	return root.Stat(r.Base(), r.Path, follow)
}

// Pin holds the file that the path leads to, by whatever way: it is for handlers that leave every file that they do not
// know to the kernel.
func (r *Request) Pin(root kernel.Root, follow bool) (kernel.Pin, error) {
	if !root.Own() {
		return root.Resolve(r.Base(), r.Path, follow, 0)
	}
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(r.seen(), flags, 0)
	if err != nil {
		return kernel.Pin{}, err
	}
	p := kernel.Pin{FD: fd}
	p.Path, _ = os.Readlink(p.SelfPath())
	return p, nil
}

// seen is a path by which this process reaches what the path means to the caller, where both have the same root.
func (r *Request) seen() string {
	proc := "/proc/" + strconv.Itoa(r.TID)
	if strings.HasPrefix(r.Path, "/") {
		for _, own := range []string{"/proc/self/", "/proc/thread-self/"} {
			if rest, ok := strings.CutPrefix(r.Path, own); ok {
				return proc + "/" + rest
			}
		}
		if rest, ok := strings.CutPrefix(r.Path, "/dev/fd/"); ok {
			return proc + "/fd/" + rest
		}
		if n, ok := map[string]string{"/dev/stdin": "0", "/dev/stdout": "1", "/dev/stderr": "2"}[r.Path]; ok {
			return proc + "/fd/" + n
		}
		return r.Path
	}
	if r.Dir == kernel.AtCWD {
		return proc + "/cwd/" + r.Path
	}
	return proc + "/fd/" + strconv.Itoa(int(r.Dir)) + "/" + r.Path
}

// Look returns what a path of this process leads to, without acting on it.
func Look(path string, follow bool) (st unix.Stat_t, err error) {
	flags := unix.AT_NO_AUTOMOUNT
	if !follow {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	err = unix.Fstatat(unix.AT_FDCWD, path, &st, flags)
	return st, err
}
