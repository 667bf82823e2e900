package kernel

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Alarm interrupts the system calls of one thread: what takes longer than was meant fails with EINTR.
type Alarm struct{ timer int32 }

// alarmSignal is a real-time signal that neither the Go runtime nor C libraries use.
const alarmSignal = 58

// nothingPC returns the address of a signal handler that does nothing.
func nothingPC() uintptr

// sigevent is struct sigevent (sigevent(3type)), for SIGEV_THREAD_ID.
type sigevent struct {
	value  uint64
	signal int32
	notify int32
	thread int32
	_      [11]int32
}

const sigevThreadID = 4

// NewAlarm makes an alarm for the calling thread, to which the goroutine must be locked.
func NewAlarm() (*Alarm, error) {
	action := sigaction{handler: nothingPC(), flags: saOnStack, mask: ^uint64(0)} // without SA_RESTART
	if action.restorer = restorePC(); action.restorer != 0 {
		action.flags |= saRestorer
	}
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, alarmSignal, uintptr(unsafe.Pointer(&action)), 0, unsafe.Sizeof(action.mask), 0, 0)
	if e != 0 {
		return nil, fmt.Errorf("handler of the alarm: %w", e)
	}
	unblocked := uint64(1) << (alarmSignal - 1)
	_, _, e = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_UNBLOCK, uintptr(unsafe.Pointer(&unblocked)), 0, unsafe.Sizeof(unblocked), 0, 0)
	if e != 0 {
		return nil, fmt.Errorf("unblock the alarm: %w", e)
	}
	event := sigevent{signal: alarmSignal, notify: sigevThreadID, thread: int32(unix.Gettid())}
	a := new(Alarm)
	_, _, e = unix.RawSyscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&a.timer)))
	if e != 0 {
		return nil, fmt.Errorf("timer_create: %w", e)
	}
	return a, nil
}

type itimerspec struct{ interval, value unix.Timespec }

// Set has the thread interrupted after d, and again and again until Clear: a call that begins just after the first signal
// is ended by the second.
func (a *Alarm) Set(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	a.set(itimerspec{t, t})
}

// Clear ends the interruptions.
func (a *Alarm) Clear() { a.set(itimerspec{}) }

func (a *Alarm) set(t itimerspec) {
	unix.RawSyscall6(unix.SYS_TIMER_SETTIME, uintptr(a.timer), 0, uintptr(unsafe.Pointer(&t)), 0, 0, 0)
}

// Close removes the timer.
func (a *Alarm) Close() { unix.RawSyscall(unix.SYS_TIMER_DELETE, uintptr(a.timer), 0, 0) }
