package exec

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// UnconfinableError lists what a policy asks for and [Confine] cannot do to a process that already runs.
type UnconfinableError struct{ Fields []string }

func (e *UnconfinableError) Error() string {
	return "a running process cannot be given: " + strings.Join(e.Fields, ", ") + "; start a command instead"
}

// ConfineOptions is one confinement of the current process.
type ConfineOptions struct {
	Params map[string]string // values of the policy's parameters
}

// Confine puts the current process under the artifact's policy, all of its threads, for good: no_new_privs, Landlock
// rules and scopes, the system call filter, capabilities. The policy must be one without a supervisor
// (program.no_supervisor), since a process cannot supervise itself. What else cannot be done to a process that already
// runs is refused with an [UnconfinableError] that names every such field, before anything has changed. Descriptors that
// are open stay open and usable.
//
// When it returns an error that is not a *[SetupError] or *[UnconfinableError], part of the confinement is in force; end
// the process then.
func Confine(a *Artifact, o ConfineOptions) error {
	if fields := unconfinable(a.Program); len(fields) > 0 {
		return &UnconfinableError{fields}
	}
	s, err := newSandbox(Options{Artifact: a, Params: o.Params, Environ: []string{}})
	if err != nil {
		return err
	}
	host := kernel.ProbeForStart()
	problems := unmet(s.program, host)
	handled, lacking := handledHere(&s.program.Landlock, host.LandlockABI)
	if problems = append(problems, lacking...); len(problems) > 0 {
		return &SetupError{problems}
	}
	bound, unbound := bind(s.program, o.Params, nil, "")
	if len(unbound) > 0 {
		return &SetupError{unbound}
	}
	s.bound = bound
	rs, problems := s.confinement(handled)
	defer rs.close()
	if len(problems) > 0 {
		return &SetupError{problems}
	}
	s.resolveGrants()
	if ok, _, _ := s.grants("/proc/self", abi.FSReadDir); kernel.HasC && !ok {
		// Its threads are found in /proc, and must be found once more after the first of them is confined.
		return &SetupError{[]string{"a program with C code can be confined only by a policy that grants /proc; build it with CGO_ENABLED=0, or start a command instead"}}
	}
	keep, err := capabilities(s.program.Process.Capabilities)
	if err != nil {
		return err
	}
	filter, err := kernel.FilterProgram(s.filter.Program)
	if err != nil {
		return &SetupError{[]string{err.Error()}}
	}
	var flags uintptr
	if s.program.Seccomp.LogDenied {
		flags |= kernel.SeccompFlagLog
	}
	if err := s.limitSelf(); err != nil {
		return err
	}
	if err := kernel.DropCapabilities(keep); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := rs.command.RestrictProcess(); err != nil {
		return fmt.Errorf("confine the process: %w", err)
	}
	return kernel.FilterProcess(filter, flags)
}

// limitSelf sets what belongs to the process as a whole.
func (s *sandbox) limitSelf() error {
	p := &s.program.Process
	if n := uint64(s.program.Limits.OpenFiles); n > 0 {
		var now unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
			return fmt.Errorf("limit open files: %w", err)
		}
		n = min(n, now.Cur, now.Max)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit open files: %w", err)
		}
	}
	if p.NoCoredump {
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
			return fmt.Errorf("disable core dumps: %w", err)
		}
	}
	if p.NoHugePages {
		if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("disable transparent huge pages: %w", err)
		}
	}
	return nil
}

// unconfinable lists the fields of a program that only a new process can have.
func unconfinable(p *ir.Program) []string {
	var fields []string
	add := func(field string, used bool) {
		if used {
			fields = append(fields, field)
		}
	}
	proc, l := &p.Process, &p.Limits
	supervised := proc.Start != ir.StartInPlace
	add("a supervisor (write program.no_supervisor: true)", supervised)
	add("program.exec", proc.Exec != "")
	add("program.args", len(proc.Args) > 0)
	add("program.env", len(proc.Env) > 0)
	add("program.clean_env", proc.CleanEnv)
	add("program.cwd", proc.Cwd != "")
	add("determinism.no_randomize_memory", proc.NoRandomizeMemory)
	add("limits.cpu_cores", len(l.CPUCores) > 0)
	for _, m := range p.Mechanisms {
		if supervised && (m.Choice == "supervisor" || strings.Contains(m.Choice, "notify")) && !slices.Contains(fields, m.Feature) {
			fields = append(fields, m.Feature)
		}
	}
	for i := range p.Landlock.Paths {
		if names, _ := ir.Names(p.Landlock.Paths[i].Path); slices.Contains(names, "tmp") {
			add("${tmp}", !slices.Contains(fields, "${tmp}"))
		}
	}
	return fields
}
