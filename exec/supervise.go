package exec

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// running is a command that exists, and what answers for it. All but life is for the supervisor's thread only.
type running struct {
	s          *sandbox
	plan       *stage.Plan
	child      *stage.Child
	loop       *supervise.Loop
	dispatcher *supervise.Dispatcher
	handlers   wired
	life       *lifetime
	signals    int // descriptor that signals arrive in, -1 if they are the caller's business
}

// start clones the command, then confines and hides this process. It leaves the command waiting for serve, which must
// be called on the same thread; the goroutine is locked to it for good.
func (s *sandbox) start(plan *stage.Plan, rs *rulesets) (r *running, err error) {
	family, err := s.adopt(rs)
	if err != nil {
		return nil, &SetupError{[]string{err.Error()}}
	}
	defer func() {
		if err != nil {
			family.disown()
		}
	}()
	// The command's domain is then nested in this thread's, which is what lets this thread (and no other)
	// read the command's memory. See the package comment of supervise.
	if err := confineThread(rs.own); err != nil {
		return nil, &SetupError{[]string{"confine the executor: " + err.Error()}}
	}
	r = &running{s: s, plan: plan, signals: -1}
	if s.masks() {
		if err := kernel.UnshareFS(); err != nil {
			return nil, &SetupError{[]string{err.Error()}}
		}
	}
	if !s.shared {
		if r.signals, err = catchSignals(s.program.VerifiesExec()); err != nil {
			return nil, &SetupError{[]string{err.Error()}}
		}
	}
	began := time.Now()
	if r.child, err = stage.Start(plan); err != nil {
		return nil, s.startFailure(err)
	}
	if s.view != nil && !s.view.Namespaces.Init {
		s.view.Release() // the command is in its namespaces
	}
	r.life = &lifetime{
		child: r.child, family: family, terminal: plan.TakeTerminal, refuseForks: func() {}, stops: &stops{},
		limit: s.timeLimit(), started: began, audit: s.options.Audit, asked: map[unix.Signal]bool{},
	}
	if err := r.prepare(family, rs); err != nil {
		r.abandon()
		return nil, &SetupError{[]string{err.Error()}}
	}
	s.options.Audit.Write(audit.Line{Event: "start", PID: r.child.PID, Argv: plan.Argv})
	return r, nil
}

// prepare makes what answers for the command. The command may run already; until it is served, its notified calls wait.
func (r *running) prepare(family *family, rs *rulesets) (err error) {
	s := r.s
	r.loop, err = supervise.NewLoop(kernel.Listener{FD: r.child.Listener}, r.child.PIDFD, func() error {
		if s.masks() {
			if err := kernel.UnshareFS(); err != nil {
				return err
			}
			kernel.ClearUmask()
		}
		if err := confineThread(rs.own); err != nil {
			return err
		}
		_, err := r.dropPrivileges()
		return err
	})
	if err != nil {
		return err
	}
	journal := &journal{log: s.options.Audit}
	if r.handlers, err = s.handlers(r.child, family, r.loop, journal, r.life.fail); err != nil {
		return err
	}
	r.life.refuseForks, r.life.stops, r.life.tracer = r.handlers.refuseForks, r.handlers.stops, r.handlers.tracer
	if r.dispatcher, err = supervise.NewDispatcher(s.arch, r.handlers.list, s.isNotified, journal); err != nil {
		return err
	}
	privileged, err := r.dropPrivileges()
	if err != nil {
		return err
	}
	if !s.shared {
		if err := kernel.HideSelf(); err != nil {
			return err
		}
		if privileged && s.branch == nil { // what a branch holds is applied by other threads
			r.loop.Later(func() { go r.life.dropCapabilities(s.keptCapabilities(r.plan.Capabilities)) })
		}
	}
	return r.life.watch(r.loop, r.signals)
}

// dropPrivileges leaves the calling thread with no more than the command has: it acts on behalf. It reports whether there
// were capabilities to drop.
func (r *running) dropPrivileges() (privileged bool, err error) {
	if r.plan.DropGroups {
		if err := kernel.DropThreadGroups(); err != nil {
			return false, err
		}
	}
	return kernel.DropThreadCapabilities(r.s.keptCapabilities(r.plan.Capabilities))
}

// abandon ends the command and as much as prepare has made.
func (r *running) abandon() {
	if r.loop != nil {
		r.loop.Close()
	}
	if r.handlers.close != nil {
		r.handlers.close()
	}
	r.child.Abandon()
}

// serve answers for the command until all is over.
func (r *running) serve() (Result, error) {
	defer r.child.Close()
	serveErr := r.loop.Run(r.dispatcher)
	r.s.options.Freezer.end()
	if serveErr != nil {
		r.life.killAll() // an unanswered call would hang its caller for ever
	}
	r.handlers.close()
	if r.s.resolver != nil {
		r.s.resolver.Hang()
	}
	result := r.life.finish()
	if r.s.proxy != nil {
		r.s.proxy.drain()
	}
	r.s.endHelpers() // their numbers are their own until all others are gone, see family
	if failure := r.child.Failure(r.plan); failure != nil {
		return Result{}, r.s.startFailure(failure)
	}
	result.Denied = r.handlers.denied()
	r.s.limited(&r.handlers, &result, r.life.ended())
	err := errors.Join(serveErr, r.life.failure())
	r.s.endBranch(&result, err != nil, r.signals)
	r.s.options.Audit.Write(exitLine(result))
	if err != nil {
		return result, &SetupError{[]string{"the command was ended because the executor failed: " + err.Error()}}
	}
	return result, nil
}

func exitLine(r Result) audit.Line {
	ms := r.Duration.Milliseconds()
	return audit.Line{Event: "exit", Code: &r.Code, Millis: &ms, Detached: r.Killed}
}

// masks reports whether the supervisor's threads each need a umask of their own: files that rules have opened and sockets
// that are bound on behalf are made with their makers' masks.
func (s *sandbox) masks() bool {
	return s.shared && len(s.rules) > 0 || makesSockets(s.program)
}

// confineThread puts the calling thread under the executor's own ruleset.
func confineThread(own *kernel.Ruleset) error {
	if err := kernel.NoNewPrivs(); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return own.RestrictThread()
}

// timeLimit is the shorter of the policy's and the caller's; 0 means none.
func (s *sandbox) timeLimit() time.Duration {
	limit := time.Duration(s.program.Limits.TimeMS) * time.Millisecond
	if t := s.options.Timeout; t > 0 && (limit == 0 || t < limit) {
		limit = t
	}
	return limit
}
