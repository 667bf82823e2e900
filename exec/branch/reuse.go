package branch

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Reuse readies the branch for one more mount, once the last one is gone and nobody runs in it any more: with an empty work
// directory. The kernel cleans up there itself when it mounts, but refuses one in which a mount has left its mark that it was
// made with the option "volatile" (work/incompat/volatile, Documentation/filesystems/overlayfs.rst). The changes stay.
func (b *Branch) Reuse() error {
	if b.dir < 0 {
		return opError("reuse branch", b.Dir(), errClosed)
	}
	if b.notes.Options.Disk > 0 {
		return opError("reuse branch", b.Dir(), errors.New("its layers are in memory, and gone with what they were mounted in"))
	}
	k, err := b.kept()
	if err == nil && k != nil {
		err = errors.New("it was to be kept as it is: " + k.Reason)
	}
	if err == nil {
		err = b.sameWorkdir()
	}
	if err == nil {
		err = removeTree(b.sys, b.dir, "work")
	}
	if err == nil {
		err = b.sys.mkdir(b.dir, "work", 0o700)
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
