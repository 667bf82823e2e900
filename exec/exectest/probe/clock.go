package main

import (
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// clockCommands read the time of day in every way there is, and wait until one.
var clockCommands = []command{
	{"clocks", "", 0, clocks},
	{"wait-until", "HOW MILLISECONDS", 2, func(args []string) outcome {
		how, ok := waits[args[0]]
		if !ok {
			return outcome("no such way to wait")
		}
		return waitUntil(how, time.Duration(number(args[1]))*time.Millisecond)
	}},
	{"wait-often", "TIMES MICROSECONDS", 2, func(args []string) outcome {
		return waitOften(number(args[0]), time.Duration(number(args[1]))*time.Microsecond)
	}},
}

// clocks prints the years that the clocks show, whether all of them agree within a minute, and whether the clocks that
// measure spans of time agree with the library's.
func clocks([]string) outcome {
	first := time.Now() // by way of the vDSO
	seen := []int64{first.Unix()}
	var ts unix.Timespec
	for _, clock := range []uintptr{unix.CLOCK_REALTIME, 5, unix.CLOCK_TAI} {
		if _, _, e := unix.Syscall(unix.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
			return failedAt(fmt.Sprint("clock ", clock), e)
		}
		seen = append(seen, ts.Sec)
	}
	var tv unix.Timeval
	if _, _, e := unix.Syscall(unix.SYS_GETTIMEOFDAY, uintptr(unsafe.Pointer(&tv)), 0, 0); e != 0 {
		return failedAt("gettimeofday", e)
	}
	seen = append(seen, tv.Sec)
	if runtime.GOARCH == "amd64" {
		var stored int64
		nr, _ := abi.SyscallNumber(abi.AMD64, "time")
		returned, _, e := unix.Syscall(uintptr(nr), uintptr(unsafe.Pointer(&stored)), 0, 0)
		if e != 0 || int64(returned) != stored {
			return failedAt("time", e)
		}
		seen = append(seen, stored)
	}
	agree := true
	for _, s := range seen {
		agree = agree && s >= seen[0]-60 && s <= seen[0]+60
	}
	var spans [2]unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &spans[0])
	unix.Syscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&spans[1])), 0)
	steady := spans[1].Nano()-spans[0].Nano() < int64(time.Minute) && time.Since(first) < time.Minute
	return value("%d agree=%v steady=%v", first.UTC().Year(), agree, steady)
}

// waits are the ways to wait until a time of day. Each returns when it has come.
var waits = map[string]func(until *unix.Timespec) unix.Errno{
	"clock_nanosleep": func(until *unix.Timespec) unix.Errno {
		return uninterrupted(func() unix.Errno {
			_, _, e := unix.Syscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_REALTIME, timerAbstime, uintptr(unsafe.Pointer(until)), 0, 0, 0)
			return e
		})
	},
	"futex": func(until *unix.Timespec) unix.Errno {
		const waitBitset, realtime = 9, 256
		return futex(waitBitset|realtime, until)
	},
	"futex_lock_pi": func(until *unix.Timespec) unix.Errno {
		const lockPI = 6
		// Owned by another thread: the lock is never to be had.
		ready, tid := make(chan bool), uint32(0)
		go func() {
			runtime.LockOSThread()
			tid = uint32(unix.Gettid())
			ready <- true
			<-ready
		}()
		<-ready
		defer func() { ready <- true }()
		_, _, e := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&tid)), lockPI, 0, uintptr(unsafe.Pointer(until)), 0, 0)
		return expired(e)
	},
	"futex_waitv": func(until *unix.Timespec) unix.Errno {
		var word uint32
		waiter := struct {
			value, addr     uint64
			flags, reserved uint32
		}{0, uint64(uintptr(unsafe.Pointer(&word))), 2, 0}
		nr, _ := abi.SyscallNumber(abi.AMD64, "futex_waitv") // the same on every architecture
		_, _, e := unix.Syscall6(uintptr(nr), uintptr(unsafe.Pointer(&waiter)), 1, 0, uintptr(unsafe.Pointer(until)), unix.CLOCK_REALTIME, 0)
		return expired(e)
	},
	"timerfd": func(until *unix.Timespec) unix.Errno {
		fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, 0)
		if err != nil {
			return err.(unix.Errno)
		}
		spec := unix.ItimerSpec{Value: *until}
		if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
			return err.(unix.Errno)
		}
		*until = spec.Value
		var expirations [8]byte
		_, err = unix.Read(fd, expirations[:])
		e, _ := err.(unix.Errno)
		return e
	},
	"timer": func(until *unix.Timespec) unix.Errno {
		event := [64]byte{12: 1} // SIGEV_NONE
		var timer int32
		_, _, e := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&timer)))
		if e != 0 {
			return e
		}
		spec := unix.ItimerSpec{Value: *until}
		_, _, e = unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(timer), timerAbstime, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
		var left unix.ItimerSpec
		for e == 0 {
			_, _, e = unix.Syscall(unix.SYS_TIMER_GETTIME, uintptr(timer), uintptr(unsafe.Pointer(&left)), 0)
			if left.Value.Nano() == 0 {
				break
			}
			_ = unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil)
		}
		*until = spec.Value
		return e
	},
}

const timerAbstime = 1

func futex(op uintptr, until *unix.Timespec) unix.Errno {
	var word uint32
	return expired(uninterrupted(func() unix.Errno {
		_, _, e := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&word)), op, 0, uintptr(unsafe.Pointer(until)), 0, 0xffffffff)
		return e
	}))
}

// uninterrupted makes a call again that a signal has interrupted. The runtime signals its own threads, and some waits end
// with EINTR then though its handlers have SA_RESTART (signal(7)): those of clock_nanosleep and of FUTEX_WAIT_BITSET with
// a deadline. The other waits of this file are restarted by the kernel, so that EINTR from them is a failure.
func uninterrupted(wait func() unix.Errno) unix.Errno {
	for {
		if e := wait(); e != unix.EINTR {
			return e
		}
	}
}

// expired turns the answer of a wait that is never fulfilled into success.
func expired(e unix.Errno) unix.Errno {
	if e == unix.ETIMEDOUT {
		return 0
	}
	return e
}

// leastWait is how long a wait of some length takes at least: the clocks that a time is read from are read one after the
// other.
func leastWait(length time.Duration) time.Duration { return length - time.Millisecond }

// putBack tells whether a deadline in memory is what it was. It may become so while the program sleeps.
func putBack(deadline *unix.Timespec, was unix.Timespec) bool {
	for end := time.Now().Add(time.Second); *deadline != was && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	return *deadline == was
}

// waitUntil waits, and says whether that took as long as it should, and whether the deadline is in memory as it was.
func waitUntil(how func(*unix.Timespec) unix.Errno, length time.Duration) outcome {
	started := time.Now()
	until := unix.NsecToTimespec(started.Add(length).UnixNano())
	before := until
	if e := how(&until); e != 0 {
		return result(e)
	}
	waited := time.Since(started)
	return value("waited=%v kept=%v", waited >= leastWait(length), putBack(&until, before))
}

// waitOften waits as a program does that does something every so often: the next deadline is made from the last one.
func waitOften(times int, length time.Duration) outcome {
	started := time.Now()
	until := started.UnixNano()
	ts := unix.NsecToTimespec(until)
	for range times {
		next := ts.Nano() + int64(length)
		ts = unix.NsecToTimespec(next)
		if e := waits["clock_nanosleep"](&ts); e != 0 {
			return result(e)
		}
	}
	all := time.Duration(times) * length
	waited := time.Since(started)
	return value("waited=%v kept=%v", waited >= leastWait(all), putBack(&ts, unix.NsecToTimespec(until+int64(all))))
}
