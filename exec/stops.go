package exec

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/throttle"
)

// stops is what the executor itself stops the sandbox for, as opposed to stops by the terminal or from inside, which
// lifetime follows. A run without limits.cpu that nobody can pause has none of it; the methods then do nothing.
type stops struct {
	freezer *throttle.Freezer
	cpu     *throttle.Throttle
}

// stops makes what the policy and the options ask for, and has the loop serve it. fail ends a sandbox that cannot be
// measured or stopped.
func (s *sandbox) stops(child *stage.Child, f *family, loop *supervise.Loop, j supervise.Journal, fail func(error)) (*stops, error) {
	limit := &s.program.Limits
	percent := limit.CPUPercent
	if s.groups.group != nil {
		percent = 0 // the kernel sees to it
	}
	if percent == 0 && s.options.Freezer == nil {
		return &stops{}, nil
	}
	tree := throttle.NewTree(throttle.NewKernel(f.current(child.PID), func() time.Duration { return f.waited }))
	rule := supervise.Event{Rule: "limits.cpu", Origin: where(s.program, limit.CPUOrigin)}
	if percent == 0 {
		rule = supervise.Event{}
	}
	st := &stops{freezer: throttle.NewFreezer(tree, onTerminal(), func(pid int) {
		e := rule
		e.Kind, e.PID, e.Verdict, e.Reason = "limit", pid, "killed", "the process continued itself whenever it was stopped"
		j.Record(e)
	}, fail)}
	if err := st.freezer.Start(loop); err != nil {
		return nil, err
	}
	if s.options.Freezer != nil {
		if err := s.options.Freezer.serve(loop, st.freezer); err != nil {
			return nil, err
		}
	}
	if percent == 0 {
		return st, nil
	}
	cores := runtime.NumCPU()
	if n := len(limit.CPUCores); n > 0 {
		cores = min(cores, n)
	}
	st.cpu = throttle.New(s.arch, percent, cores, tree, st.freezer, fail)
	return st, st.cpu.Start(loop)
}

// forward reports whether a signal to the executor is to be passed on.
func (s *stops) forward(sig unix.Signal) bool {
	if s.cpu != nil {
		s.cpu.Yield()
	}
	return s.freezer == nil || s.freezer.Forward(sig)
}

// made reports whether it is the executor that has stopped a process.
func (s *stops) made(pid int) bool { return s.freezer != nil && s.freezer.Stopped(pid) }

// suspend stops what must not run while the executor cannot watch it: it is about to be stopped itself.
func (s *stops) suspend() error {
	if s.cpu == nil {
		return nil
	}
	return s.freezer.Hold(throttle.Suspended)
}

// proceed is the end of suspend.
func (s *stops) proceed() {
	if s.cpu != nil {
		s.freezer.Release(throttle.Suspended)
	}
}
