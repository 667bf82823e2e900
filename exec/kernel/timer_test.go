package kernel

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseTimers(t *testing.T) {
	const list = "ID: 1\nsignal: 60/00007fff86e452a8\nnotify: signal/pid.2634\nClockID: 0\nID: 12\nsignal: 60/0\nnotify: none/pid.1954\nClockID: 11\n"
	for timer, want := range map[int32]int32{1: 0, 12: 11} {
		if got, err := parseTimers([]byte(list), timer); got != want || err != nil {
			t.Errorf("timer %d: clock %d, %v; want %d", timer, got, err, want)
		}
	}
	for _, timer := range []int32{0, 2, -1} {
		if _, err := parseTimers([]byte(list), timer); !errors.Is(err, ErrNoTimer) {
			t.Errorf("timer %d: %v, want none", timer, err)
		}
	}
}

func TestTimerFDClock(t *testing.T) {
	for _, clock := range []int{unix.CLOCK_REALTIME, unix.CLOCK_BOOTTIME} {
		fd, err := unix.TimerfdCreate(clock, unix.TFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := TimerFDClock(fd); !ok || int(got) != clock {
			t.Errorf("clock %d, %v; want %d", got, ok, clock)
		}
		_ = unix.Close(fd)
	}
	if _, ok := TimerFDClock(0); ok {
		t.Error("standard input is no timer")
	}
}
