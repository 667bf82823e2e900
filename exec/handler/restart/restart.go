// Package restart keeps children that end from interrupting the forks of their parent.
//
// It answers rt_sigaction for SIGCHLD. A notified call can be interrupted by a signal until the supervisor has received
// it (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV protects it only from then on). The kernel restarts it, unless the signal
// has a handler that was installed without SA_RESTART: then fork fails with EINTR, which fork(2) never does, and dash
// (the /bin/sh of Debian) gives up with "Cannot fork". A parent that forks while its earlier children end meets that
// moment about once in fifty pipelines, so the flag is set in what the caller is about to install. What changes for the
// program is that a child's end no longer interrupts its read(2), write(2), accept(2) and the like, as with glibc's
// signal(3); poll, select, pause, sigsuspend and the sleeps are interrupted as ever (signal(7)).
//
// It decides nothing about policy and grants nothing: a caller that cannot be read or written keeps what it has, and
// one that changes the memory meanwhile harms only itself.
package restart

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Handler sets SA_RESTART for handlers of SIGCHLD.
type Handler struct{ call abi.Sysno }

// New makes the handler.
func New(arch abi.Arch) Handler {
	nr, _ := abi.SyscallNumber(arch, "rt_sigaction")
	return Handler{nr}
}

// Name is the concern.
func (Handler) Name() string { return "restart" }

// Syscalls lists rt_sigaction.
func (h Handler) Syscalls() []abi.Sysno { return []abi.Sysno{h.call} }

const (
	saRestart = 0x10000000 // SA_RESTART, linux/signal.h
	sigIgn    = 1          // SIG_DFL is 0; neither runs anything
)

// Handle adds the flag. The first fields of struct sigaction, as amd64 and arm64 take it, are two words: the handler and
// the flags.
func (h Handler) Handle(c *supervise.Call) supervise.Verdict {
	var action [16]byte
	addr := c.Args[1]
	if c.Arg32(0) != int32(unix.SIGCHLD) {
		return supervise.Next() // not by the policy's filter
	}
	if c.Bytes(addr, action[:]) != nil {
		return supervise.Continue(supervise.KernelDecides)
	}
	handler, flags := binary.NativeEndian.Uint64(action[:8]), binary.NativeEndian.Uint64(action[8:])
	if handler > sigIgn && flags&saRestart == 0 {
		binary.NativeEndian.PutUint64(action[8:], flags|saRestart)
		_ = c.Write(addr+8, action[8:])
	}
	return supervise.Continue(supervise.KernelDecides)
}
