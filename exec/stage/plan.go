package stage

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/stage/inherited"
)

// Plan is everything a child needs before it becomes the command.
type Plan struct {
	Candidates []string // absolute or relative paths, tried in order as execvp(3) does
	Argv       []string
	Env        []string
	Dir        string // working directory; "" keeps the executor's

	Namespaces *Namespaces // that the command is started in; nil are the executor's
	DropGroups bool        // supplementary groups, before the namespaces are joined

	Cgroup       int // descriptor of the control group that the command is born in, from 3 on; 0 is the executor's
	RulesetFD    int // Landlock ruleset of the command
	Filter       *unix.SockFprog
	FilterFlags  uintptr // for seccomp(2); with a listener flag the parent gets the descriptor
	TakeTerminal bool    // make the child's process group the foreground group of descriptor 0
	Streams      *[3]int // descriptors, from 3 on, that become 0, 1 and 2; nil keeps the executor's

	OpenFiles         uint64 // soft and hard RLIMIT_NOFILE, capped to what was inherited; 0 restores what was inherited
	CPUs              *unix.CPUSet
	Capabilities      uint64 // bits kept in every set
	NoCoredump        bool
	NoHugePages       bool
	NoRandomizeMemory bool

	// ExecIsNotified says that the filter notifies execve. The parent must then run while the child execs, so the
	// child gets a copy of the address space instead of borrowing it.
	ExecIsNotified bool

	// Park has the child wait, confined, for [Child.Release] before its execve.
	Park bool
}

// shares tells whether the child borrows the address space, and the parent sleeps until its execve.
func (p *Plan) shares() bool { return !p.ExecIsNotified && !p.Park }

// Child is a started command.
type Child struct {
	PID      int
	PIDFD    int
	Listener int // -1 without a listener
	report   int // our end; holds a StepError if a step failed after the child was ready
}

// StepError is a failure in the child before the command ran.
type StepError struct {
	Step Step
	Err  syscall.Errno
	Path string // for StepExec: the candidate that came closest
}

func (e *StepError) Error() string {
	if e.Step == StepExec {
		return fmt.Sprintf("exec %s: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Step, e.Err)
}

func (e *StepError) Unwrap() error { return e.Err }

// Step is a step of the child's start.
type Step uint32

// Steps, in the order in which the child takes them.
const (
	StepJoin Step = iota + 1
	StepProcessGroup
	StepParentDeath
	StepParentGone
	StepPersonality
	StepAffinity
	StepHugePages
	StepCoredump
	StepReadable
	StepDir
	StepCapabilities
	StepNoNewPrivs
	StepLandlock
	StepSeccomp
	StepDescriptors
	StepOpenFiles
	StepPark
	StepExec
)

var stepNames = map[Step]string{
	StepJoin:         "join namespaces",
	StepProcessGroup: "new process group",
	StepParentDeath:  "set parent-death signal",
	StepParentGone:   "parent died",
	StepPersonality:  "disable address space randomisation",
	StepAffinity:     "set CPU affinity",
	StepHugePages:    "disable transparent huge pages",
	StepCoredump:     "disable core dumps",
	StepReadable:     "become readable for the supervisor",
	StepDir:          "change directory",
	StepCapabilities: "drop capabilities",
	StepNoNewPrivs:   "set no_new_privs",
	StepLandlock:     "enforce Landlock ruleset",
	StepSeccomp:      "install seccomp filter",
	StepDescriptors:  "set up descriptors",
	StepOpenFiles:    "limit open files",
	StepPark:         "wait for the start",
	StepExec:         "exec",
}

func (s Step) String() string { return stepNames[s] }

// openFiles returns the soft and hard limit for the command. A policy's number never widens what was inherited.
func (p *Plan) openFiles() unix.Rlimit {
	in := inherited.OpenFiles
	if p.OpenFiles == 0 {
		return unix.Rlimit{Cur: in.Cur, Max: in.Max}
	}
	n := min(p.OpenFiles, in.Cur, in.Max)
	return unix.Rlimit{Cur: n, Max: n}
}

var errNoCandidate = errors.New("no path to execute")
