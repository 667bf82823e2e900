package rules

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Event is a held call, as a [Hook] sees it.
type Event struct {
	Syscall string
	Kind    ir.Events // one of them
	PID     int       // process id of the caller
	Parent  int       // of its parent, as it was when the process was first seen
	Argv    []string  // EventExec: the arguments as they were when the call was held
	Program string    // EventExec: the file to be run
	Paths   []string  // real paths that the call names
	Address string    // protocol and address that the call names, such as "tcp 10.0.0.5:443"
	Rule    int       // the rule that let the call through, -1 for none
}

// Hook is asked about every held call that the rules let through. It can only refuse: [ir.OutcomeErrno] or
// [ir.OutcomeKill] narrow, everything else means that it has no objection. It runs on any goroutine. A hook that panics,
// or has not answered within HookTime, has refused with EPERM.
type Hook func(Event) ir.Outcome

// HookTime is how long a hook may take.
const HookTime = 5 * time.Second

// hook asks a Hook without trusting it to return. While an answer is overdue all others are refused at once: a hook
// that hangs costs the sandbox its time once.
type hook struct {
	f       Hook
	limit   time.Duration
	overdue atomic.Int32
}

func (h *hook) ask(e Event) ir.Outcome {
	if h.f == nil {
		return ir.Outcome{}
	}
	refused := errnoOutcome(unix.EPERM)
	if h.overdue.Load() > 0 {
		return refused
	}
	answer := make(chan ir.Outcome, 1)
	go func() {
		defer func() {
			if recover() != nil {
				answer <- refused
			}
		}()
		answer <- h.f(e)
	}()
	limit := time.NewTimer(h.limit)
	defer limit.Stop()
	select {
	case o := <-answer:
		return o
	case <-limit.C:
		h.overdue.Add(1)
		go func() {
			<-answer
			h.overdue.Add(-1)
		}()
		return refused
	}
}

// event is a held call for the hook.
func (h *Handler) event(w *held, d decision) Event {
	e := Event{Syscall: w.spec.name, Kind: w.spec.event, PID: w.process.PID, Parent: w.process.Parent, Argv: w.facts.Argv, Program: w.file, Address: w.address(), Rule: d.rule}
	if d.rule == query.NoRule {
		e.Rule = -1
	}
	for _, f := range w.facts.Files {
		e.Paths = append(e.Paths, f.Path)
	}
	return e
}
