package kernel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests that the control files of BranchFS take (its README): _IOR('b', 0, char[128]), _IO('b', 1) and _IO('b', 2).
const (
	branchCreate = 0x80806200
	branchCommit = 0x6201
	branchAbort  = 0x6202
)

// BranchName is what BranchFS answers when it makes a branch: a name that ends with a NUL, and nobody has checked.
type BranchName [128]byte

// CreateBranch makes a branch of the one that a control file of BranchFS belongs to.
func CreateBranch(ctl int) (name BranchName, err error) {
	return name, branchRequest(ctl, branchCreate, uintptr(unsafe.Pointer(&name)))
}

// CommitBranch makes the branch's changes its parent's. ESTALE says that another branch of that parent was committed first.
func CommitBranch(ctl int) error { return branchRequest(ctl, branchCommit, 0) }

// AbortBranch drops the branch.
func AbortBranch(ctl int) error { return branchRequest(ctl, branchAbort, 0) }

// branchRequest is not repeated when the answer is EINTR: a file system in user space is told of a signal (FUSE_INTERRUPT), and
// whether it has done anything by then it does not say.
func branchRequest(ctl int, request, arg uintptr) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(ctl), request, arg); e != 0 {
		return e
	}
	return nil
}
