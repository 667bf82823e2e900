package exec

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/handler/rules"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Call is a notified system call, and Verdict the answer to one; supervise.Continue, Return, Errno, AddFD, Kill and Defer
// make verdicts.
type (
	Call    = supervise.Call
	Verdict = supervise.Verdict
)

// HandlerFunc answers a system call of the sandbox. It runs on the supervisor's thread, one call at a time, so it needs
// no locks for what only it uses and must not block: every other notified call of the sandbox waits for it (see
// supervise.Defer). supervise.Next leaves the call to the next handler, and in the end to the kernel.
//
// What the call's pointers point to can change after it was read (Call.Path, Call.Bytes): after that only a Continue with
// supervise.KernelDecides is accepted, which must not be the answer of a handler that decides access.
type HandlerFunc func(*Call) Verdict

// hooks are what a program adds to a sandbox. They can only narrow: a call that the policy refuses never reaches them.
type hooks struct {
	handlers []userHandler
	event    func(Event) Outcome
	bound    func(Port)
}

// Event is a call that the policy's dynamic rules look at and let through, before it is carried out.
type Event = rules.Event

// Outcome is a program's decision about an event. The zero value has no objection; [Deny] and [KillProcess] refuse.
type Outcome = ir.Outcome

// Deny fails the call.
func Deny(e unix.Errno) Outcome { return Outcome{Kind: ir.OutcomeErrno, Errno: uint16(e)} }

// KillProcess ends the caller's process.
func KillProcess() Outcome { return Outcome{Kind: ir.OutcomeKill} }

// OnEvent has f asked about every call that the policy's rules look at and let through. Which calls those are is the
// policy's to say: a rule such as {on: ["process"], then: "audit"} shows every program and process. f may be called from
// several goroutines at once. The caller waits for it, and for programs, processes and addresses the whole sandbox does, so
// f should be quick: a call that f has not decided within five seconds, or about which it panics, fails with EPERM.
func (c *Cmd) OnEvent(f func(Event) Outcome) error {
	p := c.artifact.Program
	if len(p.Rules) == 0 {
		return errors.New("the policy has no dynamic rules, so there are no events")
	}
	if p.Determinism.Random && p.HeldEvents()&ir.EventFile != 0 {
		return errors.New("events about files cannot stand beside determinism.random_seed: both have files opened on behalf")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != isNew {
		return ErrStarted
	}
	c.hooks.event = f
	return nil
}

type userHandler struct {
	nr abi.Sysno
	f  HandlerFunc
}

// Handle has h answer the system call number nr where the policy allows it, after the executor's own handlers and after
// those that were added before. It is an error if this architecture has no such call or if the policy always refuses it:
// the filter answers before any handler could. What the executor carries out in place of the command, such as opens under
// rules about files and connect under rules about addresses, is answered by then, and h does not see it.
func (c *Cmd) Handle(nr int, h HandlerFunc) error {
	if nr < 0 {
		return fmt.Errorf("system call number %d is negative", nr)
	}
	s, err := newSandbox(Options{Artifact: c.artifact})
	if err != nil {
		return err
	}
	name, known := abi.SyscallName(s.arch, abi.Sysno(nr))
	if !known {
		return fmt.Errorf("system call number %d is unknown on %s", nr, s.arch)
	}
	if !mayPass(s.filter.Table, abi.Sysno(nr)) {
		d := query.Syscall(s.filter.Table, abi.Sysno(nr), [6]uint64{})
		return fmt.Errorf("the policy refuses %s (number %d: %s), so a handler would never see it, nor may it bypass that", name, nr, d.Reason)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != isNew {
		return ErrStarted
	}
	c.hooks.handlers = append(c.hooks.handlers, userHandler{abi.Sysno(nr), h})
	return nil
}

// mayPass tells whether the table lets a call through for some arguments.
func mayPass(table []ir.SyscallEntry, nr abi.Sysno) bool {
	e := table[query.Syscall(table, nr, [6]uint64{}).Entry]
	passes := func(a ir.Action) bool { return a == ir.Allow || a == ir.Notify }
	return passes(e.Action) || slices.ContainsFunc(e.Clauses, func(c ir.Clause) bool { return passes(c.Action) })
}

// filter has the filter notify the calls that the program's handlers answer.
func (h *hooks) filter(program []byte) ([]byte, error) {
	if len(h.handlers) == 0 {
		return program, nil
	}
	var numbers []uint32
	for _, u := range h.handlers {
		numbers = append(numbers, uint32(u.nr))
	}
	return bpf.NotifyAllowed(program, numbers)
}

func (h *hooks) any() bool { return len(h.handlers) > 0 }

// answers tells whether a handler was added for a call.
func (h *hooks) answers(nr abi.Sysno) bool {
	return slices.ContainsFunc(h.handlers, func(u userHandler) bool { return u.nr == nr })
}

// Name is the concern.
func (userHandler) Name() string { return "program" }

// Syscalls lists the one call.
func (u userHandler) Syscalls() []abi.Sysno { return []abi.Sysno{u.nr} }

// Handle asks the program. Continue means no more than Next: handlers that were added later are asked too.
func (u userHandler) Handle(c *Call) Verdict {
	v := u.f(c)
	if v.IsContinue() {
		return supervise.Next()
	}
	return v
}

// kernelHandler comes last: what no handler of the program answers was allowed by the policy, so the kernel carries it
// out.
type kernelHandler struct{ calls []abi.Sysno }

// Name is the concern.
func (kernelHandler) Name() string { return "kernel" }

// Syscalls lists the calls that the program's handlers are asked about.
func (k kernelHandler) Syscalls() []abi.Sysno { return k.calls }

// Handle leaves the call to the kernel.
func (kernelHandler) Handle(*Call) Verdict { return supervise.Continue(supervise.KernelDecides) }

// list returns the handlers in their order.
func (h *hooks) list() []supervise.Handler {
	var list []supervise.Handler
	var last kernelHandler
	for _, u := range h.handlers {
		list = append(list, u)
		if !slices.Contains(last.calls, u.nr) {
			last.calls = append(last.calls, u.nr)
		}
	}
	if len(list) > 0 {
		list = append(list, last)
	}
	return list
}

// Content answers an open with a descriptor of a file in memory that holds b and cannot be changed.
func Content(b []byte) Verdict {
	fd, err := kernel.SealedFile("content", b)
	if err != nil {
		return supervise.Errno(unix.EIO)
	}
	return supervise.AddFD(fd, unix.O_CLOEXEC)
}
