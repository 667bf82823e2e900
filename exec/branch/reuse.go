package branch

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Reuse readies the branch for one more mount, once the last one is gone and nobody runs in it any more: with an empty work
// directory. The kernel cleans up there itself when it mounts, but refuses one in which a mount has left its mark that it was
// made with the option "volatile" (work/incompat/volatile, Documentation/filesystems/overlayfs.rst), since the upper may be what a
// crash has left; so this refuses an upper that is. The changes stay. With [Options.Disk], [Branch.Place] must be called again.
func (b *Branch) Reuse() error {
	if b.dir < 0 {
		return opError("reuse branch", b.Dir(), errClosed)
	}
	k, err := b.kept()
	switch {
	case err != nil:
	case b.lost != nil:
		err = b.lost
	case b.incomplete(k):
		err = &IncompleteError{Workdir: b.notes.Workdir, Dir: b.Dir()}
	case k != nil:
		err = errors.New("it was to be kept as it is: " + k.Reason)
	case b.notes.Options.Disk > 0 && !b.memory:
		err = errGone
	default:
		err = b.sameWorkdir()
	}
	if err == nil {
		err = b.overwritten()
	}
	if err == nil && !b.memory {
		if err = removeTree(b.sys, b.dir, "work"); err == nil {
			err = b.sys.mkdir(b.dir, "work", 0o700)
		}
	}
	return opError("reuse branch", b.Dir(), err)
}

// sameWorkdir checks that the workdir's path, by which it is mounted, still leads to it.
func (b *Branch) sameWorkdir() error {
	var now unix.Stat_t
	if err := unix.Lstat(b.notes.Workdir, &now); err != nil {
		return err
	}
	was, err := fstat(b.workdir)
	if err == nil && (now.Dev != was.Dev || now.Ino != was.Ino) {
		err = fmt.Errorf("workdir %q: is not the directory any more that the branch was made of", b.notes.Workdir)
	}
	return err
}
