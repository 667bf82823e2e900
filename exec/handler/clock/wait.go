package clock

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// host is what the handler asks the kernel; tests replace it.
type host struct {
	now        func(clock int32) unix.Timespec
	blocked    func(tid int) bool
	timerClock func(tid int, timer int32) (clock int32, err error)
	duplicate  func(tid, fd int) (int, error)
}

var thisHost = host{
	now: func(clock int32) (t unix.Timespec) {
		_ = unix.ClockGettime(clock, &t) // cannot fail for the clocks that every kernel has
		return t
	},
	blocked: func(tid int) bool {
		_, ok := kernel.BlockedIn(tid)
		return ok
	},
	timerClock: kernel.TimerClock,
	duplicate:  kernel.DuplicateFD,
}

// real is the time of the host at which the sandbox is shown a time. What has passed comes out as having passed: the
// kernel takes neither negative times nor, for timers, zero.
func (h *Handler) real(shown unix.Timespec) unix.Timespec {
	t := plus(shown, minus(h.host.now(realtime), h.now()))
	if t.Sec < 0 || t.Sec == 0 && t.Nsec == 0 {
		t = unix.Timespec{Nsec: 1}
	}
	return t
}

// valid tells whether the kernel takes a time as a deadline.
func valid(t unix.Timespec) bool { return t.Sec >= 0 && t.Nsec >= 0 && t.Nsec < second }

// soon is how long a wait may be at most that does not go to the kernel: its deadline might be over before the caller's
// memory has been put back, and the next one, made from it, be written over then. A signal is taken this much later at most.
const soon = 20 * time.Millisecond

// clockNanosleep is clock_nanosleep(clock, flags, deadline, rest) with a deadline in the time of day.
func (h *Handler) clockNanosleep(c *supervise.Call) supervise.Verdict {
	w, verdict := h.begin(c, c.Args[2])
	if w == nil {
		return verdict
	}
	shown := h.now()
	if c.Arg32(0) == tai {
		shown = plus(shown, minus(h.host.now(tai), h.host.now(realtime)))
	}
	left := minus(w.until, shown)
	if left.Sec < 0 || left.Sec == 0 && left.Nsec == 0 {
		w.memory.Close()
		return supervise.Return(0)
	}
	if left.Sec == 0 && time.Duration(left.Nsec) <= soon && h.config.CanDefer(c) {
		w.memory.Close()
		return supervise.Wait(time.Duration(left.Nsec), func(*supervise.Call) supervise.Verdict { return supervise.Return(0) })
	}
	return h.hostTime(c, w)
}

// wait is any other call that waits until the deadline at an address.
func (h *Handler) wait(c *supervise.Call, addr uint64) supervise.Verdict {
	w, verdict := h.begin(c, addr)
	if w == nil {
		return verdict
	}
	return h.hostTime(c, w)
}

// waiting is a deadline in the caller's memory, in the sandbox's time.
type waiting struct {
	memory supervise.Overwriter
	addr   uint64
	until  unix.Timespec
}

// begin reads the deadline at an address. Without one that the kernel would take there is nothing to be done, and the
// verdict is final.
func (h *Handler) begin(c *supervise.Call, addr uint64) (*waiting, supervise.Verdict) {
	memory, err := c.Hold()
	if err != nil {
		return nil, h.fail(c, err)
	}
	until, err := h.changed.turnBack(c.TID, memory, addr)
	if err != nil || !valid(until) {
		memory.Close()
		return nil, supervise.Pass(supervise.KernelDecides) // it refuses
	}
	return &waiting{memory, addr, until}, supervise.Verdict{}
}

// hostTime changes a deadline, which the kernel is about to read, from the sandbox's time to the host's.
func (h *Handler) hostTime(c *supervise.Call, w *waiting) supervise.Verdict {
	was, is := timeBytes(w.until), timeBytes(h.real(w.until))
	if err := w.memory.Write(w.addr, is[:]); err != nil {
		w.memory.Close()
		return h.fail(c, err)
	}
	if err := h.changed.add(change{tid: c.TID, memory: w.memory, addr: w.addr, was: was, is: is}); err != nil {
		return h.fail(c, err)
	}
	return supervise.Pass(supervise.KernelDecides)
}

// timerSettime is timer_settime(timer, flags, value, old) with a deadline. The timer says which clock it is of.
func (h *Handler) timerSettime(c *supervise.Call) supervise.Verdict {
	clock, err := h.host.timerClock(c.TID, c.Arg32(0))
	if errors.Is(err, kernel.ErrNoTimer) {
		return supervise.Pass(supervise.KernelDecides) // it refuses
	}
	if err != nil {
		return h.fail(c, err)
	}
	if !timeOfDay(clock) {
		return supervise.Pass(supervise.KernelDecides)
	}
	var value [16]byte
	deadline := c.Args[2] + 16 // behind the interval, which is a span of time
	if err := c.Bytes(deadline, value[:]); err != nil || value == [16]byte{} {
		return supervise.Pass(supervise.KernelDecides) // it fails, or the timer is stopped
	}
	return h.wait(c, deadline)
}

// timerfdSettime is timerfd_settime(fd, flags, value, old) with a deadline. The descriptor can be had, so the call is made
// on behalf of the caller, whose memory stays as it is.
func (h *Handler) timerfdSettime(c *supervise.Call) supervise.Verdict {
	fd, err := h.host.duplicate(c.TID, int(c.Arg32(0)))
	if err != nil {
		return supervise.FromError(err)
	}
	clock, ok := kernel.TimerFDClock(fd)
	if !ok {
		h.closer.Close(fd) // it may be a socket
		return supervise.Pass(supervise.KernelDecides)
	}
	defer unix.Close(fd)
	if !timeOfDay(clock) {
		return supervise.Pass(supervise.KernelDecides)
	}
	var b [32]byte
	if err := c.Bytes(c.Args[2], b[:]); err != nil {
		return supervise.FromError(err)
	}
	value := unix.ItimerSpec{Interval: timeOf(b[:16]), Value: timeOf(b[16:])}
	if valid(value.Value) && value.Value != (unix.Timespec{}) {
		value.Value = h.real(value.Value)
	}
	var old unix.ItimerSpec
	if err := unix.TimerfdSettime(fd, int(c.Arg32(1)), &value, &old); err != nil {
		return supervise.FromError(err)
	}
	if c.Args[3] == 0 {
		return supervise.Return(0)
	}
	interval, left := timeBytes(old.Interval), timeBytes(old.Value)
	return supervise.FromError(c.Write(c.Args[3], append(interval[:], left[:]...)))
}

func timeOfDay(clock int32) bool {
	return clock == realtime || clock == realtimeAlarm || clock == tai
}

// fail refuses a wait whose deadline cannot be corrected.
func (h *Handler) fail(c *supervise.Call, err error) supervise.Verdict {
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	e := h.config.Rule
	e.Kind, e.PID, e.Verdict = "error", c.TID, "EPERM"
	e.Syscall, _ = abi.SyscallName(h.arch, c.Nr)
	e.Reason = "the deadline cannot be moved to the host's time: " + err.Error()
	h.journal.Record(e)
	return supervise.Errno(unix.EPERM)
}
