package branch

import (
	"errors"
	"fmt"
	"strings"
)

// ConflictError is a commit that found entries changed outside the branch since it was made. The workdir is as it was, and the
// branch is kept.
type ConflictError struct {
	Workdir string
	Dir     string   // of the branch
	Paths   []string // below the workdir; the first maxConflicts
	More    int      // how many are not in Paths
}

const maxConflicts = 1000

func (e *ConflictError) Error() string { return e.reason() + keptIn(e.Dir) }

// keptIn is the end of a message about a commit that failed. A LostError has the beginning alone: reason.
func keptIn(dir string) string { return fmt.Sprintf("; the branch is kept in %q", dir) }

func (e *ConflictError) reason() string {
	first := make([]string, 0, 3)
	for _, p := range e.Paths[:min(3, len(e.Paths))] {
		first = append(first, fmt.Sprintf("%q", p))
	}
	if n := len(e.Paths) + e.More - len(first); n > 0 {
		first = append(first, fmt.Sprintf("%d more", n))
	}
	return fmt.Sprintf("commit to %q: changed outside the branch: %s", e.Workdir, strings.Join(first, ", "))
}

// LockError is a commit that did not get the workdir's lock: Busy if another executor had it all the time. Err is ErrStopped if
// Stop ended the wait.
type LockError struct {
	Workdir, Dir string
	Busy         bool
	Err          error
}

func (e *LockError) Error() string { return e.reason() + keptIn(e.Dir) }

func (e *LockError) reason() string {
	if errors.Is(e.Err, ErrStopped) {
		return fmt.Sprintf("lock workdir %q: interrupted, while another commit had it", e.Workdir)
	}
	why := ""
	if e.Busy {
		why = ": another commit holds it, or a program by flock(2)"
	}
	return fmt.Sprintf("lock workdir %q: %v%s", e.Workdir, e.Err, why)
}

func (e *LockError) Unwrap() error { return e.Err }

// CommitError is a commit that failed otherwise. Undone tells that the workdir is as it was; if not, [Recover] is to be called
// once what stood in the way is gone.
type CommitError struct {
	Workdir, Dir string
	Undone       bool
	Err          error // names the path
}

func (e *CommitError) Error() string { return e.reason() + keptIn(e.Dir) }

func (e *CommitError) reason() string {
	state := "the workdir is as it was"
	if !e.Undone {
		state = "the workdir needs recovery"
	}
	return fmt.Sprintf("commit to %q: %v; %s", e.Workdir, e.Err, state)
}

func (e *CommitError) Unwrap() error { return e.Err }

// UnfinishedError is a workdir with an interrupted commit of some branch: see [Recover] and [RecoverWorkdir].
type UnfinishedError struct{ Workdir string }

func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("workdir %q has an unfinished commit: recover it first", e.Workdir)
}

var (
	errReserved = errors.New("name is the commit's own")
	errInside   = errors.New("holds the storage of the branch")
	errChanged  = errors.New("changed outside the branch")
	errAppend   = errors.New("is a directory that can only be appended to (chattr +a): no commit could be undone")
	errMounted  = errors.New("is a mount point: what is mounted in the workdir is no part of a branch")
)
