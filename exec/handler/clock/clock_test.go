package clock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

type notes []supervise.Event

func (n *notes) Record(e supervise.Event) { *n = append(*n, e) }

// The host of these tests was started at boot, has run for a while, and shows another time than the sandbox.
const (
	start   = 946684800  // 2000
	hostNow = 1700000000 // 2023
)

// sandbox is a handler on a host whose clocks stand still unless a test moves them.
type sandbox struct {
	*Handler
	boot    unix.Timespec
	asleep  bool
	clock   int32 // of timers
	noTimer error
	journal notes
	later   time.Duration
}

func newSandbox() *sandbox {
	s := &sandbox{boot: unix.Timespec{Sec: 100, Nsec: 900000000}}
	s.Handler = newHandler(abi.AMD64, Config{
		Start: start,
		Watch: func(int, func()) error { return nil },

		CanDefer: func(*supervise.Call) bool { return true },

		Rule: supervise.Event{Rule: "determinism.time_start"},
	}, &s.journal, host{
		now: func(clock int32) unix.Timespec {
			switch clock {
			case unix.CLOCK_BOOTTIME:
				return s.boot
			case tai:
				return unix.Timespec{Sec: hostNow + 37, Nsec: 10}
			}
			return unix.Timespec{Sec: hostNow}
		},
		blocked:    func(int) bool { return s.asleep },
		timerClock: func(int, int32) (int32, error) { return s.clock, s.noTimer },
		duplicate:  func(_, fd int) (int, error) { return unix.Dup(fd) },
	})
	return s
}

func (s *sandbox) call(name string, m *supervisetest.Memory, args ...uint64) string {
	nr, ok := abi.SyscallNumber(abi.AMD64, name)
	if !ok {
		panic(name)
	}
	var a [6]uint64
	copy(a[:], args)
	return s.Handle(supervise.NewCall(7, nr, a, m)).String()
}

func at(sec, nsec int64) unix.Timespec { return unix.Timespec{Sec: sec, Nsec: nsec} }

// look has the restorer look at all that it has.
func (s *sandbox) look() {
	s.later += time.Hour
	s.changed.look(time.Now().Add(s.later))
}

// memory is a guest that has times, one behind the other.
func memory(times ...unix.Timespec) *supervisetest.Memory {
	m := &supervisetest.Memory{}
	for _, t := range times {
		b := timeBytes(t)
		m.Bytes = append(m.Bytes, b[:]...)
	}
	return m
}

func deadline(m *supervisetest.Memory) unix.Timespec { return timeOf(m.Bytes) }

const (
	base = supervisetest.Base
	pass = "pass: the kernel decides"
)

func TestRead(t *testing.T) {
	for _, tc := range []struct {
		call    string
		args    []uint64
		verdict string
		want    []int64 // words from base on
	}{
		{"clock_gettime", []uint64{realtime, base}, "return 0", []int64{start + 1, 200000000}},
		{"clock_gettime", []uint64{realtime | 1<<32, base}, "return 0", []int64{start + 1, 200000000}},
		{"clock_gettime", []uint64{realtimeCoarse, base}, "return 0", []int64{start + 1, 200000000}},
		{"clock_gettime", []uint64{tai, base}, "return 0", []int64{start + 1 + 37, 200000000}},
		{"clock_gettime", []uint64{unix.CLOCK_MONOTONIC, base}, "pass: decided on registers", []int64{0, 0}},
		{"clock_gettime", []uint64{realtime, 0}, "errno EFAULT", []int64{0, 0}},
		{"gettimeofday", []uint64{base, 0}, "return 0", []int64{start + 1, 200000}},
		{"gettimeofday", []uint64{base, base + 16}, "return 0", []int64{start + 1, 200000, 0}},
		{"gettimeofday", []uint64{0, 0}, "return 0", []int64{0, 0}},
		{"gettimeofday", []uint64{1, 0}, "errno EFAULT", []int64{0, 0}},
		{"gettimeofday", []uint64{base, 1}, "errno EFAULT", []int64{0, 0}},
		{"time", []uint64{0}, "return 946684801", []int64{0, 0}},
		{"time", []uint64{base}, "return 946684801", []int64{start + 1, 0}},
		{"time", []uint64{1}, "errno EFAULT", []int64{0, 0}},
	} {
		s := newSandbox()
		s.boot = plus(s.boot, at(1, 200000000))
		m := &supervisetest.Memory{Bytes: append(make([]byte, 16), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)}
		if got := s.call(tc.call, m, tc.args...); got != tc.verdict {
			t.Errorf("%s%v: %s, want %s", tc.call, tc.args, got, tc.verdict)
		}
		for i, want := range tc.want {
			if got := int64(binary.NativeEndian.Uint64(m.Bytes[8*i:])); got != want {
				t.Errorf("%s%v: word %d is %d, want %d", tc.call, tc.args, i, got, want)
			}
		}
	}
}

func TestShift(t *testing.T) {
	s := newSandbox()
	if sec, nsec := s.Shift(); sec != start-101 || nsec != 100000000 {
		t.Errorf("shift %d s %d ns, want %d s 100000000 ns", sec, nsec, start-101)
	}
}

func TestArithmetic(t *testing.T) {
	const most = math.MaxInt64
	for _, tc := range []struct{ got, want unix.Timespec }{
		{plus(at(1, 999999999), at(1, 1)), at(3, 0)},
		{plus(at(most, 999999999), at(0, 1)), at(most, 0)},
		{plus(at(most, 0), at(most, 0)), at(most, 0)},
		{plus(at(-most, 0), at(-most, 0)), at(math.MinInt64, 0)},
		{minus(at(5, 0), at(2, 1)), at(2, 999999999)},
		{minus(at(5, 3), at(5, 3)), at(0, 0)},
		{minus(at(5, 0), at(6, 0)), at(-1, 0)},
		{minus(at(5, 0), at(5, 1)), at(-1, 999999999)},
	} {
		if tc.got != tc.want {
			t.Errorf("got %+v, want %+v", tc.got, tc.want)
		}
	}
}

func TestWaits(t *testing.T) {
	for _, tc := range []struct {
		name    string
		call    string
		args    []uint64
		until   unix.Timespec
		verdict string
		want    unix.Timespec
	}{
		{"sleep", "clock_nanosleep", []uint64{0, 1, base}, at(start+10, 5), pass, at(hostNow+10, 5)},
		{"sleep until atomic time", "clock_nanosleep", []uint64{tai, 1, base}, at(start+37+10, 5), pass, at(hostNow+37+10, 5)},
		{"sleep that is over", "clock_nanosleep", []uint64{0, 1, base}, at(start, 0), "return 0", at(start, 0)},
		{"sleep until long ago", "clock_nanosleep", []uint64{0, 1, base}, at(0, 0), "return 0", at(0, 0)},
		{"short sleep", "clock_nanosleep", []uint64{0, 1, base}, at(start, 2000000), "wait", at(start, 2000000)},
		{"no time", "clock_nanosleep", []uint64{0, 1, base}, at(start, second), pass, at(start, second)},
		{"negative", "clock_nanosleep", []uint64{0, 1, base}, at(-1, 0), pass, at(-1, 0)},
		{"for ever", "clock_nanosleep", []uint64{0, 1, base}, at(math.MaxInt64, 0), pass, at(math.MaxInt64, 0)},
		{"unmapped", "clock_nanosleep", []uint64{0, 1, 1}, at(start+10, 0), pass, at(start+10, 0)},
		{"futex", "futex", []uint64{0, 0, 0, base}, at(start+10, 5), pass, at(hostNow+10, 5)},
		{"futex long ago", "futex", []uint64{0, 0, 0, base}, at(0, 0), pass, at(hostNow-start, 0)},
		{"futex_waitv", "futex_waitv", []uint64{0, 0, 0, base}, at(start+10, 5), pass, at(hostNow+10, 5)},
		{"queue", "mq_timedreceive", []uint64{0, 0, 0, 0, base}, at(start+10, 5), pass, at(hostNow+10, 5)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, m := newSandbox(), memory(tc.until)
			m.ReadOnly = true // a constant, for example
			if got := s.call(tc.call, m, tc.args...); got != tc.verdict {
				t.Errorf("verdict %s, want %s", got, tc.verdict)
			}
			if got := deadline(m); got != tc.want {
				t.Errorf("deadline %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestShortSleepIsTheKernelsWhereThereIsNoRoom(t *testing.T) {
	s := newSandbox()
	s.config.CanDefer = func(*supervise.Call) bool { return false }
	m := memory(at(start, 1000000))
	if got := s.call("clock_nanosleep", m, 0, 1, base); got != pass || deadline(m) != at(hostNow, 1000000) {
		t.Errorf("%s, deadline %+v; want the kernel to wait", got, deadline(m))
	}
}

// In a sandbox that is ahead of the host, what is long over there must not become a time that the kernel refuses.
func TestDeadlineBeforeTheHostsEpoch(t *testing.T) {
	s := newSandbox()
	s.shift.Sec += 2 * hostNow
	m := memory(at(5, 0))
	if got := s.call("futex", m, 0, 0, 0, base); got != pass || deadline(m) != at(0, 1) {
		t.Errorf("%s, deadline %+v; want the first moment", got, deadline(m))
	}
}

func TestWaitFails(t *testing.T) {
	s, m := newSandbox(), memory(at(start+10, 0))
	m.Sealed = unix.EACCES
	if got := s.call("futex", m, 0, 0, 0, base); got != "errno EPERM" || len(s.journal) != 1 || s.journal[0].Rule != "determinism.time_start" || s.journal[0].Syscall != "futex" {
		t.Errorf("memory that cannot be opened: %s, journal %+v", got, s.journal)
	}
	m.Gone = true
	if got := s.call("futex", m, 0, 0, 0, base); got != "errno ESRCH" || len(s.journal) != 1 {
		t.Errorf("caller is gone: %s, journal %+v", got, s.journal)
	}
}

func TestDeadlineIsPutBack(t *testing.T) {
	wait := func() (*sandbox, *supervisetest.Memory) {
		s, m := newSandbox(), memory(at(start+10, 0))
		s.call("futex", m, 0, 0, 0, base)
		return s, m
	}
	t.Run("when the caller sleeps", func(t *testing.T) {
		s, m := wait()
		s.look()
		if got := deadline(m); got != at(hostNow+10, 0) {
			t.Errorf("while it runs: %+v, want it left alone", got)
		}
		s.asleep = true
		s.look()
		if got := deadline(m); got != at(start+10, 0) || len(s.changed.changes) != 0 {
			t.Errorf("while it sleeps: %+v, %d remembered; want it put back", got, len(s.changed.changes))
		}
	})
	t.Run("not over something else", func(t *testing.T) {
		s, m := wait()
		m.Bytes[0]++
		other := bytes.Clone(m.Bytes)
		s.asleep = true
		s.look()
		if !bytes.Equal(m.Bytes, other) {
			t.Errorf("% x, want % x", m.Bytes, other)
		}
	})
	t.Run("at the next wait", func(t *testing.T) {
		s, m := wait()
		s.call("futex", m, 0, 0, 0, base)
		if got := deadline(m); got != at(hostNow+10, 0) {
			t.Errorf("%+v, want it changed once", got)
		}
	})
	t.Run("at the next wait of a series", func(t *testing.T) {
		s, m := wait()
		next := timeBytes(at(hostNow+15, 1))
		copy(m.Bytes, next[:])
		s.look()
		s.call("futex", m, 0, 0, 0, base)
		if got := deadline(m); got != at(hostNow+15, 1) {
			t.Errorf("%+v, want it taken for what it is", got)
		}
		s.asleep = true
		s.look()
		if got := deadline(m); got != at(start+15, 1) {
			t.Errorf("%+v, want the series to go on in the sandbox's time", got)
		}
	})
	t.Run("a new deadline at the same place", func(t *testing.T) {
		s, m := wait()
		next := timeBytes(at(start+15, 1))
		copy(m.Bytes, next[:])
		s.call("futex", m, 0, 0, 0, base)
		if got := deadline(m); got != at(hostNow+15, 1) {
			t.Errorf("%+v, want it changed", got)
		}
	})
	t.Run("but not for ever", func(t *testing.T) {
		s, m := wait()
		for range maxLooks + 1 {
			s.look()
		}
		s.asleep = true
		s.look()
		if got := deadline(m); got != at(hostNow+10, 0) {
			t.Errorf("%+v, want it left alone", got)
		}
	})
}

func TestChangesAreBounded(t *testing.T) {
	s := newSandbox()
	m := &supervisetest.Memory{}
	for range maxChanges + 10 {
		m.Bytes = append(m.Bytes, memory(at(start+10, 0)).Bytes...)
	}
	for n := range uint64(maxChanges + 10) {
		s.call("futex", m, 0, 0, 0, base+16*n)
	}
	if n := len(s.changed.changes); n != maxChanges {
		t.Errorf("%d changes, want %d", n, maxChanges)
	}
}

func TestTimerSettime(t *testing.T) {
	for _, tc := range []struct {
		name    string
		clock   int32
		err     error
		until   unix.Timespec
		verdict string
		want    unix.Timespec
	}{
		{"time of day", realtime, nil, at(start+10, 0), pass, at(hostNow+10, 0)},
		{"long ago", realtimeAlarm, nil, at(1, 0), pass, at(hostNow-start+1, 0)},
		{"another clock", unix.CLOCK_MONOTONIC, nil, at(start+10, 0), pass, at(start+10, 0)},
		{"stop", realtime, nil, at(0, 0), pass, at(0, 0)},
		{"no such timer", 0, kernel.ErrNoTimer, at(start+10, 0), pass, at(start+10, 0)},
		{"unknown", 0, errors.New("no list"), at(start+10, 0), "errno EPERM", at(start+10, 0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, m := newSandbox(), memory(at(3, 0), tc.until)
			s.clock, s.noTimer = tc.clock, tc.err
			if got := s.call("timer_settime", m, 0, 1, base, 0); got != tc.verdict {
				t.Errorf("verdict %s, want %s", got, tc.verdict)
			}
			if got := timeOf(m.Bytes[16:]); got != tc.want || deadline(m) != at(3, 0) {
				t.Errorf("interval %+v, deadline %+v; want 3 s and %+v", deadline(m), got, tc.want)
			}
		})
	}
}

func TestTimerfdSettime(t *testing.T) {
	for _, tc := range []struct {
		name    string
		clock   int
		until   unix.Timespec
		old     uint64
		verdict string
	}{
		{"time of day", unix.CLOCK_REALTIME, at(start+1e6, 0), 0, "return 0"},
		{"with what it was before", unix.CLOCK_REALTIME, at(start+1e6, 0), base + 32, "return 0"},
		{"stop", unix.CLOCK_REALTIME, at(0, 0), 0, "return 0"},
		{"no time", unix.CLOCK_REALTIME, at(0, second), 0, "errno EINVAL"},
		{"nowhere to say what it was", unix.CLOCK_REALTIME, at(start+1e6, 0), 1, "errno EFAULT"},
		{"another clock", unix.CLOCK_MONOTONIC, at(start, 0), 0, pass},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fd, err := unix.TimerfdCreate(tc.clock, unix.TFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			s := newSandbox()
			var now unix.Timespec
			_ = unix.ClockGettime(unix.CLOCK_REALTIME, &now)
			s.host.now = func(clock int32) unix.Timespec {
				if clock == realtime {
					return now
				}
				return s.boot
			}
			m := memory(at(0, 0), tc.until, at(9, 9), at(9, 9))
			if got := s.call("timerfd_settime", m, uint64(fd), 1, base, tc.old); got != tc.verdict {
				t.Errorf("verdict %s, want %s", got, tc.verdict)
			}
			if deadline := timeOf(m.Bytes[16:]); deadline != tc.until {
				t.Errorf("the caller's deadline has become %+v", deadline)
			}
			var spec unix.ItimerSpec
			if err := unix.TimerfdGettime(fd, &spec); err != nil {
				t.Fatal(err)
			}
			// A million seconds by the sandbox's clock is as much by the host's.
			if want := tc.until.Sec > start && tc.clock == unix.CLOCK_REALTIME; want != (spec.Value.Sec > 9e5 && spec.Value.Sec <= 1e6) {
				t.Errorf("%+v are left", spec.Value)
			}
			if old := timeOf(m.Bytes[48:]); tc.old == base+32 && old != at(0, 0) {
				t.Errorf("before there were %+v left, want none", old)
			}
		})
	}
	if got := newSandbox().call("timerfd_settime", memory(), 0, 1, base, 0); got != pass && got != "errno EBADF" {
		t.Errorf("another file: %s, want the kernel to refuse", got)
	}
}
