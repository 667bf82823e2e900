package kernel

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// struct seccomp_notif_addfd and its flags (linux/seccomp.h, seccomp_unotify(2)).
type notifAddFD struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

const (
	ioctlNotifAddFD = 0x40182103
	addFDSend       = 2 // answer the call with the new number in the same step (Linux 5.14)
)

// AddFD installs a copy of fd in the caller's table and answers the call with its number, in one step. flags is 0 or
// O_CLOEXEC.
//
// No signal may interrupt it. The kernel takes the call for answered before the caller has taken the descriptor up; when
// the wait for that is interrupted it withdraws the descriptor and not the answer, and the caller sees 0: its standard
// input in place of the file that it opened (kernel/seccomp.c, seccomp_notify_addfd).
func (l Listener) AddFD(id uint64, fd int, flags uint32) error {
	r := notifAddFD{id: id, flags: addFDSend, srcfd: uint32(fd), newfdFlags: flags}
	return errnoErr(undisturbed(uintptr(l.FD), ioctlNotifAddFD, uintptr(unsafe.Pointer(&r))))
}

// undisturbed is ioctl with all signals blocked. The Go runtime must not get between: a thread that it parks meanwhile would
// not see the signal by which it reaches every thread (syscall.AllThreadsSyscall) and would wait for with the world stopped.
// So there are no calls here that it notices, and no place where it could preempt.
//
//go:nosplit
//go:norace
func undisturbed(fd, request, arg uintptr) syscall.Errno {
	const setBytes = 8 // of the kernel's sigset_t
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), setBytes, 0, 0)
	_, _, e := syscall.RawSyscall(unix.SYS_IOCTL, fd, request, arg)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, setBytes, 0, 0)
	return e
}

// ThreadPIDFD opens a pidfd of the thread tid (PIDFD_THREAD, Linux 6.9), or of its process on older kernels.
func ThreadPIDFD(tid int) (int, error) {
	fd, err := unix.PidfdOpen(tid, unix.O_EXCL) // PIDFD_THREAD
	if !errors.Is(err, unix.EINVAL) {
		return fd, err
	}
	tgid, err := ThreadGroup(tid)
	if err != nil {
		return -1, err
	}
	return unix.PidfdOpen(tgid, 0)
}

// DuplicateFrom copies a descriptor of the thread that a pidfd stands for. It tells the Go runtime nothing: the call does
// not wait.
func DuplicateFrom(pidfd int, fd int32) (int, error) {
	r, _, e := unix.RawSyscall(unix.SYS_PIDFD_GETFD, uintptr(pidfd), uintptr(fd), 0)
	if e != 0 {
		return -1, e
	}
	return int(r), nil
}

// StandsForThread reports whether a pidfd of [ThreadPIDFD] stands for the thread alone. Then whatever it does is done to the
// thread that has the tid, or fails with ESRCH once there is none; a process's pidfd outlives its threads.
func StandsForThread(pidfd int) bool {
	flags, err := unix.FcntlInt(uintptr(pidfd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_EXCL != 0 // PIDFD_THREAD
}

// SignalThread sends a signal to the thread that a pidfd stands for, or to its process before Linux 6.9.
func SignalThread(pidfd int, s unix.Signal) error {
	const thread = 1 // PIDFD_SIGNAL_THREAD, Linux 6.9
	err := unix.PidfdSendSignal(pidfd, s, nil, thread)
	if errors.Is(err, unix.EINVAL) {
		err = unix.PidfdSendSignal(pidfd, s, nil, 0)
	}
	return err
}

// KillProcessOf sends SIGKILL to the process that a pidfd's thread, or the pidfd itself, stands for.
func KillProcessOf(pidfd int) error {
	const threadGroup = 2 // PIDFD_SIGNAL_THREAD_GROUP, Linux 6.9
	err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, threadGroup)
	if errors.Is(err, unix.EINVAL) { // before, every pidfd stands for a process
		err = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	}
	return err
}
