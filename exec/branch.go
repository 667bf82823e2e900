package exec

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/exec/branchfs"
	"github.com/sandlock-go/sandlock/exec/view"
	"github.com/sandlock-go/sandlock/ir"
)

// BranchResult is what became of the branch of the working directory.
type BranchResult struct {
	ID     string
	Kind   ir.BranchKind
	Action ir.BranchAction // what was done, or was to be done
	Review bool            // the changes were shown and dropped: see [Options.Review]
	Dir    string          // where the branch is kept; "" if it is gone
	Full   bool            // it had no room left at the end (limits.disk)
	Err    error           // why it could not be done: a *branch.ConflictError, *branch.LockError, *branchfs.ConflictError, …
	Code   int             // that the run ends with for Err; 0 if it has one of its own
}

// Exit codes of a run whose command succeeded, and whose changes could not be applied (sysexits.h).
const (
	CodeCommit   = 74 // EX_IOERR: the commit failed
	CodeConflict = 75 // EX_TEMPFAIL: somebody else has changed the same, or is committing
)

// branchSetupError is a SetupError that keeps what it is of: who reads a *branch.UnfinishedError can do something about it.
type branchSetupError struct {
	*SetupError
	cause error
}

func (e *branchSetupError) Unwrap() []error { return []error{e.SetupError, e.cause} }

// workBranch is a branch of the working directory, of one kind or another.
type workBranch interface {
	ID() string
	Dir() string // where it is kept
	Commit() error
	Abort() error
	Keep(ended string) error // ended is how the command did, for who finds the branch
	Full() bool              // it has no room left
	Close()                  // gives up what this process holds of it
}

// openBranch makes the branch of the working directory, and has the view mount it.
func (s *sandbox) openBranch(spec *view.Spec) error {
	b := &s.program.Branch
	var err error
	switch b.Kind {
	case ir.BranchNone:
		if s.options.Review != nil {
			return errors.New("the policy keeps no changes apart, so there are none to be shown instead of made: it needs filesystem.workdir")
		}
		return nil
	case ir.BranchOverlay:
		err = s.openOverlay(spec)
	case ir.BranchFS:
		err = s.openBranchFS(spec)
	default:
		err = fmt.Errorf("branches of kind %d are unknown", b.Kind)
	}
	if err != nil {
		return s.ruleError(b.Origin, err)
	}
	return nil
}

// endBranch does with the changes what the policy says, once nothing of the sandbox is left. Files that another executor or
// person changed meanwhile are left alone. It runs on another thread: this one is confined as the command was, and goes on to
// receive signals (in a descriptor, -1 for none). One that ends programs ends the review of a dry run, and a commit's wait for the
// workdir's lock; a commit that has it is done.
func (s *sandbox) endBranch(r *Result, failed bool, signals int) {
	if s.branch == nil {
		return
	}
	s.view.Close() // what the overlay is mounted in, and the placeholders in it
	if s.options.within != nil {
		s.branch = nil // the transaction decides
		return
	}
	done := make(chan *BranchResult)
	stop := func() {}
	if b, ok := s.branch.(overlayBranch); ok {
		stop = b.Stop
	}
	go func() { done <- s.settleBranch(s.branchAction(r, failed), howEnded(r, failed)) }()
	var b *BranchResult
	for signal := unix.Signal(0); b == nil; {
		select {
		case b = <-done:
			if signal != 0 && errors.Is(b.Err, branch.ErrStopped) {
				r.Code, r.Signal = 128+int(signal), int(signal)
			}
		case <-time.After(reviewPulse):
			if signal = cmp.Or(signal, endingSignal(signals)); signal != 0 {
				stop()
			}
		}
	}
	s.branch = nil
	r.Branch = b
	line := audit.Line{Event: "branch", Path: b.Dir, Verdict: branchWords[b.Action]}
	if b.Full {
		line.Reason = "the sandbox reached limits.disk"
	}
	if b.Err != nil {
		line.Reason = b.Err.Error()
		if r.Code == 0 {
			b.Code = BranchCode(b.Err)
			r.Code = b.Code
		}
	}
	s.options.Audit.Write(line)
}

// reviewPulse is how often the thread looks for a signal while the changes are shown or applied.
const reviewPulse = 50 * time.Millisecond

// endingSignal returns the last signal that waits, of those which end a program; 0 for none.
func endingSignal(fd int) (last unix.Signal) {
	for _, s := range pendingSignals(fd) {
		switch s {
		case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM:
			last = s
		}
	}
	return last
}

var branchWords = map[ir.BranchAction]string{ir.BranchCommit: "commit", ir.BranchAbort: "abort", ir.BranchKeep: "keep"}

// branchAction decides by how the command ended. A run that the executor or a limit has ended is one that failed; what a failing
// executor has let happen is never applied.
func (s *sandbox) branchAction(r *Result, failed bool) ir.BranchAction {
	if failed && s.program.Branch.OnError == ir.BranchCommit {
		return ir.BranchKeep
	}
	if !failed && r.Code == 0 && r.Signal == 0 && !r.TimedOut && r.LimitKills == 0 {
		return s.program.Branch.OnExit
	}
	return s.program.Branch.OnError
}

// howEnded is why changes are kept, for who finds them.
func howEnded(r *Result, failed bool) string {
	switch {
	case failed:
		return "the executor failed"
	case r.TimedOut:
		return "the time limit was over"
	case r.Limit != "":
		return "the sandbox reached " + r.Limit
	case r.Signal != 0:
		return fmt.Sprintf("signal %d", r.Signal)
	}
	return fmt.Sprintf("exit code %d", r.Code)
}

func (s *sandbox) settleBranch(action ir.BranchAction, ended string) *BranchResult {
	b := s.branch
	defer b.Close()
	result := &BranchResult{ID: b.ID(), Kind: s.program.Branch.Kind, Action: action, Full: b.Full()}
	if review := s.options.Review; review != nil {
		result.Review, result.Action = true, ir.BranchAbort
		result.Err = review(b.(overlayBranch).Branch) // other kinds have been refused
		if err := b.Abort(); err != nil {
			result.Err = errors.Join(result.Err, err)
			result.Dir = b.Dir()
		}
		return result
	}
	switch action {
	case ir.BranchCommit:
		result.Err = b.Commit()
	case ir.BranchKeep:
		result.Err = b.Keep(ended)
	default:
		result.Err = b.Abort()
	}
	if result.Dir, result.Err = leftOf(b, result.Err); action == ir.BranchKeep && result.Err == nil {
		result.Dir = b.Dir()
	}
	return result
}

// leftOf says where a branch is left that could not be settled. One whose changes are lost is not.
func leftOf(b interface {
	Dir() string
	Abort() error
}, err error) (dir string, _ error) {
	switch {
	case err == nil:
		return "", nil
	case errors.As(err, new(*branch.LostError)):
		return "", errors.Join(err, b.Abort())
	}
	return b.Dir(), err
}

// BranchCode is the exit code for changes that could not be applied: CodeConflict or CodeCommit.
func BranchCode(err error) int {
	if errors.As(err, new(*branch.LostError)) { // no use in trying again
		return CodeCommit
	}
	var conflict *branch.ConflictError
	var late *branchfs.ConflictError
	var lock *branch.LockError
	if errors.As(err, &conflict) || errors.As(err, &late) || errors.Is(err, branchfs.ErrBusy) || errors.As(err, &lock) && lock.Busy {
		return CodeConflict
	}
	return CodeCommit
}

// dropBranch throws a branch away in which nothing has run; on another thread, as this one may be confined by now.
func (s *sandbox) dropBranch() {
	if s.branch == nil || s.options.within != nil {
		return
	}
	done := make(chan error)
	go func() { done <- s.branch.Abort() }()
	if err := <-done; err != nil {
		fmt.Fprintf(os.Stderr, "sandlock-exec: branch: %v\n", err)
	}
	s.branch.Close()
	s.branch = nil
}
