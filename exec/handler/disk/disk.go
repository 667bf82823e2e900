// Package disk has limits.disk speak for truncate(2) and ftruncate(2): where the changes of the working directory are bounded, a
// file there cannot be made longer than there is room for.
//
// The bound itself is the kernel's, a file system of that size (package view). To it a hole costs nothing, so a file could be
// declared to have any length, and the program would hear of the bound when it writes there, or by SIGBUS. It hears of it
// here instead, as it would of a disk quota. This decides no access and keeps nothing safe: calls that are not refused are
// passed on, and one that changes what it names meanwhile has made a hole.
package disk

import (
	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Config is what the handler is to know.
type Config struct {
	Root    kernel.Root // of the command's paths
	Workdir string      // the command's path of the directory whose changes are bounded
	Origin  string      // the limit's place in the policy
}

// Handler answers for one sandbox.
type Handler struct {
	config    Config
	mount     uint64 // of the working directory
	truncate  abi.Sysno
	ftruncate abi.Sysno
	journal   supervise.Journal
}

// New makes the handler.
func New(arch abi.Arch, c Config, j supervise.Journal) (*Handler, error) {
	fd, err := c.Root.Open(c.Workdir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	h := &Handler{config: c, journal: j}
	if h.mount, err = kernel.MountID(fd); err != nil {
		return nil, err
	}
	h.truncate, _ = abi.SyscallNumber(arch, "truncate")
	h.ftruncate, _ = abi.SyscallNumber(arch, "ftruncate")
	return h, nil
}

// Name is the concern.
func (*Handler) Name() string { return "disk" }

// Syscalls lists truncate and ftruncate.
func (h *Handler) Syscalls() []abi.Sysno { return []abi.Sysno{h.truncate, h.ftruncate} }

// Handle refuses a length that there is no room for. Of what cannot be looked at the kernel says what is wrong.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	pin, err := h.pin(c)
	if err != nil {
		return supervise.Pass(supervise.KernelDecides)
	}
	defer pin.Close()
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	if h.fits(pin.FD, int64(c.Args[1])) {
		return supervise.Pass(supervise.KernelDecides)
	}
	name := "ftruncate"
	if c.Nr == h.truncate {
		name = "truncate"
	}
	h.journal.Record(supervise.Event{
		Kind: "denied", PID: c.TID, Syscall: name, Path: pin.Path, Verdict: "ENOSPC", Rule: "limits.disk", Origin: h.config.Origin,
		Reason: "there is no room for a file of that length",
	})
	return supervise.Errno(unix.ENOSPC)
}

func (h *Handler) pin(c *supervise.Call) (kernel.Pin, error) {
	if c.Nr == h.ftruncate {
		return h.config.Root.PinDescriptor(c.TID, c.Arg32(0))
	}
	path, err := c.Path(0)
	if err != nil {
		return kernel.Pin{}, err
	}
	return h.config.Root.PinPath(c.TID, kernel.AtCWD, path, true)
}

// fits reports whether a file can be that long: it lies elsewhere, or there is room for what it would grow by.
func (h *Handler) fits(fd int, length int64) bool {
	mount, err := kernel.MountID(fd)
	if err != nil || mount != h.mount {
		return true
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Fstat(fd, &st) != nil || unix.Fstatfs(fd, &fs) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || length <= st.Size {
		return true
	}
	return uint64(length-st.Size) <= fs.Bavail*uint64(fs.Bsize)
}
