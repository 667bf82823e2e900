package exec

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/helper"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/exec/view"
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
	shared         bool // this process has a life beside the sandbox: it is a Go program that uses Cmd
	needsRealPaths bool // everything granted is asked for
	writes         bool // something can be written: then, too, it matters where every rule leads
	opened         []opened
	covered        map[string]covered // by real path: what the view closes and keeps unchanged
	mounted        []ir.ViewMount     // as bound for this run, links resolved
	root           kernel.Root        // of the command's view; own in a direct start
	reach          ir.Landlock        // the ruleset as bound for this run, see reach.go
	rules          []ir.DynamicRule
	groups         groups
	net            ir.Net // the network policy as bound for this run
	board          *board // who shows the virtual ports; nil if nobody does
	pins           *pins
	learned        *learned         // what the resolver has found; nil without one
	resolver       *helper.Resolver // nil where the policy has none
	proxy          *proxy           // nil where the policy has none

	branch    workBranch // of the working directory, as long as nothing is decided about it; nil without one
	childless bool       // this process had no children before the keeper of the view's namespaces

	view     *view.View   // nil in a direct start
	sources  []source     // what it mounts of the host
	startDir string       // where the command starts, "" for where this process is
	moving   []*view.File // files of the machine that change while the sandbox runs
}

// supervised reports whether a supervisor stays around the command.
func (s *sandbox) supervised() bool { return s.program.Process.Start != ir.StartInPlace }

// Run starts the command and returns when it and all of its descendants are gone. The caller must have locked the
// goroutine to the process's main thread (runtime.LockOSThread in an init function): the thread that clones the
// command is the one that may read its memory, and the one whose death takes the command with it. Run confines this
// process for good; it is meant to be the last thing that a process does. Programs that go on use [Artifact.Command].
func Run(o Options) (Result, error) {
	defer o.Freezer.end()
	s, err := newSandbox(o)
	if err != nil {
		return Result{}, err
	}
	plan, rs, err := s.prepare()
	defer s.cleanUp()
	if rs != nil {
		defer rs.close()
	}
	if err != nil {
		return Result{}, err
	}
	if err := s.openBoard(); err != nil {
		return Result{}, err
	}
	if !s.supervised() {
		return Result{}, s.becomeCommand(plan, rs)
	}
	r, err := s.start(plan, rs)
	if err != nil {
		return Result{}, err
	}
	return r.serve()
}

func newSandbox(o Options) (*sandbox, error) {
	p := o.Artifact.Program
	s := &sandbox{options: o, program: p}
	s.needsRealPaths = o.Explain || p.Determinism.Random || p.Limits.MachineFiles || p.HeldEvents()&ir.EventFile != 0 || makesSockets(p)
	arch, ok := abi.ParseArch(runtime.GOARCH)
	if ok {
		s.arch = arch
		s.filter, ok = s.program.Filter(arch)
	}
	if !ok {
		return nil, &SetupError{[]string{fmt.Sprintf("the artifact holds no filter for %s; it was compiled for %v", runtime.GOARCH, s.program.Target.Arches)}}
	}
	if s.showsHosts() || s.listsPorts() || len(p.HTTP.InjectCA) > 0 || p.View.Mount {
		s.needsRealPaths = true
	}
	return s, nil
}

// prepare does everything that can fail before a process exists, and reports all failures together.
func (s *sandbox) prepare() (*stage.Plan, *rulesets, error) {
	host := kernel.ProbeForStart()
	s.findGroups(&host)
	problems := unmet(s.program, host)
	handled, lacking := handledHere(&s.program.Landlock, host.LandlockABI)
	problems = append(problems, lacking...)
	if len(problems) > 0 {
		return nil, nil, &SetupError{problems}
	}
	var unbound []string
	s.bound, unbound = bind(s.program, s.options.Params, s.options.Environ, s.options.dir)
	if len(unbound) > 0 {
		return nil, nil, &SetupError{unbound}
	}
	if err := s.openView(); err != nil { // before anything is looked up in it
		return nil, nil, err
	}
	if unbound = append(s.bindRules(), s.bindNet()...); len(unbound) > 0 {
		return nil, nil, &SetupError{unbound}
	}
	if err := s.listen(); err != nil {
		return nil, nil, &SetupError{[]string{err.Error()}}
	}
	rs, problems := s.confinement(handled)
	if len(problems) > 0 {
		return nil, rs, &SetupError{problems}
	}
	if err := s.makeGroup(); err != nil {
		return nil, rs, &SetupError{[]string{err.Error()}}
	}
	plan, err := s.plan(rs)
	if err != nil {
		return nil, rs, err
	}
	if problems := s.pinNames(); len(problems) > 0 {
		return nil, rs, &SetupError{problems}
	}
	if err := s.startResolver(); err != nil {
		return nil, rs, &SetupError{[]string{err.Error()}}
	}
	if problems := s.startProxy(); len(problems) > 0 {
		return nil, rs, &SetupError{problems}
	}
	if problems := s.finishView(); len(problems) > 0 {
		return nil, rs, &SetupError{problems}
	}
	s.tellOfStorages()
	return plan, rs, nil
}

// plan maps the program's process section to a start.
func (s *sandbox) plan(rs *rulesets) (*stage.Plan, error) {
	p := &s.program.Process
	argv, err := commandLine(p, s.options.Command, s.bound.lookup)
	if err != nil {
		return nil, &SetupError{[]string{err.Error()}}
	}
	env, err := environment(p, withoutSecrets(s.options.Environ, &s.program.HTTP), s.bound.lookup)
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
		TakeTerminal:      !s.shared && ownsTerminal(),
		Streams:           s.options.streams,
		Park:              s.options.park,
	}
	if s.groups.group != nil {
		plan.Cgroup = s.groups.group.FD()
	}
	if plan.Dir = s.options.dir; p.Cwd != "" {
		if plan.Dir, err = ir.ExpandPath(p.Cwd, s.bound.lookup); err != nil {
			return nil, &SetupError{[]string{"program.cwd: " + err.Error()}}
		}
	}
	s.enterView(plan)
	s.startDir = plan.Dir
	if plan.Candidates, err = candidates(s.root, argv[0], env, plan.Dir); err != nil {
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
	if program, err = s.options.hooks.filter(program); err != nil {
		return nil, &SetupError{[]string{err.Error()}}
	}
	// A handler of the program may want any call of the start: the parent must be awake to see that it hangs.
	plan.ExecIsNotified = plan.ExecIsNotified || s.notifies("execve") || s.options.hooks.any()
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
