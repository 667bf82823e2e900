package exec

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

const execRight = abi.FSExecute

// sandbox is one run.
type sandbox struct {
	options Options
	program *ir.Program
	filter  *ir.ArchFilter
	arch    abi.Arch

	bound          *binding
	needsRealPaths bool // everything granted is asked for
	writes         bool // something can be written: then, too, it matters where every rule leads
	opened         []opened
	reach          ir.Landlock // the ruleset as bound for this run, see reach.go
	rules          []ir.DynamicRule
}

// supervised reports whether a supervisor stays around the command.
func (s *sandbox) supervised() bool { return s.program.Process.Start != ir.StartInPlace }

// Run starts the command and returns when it and all of its descendants are gone. The caller must have locked the
// goroutine to the process's main thread (runtime.LockOSThread in an init function): the thread that clones the
// command is the one that may read its memory, and the one whose death takes the command with it. Run confines this
// process for good; it is meant to be the last thing that a process does.
func Run(o Options) (Result, error) {
	s := &sandbox{options: o, program: o.Artifact.Program}
	arch, ok := abi.ParseArch(runtime.GOARCH)
	if ok {
		s.arch = arch
		s.filter, ok = s.program.Filter(arch)
	}
	if !ok {
		return Result{}, &SetupError{[]string{fmt.Sprintf("the artifact holds no filter for %s; it was compiled for %v", runtime.GOARCH, s.program.Target.Arches)}}
	}
	s.needsRealPaths = o.Explain || s.program.HeldEvents()&ir.EventFile != 0
	plan, rs, err := s.prepare()
	if s.bound != nil {
		defer s.removeTmp()
	}
	if rs != nil {
		defer rs.close()
	}
	if err != nil {
		return Result{}, err
	}
	if !s.supervised() {
		return Result{}, s.becomeCommand(plan, rs)
	}
	return s.supervise(plan, rs)
}

// prepare does everything that can fail before a process exists, and reports all failures together.
func (s *sandbox) prepare() (*stage.Plan, *rulesets, error) {
	host := kernel.ProbeForStart()
	problems := unmet(s.program, host)
	handled, lacking := handledHere(&s.program.Landlock, host.LandlockABI)
	problems = append(problems, lacking...)
	if len(problems) > 0 {
		return nil, nil, &SetupError{problems}
	}
	var unbound []string
	s.bound, unbound = bind(s.program, s.options.Params, s.options.Environ)
	if len(unbound) > 0 {
		return nil, nil, &SetupError{unbound}
	}
	if unbound = s.bindRules(); len(unbound) > 0 {
		return nil, nil, &SetupError{unbound}
	}
	rs, problems := s.confinement(handled)
	if len(problems) > 0 {
		return nil, rs, &SetupError{problems}
	}
	plan, err := s.plan(rs)
	return plan, rs, err
}

// plan maps the program's process section to a start.
func (s *sandbox) plan(rs *rulesets) (*stage.Plan, error) {
	p := &s.program.Process
	argv, err := commandLine(p, s.options.Command, s.bound.lookup)
	if err != nil {
		return nil, &SetupError{[]string{err.Error()}}
	}
	env, err := environment(p, s.options.Environ, s.bound.lookup)
	if err != nil {
		return nil, &SetupError{[]string{err.Error()}}
	}
	plan := &stage.Plan{
		Argv:              argv,
		Env:               env,
		RulesetFD:         rs.command.FD,
		OpenFiles:         uint64(s.program.Limits.OpenFiles),
		NoCoredump:        p.NoCoredump,
		NoHugePages:       p.NoHugePages,
		NoRandomizeMemory: p.NoRandomizeMemory,
		TakeTerminal:      ownsTerminal(),
	}
	if p.Cwd != "" {
		if plan.Dir, err = ir.ExpandPath(p.Cwd, s.bound.lookup); err != nil {
			return nil, &SetupError{[]string{"program.cwd: " + err.Error()}}
		}
	}
	if plan.Candidates, err = candidates(argv[0], env, plan.Dir); err != nil {
		return nil, err
	}
	if plan.Capabilities, err = capabilities(p.Capabilities); err != nil {
		return nil, err
	}
	if cores := s.program.Limits.CPUCores; len(cores) > 0 {
		plan.CPUs = new(unix.CPUSet)
		for _, c := range cores {
			plan.CPUs.Set(int(c))
		}
	}
	program := s.filter.Program
	if s.options.Explain && s.supervised() {
		if len(s.filter.Observe) == 0 {
			return nil, &SetupError{[]string{"the artifact holds no observing filter, which --explain-denials needs"}}
		}
		program, plan.ExecIsNotified = s.filter.Observe, true
	}
	plan.ExecIsNotified = plan.ExecIsNotified || s.notifies("execve")
	if plan.Filter, err = kernel.FilterProgram(program); err != nil {
		return nil, &SetupError{[]string{err.Error()}}
	}
	if s.supervised() {
		plan.FilterFlags = kernel.SeccompFlagNewListener | kernel.SeccompFlagWaitKillable
	}
	if s.program.Seccomp.LogDenied {
		plan.FilterFlags |= kernel.SeccompFlagLog
	}
	return plan, nil
}

// capabilities returns the set to keep. The policy may ask for less than the executor has, never for more.
func capabilities(list []uint8) (uint64, error) {
	var keep uint64
	for _, c := range list {
		keep |= 1 << c
	}
	have, err := kernel.Capabilities()
	if err != nil {
		return 0, &SetupError{[]string{err.Error()}}
	}
	var problems []string
	for _, c := range list {
		if have>>c&1 == 0 {
			name, _ := abi.CapabilityName(c)
			problems = append(problems, "program.capabilities: the executor does not have "+name+" itself")
		}
	}
	if len(problems) > 0 {
		return 0, &SetupError{problems}
	}
	return keep, nil
}

// supervise clones the command, confines and hides this process, and answers for the command until all is over.
func (s *sandbox) supervise(plan *stage.Plan, rs *rulesets) (Result, error) {
	before, err := existingChildren()
	if err != nil {
		return Result{}, &SetupError{[]string{err.Error()}}
	}
	if err := kernel.BecomeSubreaper(); err != nil {
		return Result{}, &SetupError{[]string{"become subreaper: " + err.Error()}}
	}
	// The command's domain is then nested in this thread's, which is what lets this thread (and no other)
	// read the command's memory. See the package comment of supervise.
	if err := confineThread(rs.own); err != nil {
		return Result{}, &SetupError{[]string{"confine the executor: " + err.Error()}}
	}
	signals, err := catchSignals(s.program.VerifiesExec())
	if err != nil {
		return Result{}, &SetupError{[]string{err.Error()}}
	}
	started := time.Now()
	child, err := stage.Start(plan)
	if err != nil {
		return Result{}, s.startFailure(err)
	}
	journal := &journal{log: s.options.Audit}
	family := &family{before: before, scoped: rs.scoped}
	confine := func() error {
		if err := confineThread(rs.own); err != nil {
			return err
		}
		_, err := kernel.DropThreadCapabilities(plan.Capabilities)
		return err
	}
	loop, err := supervise.NewLoop(kernel.Listener{FD: child.Listener}, child.PIDFD, confine)
	var handlers wired
	if err == nil {
		handlers, err = s.handlers(child, family, loop, journal)
	}
	if err == nil {
		err = kernel.HideSelf()
	}
	privileged := false
	if err == nil {
		privileged, err = kernel.DropThreadCapabilities(plan.Capabilities)
	}
	var dispatcher *supervise.Dispatcher
	if err == nil {
		dispatcher, err = supervise.NewDispatcher(s.arch, handlers.list, s.isNotified, journal)
	}
	if err != nil {
		child.Abandon()
		return Result{}, &SetupError{[]string{err.Error()}}
	}
	s.options.Audit.Write(audit.Line{Event: "start", PID: child.PID, Argv: plan.Argv})
	life := &lifetime{
		child: child, family: family, terminal: plan.TakeTerminal, refuseForks: handlers.refuseForks,
		limit: s.timeLimit(), started: started, audit: s.options.Audit, asked: map[unix.Signal]bool{},
		tracer: handlers.tracer,
	}
	if privileged {
		loop.Later(func() { go life.dropCapabilities(plan.Capabilities) })
	}
	serveErr := life.watch(loop, signals)
	if serveErr == nil {
		serveErr = loop.Run(dispatcher)
	}
	if serveErr != nil {
		life.killAll() // an unanswered call would hang its caller for ever
	}
	handlers.close()
	result := life.finish()
	if failure := child.Failure(plan); failure != nil && plan.ExecIsNotified {
		return Result{}, s.startFailure(failure)
	}
	result.Denied = handlers.denied()
	s.options.Audit.Write(exitLine(result))
	if err := errors.Join(serveErr, life.failure()); err != nil {
		return result, &SetupError{[]string{"the command was ended because the executor failed: " + err.Error()}}
	}
	return result, nil
}

func exitLine(r Result) audit.Line {
	ms := r.Duration.Milliseconds()
	return audit.Line{Event: "exit", Code: &r.Code, Millis: &ms, Detached: r.Killed}
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
