package exec

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/view"
	"github.com/sandlock-go/sandlock/ir"
)

// BranchResult is what became of the branch of the working directory.
type BranchResult struct {
	ID     string
	Action ir.BranchAction // what was done, or was to be done
	Review bool            // the changes were shown and dropped: see [Options.Review]
	Dir    string          // where the branch is kept; "" if it is gone
	Full   bool            // it had no room left at the end (limits.disk)
	Err    error           // why it could not be done: a *branch.ConflictError, *branch.LockError, …
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

// openBranch makes the branch of the working directory, and has the view mount it.
func (s *sandbox) openBranch(spec *view.Spec) error {
	b := &s.program.Branch
	if b.Kind == ir.BranchNone {
		if s.options.Review != nil {
			return errors.New("the policy keeps no changes apart, so there are none to be shown instead of made: it needs filesystem.workdir")
		}
		return nil
	}
	fail := func(err error) error { return s.ruleError(b.Origin, err) }
	target, lower, err := s.workdir(spec.Root)
	if err != nil {
		return fail(err)
	}
	storage := ""
	if b.Storage != "" {
		if storage, err = ir.ExpandPath(b.Storage, s.bound.lookup); err != nil {
			return fail(err)
		}
	}
	base, err := branch.Base(storage)
	if err != nil {
		return fail(err)
	}
	if base, err = filepath.EvalSymlinks(base); err != nil {
		return fail(err)
	}
	if err := s.placeable(spec, target, base); err != nil {
		return fail(err)
	}
	options := branch.Options{Disk: b.Disk}
	if s.branch, err = branch.New(base, lower, options); err != nil {
		return fail(err)
	}
	overlay := &view.Overlay{Target: target, Options: branch.OverlayOptions(options), Bytes: b.Disk, Place: s.branch.Place}
	overlay.Lower, overlay.Upper, overlay.Work = s.branch.Layers()
	spec.Overlay = overlay
	return nil
}

// workdir returns the working directory of the branch as the command names it, and as the host does, both with links resolved.
func (s *sandbox) workdir(root string) (target, host string, err error) {
	path, err := ir.ExpandPath(s.program.Branch.Workdir, s.bound.lookup)
	if err != nil {
		return "", "", err
	}
	within := kernel.Root{}
	if root != "" {
		fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", "", &os.PathError{Op: "open", Path: root, Err: err}
		}
		defer unix.Close(fd)
		within = kernel.NewRoot(fd)
	}
	real, err := within.Real(path) // it is not mounted yet, but the links in it are the root's
	if err != nil {
		return "", "", err
	}
	return real, filepath.Join(root, real), nil
}

// placeable repeats with what paths lead to what the compiler has checked of their texts.
func (s *sandbox) placeable(spec *view.Spec, target, base string) error {
	b := ir.Branch{Workdir: target, Storage: base}
	v := s.program.View
	v.Root, v.Mounts = spec.Root, nil
	for _, m := range spec.Mounts {
		source := m.Source
		if real, err := filepath.EvalSymlinks(source); err == nil {
			source = real
		}
		v.Mounts = append(v.Mounts, ir.ViewMount{Target: m.Target, Source: source, ReadOnly: m.ReadOnly})
	}
	var l ir.Landlock
	for i := range s.program.Landlock.Paths {
		r := s.program.Landlock.Paths[i]
		path, err := ir.ExpandPath(r.Path, s.bound.lookup)
		if err != nil {
			return err
		}
		r.Path = path
		l.Paths = append(l.Paths, r)
		if real, err := filepath.EvalSymlinks(v.HostPath(path)); err == nil && v.Root == "" && real != path {
			r.Path = real
			l.Paths = append(l.Paths, r)
		}
	}
	return b.Misplaced(&v, &l)
}

// endBranch does with the changes what the policy says, once nothing of the sandbox is left. Files that another executor or
// person changed meanwhile are left alone. It runs on another thread: this one is confined as the command was, and goes on to
// receive signals (in a descriptor, -1 for none). One that ends programs ends the review of a dry run; what is decided is done.
func (s *sandbox) endBranch(r *Result, failed bool, signals int) {
	if s.branch == nil {
		return
	}
	s.view.Close() // what the overlay is mounted in, and the placeholders in it
	done := make(chan *BranchResult)
	opened := s.branch
	go func() { done <- s.settleBranch(s.branchAction(r, failed), howEnded(r, failed)) }()
	var b *BranchResult
	for signal := unix.Signal(0); b == nil; {
		select {
		case b = <-done:
			if b.Review && signal != 0 && errors.Is(b.Err, branch.ErrStopped) {
				r.Code, r.Signal = 128+int(signal), int(signal)
			}
		case <-time.After(reviewPulse):
			if signal = cmp.Or(signal, endingSignal(signals)); signal != 0 {
				opened.Stop()
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

// reviewPulse is how often the thread looks for a signal while the changes are shown.
const reviewPulse = 50 * time.Millisecond

// endingSignal returns the last signal that waits, of those which end a program; 0 for none.
func endingSignal(fd int) (last unix.Signal) {
	if fd < 0 {
		return 0
	}
	var pending [64]byte
	n, err := unix.Read(fd, pending[:])
	if err != nil {
		return 0
	}
	for _, b := range pending[:n] {
		switch s := unix.Signal(b); s {
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
	result := &BranchResult{ID: b.ID(), Action: action, Full: b.Full()}
	if review := s.options.Review; review != nil {
		result.Review, result.Action = true, ir.BranchAbort
		result.Err = review(b)
		if err := b.Abort(); err != nil {
			result.Err = errors.Join(result.Err, err)
			result.Dir = b.Dir()
		}
		return result
	}
	switch action {
	case ir.BranchCommit:
		result.Err = b.Commit(branch.CommitOptions{})
	case ir.BranchKeep:
		result.Err = b.Keep(ended)
		result.Dir = b.Dir()
	default:
		result.Err = b.Abort()
	}
	if result.Err != nil {
		result.Dir = b.Dir()
	}
	if errors.As(result.Err, new(*branch.LostError)) { // then there is nothing to keep
		result.Dir = ""
		result.Err = errors.Join(result.Err, b.Abort())
	}
	return result
}

// BranchCode is the exit code for changes that could not be applied: CodeConflict or CodeCommit.
func BranchCode(err error) int {
	if errors.As(err, new(*branch.LostError)) { // no use in trying again
		return CodeCommit
	}
	var conflict *branch.ConflictError
	var lock *branch.LockError
	if errors.As(err, &conflict) || errors.As(err, &lock) && lock.Busy {
		return CodeConflict
	}
	return CodeCommit
}

// dropBranch throws a branch away in which nothing has run; on another thread, as this one may be confined by now.
func (s *sandbox) dropBranch() {
	if s.branch == nil {
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
