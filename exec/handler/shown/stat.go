package shown

import (
	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// stat says where a call that tells of a file by its path has its arguments. What tells of an open file needs no answer: the
// descriptor is the file in memory.
type stat struct {
	dir, path, buffer int // dir -1: the working directory
	flags             int // -1: none
	follows           bool
	mask              int // of statx, else -1
}

var stats = map[string]stat{
	"stat":       {-1, 0, 1, -1, true, -1},
	"lstat":      {-1, 0, 1, -1, false, -1},
	"newfstatat": {0, 1, 2, 3, true, -1},
	"statx":      {0, 1, 4, 2, true, 3},
}

// tell answers a call that tells of the file with the size that opening it will show. All others are the kernel's.
func (h *Handler) tell(c *supervise.Call, s stat) supervise.Verdict {
	kernelDecides := supervise.Pass(supervise.KernelDecides)
	r := opens.Request{TID: c.TID, Dir: kernel.AtCWD}
	if s.dir >= 0 {
		r.Dir = c.Arg32(s.dir)
	}
	var flags int
	if s.flags >= 0 {
		flags = int(c.Arg32(s.flags))
	}
	var err error
	if r.Path, err = c.Path(s.path); err != nil || r.Path == "" {
		return kernelDecides
	}
	follows := s.follows && flags&unix.AT_SYMLINK_NOFOLLOW == 0
	st, err := r.Look(h.root, follows)
	if err != nil || !h.maybe(&st) {
		return kernelDecides
	}
	// Whatever the path leads to from now on: it is this file that is told of, or none.
	pin, err := r.Pin(h.root, follows)
	if err != nil {
		return kernelDecides
	}
	defer pin.Close()
	if err := unix.Fstat(pin.FD, &st); err != nil || !h.maybe(&st) {
		return kernelDecides
	}
	size := int64(len(h.content))
	var told []byte
	if s.mask < 0 {
		st.Size, st.Blocks = size, (size+511)/512
		st.Uid, st.Gid = h.ids.ShownUser(st.Uid), h.ids.ShownGroup(st.Gid)
		told = kernel.StatBytes(&st)
	} else if told, err = h.tellMore(pin.FD, c.Arg32(s.mask), flags, uint64(size)); err != nil {
		return kernelDecides
	}
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	return supervise.FromError(c.Write(c.Args[s.buffer], told))
}

// tellMore is for statx(2).
func (h *Handler) tellMore(fd int, mask int32, flags int, size uint64) ([]byte, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", flags|unix.AT_EMPTY_PATH, int(mask), &st); err != nil {
		return nil, err
	}
	st.Size, st.Blocks = size, (size+511)/512
	st.Uid, st.Gid = h.ids.ShownUser(st.Uid), h.ids.ShownGroup(st.Gid)
	return kernel.StatxBytes(&st), nil
}

// statCalls are the calls of an architecture that tell of files by their paths.
func statCalls(arch abi.Arch) map[abi.Sysno]stat {
	m := map[abi.Sysno]stat{}
	for name, s := range stats {
		if nr, ok := abi.SyscallNumber(arch, name); ok {
			m[nr] = s
		}
	}
	return m
}
