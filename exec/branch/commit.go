package branch

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A commit is this:
//
//  1. It takes the lock of the workdir (flock on the directory itself), for as long as it lasts.
//  2. It plans (plan.go): the changes are found and compared, all that is new is made in the stage, a directory in the workdir.
//     Conflicts and most other failures come to light here: then the stage is removed, and nothing else was changed.
//  3. All that was made is synced, and the journal, and then the state is "planned".
//  4. It applies (apply.go): each name is exchanged with what the stage has for it, in one rename. What was there goes to the
//     stage by that. After each, that what came out is what was planned with: so a change between 2 and 4 is a conflict too.
//     Then the directories in which names changed get their modes and times. All of that is synced.
//  5. The state is "committed". This is the one step before which a crash means the old tree, and after which the new one.
//  6. The originals, the stage, and the branch are removed.
//
// A failure or crash between 3 and 5 is undone by the journal, each record by what it finds at its name: an undo may be
// interrupted and begin again. Everybody else sees names change one by one during 4, each from old to new without a gap
// (where the file system has RENAME_EXCHANGE; else with one): no file system exchanges trees.
//
// Not covered: a power loss of a disk that acknowledges what it did not write; names that others change while the commit or
// the undo is at them, other than by what the checks find.

// CommitOptions say how to commit.
type CommitOptions struct {
	Wait time.Duration // for the workdir's lock; 0 is 5 s
	// Force takes over what was changed outside meanwhile, where what the branch did not touch stays as it is; and commits what
	// there is of an incomplete branch.
	Force bool
}

const (
	lockWait = 5 * time.Second
	lockPoll = 20 * time.Millisecond
)

// kept is the file "kept" of a branch.
type kept struct {
	Reason string
	Detail string
	Root   *meta `json:",omitempty"` // the workdir's, before a commit began
	Ctime  stamp `json:",omitempty"` // that an undone commit left the workdir with, if nobody else had changed it
	Dirty  bool  `json:",omitempty"` // somebody else had
	Done   bool  `json:",omitempty"` // the commit is over but for the cleanup; Root is what the workdir is to have
	Synced bool  `json:",omitempty"` // the upper was on disk before this was
	Lost   bool  `json:",omitempty"` // not all of the upper could be written
}

// Keep marks a branch as one to be kept. The branch and the marker are on disk when it returns.
func (b *Branch) Keep(detail string) error {
	if err := b.save(); err != nil {
		return b.unsaved(nil, err)
	}
	k, err := b.marked(&kept{Reason: ReasonKept, Detail: detail})
	if k == nil {
		return err
	}
	return errors.Join(err, b.keep(k))
}

func (b *Branch) keep(k *kept) error {
	text, err := json.Marshal(k)
	if err == nil {
		err = b.syncNotes()
	}
	if err == nil {
		err = writeFile(b.sys, b.dir, "kept", text)
	}
	return opError("mark branch", b.Dir(), err)
}

// interrupted marks a branch while a commit of it is under way. What is known of the upper stays.
func (b *Branch) interrupted(k *kept) error {
	was, err := b.kept()
	if err != nil {
		return err
	}
	k.Reason = ReasonInterrupted
	if was != nil {
		k.Synced, k.Lost = was.Synced, was.Lost
	}
	return b.keep(k)
}

// kept returns the marker; nil if there is none.
func (b *Branch) kept() (*kept, error) {
	text, err := readFile(b.dir, "kept")
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err != nil {
		return nil, opError("read marker of branch", b.Dir(), err)
	}
	return &k, nil
}

// lock takes the workdir's lock. Stop ends the wait for it.
func (b *Branch) lock(wait time.Duration) error {
	if wait == 0 {
		wait = lockWait
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(lockPoll) {
		err := again(func() error { return unix.Flock(b.workdir, unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil {
			return nil
		}
		busy := errors.Is(err, unix.EWOULDBLOCK)
		if busy && b.stopped.Load() {
			busy, err = false, ErrStopped
		}
		if !busy || time.Now().After(deadline) {
			return &LockError{Workdir: b.notes.Workdir, Dir: b.Dir(), Busy: busy, Err: err}
		}
	}
}

func (b *Branch) unlock() { _ = unix.Flock(b.workdir, unix.LOCK_UN) }

// unfinished tells whether a workdir has the stage of a commit that nobody is at. One that somebody is at ends soon.
func unfinished(workdir int) bool {
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockPoll) {
		st, err := lookup(workdir, stageName)
		if err != nil || st == nil {
			return false
		}
		if unix.Flock(workdir, unix.LOCK_SH|unix.LOCK_NB) == nil {
			defer unix.Flock(workdir, unix.LOCK_UN)
			st, err := lookup(workdir, stageName)
			return err == nil && st != nil
		}
		if time.Now().After(deadline) {
			return true
		}
	}
}

// Commit merges the branch into the workdir and removes it; the Branch is closed then. On failure the workdir is as it was, and
// the branch stays open and is marked as kept. The error is a *ConflictError, *LockError, *UnfinishedError, *IncompleteError,
// *CommitError or *LostError.
func (b *Branch) Commit(o CommitOptions) error {
	switch {
	case b.dir < 0:
		return b.failed(errClosed, true)
	case b.upper < 0:
		return b.failed(errGone, true)
	}
	err := b.locked(o)
	if err != nil {
		if saving := b.save(); saving != nil {
			return b.unsaved(err, saving)
		}
	}
	return err
}

// locked is a commit as far as it can be tried again.
func (b *Branch) locked(o CommitOptions) error {
	if err := b.lock(o.Wait); err != nil {
		_ = b.defers(err)
		return err
	}
	defer b.unlock()
	if st, err := lookup(b.workdir, stageName); err != nil || st != nil {
		if err == nil {
			err = &UnfinishedError{Workdir: b.notes.Workdir}
		}
		return err
	}
	k, err := b.kept()
	if err != nil {
		return b.failed(err, true)
	}
	if !o.Force && b.incomplete(k) {
		return &IncompleteError{Workdir: b.notes.Workdir, Dir: b.Dir()}
	}
	err = b.commit(o)
	if err != nil {
		return err
	}
	if err := b.discard(); err != nil { // the workdir has it all: what is left is rubbish, which Recover removes
		return b.failed(err, false)
	}
	return nil
}

func (b *Branch) failed(err error, undone bool) error {
	return &CommitError{Workdir: b.notes.Workdir, Dir: b.Dir(), Undone: undone, Err: err}
}

func (b *Branch) unsaved(err, saving error) error {
	return &LostError{Workdir: b.notes.Workdir, Dir: b.Dir(), Err: err, Saving: saving}
}

// defers marks a branch whose commit failed without a trace in the workdir.
func (b *Branch) defers(err error) error {
	k := &kept{Reason: ReasonDeferred, Detail: err.Error()}
	if was, _ := b.kept(); was != nil {
		k.Ctime, k.Dirty = was.Ctime, was.Dirty
		if was.Reason == ReasonInterrupted && !was.Dirty {
			st, err := fstat(b.workdir)
			if err != nil {
				return err
			}
			k.Ctime = stampOf(st.Ctim)
		}
	}
	if _, err := b.marked(k); err != nil {
		k.Detail += "; " + err.Error()
	}
	return b.keep(k)
}

func (b *Branch) commit(o CommitOptions) error {
	node, err := pin(b.workdir, ".")
	if err != nil {
		return b.failed(opError("look at", "", err), true)
	}
	root, err := metaOf(node)
	unix.Close(node)
	if err != nil {
		return b.failed(opError("look at", "", err), true)
	}
	p := &planner{b: b, force: o.Force, root: root}
	if k, err := b.kept(); err == nil && k != nil {
		p.rootCtime = k.Ctime
	}
	p.sys = b.sys
	if p.baseline, err = b.openBaseline(); err != nil {
		return b.failed(err, true)
	}
	err = p.run()
	p.baseline.close()
	if len(p.conflicts) > 0 && err == nil {
		err = &ConflictError{Workdir: b.notes.Workdir, Dir: b.Dir(), Paths: p.conflicts, More: p.more}
	}
	s := p.stage
	if s == nil {
		if err != nil {
			return b.over(nil, root, err)
		}
		return nil // no changes: the workdir was not touched
	}
	defer s.close()
	if err == nil {
		err = b.secure(s, p.bulk)
	}
	if err != nil {
		return b.over(s, root, err)
	}
	final, err := s.apply(p.bulk)
	if err == nil {
		if err = s.setState(stateCommitted); err != nil {
			if state, e := stateOf(s); e != nil || state == stateCommitted {
				return b.failed(err, false) // it is at least seen to be committed: Recover says what the disk has
			}
		}
	}
	if err != nil {
		return b.over(s, root, err)
	}
	if final == nil {
		final = root
	}
	if err := b.finish(s, final); err != nil {
		return b.failed(err, false)
	}
	return nil
}

// secure syncs what was planned, and says so.
func (b *Branch) secure(s *stage, bulk bool) error {
	if err := s.journal.Flush(); err != nil {
		return opError("write", stageName+"/journal", err)
	}
	if bulk {
		if err := b.secureAll(s); err != nil {
			return err
		}
		return s.setState(statePlanned)
	}
	for _, fd := range []int{s.file, s.new, s.old, s.dir, s.workdir} {
		if err := s.sys.fsync(fd); err != nil {
			return opError("sync", stageName, err)
		}
	}
	return s.setState(statePlanned)
}

// secureAll syncs file systems. The upper's is asked on another one too: not to have it on disk, but to hear whether what was
// read from it is what was written.
func (b *Branch) secureAll(s *stage) error {
	if err := b.syncUpper(); err != nil {
		return err
	}
	upper, err := fstat(b.upper)
	if err != nil {
		return opError("look at", "upper", err)
	}
	st, err := fstat(s.dir)
	if err == nil && st.Dev != upper.Dev {
		err = s.sys.syncfs(s.dir)
	}
	return opError("sync", stageName, err)
}

// over ends a commit that failed before its state was "committed".
func (b *Branch) over(s *stage, root *meta, err error) error {
	undone := error(nil)
	if s != nil {
		undone = b.undo(s)
	}
	if undone == nil {
		_ = b.defers(err)
	}
	var conflict *ConflictError
	switch {
	case undone != nil:
		return b.failed(errors.Join(err, undone), false)
	case errors.As(err, &conflict):
		return err
	case errors.Is(err, errChanged):
		var c *changedError
		if errors.As(err, &c) {
			return &ConflictError{Workdir: b.notes.Workdir, Dir: b.Dir(), Paths: []string{c.path}}
		}
	}
	return b.failed(err, true)
}

// finish removes the stage of a commit that is done.
func (b *Branch) finish(s *stage, final *meta) error {
	if err := b.interrupted(&kept{Root: final, Done: true}); err != nil {
		return err
	}
	return s.remove(final)
}

// Abort throws the branch away, also one that was to be kept; the Branch is closed then. While a commit of it is unfinished it
// refuses: see [Recover].
func (b *Branch) Abort() error {
	if b.dir < 0 {
		return errClosed
	}
	k, err := b.kept()
	if err == nil && k != nil && k.Reason == ReasonInterrupted {
		return &UnfinishedError{Workdir: b.notes.Workdir}
	}
	if err == nil && k == nil {
		return b.drop(false) // after a crash it is incomplete, whatever is there again
	}
	return b.discard()
}

// Discard throws a branch of a base away by its name, as [Branch.Abort] does, even if its workdir is gone.
func Discard(base, id string) error {
	b, err := open(base, id)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := unix.Flock(b.dir, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return opError("lock branch", b.Dir(), errBusy)
	}
	return b.Abort()
}

func (b *Branch) discard() error { return b.drop(true) }

func (b *Branch) drop(sync bool) error {
	root, err := openBase(b.base)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	// By one step it is no branch any more. What a crash then leaves, the next who removes one removes.
	if err := b.sys.rename(root, b.id, root, b.id+goneSuffix, 0); err != nil {
		return opError("remove branch", b.Dir(), err)
	}
	if sync {
		if err := b.sys.fsync(root); err != nil {
			return opError("remove branch", b.Dir(), err)
		}
	}
	b.Close()
	names, err := readNames(root)
	if err != nil {
		return opError("remove branch", b.Dir(), err)
	}
	booted := bootTime()
	for _, name := range names {
		if strings.HasSuffix(name, goneSuffix) || orphan(root, name, booted) {
			err = errors.Join(err, removeTree(b.sys, root, name))
		}
	}
	return opError("remove branch", b.Dir(), err)
}

// goneSuffix is of the names of branches that are none any more.
const goneSuffix = ".gone"
