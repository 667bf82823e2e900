// Package parentdeath keeps the command's parent-death signal, by which it dies with the executor.
//
// It answers prctl(PR_SET_PDEATHSIG) for any signal but SIGKILL. The signal is a process's own and is not inherited
// (PR_SET_PDEATHSIG(2const)), so only the command itself must not change it: it is told that it has, and still dies by
// SIGKILL when its parent does. Its descendants, such as the workers of PostgreSQL, have theirs.
package parentdeath

import (
	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Handler guards the command.
type Handler struct {
	call    abi.Sysno
	command int // process id
	group   func(tid int) (pid int, err error)
}

// New makes the handler for the command's process id.
func New(arch abi.Arch, command int) Handler {
	nr, _ := abi.SyscallNumber(arch, "prctl")
	return Handler{nr, command, kernel.ThreadGroup}
}

// Name is the concern.
func (Handler) Name() string { return "parentdeath" }

// Syscalls lists prctl.
func (h Handler) Syscalls() []abi.Sysno { return []abi.Sysno{h.call} }

// maxSignal is _NSIG: the kernel knows signals up to it.
const maxSignal = 64

// Handle leaves the call to the kernel unless it is the command's.
func (h Handler) Handle(c *supervise.Call) supervise.Verdict {
	if c.Arg32(0) != unix.PR_SET_PDEATHSIG {
		return supervise.Next() // not by the policy's filter
	}
	pid, err := h.group(c.TID)
	switch {
	case err != nil || !c.Valid():
		return supervise.Errno(unix.EPERM)
	case pid != h.command:
		return supervise.Continue(supervise.DecidedOnRegisters)
	case c.Args[1] > maxSignal:
		return supervise.Errno(unix.EINVAL)
	}
	return supervise.Return(0)
}
