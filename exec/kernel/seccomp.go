package kernel

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags of seccomp(2) SECCOMP_SET_MODE_FILTER.
const (
	SeccompFlagLog          = 1 << 1
	SeccompFlagNewListener  = 1 << 3
	SeccompFlagWaitKillable = 1 << 5 // Linux 5.19: a notified call is interrupted by fatal signals only
	SeccompSetModeFilter    = 1
	seccompFlagTSync        = 1
	seccompGetActionAvail   = 2
)

// SeccompAction return values whose availability is asked for.
const (
	seccompRetUserNotif = 0x7fc00000
	seccompRetErrno     = 0x00050000
)

// FilterProgram is struct sock_fprog over a classic BPF program of 8-byte instructions.
func FilterProgram(insns []byte) (*unix.SockFprog, error) {
	n := len(insns) / 8
	if n == 0 || n > 4096 || len(insns)%8 != 0 {
		return nil, fmt.Errorf("seccomp program of %d bytes: want 1 to 4096 instructions of 8 bytes", len(insns))
	}
	// The copy is aligned for struct sock_filter; the artifact's bytes need not be.
	filter := make([]unix.SockFilter, n)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&filter[0])), len(insns)), insns)
	return &unix.SockFprog{Len: uint16(n), Filter: &filter[0]}, nil
}

// FilterProcess installs a filter without a listener on every thread of this process (SECCOMP_FILTER_FLAG_TSYNC), whose
// threads must all have no_new_privs.
func FilterProcess(f *unix.SockFprog, flags uintptr) error {
	tid, _, e := unix.Syscall(unix.SYS_SECCOMP, SeccompSetModeFilter, flags|seccompFlagTSync, uintptr(unsafe.Pointer(f)))
	if e != 0 {
		return fmt.Errorf("install seccomp filter: %w", e)
	}
	if tid != 0 {
		return fmt.Errorf("install seccomp filter: thread %d has filters of its own", tid)
	}
	return nil
}

// actionAvailable asks the kernel for a return action (Linux 4.14).
func actionAvailable(action uint32) bool {
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, seccompGetActionAvail, 0, uintptr(unsafe.Pointer(&action)))
	return e == 0
}

// ErrListenerBusy is EBUSY from a second listener in one task tree.
var ErrListenerBusy = errors.New("a supervised sandbox is already around this process and the kernel allows one listener: " +
	"run the outer sandbox with `program: no_supervisor: true` (--no-supervisor in other tools), or this one")
