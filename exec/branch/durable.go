package branch

import (
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The overlay is mounted with "volatile" (overlayfs.rst, "Volatile mount"): it syncs nothing, neither for the command's fsync nor
// at its own end, where it would have synced each file that it copies up, and then the upper's whole file system. What the
// command wrote is on disk when the kernel gets to it, hence:
//
//   - A commit syncs what it puts in place before it says "planned" (make.go, secure), files of the upper included.
//   - A branch that is kept is synced before its marker says so.
//   - The upper of any other branch is worth nothing after the machine went down: which of the writes are on disk, nobody knows.
//     It is told by the boot that the branch was made in.
//   - A failure to write is known by the next sync of a descriptor that was opened before it (errseq, Linux 4.13; syncfs(2)
//     since 5.8): the branch's on the upper, which is there before the command runs. What that has cost cannot be told, so the
//     branch stays incomplete.

// syncUpper brings the upper to the disk. Once it has failed it fails for good: the kernel tells of an error once.
func (b *Branch) syncUpper() error {
	if b.lost == nil {
		b.lost = opError("sync upper of branch", b.Dir(), b.sys.syncfs(b.upper))
	}
	return b.lost
}

// syncNotes brings to the disk what New has written, and the branch's name in its base.
func (b *Branch) syncNotes() error {
	if b.noted {
		return nil
	}
	meta, _, err := openRegular(b.dir, "meta")
	if err != nil {
		return err
	}
	defer unix.Close(meta)
	base, err := openat(b.dir, "..", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(base)
	err = b.sys.fsync(meta)
	if err == nil {
		err = b.sys.fsync(base)
	}
	b.noted = err == nil
	return err
}

// incomplete tells whether the upper may lack what the command wrote, by the branch's marker (nil: it has none).
func (b *Branch) incomplete(k *kept) bool {
	return k != nil && k.Lost || (k == nil || !k.Synced) && b.notes.Boot != bootID()
}

// orphan tells whether an entry of a base is the rest of a branch that was made before this boot, and of which not even the notes
// were on disk when the machine went down: nobody can do anything with it. One that is being made is younger.
func orphan(base int, name string, booted stamp) bool {
	if !isID(name) {
		return false
	}
	if st, err := lookup(base, name); err != nil || !isDir(st) || stampOf(st.Ctim) >= booted {
		return false
	}
	dir, err := openDir(base, name)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	if unix.Flock(dir, unix.LOCK_EX|unix.LOCK_NB) != nil { // the clock was set meanwhile, perhaps
		return false
	}
	if st, err := lookup(dir, "kept"); err != nil || st != nil {
		return false
	}
	text, err := readFile(dir, "meta")
	if err == nil {
		return !json.Valid(text)
	}
	return errors.Is(err, unix.ENOENT)
}

// bootTime is when the machine started, by the clock as it goes now; 0, before everything, if that cannot be told.
func bootTime() stamp {
	var now, up unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME, &now) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return 0
	}
	return stampOf(now) - stampOf(up)
}

// IncompleteError is a branch whose files may lack some of what the command wrote: the machine went down, or the disk failed,
// before it was on disk. CommitOptions.Force commits what there is.
type IncompleteError struct{ Workdir, Dir string }

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("commit to %q: the machine went down or its disk failed before the changes were on disk: some may be lost; the branch is kept in %q",
		e.Workdir, e.Dir)
}

// marked adds to a marker what is known of the upper by now.
func (b *Branch) marked(k *kept) (*kept, error) {
	was, err := b.kept()
	if err != nil {
		return nil, err
	}
	k.Synced, k.Lost = was != nil && was.Synced, b.lost != nil || was != nil && was.Lost
	if k.Synced || k.Lost || b.incomplete(was) {
		return k, nil
	}
	err = b.syncUpper()
	k.Synced, k.Lost = err == nil, err != nil
	return k, err
}

var errClosed = errors.New("the branch is closed")
