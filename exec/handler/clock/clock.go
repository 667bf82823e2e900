// Package clock shows a sandbox a time of day that begins at determinism.time_start.
//
// It answers the calls that read the time of day, and corrects those that wait until one. What is shown is CLOCK_BOOTTIME
// and a fixed shift, so it passes as time does, also where the host's clock is set meanwhile; the stubs that package
// image puts into the vDSO compute the same. Clocks that measure spans of time (CLOCK_MONOTONIC and the like) are never
// notified and show the truth, as do the times of files.
//
// It decides nothing about policy. It must never leave a wait uncorrected in silence: a deadline in the sandbox's time
// taken for one in the host's can be years off.
//
// Read next: wait.go (deadlines), restore.go (why the caller's memory is put back).
package clock

import (
	"encoding/binary"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Config is what the handler is to know.
type Config struct {
	Start int64                            // what the clock is to show now, in seconds since 1970
	Watch func(fd int, ready func()) error // the loop's
	// CanDefer tells whether supervise.Wait would find room for a call: the loop's.
	CanDefer func(*supervise.Call) bool
	Rule     supervise.Event // Rule and Origin of the field, for the journal
}

// Handler is the clock of one sandbox.
type Handler struct {
	arch    abi.Arch
	config  Config
	journal supervise.Journal
	shift   unix.Timespec // from CLOCK_BOOTTIME to what is shown
	host    host
	calls   map[abi.Sysno]func(*supervise.Call) supervise.Verdict
	changed restorer
	closer  supervise.Closer
}

// New makes the handler. From now on the clock runs.
func New(arch abi.Arch, c Config, j supervise.Journal) *Handler {
	return newHandler(arch, c, j, thisHost)
}

func newHandler(arch abi.Arch, c Config, j supervise.Journal, on host) *Handler {
	h := &Handler{arch: arch, config: c, journal: j, host: on, calls: map[abi.Sysno]func(*supervise.Call) supervise.Verdict{}}
	h.shift = minus(unix.Timespec{Sec: c.Start}, on.now(unix.CLOCK_BOOTTIME))
	h.changed = restorer{watch: c.Watch, blocked: on.blocked}
	for name, answer := range map[string]func(*supervise.Call) supervise.Verdict{
		"clock_gettime":   h.clockGettime,
		"gettimeofday":    h.gettimeofday,
		"time":            h.time,
		"clock_nanosleep": h.clockNanosleep,
		"futex":           func(c *supervise.Call) supervise.Verdict { return h.wait(c, c.Args[3]) },
		"futex_waitv":     func(c *supervise.Call) supervise.Verdict { return h.wait(c, c.Args[3]) },
		"mq_timedsend":    func(c *supervise.Call) supervise.Verdict { return h.wait(c, c.Args[4]) },
		"mq_timedreceive": func(c *supervise.Call) supervise.Verdict { return h.wait(c, c.Args[4]) },
		"timer_settime":   h.timerSettime,
		"timerfd_settime": h.timerfdSettime,
	} {
		if nr, ok := abi.SyscallNumber(arch, name); ok {
			h.calls[nr] = answer
		}
	}
	return h
}

// Shift is what is added to CLOCK_BOOTTIME.
func (h *Handler) Shift() (seconds, nanoseconds int64) { return h.shift.Sec, h.shift.Nsec }

// Name is the concern.
func (h *Handler) Name() string { return "clock" }

// Syscalls lists the calls that read the time of day or wait until one.
func (h *Handler) Syscalls() []abi.Sysno {
	return slices.Collect(maps.Keys(h.calls))
}

// Handle answers a call.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict { return h.calls[c.Nr](c) }

// now is the time that is shown.
func (h *Handler) now() unix.Timespec { return plus(h.host.now(unix.CLOCK_BOOTTIME), h.shift) }

// The clocks that show the time of day (clock_getres(2)).
const (
	realtime       = 0
	realtimeCoarse = 5
	realtimeAlarm  = 8
	tai            = 11
)

// clockGettime is clock_gettime(clock, time).
func (h *Handler) clockGettime(c *supervise.Call) supervise.Verdict {
	shown := h.now()
	switch c.Arg32(0) {
	case realtime, realtimeCoarse, realtimeAlarm:
	case tai:
		// Atomic time is ahead by the leap seconds, if anybody told the host how many there were.
		ahead := minus(h.host.now(tai), h.host.now(realtime))
		shown.Sec += plus(ahead, unix.Timespec{Nsec: second / 2}).Sec
	default:
		return supervise.Pass(supervise.DecidedOnRegisters)
	}
	return h.answer(c, c.Args[1], shown.Sec, shown.Nsec)
}

// gettimeofday is gettimeofday(time, zone). Either may be missing. The kernel's time zone has been zero on every system
// since C libraries have their own.
func (h *Handler) gettimeofday(c *supervise.Call) supervise.Verdict {
	if zone := c.Args[1]; zone != 0 {
		if err := c.Write(zone, make([]byte, 8)); err != nil {
			return supervise.FromError(err)
		}
	}
	if c.Args[0] == 0 {
		return supervise.Return(0)
	}
	shown := h.now()
	return h.answer(c, c.Args[0], shown.Sec, shown.Nsec/1000)
}

// time is time(t), where t may be missing.
func (h *Handler) time(c *supervise.Call) supervise.Verdict {
	shown := h.now()
	if t := c.Args[0]; t != 0 {
		if err := c.Write(t, binary.NativeEndian.AppendUint64(nil, uint64(shown.Sec))); err != nil {
			return supervise.FromError(err)
		}
	}
	return supervise.Return(shown.Sec)
}

// answer writes two words, and returns 0 to the caller.
func (h *Handler) answer(c *supervise.Call, addr uint64, a, b int64) supervise.Verdict {
	words := timeBytes(unix.Timespec{Sec: a, Nsec: b})
	return supervise.FromError(c.Write(addr, words[:]))
}

const second = 1e9

// plus and minus keep nanoseconds from 0 to 999999999, and stop at what seconds can hold.
func plus(a, b unix.Timespec) unix.Timespec {
	t := unix.Timespec{Sec: saturated(a.Sec, b.Sec), Nsec: a.Nsec + b.Nsec}
	if t.Nsec >= second {
		t.Sec, t.Nsec = saturated(t.Sec, 1), t.Nsec-second
	}
	return t
}

func minus(a, b unix.Timespec) unix.Timespec {
	negative := unix.Timespec{Sec: -b.Sec}
	if b.Nsec > 0 {
		negative = unix.Timespec{Sec: -b.Sec - 1, Nsec: second - b.Nsec}
	}
	return plus(a, negative)
}

func saturated(a, b int64) int64 {
	sum := a + b
	if a > 0 && b > 0 && sum < 0 {
		return 1<<63 - 1
	}
	if a < 0 && b < 0 && sum >= 0 {
		return -1 << 63
	}
	return sum
}

// timeBytes and timeOf are struct timespec, two words.
func timeBytes(t unix.Timespec) (b [16]byte) {
	binary.NativeEndian.PutUint64(b[:], uint64(t.Sec))
	binary.NativeEndian.PutUint64(b[8:], uint64(t.Nsec))
	return b
}

func timeOf(b []byte) unix.Timespec {
	return unix.Timespec{Sec: int64(binary.NativeEndian.Uint64(b)), Nsec: int64(binary.NativeEndian.Uint64(b[8:]))}
}
