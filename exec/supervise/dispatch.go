package supervise

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// Dispatcher finds the handlers of a call and keeps their verdicts honest.
type Dispatcher struct {
	arch    abi.Arch
	journal Journal
	table   [][]Handler // by system call number
}

// NewDispatcher wires handlers in order. Every call of a handler must be one that the filter notifies, else the
// handler would silently never run.
func NewDispatcher(arch abi.Arch, handlers []Handler, notified func(abi.Sysno) bool, j Journal) (*Dispatcher, error) {
	d := &Dispatcher{arch: arch, journal: j}
	for _, h := range handlers {
		for _, nr := range h.Syscalls() {
			if !notified(nr) {
				return nil, fmt.Errorf("handler %s answers %s, which the filter does not notify", h.Name(), d.name(nr))
			}
			for int(nr) >= len(d.table) {
				d.table = append(d.table, nil)
			}
			d.table[nr] = append(d.table[nr], h)
		}
	}
	return d, nil
}

// Decide runs the handlers of a call. It fails closed: a panic, a call that no handler takes and a Continue that
// could be raced all end in EPERM, with a record.
func (d *Dispatcher) Decide(c *Call) (v Verdict) {
	defer d.recover(c, &v)
	if int(c.Nr) < len(d.table) {
		var passed Verdict
		for _, h := range d.table[c.Nr] {
			if v = h.Handle(c); v.kind != verdictNext {
				return d.honest(c, v, h.Name())
			}
			if v.reason != 0 {
				passed = Continue(v.reason)
			}
		}
		if passed.reason == KernelDecides || passed.reason == DecidedOnRegisters && !c.memoryRead {
			return passed
		}
	}
	d.refuse(c, "no handler takes the call")
	return Errno(unix.EPERM)
}

// resume is Decide for a call that comes back from outside of the loop.
func (d *Dispatcher) resume(c *Call, then func(*Call) Verdict) (v Verdict) {
	defer d.recover(c, &v)
	return d.honest(c, then(c), "of a deferred call")
}

func (d *Dispatcher) recover(c *Call, v *Verdict) {
	if r := recover(); r != nil {
		d.refuse(c, fmt.Sprintf("internal error: %v", r))
		*v = Errno(unix.EPERM)
	}
}

func (d *Dispatcher) honest(c *Call, v Verdict, handler string) Verdict {
	switch {
	case v.raced(c.memoryRead):
		d.refuse(c, "handler "+handler+" would continue a call after reading its memory")
	case v.kind == verdictNext || v.kind == verdictResume:
		d.refuse(c, "handler "+handler+" gives no answer")
	default:
		return v
	}
	return Errno(unix.EPERM)
}

func (d *Dispatcher) refuse(c *Call, reason string) {
	d.journal.Record(Event{Kind: "error", PID: c.TID, Syscall: d.name(c.Nr), Verdict: "EPERM", Reason: reason})
}

func (d *Dispatcher) name(nr abi.Sysno) string {
	if s, ok := abi.SyscallName(d.arch, nr); ok {
		return s
	}
	return fmt.Sprintf("syscall %d", nr)
}
