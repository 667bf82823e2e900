package kernel

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

const capabilityVersion3 = 0x20080522 // linux/capability.h

// Capabilities returns the calling thread's permitted set.
func Capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: capabilityVersion3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("capget: %w", err)
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted), nil
}

// DropThreadCapabilities leaves the calling thread with the capabilities in keep at most, and its bounding set with no
// more. It reports whether the thread had others.
func DropThreadCapabilities(keep uint64) (dropped bool, err error) {
	have, err := Capabilities()
	if err != nil || have&^keep == 0 {
		return false, err
	}
	return true, dropCapabilities(have, keep, unix.RawSyscall)
}

// DropThreadGroups takes the supplementary groups from the calling thread.
func DropThreadGroups() error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return fmt.Errorf("drop supplementary groups: %w", errno)
	}
	return nil
}

// DropCapabilities does what DropThreadCapabilities does for every thread of this process, except for the bounding sets of other threads. It
// interrupts all of them.
func DropCapabilities(keep uint64) error {
	have, err := Capabilities()
	if err != nil {
		return err
	}
	// psx repeats the call on each thread, in binaries with C code too.
	return dropCapabilities(have, keep, psx.Syscall3)
}

func dropCapabilities(have, keep uint64, syscall func(nr, a, b, c uintptr) (uintptr, uintptr, unix.Errno)) error {
	if have>>unix.CAP_SETPCAP&1 == 1 {
		if err := dropBounding(keep); err != nil {
			return err
		}
	}
	keep &= have
	header := &unix.CapUserHeader{Version: capabilityVersion3}
	data := &[2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	if _, _, e := syscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)), 0); e != 0 {
		return fmt.Errorf("capset: %w", e)
	}
	return nil
}

func dropBounding(keep uint64) error {
	for c := range 64 {
		if keep>>c&1 == 1 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // past the last capability that this kernel knows
		}
		if errors.Is(err, unix.EPERM) {
			// DropCapabilities may have taken this thread's capabilities meanwhile: it cannot use what is left in its set.
			if have, e := Capabilities(); e == nil && have>>unix.CAP_SETPCAP&1 == 0 {
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}

// HideSelf makes this process not dumpable: no process of the same user may trace it or read its memory, and its
// /proc files belong to root (prctl(2), PR_SET_DUMPABLE).
func HideSelf() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the executor undumpable: %w", err)
	}
	return nil
}

// Hidden tells whether this process is not dumpable.
func Hidden() bool {
	shown, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return err == nil && shown != 1
}

// ShowSelf undoes HideSelf. A process whose /proc files are root's cannot map ids into a user namespace.
func ShowSelf() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("make the executor dumpable again: %w", err)
	}
	return nil
}

// BecomeSubreaper makes orphaned descendants children of this process instead of init's (PR_SET_CHILD_SUBREAPER).
func BecomeSubreaper() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// ResignSubreaper undoes BecomeSubreaper.
func ResignSubreaper() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }

// IsSubreaper reports whether this process is a subreaper.
func IsSubreaper() (bool, error) {
	var on int32
	if err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&on)), 0, 0, 0); err != nil {
		return false, fmt.Errorf("ask whether this is a subreaper: %w", err)
	}
	return on != 0, nil
}

// NoNewPrivs sets no_new_privs on the calling thread.
func NoNewPrivs() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }

// ForegroundGroup returns the foreground process group of a terminal; an error means fd is none, or not ours.
func ForegroundGroup(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCGPGRP) }

// SetForegroundGroup makes pgrp the foreground group of the terminal. The calling thread blocks SIGTTOU meanwhile,
// which would otherwise stop a background process that asks.
func SetForegroundGroup(fd, pgrp int) error {
	var block, old unix.Sigset_t
	block.Val[0] = 1 << (uint(unix.SIGTTOU) - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &old); err != nil {
		return err
	}
	err := unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, pgrp)
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	return err
}

// ChildStatus returns si_status of what waitid(2) reported: an exit code or a signal.
func ChildStatus(info *unix.Siginfo) int32 {
	// struct siginfo for SIGCHLD: three ints, padding to 16, then pid, uid, status.
	return *(*int32)(unsafe.Add(unsafe.Pointer(info), 24))
}

// ChildPID returns si_pid of what waitid(2) reported, 0 if it reported nothing.
func ChildPID(info *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 16)))
}
