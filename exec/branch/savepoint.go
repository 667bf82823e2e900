package branch

import (
	"encoding/json"
	"errors"

	"golang.org/x/sys/unix"
)

// savepoint is the copy of the upper that Rollback goes back to.
const savepoint = "savepoint"

// Savepoint copies the changes as they are now, so that [Branch.Rollback] can go back to them; an earlier savepoint is gone
// then. File data is shared where the file system can do that, and copied elsewhere. Nothing may be mounted.
func (b *Branch) Savepoint() error {
	if b.dir < 0 {
		return opError("savepoint of branch", b.Dir(), errClosed)
	}
	if b.notes.Options.Disk > 0 {
		return opError("savepoint of branch", b.Dir(), errors.New("its layers are in memory"))
	}
	to, err := b.copyUpper(b.dir)
	if err == nil {
		unix.Close(to)
		err = b.Forget()
	}
	if err == nil {
		err = b.sys.rename(b.dir, saving, b.dir, savepoint, 0)
	}
	return opError("savepoint of branch", b.Dir(), err)
}

// Rollback drops what has changed since the savepoint, which is used up by that.
func (b *Branch) Rollback() error {
	to, err := openDir(b.dir, savepoint)
	if err == nil {
		if err = b.sys.rename(b.dir, savepoint, b.dir, "upper", unix.RENAME_EXCHANGE); err != nil {
			unix.Close(to)
		}
	}
	if err != nil {
		return opError("roll back branch", b.Dir(), err)
	}
	unix.Close(b.upper)
	b.upper = to
	return b.Forget()
}

// Forget removes the savepoint, if there is one.
func (b *Branch) Forget() error {
	return opError("savepoint of branch", b.Dir(), removeTree(b.sys, b.dir, savepoint))
}

// Progress is what SetProgress has left, nil if it has not.
func (b *Branch) Progress() ([]byte, error) {
	text, err := readFile(b.dir, progress)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return text, opError("read progress of branch", b.Dir(), err)
}

// SetProgress leaves a note with the branch for who goes on with it.
func (b *Branch) SetProgress(text []byte) error {
	return opError("note progress of branch", b.Dir(), writeFile(b.sys, b.dir, progress, text))
}

const progress = "progress"

// Resume takes back that a branch was to be kept as it is: it is to be worked in again. The branch must be one that Keep was
// called for, with all of it on disk, and no commit tried.
func (b *Branch) Resume() error {
	k, err := b.kept()
	if err == nil && (k == nil || k.Reason != ReasonKept) {
		err = errors.New("it is none that was kept to be gone on with")
	}
	if err == nil && b.incomplete(k) {
		err = &IncompleteError{Workdir: b.notes.Workdir, Dir: b.Dir()}
	}
	if err == nil { // what was on disk in another boot is as good as what is written in this one
		b.notes.Boot = bootID()
		var text []byte
		if text, err = json.Marshal(&b.notes); err == nil {
			err = writeFile(b.sys, b.dir, "meta", text)
		}
	}
	if err == nil {
		err = b.sys.unlink(b.dir, "kept", 0)
	}
	return opError("resume branch", b.Dir(), err)
}
