// Package exec loads a sealed artifact, installs it and supervises the command.
//
// Go programs use [Load] (or [Default]) and [Artifact.Command], which is shaped like os/exec; [Cmd.Handle] lets them answer
// system calls, and [Confine] puts the program itself under a policy. [Run] is what sandlock-exec does: it takes the
// process over.
//
// In: an artifact's program, a command line, parameter values. Out: the command's exit status as a [Result], and an
// audit stream. It maps the program's fields to kernel calls one to one and makes no policy decision of its own: what a
// notified call may do is asked of ir/query. It never imports the compiler or CUE.
//
// The reading order follows a start: load.go (bytes to program), host.go (does this machine offer what the program
// requires), bind.go (parameters), ruleset.go (Landlock), cgroup.go (control groups, where the policy chose them),
// environment.go and command.go (what is started), run.go (what is prepared), supervise.go (confine, clone, serve),
// wire.go (which handlers answer which calls), lifetime.go and tree.go (signals, time, the terminal, and that nothing
// outlives the command), stops.go and freezer.go (what the executor stops the sandbox for); cmd.go, streams.go, hooks.go
// and confine.go for Go programs; branch.go and transaction.go (what becomes of changes to the working directory);
// denial.go for what is reported.
package exec

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/ir"
)

// Exit codes of sandlock-exec, beside the command's own and 128+N for a signal N.
const (
	CodeTimeout       = 124 // limits.time or --timeout ran out
	CodeSetup         = 125 // the sandbox could not be set up
	CodeNotExecutable = 126 // the command cannot be executed
	CodeNotFound      = 127 // the command is not found
)

// Options is one run.
type Options struct {
	Artifact *Artifact
	Command  []string          // overrides the program's own command
	Params   map[string]string // -p name=value
	Environ  []string          // what the command inherits from, as os.Environ returns it
	Timeout  time.Duration     // narrows limits.time; 0 keeps it
	Audit    *audit.Log        // nil discards
	Explain  bool              // observe calls that Landlock or the filter would refuse, and report them
	Cgroup   string            // cgroup v2 directory for limits.backend "cgroup"; "" is the one that this process is in
	Guarded  []string          // files that no write grant may contain: the artifact, the audit file

	ShowPorts bool // let the user's other processes see the virtual ports, by ListPorts

	Freezer *Freezer // pauses and resumes the run; nil if nobody will

	Helper      string           // the program sandlock-proxy; "" is the one beside this program
	Nameservers []netip.AddrPort // that names are asked of where the policy has a resolver; none: those of the host

	// Review, if set, is shown the branch of the working directory instead of what the policy would do with it; its changes are
	// dropped then. A policy without a branch is refused, and one with a branch of a BranchFS, which does not tell what has changed.
	Review func(*branch.Branch) error

	streams *[3]int // see stage.Plan
	within  *place  // in the transaction that this is a stage of; nil if it is none
	park    bool
	dir     string // working directory where the policy sets none; "" is the executor's
	hooks   hooks
}

// Result is how a run ended.
type Result struct {
	Code           int // what sandlock-exec exits with
	Signal         int // signal that ended the command, 0 if none
	TimedOut       bool
	Duration       time.Duration
	Limit          string // the limit that processes were killed for, as in "limits.memory (64M)"; "" if none were
	LimitKills     int    // how many
	LimitedCommand bool   // the command itself was one of them
	Killed         int    // descendants that were still alive when the command ended
	Peak           Peak
	Branch         *BranchResult // nil without a branch
	Denied         []Denial      // what Explain observed, in order of first occurrence
}

// SetupError says why a sandbox could not be set up: every reason at once, one a line.
type SetupError struct{ Reasons []string }

func (e *SetupError) Error() string {
	if len(e.Reasons) == 1 {
		return e.Reasons[0]
	}
	return "the sandbox cannot be set up:\n\t" + strings.Join(e.Reasons, "\n\t")
}

// CommandError says that the command itself could not be executed.
type CommandError struct {
	Code int // CodeNotExecutable or CodeNotFound
	Err  error
	Hint string
}

func (e *CommandError) Error() string { return e.Err.Error() }

func (e *CommandError) Unwrap() error { return e.Err }

// where renders the place in the policy that an item comes from, for messages.
func where(p *ir.Program, ref ir.OriginRef) string {
	o, ok := p.Origin(ref)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", o.File, o.Line, o.Col)
}

// rulePath renders the policy path of an item.
func rulePath(p *ir.Program, ref ir.OriginRef) string {
	o, ok := p.Origin(ref)
	if !ok {
		return ""
	}
	return o.Path
}
