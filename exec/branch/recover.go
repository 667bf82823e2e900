package branch

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Outcome is what a recovery found and did.
type Outcome string

// The outcomes.
const (
	Nothing   Outcome = "nothing to recover" // no commit was under way
	Undone    Outcome = "undone"             // the workdir is as it was; the branch, if there is one, is kept
	Completed Outcome = "completed"          // the workdir has all changes; the branch is gone

	// The workdir is as it was, and the branch is gone: see Options.Disk.
	Lost Outcome = "undone; the changes were in memory, and are lost"
)

// Recover ends the commit of a branch that was interrupted, be it by a kill, power loss or an error that stood in its way. It
// may be interrupted itself, and be called as often as one likes.
func Recover(base, id string) (Outcome, error) {
	b, err := Open(base, id)
	if err != nil {
		return Nothing, err
	}
	defer b.Close()
	return b.recover()
}

func (b *Branch) recover() (Outcome, error) {
	if err := b.lock(0); err != nil {
		return Nothing, err
	}
	defer b.unlock()
	k, err := b.kept()
	if err != nil {
		return Nothing, err
	}
	s, state, err := openStage(b.sys, b.workdir)
	if err != nil {
		return Nothing, err
	}
	if s != nil {
		defer s.close()
		if s.id.ID != "" && s.id.ID != b.id {
			return Nothing, &UnfinishedError{Workdir: b.notes.Workdir} // another branch's
		}
	}
	switch {
	case k != nil && k.Done, state == stateCommitted:
		if s != nil {
			final, err := s.final()
			if k != nil && k.Done {
				final, err = k.Root, nil
			}
			if err == nil {
				err = b.finish(s, final)
			}
			if err != nil {
				return Nothing, b.failed(err, false)
			}
		} else if err := setMeta(b.sys, b.workdir, k.Root); err != nil {
			return Nothing, b.failed(opError("restore", "", err), false)
		}
		return Completed, b.discard()
	case s != nil:
		if s.id.Root == nil && k != nil { // it was not written yet
			s.id.Root = k.Root
		}
		if err := b.undo(s); err != nil {
			return Nothing, b.failed(err, false)
		}
		return b.undone()
	case k != nil && k.Reason == ReasonInterrupted: // between the marker and the stage, or the stage and the marker
		if k.Root != nil {
			if err := setMeta(b.sys, b.workdir, k.Root); err != nil {
				return Nothing, b.failed(opError("restore", "", err), false)
			}
		}
		return b.undone()
	}
	return Nothing, nil
}

// undone is a branch whose commit was undone.
func (b *Branch) undone() (Outcome, error) {
	if b.upper < 0 {
		return Lost, b.discard()
	}
	return Undone, b.defers(errInterrupted)
}

var errInterrupted = errors.New("the commit was interrupted, and undone")

// final is what the workdir itself is to have after a commit.
func (s *stage) final() (root *meta, err error) {
	root = s.id.Root
	err = s.each(func(r *record) error {
		if r.Op == opEnd && len(r.Path) == 0 {
			root = r.After
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) { // removed already
		err = nil
	}
	return root, err
}

// RecoverWorkdir is [Recover] for a workdir whose branch is gone, as when the storage was in memory and the power was lost: the
// journal is in the workdir. Where the branch is there, it must be recovered by its name.
func RecoverWorkdir(workdir string) (Outcome, error) {
	b := &Branch{sys: kernelSys{}, dir: -1, upper: -1, workdir: -1, notes: notes{Workdir: workdir}}
	defer b.Close()
	if err := b.openWorkdir(true); err != nil {
		return Nothing, err
	}
	if err := b.lock(0); err != nil {
		return Nothing, err
	}
	defer b.unlock()
	s, state, err := openStage(b.sys, b.workdir)
	if err != nil || s == nil {
		return Nothing, err
	}
	defer s.close()
	if state == stateCommitted {
		final, err := s.final()
		if err == nil {
			err = s.remove(final)
		}
		if err != nil {
			return Nothing, fmt.Errorf("recover workdir %q: %w", workdir, err)
		}
		return Completed, nil
	}
	if err := b.undo(s); err != nil {
		return Nothing, fmt.Errorf("recover workdir %q: %w", workdir, err)
	}
	return Undone, nil
}

// Unfinished returns the name of the branch whose commit a workdir has a stage of; "" if there is none.
func Unfinished(workdir string) (id string, err error) {
	fd, err := unix.Open(workdir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("workdir %q: %w", workdir, err)
	}
	defer unix.Close(fd)
	s, _, err := openStage(kernelSys{}, fd)
	if err != nil || s == nil {
		return "", err
	}
	defer s.close()
	return s.id.ID, nil
}
