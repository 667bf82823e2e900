// Package branchfs drives branches of a BranchFS: a file system in user space (FUSE) of others that keeps copy-on-write
// branches of a directory, each shown as "@NAME" at the top of its mount.
//
// What is asked of it goes by control files, ".branchfs_ctl" at the top of the mount and of every branch: to make a branch, to
// commit it to its parent, to drop it. This package finds the mount that a directory is on (mount.go), makes a branch
// (branchfs.go), and says where in it the directory is. How changes are kept, and that a commit is made whole or not at all, is
// the file system's business. It cannot be asked what has changed.
//
// In: a directory. Out: a [Branch], typed errors. It mounts nothing, starts no process and reads no policy. What comes back
// from the file system, and what others may have put on the way, is taken as hostile: nothing is opened through symbolic links,
// names must look as BranchFS makes them, and everything opened must be on the one mount. A file system that somebody else
// serves, other than root, is not used at all.
//
// Nobody may reach a control file who is to be kept in the branch: whoever writes "commit" to it, or asks by ioctl(2), has it
// committed. [Branch.Controls] names those that lie in the branch.
package branchfs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Control is the name of the control files.
const Control = ".branchfs_ctl"

// ConflictError is a commit that came too late: another branch of the same parent was committed first. Nothing was changed,
// and the branch is kept.
type ConflictError struct {
	Dir string // of the branch
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("commit %q: another branch of the same parent was committed first; the branch is kept there", e.Dir)
}

// CommitError is a commit that failed otherwise. Whether anything was changed BranchFS does not say.
type CommitError struct {
	Dir string // of the branch
	Err error
}

func (e *CommitError) Error() string {
	return fmt.Sprintf("commit %q: BranchFS: %v; the branch is kept there", e.Dir, e.Err)
}

func (e *CommitError) Unwrap() error { return e.Err }

// ErrBusy says that another process holds the branch.
var ErrBusy = errors.New("in use by another process")

// Branch is a branch, held by its control file, with a lock on that (flock(2)) which tells other executors that it is in use.
// The descriptor is this process's until [Branch.Close].
type Branch struct {
	mount mount
	name  string // without the "@"
	rel   string // the directory it was made of, relative to the top of the mount or of the parent; "" is that top itself
	ctl   int
}

// New makes a branch of what a directory is in: of the whole mount, or of the branch of it that the directory lies in. The path
// must be absolute and lead through no links.
func New(dir string) (*Branch, error) {
	m, err := find(dir)
	if err != nil {
		return nil, err
	}
	parent, rel, err := split(m.rel(dir))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	root, err := m.open()
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	from, err := m.control(root, parent)
	if err != nil {
		return nil, err
	}
	defer unix.Close(from)
	answer, err := kernel.CreateBranch(from)
	if err != nil {
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("%s is no BranchFS: its %s makes no branch (%w)", m.dir, Control, err)
		}
		return nil, fmt.Errorf("make a branch in %s: BranchFS: %w", m.dir, err)
	}
	b := &Branch{mount: *m, rel: rel}
	if b.name, err = madeName(answer); err != nil {
		return nil, fmt.Errorf("make a branch in %s: BranchFS: %w", m.dir, err)
	}
	if err := b.hold(root); err != nil {
		return nil, fmt.Errorf("the new branch: %w", err)
	}
	return b, nil
}

// Open opens a branch by its directory, "@NAME" at the top of a mount. Its path must be absolute and lead through no links.
func Open(dir string) (*Branch, error) {
	m, err := find(dir)
	if err != nil {
		return nil, err
	}
	name, rel, err := split(m.rel(dir))
	if err == nil && (name == "" || rel != "") {
		err = fmt.Errorf("no branch: those of this BranchFS are %s/@NAME", m.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	root, err := m.open()
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	b := &Branch{mount: *m, name: name}
	if err := b.hold(root); err != nil {
		return nil, err
	}
	return b, nil
}

// hold opens the branch's control file and locks it.
func (b *Branch) hold(root int) (err error) {
	if b.ctl, err = b.mount.control(root, b.name); err != nil {
		return err
	}
	switch err = unix.Flock(b.ctl, unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = ErrBusy
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP):
		err = nil // it has no locks
	}
	if err != nil {
		b.Close()
		return fmt.Errorf("lock the branch %q: %w", b.Dir(), err)
	}
	return nil
}

// Close gives up the descriptor; the branch stays as it is.
func (b *Branch) Close() {
	if b.ctl >= 0 {
		_ = unix.Close(b.ctl)
	}
	b.ctl = -1
}

// ID is the name of the branch.
func (b *Branch) ID() string { return b.name }

// Dir is the directory of the branch.
func (b *Branch) Dir() string { return b.mount.dir + "/@" + b.name }

// Mount is the directory that the file system is mounted on.
func (b *Branch) Mount() string { return b.mount.dir }

// Place is where in the branch the directory is that it was made of.
func (b *Branch) Place() string { return join(b.Dir(), b.rel) }

// Controls lists the control files in the directory, relative to it: there is one where the directory is the whole branch.
func (b *Branch) Controls() []string {
	if b.rel != "" {
		return nil
	}
	return []string{Control}
}

// Commit makes the changes the parent's. The branch is gone then.
func (b *Branch) Commit() error {
	err := unix.Syncfs(b.ctl) // what the kernel still has of them
	if err == nil {
		err = kernel.CommitBranch(b.ctl)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ESTALE):
		return &ConflictError{b.Dir()}
	}
	return &CommitError{b.Dir(), err}
}

// Abort drops the branch.
func (b *Branch) Abort() error {
	if err := kernel.AbortBranch(b.ctl); err != nil {
		return fmt.Errorf("drop the branch %q: BranchFS: %w", b.Dir(), err)
	}
	return nil
}

// madeName checks the name that BranchFS gave a new branch: a UUID, which newer versions put "branch-" before.
func madeName(answer kernel.BranchName) (string, error) {
	text, _, ended := strings.Cut(string(answer[:]), "\x00")
	if !ended || !isUUID(strings.TrimPrefix(text, "branch-")) {
		return "", fmt.Errorf("it names a branch %q, which is no UUID", text)
	}
	return text, nil
}

// isUUID reports whether a text is a UUID as RFC 9562 has it printed, in lower case.
func isUUID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i, c := range []byte(text) {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return false
		}
	}
	return true
}

// maxName is the longest name of a branch: the answer to who makes one has no room for a longer one.
const maxName = len(kernel.BranchName{}) - 1

// split divides a path relative to the top of a mount into the branch that it is in, if any, and the path in that.
// A branch in the directory of another is the file system's second name for it; its first is used here.
func split(rel string) (branch, rest string, err error) {
	rest = rel
	for strings.HasPrefix(rest, "@") {
		branch, rest, _ = strings.Cut(rest[1:], "/")
		if err := checkName(branch); err != nil {
			return "", "", err
		}
	}
	return branch, rest, nil
}

// checkName checks the name of a branch that people may have given it.
func checkName(name string) error {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
	}
	if name == "" || len(name) > maxName || name[0] == '.' || strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("%q is no name of a branch that is used here: letters, digits, '-', '_' and '.', at most %d", name, maxName)
	}
	return nil
}

func join(dir, rel string) string {
	if rel == "" {
		return dir
	}
	return dir + "/" + rel
}
