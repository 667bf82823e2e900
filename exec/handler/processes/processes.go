// Package processes enforces limits.processes: how many processes the sandbox may have alive at once, and what rules say
// about a process and its descendants.
//
// It answers clone (without CLONE_THREAD, which the filter lets through), fork and vfork. The count is of live thread
// groups, never of wait calls: a program that reaps with WNOHANG, ignores SIGCHLD or double-forks neither leaks slots
// nor gains any. Counting costs nothing until the sandbox comes near the limit.
//
// Read next: census.go (who is alive), scope.go (parts of the sandbox with a limit of their own).
package processes

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Handler is the process limit of one sandbox.
type Handler struct {
	limit   int
	census  *census
	scopes  scopes
	closing atomic.Bool
	calls   []abi.Sysno
	clone   abi.Sysno
	name    func(abi.Sysno) string
	journal supervise.Journal
	rule    supervise.Event // Rule and Origin of the limit
}

// New makes the handler for a sandbox whose first process is the command. rule carries the policy path and origin
// of the limit for the journal.
func New(arch abi.Arch, limit uint32, command Process, roots func() ([]int, error), j supervise.Journal, rule supervise.Event) *Handler {
	h := &Handler{
		limit:   int(limit),
		census:  newCensus(command, roots),
		scopes:  newScopes(),
		journal: j,
		rule:    rule,
		name:    func(nr abi.Sysno) string { s, _ := abi.SyscallName(arch, nr); return s },
	}
	h.clone, _ = abi.SyscallNumber(arch, "clone")
	for _, name := range []string{"clone", "fork", "vfork"} {
		if nr, ok := abi.SyscallNumber(arch, name); ok {
			h.calls = append(h.calls, nr)
			h.census.forkCalls = append(h.census.forkCalls, int(nr))
		}
	}
	return h
}

// Name is the concern.
func (h *Handler) Name() string { return "processes" }

// Syscalls lists the fork family.
func (h *Handler) Syscalls() []abi.Sysno { return h.calls }

// Close refuses every further process: the sandbox can only shrink from here. Safe from any goroutine.
func (h *Handler) Close() { h.closing.Store(true) }

// Release lets go of the processes that were counted, once no call comes any more.
func (h *Handler) Release() {
	h.census.release()
	for _, s := range h.scopes.open {
		s.census.release()
	}
}

// Limit lowers the limit; it never raises it.
func (h *Handler) Limit(n uint32) { h.limit = min(h.limit, int(n)) }

// Handle counts the process that the call is about to create. Flags are register arguments, so continuing is safe.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	if c.Nr == h.clone && c.Args[0]&unix.CLONE_THREAD != 0 {
		return supervise.Next() // a thread; not by the policy's filter
	}
	if h.closing.Load() {
		return supervise.Errno(unix.EAGAIN)
	}
	inner, err := h.scopes.innermost(c.TID)
	if err != nil {
		return h.refuse(c, supervise.Event{Kind: "error", Reason: "whose limits hold cannot be told: " + err.Error()})
	}
	if !h.census.room(c.TID, h.limit) {
		e := h.rule
		e.Kind, e.Reason = "limit", "the sandbox has as many live processes as limits.processes allows"
		return h.refuse(c, e)
	}
	if s := inner.full(c.TID); s != nil {
		e := s.rule
		e.Kind = "limit"
		e.Reason = fmt.Sprintf("the process that the rule is about and its descendants are as many live processes as it allows: %d", s.limit)
		return h.refuse(c, e)
	}
	h.census.add(c.TID)
	for s := inner; s != nil; s = s.outer {
		s.census.add(c.TID)
	}
	return supervise.Continue(supervise.DecidedOnRegisters)
}

func (h *Handler) refuse(c *supervise.Call, e supervise.Event) supervise.Verdict {
	e.PID, e.Syscall, e.Verdict = c.TID, h.name(c.Nr), "EAGAIN"
	h.journal.Record(e)
	return supervise.Errno(unix.EAGAIN)
}
