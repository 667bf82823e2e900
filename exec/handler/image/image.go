// Package image prepares each program image of a sandbox whose randomness is seeded or whose clock is shifted, before
// the program can have used either.
//
// The kernel hands every new program two things that no system call passes: 16 random bytes (AT_RANDOM, from which C
// libraries and Go take stack canaries and seeds), and the vDSO, code that reads the clock and makes random numbers
// without entering the kernel. The handler answers the call by which each C library and Go set up their first thread,
// once an image and before they look at those bytes: on amd64 arch_prctl(ARCH_SET_FS), on arm64 set_tid_address (C
// libraries) and sched_getaffinity (Go). It replaces the bytes, and overwrites the vDSO's functions in that process with
// stubs: they make the system calls, which the filter notifies where their answer would be the truth, or do the shifting
// of the clock themselves. Children of fork have
// the same pages; execve maps a fresh vDSO and comes by again.
//
// It decides nothing about policy, and everything that it writes is private to the one process. It must never let a
// program go on that it could not prepare: determinism that silently does not hold is worse than none. A program that
// makes none of those calls, thus has no C library and no thread-local storage, is not prepared; its system calls are
// answered all the same.
//
// Read next: stubs.go and shift.go (the code), symbols.go (where it goes).
package image

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Config says what is to be prepared.
type Config struct {
	VDSO   []byte                                  // the image that the kernel maps; nil: it maps none
	Clock  *Shift                                  // have the clocks' functions show this; nil: leave them
	Random func(*supervise.Call) ([16]byte, error) // what AT_RANDOM is to hold in the caller's new image; nil: leave it
	Auxv   func(tid int) (kernel.Auxv, error)      // nil: ask the kernel
}

// Handler prepares program images.
type Handler struct {
	config  Config
	patches []patch
	calls   []abi.Sysno
	journal supervise.Journal
	rule    supervise.Event // Rule and Origin of the field that asks for this
}

// marker tells an image that is prepared from one that is not, where the vDSO has no function to be replaced: unused
// bytes of its ELF header.
var marker = patch{9, []byte("sandlok")}

// New makes the handler. rule carries the policy path and origin for the journal.
func New(arch abi.Arch, c Config, j supervise.Journal, rule supervise.Event) (*Handler, error) {
	h := &Handler{config: c, journal: j, rule: rule}
	if h.config.Auxv == nil {
		h.config.Auxv = kernel.ReadAuxv
	}
	for _, name := range []string{"arch_prctl", "set_tid_address", "sched_getaffinity"} {
		if nr, ok := abi.SyscallNumber(arch, name); ok {
			h.calls = append(h.calls, nr)
		}
	}
	if c.VDSO == nil {
		return h, nil
	}
	var stubs []stub
	if c.Random != nil {
		stubs = append(stubs, randomStubs(arch)...)
	}
	if c.Clock != nil {
		stubs = append(stubs, clockStubs(arch, *c.Clock)...)
	}
	var err error
	if h.patches, err = place(c.VDSO, stubs); err != nil {
		return nil, err
	}
	if len(h.patches) == 0 {
		h.patches = []patch{marker}
	}
	return h, nil
}

// Name is the concern.
func (h *Handler) Name() string { return "image" }

// Syscalls lists the calls that start a program; the filter notifies those of this architecture.
func (h *Handler) Syscalls() []abi.Sysno { return h.calls }

// Handle prepares the caller's image, unless that is done, and lets the call happen.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	err := h.prepare(c)
	if err == nil {
		return supervise.Pass(supervise.KernelDecides)
	}
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	e := h.rule
	e.Kind, e.PID, e.Verdict = "error", c.TID, "killed"
	e.Reason = "the program cannot be prepared for " + e.Rule + ": " + err.Error()
	h.journal.Record(e)
	return supervise.Kill()
}

func (h *Handler) prepare(c *supervise.Call) error {
	where, err := h.config.Auxv(c.TID)
	if err != nil {
		return err
	}
	if (where.VDSO != 0) != (h.config.VDSO != nil) {
		return errors.New("its vDSO is not the one that was looked at")
	}
	var patches []supervise.Patch
	for _, p := range h.patches {
		patches = append(patches, supervise.Patch{Addr: where.VDSO + p.at, Bytes: p.code})
	}
	if len(patches) > 0 {
		there := make([]byte, len(patches[0].Bytes))
		if err := c.Bytes(patches[0].Addr, there); err != nil {
			return err
		}
		if bytes.Equal(there, patches[0].Bytes) {
			return nil
		}
		if p := h.patches[0]; !bytes.Equal(there, h.config.VDSO[p.at:p.at+uint64(len(p.code))]) {
			return errors.New("its vDSO is not the one that was looked at")
		}
	}
	if h.config.Random != nil && where.Random != 0 {
		random, err := h.config.Random(c)
		if err != nil {
			return err
		}
		patches = append(patches, supervise.Patch{Addr: where.Random, Bytes: random[:]})
	}
	return c.Overwrite(patches)
}
