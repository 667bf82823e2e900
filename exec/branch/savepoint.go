package branch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A savepoint is a copy of the upper that one can go back to: [Branch.Rollback] while the branch is open, and [Branch.Resume]
// later, even if the process was killed that ran in it. The file "progress" says, with a note of the caller's, which directory
// has the changes as they were then, by its inode: the copy, wherever it is on its way to being the upper. So it can be told
// after a kill between any two calls. Nobody runs in a branch whose progress is of the upper itself, see [Branch.Reuse].
const (
	savepoint    = "savepoint"
	progressFile = "progress"
)

type progress struct {
	Note json.RawMessage // the caller's
	Ino  uint64          // of the directory
}

// Savepoint copies the changes as they are now; an earlier savepoint is gone then. note is JSON, for who goes on from there.
// File data is shared where the file system can do that, and copied elsewhere. Nothing may be mounted.
func (b *Branch) Savepoint(note []byte) error {
	if b.dir < 0 {
		return opError("savepoint of branch", b.Dir(), errClosed)
	}
	if b.notes.Options.Disk > 0 {
		return opError("savepoint of branch", b.Dir(), errors.New("its layers are in memory"))
	}
	to, err := b.copyUpper(b.dir)
	if err == nil {
		err = b.setProgress(to, note)
		unix.Close(to)
	}
	if err == nil {
		err = removeTree(b.sys, b.dir, savepoint)
	}
	if err == nil {
		err = b.sys.rename(b.dir, saving, b.dir, savepoint, 0)
	}
	return opError("savepoint of branch", b.Dir(), err)
}

// Rollback drops what has changed since the savepoint, which is used up by that. Its note stays.
func (b *Branch) Rollback() error {
	p, err := b.progress()
	if err == nil && p == nil {
		err = errNoSavepoint
	}
	if err == nil {
		var used bool
		if used, err = b.isUpper(p); err == nil && used {
			err = errNoSavepoint
		}
	}
	if err == nil {
		err = b.restore(p)
	}
	return opError("roll back branch", b.Dir(), err)
}

// Mark notes that the changes as they are now are what note tells of. There is no savepoint then.
func (b *Branch) Mark(note []byte) error {
	err := b.setProgress(b.upper, note)
	if err == nil {
		err = b.removeCopies()
	}
	return opError("note progress of branch", b.Dir(), err)
}

// Forget removes the savepoint and its note, if there are any.
func (b *Branch) Forget() error {
	err := b.sys.unlink(b.dir, progressFile, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		err = b.removeCopies()
	}
	return opError("savepoint of branch", b.Dir(), err)
}

func (b *Branch) removeCopies() error {
	return errors.Join(removeTree(b.sys, b.dir, savepoint), removeTree(b.sys, b.dir, saving))
}

// Progress is the note of the savepoint, nil if there is none.
func (b *Branch) Progress() ([]byte, error) {
	p, err := b.progress()
	if err != nil || p == nil {
		return nil, err
	}
	return p.Note, nil
}

func (b *Branch) progress() (*progress, error) {
	text, err := readFile(b.dir, progressFile)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	var p progress
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return nil, opError("read progress of branch", b.Dir(), err)
	}
	return &p, nil
}

func (b *Branch) setProgress(dir int, note []byte) error {
	st, err := fstat(dir)
	if err != nil {
		return err
	}
	text, err := json.Marshal(&progress{note, st.Ino})
	if err != nil {
		return err
	}
	return writeFile(b.sys, b.dir, progressFile, text)
}

// isUpper tells whether the upper is the directory that progress is of.
func (b *Branch) isUpper(p *progress) (bool, error) {
	st, err := fstat(b.upper)
	return err == nil && st.Ino == p.Ino, err
}

var errNoSavepoint = errors.New("it has no savepoint")

// restore puts the directory that progress is of in the upper's place. It may be interrupted, and begin again.
func (b *Branch) restore(p *progress) error {
	done, err := b.isUpper(p)
	for _, name := range []string{savepoint, saving} {
		if err != nil || done {
			break
		}
		var st *unix.Stat_t
		if st, err = lookup(b.dir, name); err != nil || st == nil || st.Ino != p.Ino {
			continue
		}
		done = true
		if err = b.sys.rename(b.dir, name, b.dir, "upper", unix.RENAME_EXCHANGE); err != nil {
			break
		}
		unix.Close(b.upper)
		b.upper, err = openDir(b.dir, "upper")
	}
	if err == nil && !done {
		err = errNoSavepoint
	}
	if err != nil {
		return err
	}
	return b.removeCopies()
}

// overwritten is before anybody runs in the branch: what progress tells of the upper will not be so any more.
func (b *Branch) overwritten() error {
	p, err := b.progress()
	if err != nil || p == nil {
		return err
	}
	if is, err := b.isUpper(p); err != nil || !is {
		return err
	}
	return b.sys.unlink(b.dir, progressFile, 0)
}

// Resume goes back to the savepoint of a branch that was kept, or left by a process that was killed: it is to be worked in again.
// All of it must be on disk, or written since the machine was started, and no commit tried.
func (b *Branch) Resume() error {
	k, err := b.kept()
	if err == nil && k != nil && k.Reason != ReasonKept {
		err = errors.New("it is none that was left to be gone on with: " + k.Reason)
	}
	var p *progress
	if err == nil {
		p, err = b.progress()
	}
	if err == nil && p == nil {
		err = errNoSavepoint
	}
	if err == nil && b.incomplete(k) {
		err = &IncompleteError{Workdir: b.notes.Workdir, Dir: b.Dir()}
	}
	if err == nil {
		err = b.restore(p)
	}
	if err == nil { // what was on disk in another boot is as good as what is written in this one
		b.notes.Boot, b.notes.Pid, b.notes.PidStart = bootID(), os.Getpid(), startTime(os.Getpid())
		var text []byte
		if text, err = json.Marshal(&b.notes); err == nil {
			err = writeFile(b.sys, b.dir, "meta", text)
		}
	}
	if err == nil && k != nil {
		err = b.sys.unlink(b.dir, "kept", 0)
	}
	if err != nil {
		return fmt.Errorf("resume branch %q: %w", b.Dir(), err)
	}
	return nil
}
