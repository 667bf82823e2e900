package exec

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/ir"
)

// Transaction is two or more commands on one branch of a working directory (filesystem.workdir), that run one after the other
// or side by side: each sees, and may execute, what those before it have made. If all succeed, what they have changed is
// applied, all or nothing; at the first that fails, or is ended, all of it is dropped. See docs/branch.md.
//
// The policies of the stages may differ, but not in the branch: they name the same working directory and storage, have
// on_exit and on_error at their defaults, no chroot, and a supervisor.
type Transaction struct {
	Stages []Stage

	// Timeout bounds the stages together, not the commit that follows; 0 is no bound. One that is over already, less than 0,
	// lets no stage begin.
	Timeout time.Duration

	// LockWait is how long the commit waits for another one of the same directory; 0 is 30 s, less than 0 is not to wait.
	LockWait time.Duration

	// Changes has the changes listed in the result before they are applied or dropped. For that, what was written is compared
	// with what was there.
	Changes bool

	// Review, if set, makes this a dry run: when all stages have succeeded it is shown the branch, whose changes are then dropped.
	Review func(*branch.Branch) error

	// Savepoints has what stages have done kept, when a later one fails or the transaction is ended: the branch as it was before
	// the stage that was not finished, which another transaction can resume. For that, all that has changed is copied before each
	// stage but the first, as blocks that are shared where the file system can do that.
	Savepoints bool

	// Resume is the directory of a branch that was kept so. The stages that have succeeded must be the same, and are not run
	// again. It means Savepoints.
	Resume string

	Guarded []string // files that no stage may be allowed to write, such as the artifacts

	// Foreground is for a program that does nothing beside: the stages get its terminal, and the signals that it is sent, as
	// the command of sandlock-exec does. SIGINT, SIGTERM, SIGHUP and SIGQUIT end the transaction as a context that is done
	// would, once the stage has ended of them, and a Review; the commit they do not stop. The signals are taken from package os/signal for good.
	// None gets the terminal while several run side by side.
	Foreground bool

	steps    []step
	commands []command // of all of them, in the order in which they are numbered
}

// Stage is a command of a [Transaction], not started yet, or a group of them. The transaction reads a command's standard error:
// what it writes there is in the result, and goes to Stderr as well, if that is set.
type Stage struct {
	*Cmd
	Name string // for messages; "" is the name of the program. That of a group stands before those of its commands

	// Parallel, in the place of Cmd, are commands that run side by side, on one mount of the branch: each sees what the others do
	// there when they do it. The first that fails ends the others. That takes Landlock's signal scope, as every [Cmd] does in a
	// program that has a life of its own.
	Parallel []Stage

	// Stages, in the place of Cmd, are run one after the other; they may have groups that run side by side, and no others. What
	// that is for is Optional, and a savepoint before the first of them alone.
	Stages []Stage

	// Optional has the transaction go on when the command, or one of the group, fails: what the command or the whole group has
	// changed is dropped then. It is for elements of Transaction.Stages, not for those in a group. For it, all that has changed
	// so far is copied first, as for Transaction.Savepoints.
	Optional bool
}

// TransactionOutcome is what became of a transaction.
type TransactionOutcome string

// Outcomes. A transaction that ends with a *[TransactionError] has none.
const (
	Committed TransactionOutcome = "committed" // the changes are in the working directory
	Reviewed  TransactionOutcome = "dry run"   // all stages have succeeded, and the changes were dropped
	Aborted   TransactionOutcome = "aborted"   // the changes were dropped, or kept at a savepoint: the error is an *AbortError
)

// TransactionResult is how a transaction ended.
type TransactionResult struct {
	Outcome TransactionOutcome
	Stages  []StageResult // of commands that have ended by themselves, in that order
	Skipped int           // how many commands were over already, see Transaction.Resume
	Branch  *BranchResult // nil if none was made
	Code    int           // that sandlock-exec ends with

	Changes  []branch.Change // with Transaction.Changes: the first maxChanges
	Unlisted int             // how many more there are
	ListErr  error           // that Changes ends with
}

const maxChanges = 100_000

// StageResult is how a command ended.
type StageResult struct {
	Stage   int        // its number, from 0; groups have none
	Label   string     // for messages: "stage 2 (make)"
	Status  ExitStatus // of a command that could not be executed: its Code, 126 or 127
	Stderr  []byte     // exact up to 64 KiB; beyond, the first and the last 32 KiB
	Err     error      // an *ExitError or *CommandError if it failed
	Dropped bool       // it is optional, or of such a group, and its changes were dropped: it or another one has failed
}

// Exit codes of a transaction, beside a stage's own, [CodeTimeout], [CodeCommit] and [CodeConflict] (sysexits.h).
const (
	CodeInvalid = 78 // EX_CONFIG: it is none; nothing was run
	CodeStage   = 70 // EX_SOFTWARE: a stage could not be set up or supervised
)

// TransactionError is a transaction that could not be driven to its end. Nothing is applied, but where Err says otherwise.
type TransactionError struct {
	Code  int   // CodeInvalid, CodeStage, CodeCommit or CodeConflict
	Stage int   // that it is of, from 0; -1 for none
	Err   error // such as a *SetupError, *branch.ConflictError, *branch.LockError, *branch.CommitError

	label string
}

func (e *TransactionError) Error() string { return e.label + e.Err.Error() }

func (e *TransactionError) Unwrap() error { return e.Err }

// AbortError says why the changes of a transaction were dropped: a stage failed, or it was ended.
type AbortError struct {
	Stage int   // that failed, from 0; -1 if the transaction was ended
	Err   error // *ExitError or *CommandError of the stage; ErrTransactionTimeout, the context's cause, …

	label string
}

func (e *AbortError) Error() string { return e.label + e.Err.Error() }

func (e *AbortError) Unwrap() error { return e.Err }

// ErrTransactionTimeout ends a transaction whose time was over.
var ErrTransactionTimeout = errors.New("the time limit of the transaction is over")

// signalled ends a transaction of this process's own.
type signalled unix.Signal

func (s signalled) Error() string { return "ended by signal: " + unix.Signal(s).String() }

// Run runs the transaction and returns nil if it was committed, or shown in a dry run; else an *[AbortError] or a
// *[TransactionError]. When ctx is done before the last stage has ended, it is aborted; after that the commit goes on.
func (t *Transaction) Run(ctx context.Context) (TransactionResult, error) {
	r := TransactionResult{}
	err := t.run(ctx, &r)
	r.Code = t.code(&r, err)
	return r, err
}

func (t *Transaction) run(ctx context.Context, r *TransactionResult) error {
	shared, err := t.check()
	if err != nil {
		return err
	}
	signals := -1
	if t.Foreground {
		if signals, err = catchSignals(false); err != nil {
			return &TransactionError{Code: CodeStage, Stage: -1, Err: err}
		}
	}
	phase := ctx
	if t.Timeout != 0 {
		var cancel context.CancelFunc
		phase, cancel = context.WithTimeoutCause(ctx, t.Timeout, ErrTransactionTimeout)
		defer cancel()
	}
	if phase.Err() != nil {
		r.Outcome = Aborted
		return &AbortError{Stage: -1, Err: context.Cause(phase)}
	}
	if err = t.open(shared); err != nil {
		return err
	}
	defer shared.branch.Close()
	r.Skipped = shared.done
	run := &stageRun{t: t, shared: shared, signals: signals, result: r}
	for i := range t.steps {
		if s := &t.steps[i]; s.first >= r.Skipped && err == nil {
			err = run.step(phase, s)
		}
	}
	if err == nil && ctx.Err() != nil {
		err = &AbortError{Stage: -1, Err: context.Cause(ctx)}
	}
	return t.settle(ctx, shared, signals, r, err)
}

// defaultLockWait is longer than a run's: the work of several commands is at stake.
const defaultLockWait = 30 * time.Second

// settle does with the branch what the stages' end asks for. No process of theirs is left.
func (t *Transaction) settle(ctx context.Context, shared *sharedBranch, signals int, r *TransactionResult, stages error) error {
	b := shared.branch
	if t.Changes {
		r.list(b)
	}
	result := &BranchResult{ID: b.ID(), Kind: ir.BranchOverlay, Full: b.Full()}
	r.Branch = result
	switch {
	case stages != nil || t.Review != nil:
		var seen error
		if stages == nil {
			result.Review = true
			seen, stages = t.review(ctx, b, signals)
		}
		var err error
		result.Action, result.Dir, err = t.drop(shared, shared.done, stages)
		result.Err = errors.Join(seen, err)
	default:
		result.Action = ir.BranchCommit
		if t.resumable() { // by a commit alone, if this process is killed before that begins
			_ = b.Mark(t.progress(shared.done))
		} else {
			_ = b.Forget() // else it goes with the branch
		}
		wait := t.LockWait
		if wait == 0 {
			wait = defaultLockWait
		}
		result.Err = b.Commit(branch.CommitOptions{Wait: wait})
		result.Dir, result.Err = leftOf(b, result.Err)
	}
	line := audit.Line{Event: "branch", Path: result.Dir, Verdict: branchWords[result.Action]}
	if result.Err != nil {
		line.Reason = result.Err.Error()
	}
	last := 0
	if n := len(r.Stages); n > 0 {
		last = r.Stages[n-1].Stage
	}
	t.commands[last].Audit.Write(line)
	switch {
	case stages != nil:
		if errors.As(stages, new(*AbortError)) {
			r.Outcome = Aborted
		}
		return stages
	case result.Err != nil:
		result.Code = BranchCode(result.Err)
		return &TransactionError{Code: result.Code, Stage: -1, Err: result.Err}
	case t.Review != nil:
		r.Outcome = Reviewed
	default:
		r.Outcome = Committed
	}
	return nil
}

// review shows the changes of a dry run, unless a signal or the context ends that: it may take long, or wait for who reads.
func (t *Transaction) review(ctx context.Context, b *branch.Branch, signals int) (err, abort error) {
	done := make(chan error, 1)
	go func() { done <- t.Review(b) }()
	for {
		select {
		case err := <-done:
			if abort != nil && errors.Is(err, branch.ErrStopped) {
				return nil, abort
			}
			return err, nil
		case <-time.After(reviewPulse):
			if sig := endingSignal(signals); sig != 0 {
				abort = &AbortError{Stage: -1, Err: signalled(sig)}
			} else if ctx.Err() != nil {
				abort = &AbortError{Stage: -1, Err: context.Cause(ctx)}
			}
			if abort != nil {
				b.Stop()
			}
		}
	}
}

// Failed returns how the command ended whose failure is the error of Run; nil if it is another.
func (r *TransactionResult) Failed(err error) *StageResult {
	var abort *AbortError
	if !errors.As(err, &abort) {
		return nil
	}
	for i := range r.Stages {
		if r.Stages[i].Stage == abort.Stage {
			return &r.Stages[i]
		}
	}
	return nil
}

func (r *TransactionResult) list(b *branch.Branch) {
	for c, err := range b.Changes() {
		if err != nil {
			r.ListErr = err
			return
		}
		if len(r.Changes) < maxChanges {
			r.Changes = append(r.Changes, c)
		} else {
			r.Unlisted++
		}
	}
}

// code is what sandlock-exec ends with.
func (t *Transaction) code(r *TransactionResult, err error) int {
	const killed = 128 + int(unix.SIGKILL)
	var driving *TransactionError
	var sig signalled
	switch {
	case err == nil:
		return 0
	case errors.As(err, &driving):
		return driving.Code
	case errors.Is(err, ErrTransactionTimeout):
		return CodeTimeout
	case errors.As(err, &sig):
		return 128 + int(sig)
	}
	if failed := r.Failed(err); failed != nil && failed.Status.Code != 0 {
		return failed.Status.Code
	}
	return killed // by the context, or processes of a stage that itself ended with 0, for a limit
}
