package kernel

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Stop is a stop of a traced thread (ptrace(2)).
type Stop struct {
	Event  int         // PTRACE_EVENT_…, 0 for a signal that is about to be delivered
	Signal unix.Signal // that signal
}

// Exec reports whether the thread has just executed a program and not yet run an instruction of it.
func (s Stop) Exec() bool { return s.Event == unix.PTRACE_EVENT_EXEC }

// ErrNotTraced says that a thread is neither traced nor a child: it is gone.
var ErrNotTraced = unix.ECHILD

// Seize has the thread tid stop when it has executed a program. It does not disturb the thread now. Should this process
// die, the kernel kills the thread's process. All calls about a traced thread must come from the calling thread.
func Seize(tid int) error {
	return ptrace(unix.PTRACE_SEIZE, tid, unix.PTRACE_O_TRACEEXEC|unix.PTRACE_O_EXITKILL)
}

// Interrupt has a seized thread stop when it next can.
func Interrupt(tid int) error { return ptrace(unix.PTRACE_INTERRUPT, tid, 0) }

// Detach lets a stopped thread go on untraced, with the signal that it was about to receive.
func Detach(tid int, sig unix.Signal) error { return ptrace(unix.PTRACE_DETACH, tid, uintptr(sig)) }

func ptrace(request, tid int, data uintptr) error {
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), 0, data, 0, 0)
	return errnoErr(e)
}

// Stopped returns the stop that a traced thread has come to since it was last asked. It does not wait. Of a thread that
// has ended it says ErrNotTraced as well: ask Exited.
func Stopped(tid int) (s Stop, stopped bool, err error) {
	var info unix.Siginfo
	if err := waitNow(tid, &info, unix.WSTOPPED|unix.WNOWAIT); err != nil || ChildPID(&info) == 0 || !Trapped(&info) {
		return Stop{}, false, err
	}
	if err := waitNow(tid, &info, unix.WSTOPPED); err != nil || ChildPID(&info) == 0 {
		return Stop{}, false, err // killed in between
	}
	status := ChildStatus(&info)
	s.Event = int(status >> 8)
	if s.Event == 0 {
		s.Signal = unix.Signal(status)
	}
	return s, true, nil
}

// Exited reports whether a traced thread or child has ended, and leaves it to be reaped.
func Exited(tid int) bool {
	var info unix.Siginfo
	err := waitNow(tid, &info, unix.WEXITED|unix.WNOWAIT)
	return err == nil && ChildPID(&info) != 0 && !Trapped(&info)
}

// Trapped reports whether waitid(2) has reported the stop of a traced thread. To its tracer it does so whether stops were
// asked for or not; a child that job control has stopped is something else.
func Trapped(info *unix.Siginfo) bool {
	const trapped = 4 // CLD_TRAPPED
	return info.Code == trapped
}

// ReapTraced lets go of a traced thread that has [Exited]; its parent is told only now.
func ReapTraced(tid int) {
	var info unix.Siginfo
	_ = waitNow(tid, &info, unix.WEXITED)
}

func waitNow(tid int, info *unix.Siginfo, what int) error {
	for {
		err := unix.Waitid(unix.P_PID, tid, info, what|unix.WNOHANG|unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
