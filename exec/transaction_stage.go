package exec

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// stageRun is a transaction whose stages run.
type stageRun struct {
	t       *Transaction
	shared  *sharedBranch
	signals int // descriptor that they arrive in, -1 if they are the caller's business
	result  *TransactionResult
	asked   unix.Signal // that is to end the transaction, 0 without
}

// step runs one. The error is a *TransactionError or an *AbortError.
func (r *stageRun) step(phase context.Context, s *step) error {
	if phase.Err() != nil {
		return &AbortError{Stage: -1, Err: context.Cause(phase)}
	}
	if err := r.t.savepoint(r.shared, s); err != nil {
		return err
	}
	ran := len(r.result.Stages)
	var err error
	for i, p := range s.parts {
		if err = r.part(phase, p); err == nil && r.asked != 0 && i < len(s.parts)-1 {
			err = &AbortError{Stage: -1, Err: signalled(r.asked)}
		}
		if err != nil {
			break
		}
	}
	if abort := (*AbortError)(nil); s.Optional && r.asked == 0 && errors.As(err, &abort) && abort.Stage >= 0 {
		err = r.t.rollBack(r.shared, s)
		for i := ran; i < len(r.result.Stages); i++ {
			r.result.Stages[i].Dropped = true
		}
	}
	if err != nil {
		return err
	}
	r.shared.done, r.shared.saved = s.first+s.count, false
	if r.asked != 0 {
		return &AbortError{Stage: -1, Err: signalled(r.asked)}
	}
	return nil
}

func (r *stageRun) part(phase context.Context, p part) error {
	if phase.Err() != nil {
		return &AbortError{Stage: -1, Err: context.Cause(phase)}
	}
	if p.count > 1 {
		return r.group(phase, p)
	}
	return r.alone(phase, p.first)
}

// alone runs one command with nothing beside it.
func (r *stageRun) alone(phase context.Context, i int) error {
	hidden := kernel.Hidden()
	s, err := r.prepare(phase, i, &place{sharedBranch: r.shared, planted: i > 0})
	if err != nil {
		return err
	}
	err = r.end(phase, s, s.cmd.Run())
	r.asked = s.cmd.askedToEnd(r.signals)
	if e := r.shown(hidden); e != nil {
		return r.undriven(i, e)
	}
	return err
}

// shown undoes what a stage does to the process that is its own.
func (r *stageRun) shown(hidden bool) error {
	if !r.shared.foreground || hidden {
		return nil
	}
	return kernel.ShowSelf()
}

func (r *stageRun) undriven(i int, err error) error {
	return &TransactionError{Code: CodeStage, Stage: i, Err: err, label: r.t.label(i)}
}

// runningStage is a command between prepare and end.
type runningStage struct {
	index   int
	cmd     *Cmd
	capture *stderrCapture
	release func() // gives the command back as it was
}

// prepare readies a command to be started in its place. It ends with phase as well as with the context that it was made with.
func (r *stageRun) prepare(phase context.Context, i int, at *place) (*runningStage, error) {
	c := r.t.commands[i].Cmd
	capture, err := c.captureStderr()
	if err != nil {
		return nil, r.undriven(i, err)
	}
	own := c.ctx
	both, cancel := context.WithCancelCause(phase)
	stop := context.AfterFunc(own, func() { cancel(context.Cause(own)) })
	c.ctx, c.within = both, at
	return &runningStage{i, c, capture, func() {
		stop()
		cancel(nil)
		c.ctx, c.within = own, nil
	}}, nil
}

// end is when nothing is left of a command; err is what its Wait, or its start, has returned. What the command itself has come
// to is put among the results; the error is nil if it has succeeded.
func (r *stageRun) end(phase context.Context, s *runningStage, err error) error {
	s.release()
	result := StageResult{Stage: s.index, Label: strings.TrimSuffix(r.t.label(s.index), ": "), Stderr: s.capture.end()}
	var command *CommandError
	status, ran := s.cmd.Status()
	result.Status = status
	switch {
	case errors.As(err, &command):
		result.Status, result.Err = ExitStatus{Code: command.Code}, command
	case phase.Err() != nil && (!ran || status.Killed):
		return &AbortError{Stage: -1, Err: context.Cause(phase)}
	case r.shared.failed != nil:
		return &TransactionError{Code: CodeCommit, Stage: -1, Err: r.shared.failed}
	case !ran:
		return r.undriven(s.index, err)
	case !status.Success() || status.Limit != "":
		result.Err = &ExitError{Status: status, Stderr: result.Stderr}
	}
	r.result.Stages = append(r.result.Stages, result)
	if result.Err != nil {
		return &AbortError{Stage: s.index, Err: result.Err, label: r.t.label(s.index)}
	}
	return nil
}

// askedToEnd returns a signal that this process was sent to end it: the stage has seen it, or it still waits to be read.
func (c *Cmd) askedToEnd(signals int) unix.Signal {
	if signals < 0 {
		return 0
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
		if c.run != nil && c.run.life.asked[sig] {
			return sig
		}
	}
	return endingSignal(signals)
}
