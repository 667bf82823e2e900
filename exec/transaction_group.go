package exec

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// group runs commands side by side. All of them are set up before the first begins: what one does to the working directory is
// no way to what another is granted, and none runs if one cannot. The first that fails ends the others; the error is its.
func (r *stageRun) group(phase context.Context, p part) (err error) {
	ctx, end := context.WithCancel(phase)
	defer end()
	defer r.shared.closeTrees()
	hidden := kernel.Hidden()
	var all []*runningStage
	for i := p.first; i < p.first+p.count && err == nil; i++ {
		at := &place{sharedBranch: r.shared, planted: p.first > 0, beside: true, others: p.first + p.count - 1 - i}
		var s *runningStage
		if s, err = r.prepare(ctx, i, at); err != nil {
			break
		}
		if err = s.cmd.Create(); err != nil {
			err = r.end(ctx, s, err)
			break
		}
		all = append(all, s)
	}
	if err == nil && r.shared.foreground { // not before: a process that hides can map no ids
		if e := kernel.HideSelf(); e != nil {
			err = r.undriven(p.first, e)
		}
	}
	if err != nil {
		end()
	}
	for _, s := range all {
		if err == nil {
			_ = s.cmd.Start() // fails if it was killed meanwhile, which Wait tells
		}
	}
	if waited := r.wait(ctx, end, all); err == nil {
		err = waited
	}
	r.pass(pendingSignals(r.signals), end, nil) // that nobody is left for
	if e := r.shown(hidden); err == nil && e != nil {
		err = r.undriven(p.first, e)
	}
	return err
}

// wait waits for all, and returns the first failure.
func (r *stageRun) wait(ctx context.Context, end func(), all []*runningStage) (first error) {
	type over struct {
		s   *runningStage
		err error
	}
	ended := make(chan over, len(all))
	for _, s := range all {
		go func() { ended <- over{s, s.cmd.Wait()} }()
	}
	for left := len(all); left > 0; {
		select {
		case o := <-ended:
			left--
			if err := r.end(ctx, o.s, o.err); err != nil && first == nil {
				first = err
				end()
			}
		case <-time.After(reviewPulse):
			r.pass(pendingSignals(r.signals), end, all)
		}
	}
	return first
}

// pass passes signals that this process was sent on to the commands of a group, as the supervisor of one does that has the
// process to itself. Where they do not end at SIGTERM or SIGINT, the same again ends them.
func (r *stageRun) pass(signals []unix.Signal, end func(), all []*runningStage) {
	for _, sig := range signals {
		switch sig {
		case unix.SIGCHLD:
			continue
		case unix.SIGTSTP:
			suspend(all)
			continue
		case unix.SIGTERM, unix.SIGINT:
			if r.asked == sig {
				end()
			}
			r.asked = sig
		case unix.SIGHUP, unix.SIGQUIT:
			r.asked = sig
		}
		for _, s := range all {
			_ = s.cmd.Signal(sig) // one that has ended needs none
		}
	}
}

// suspend stops this process with all commands, until somebody continues it.
func suspend(all []*runningStage) {
	for _, s := range all {
		_ = s.cmd.Pause()
	}
	_ = unix.Kill(unix.Getpid(), unix.SIGSTOP)
	for _, s := range all {
		_ = s.cmd.Resume()
	}
}
