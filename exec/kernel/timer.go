package kernel

import (
	"bytes"
	"errors"
	"os"
	"strconv"
)

// ErrNoTimer says that a process has no timer of a number.
var ErrNoTimer = errors.New("no such timer")

// TimerClock returns the clock of a POSIX timer of the process that thread tid belongs to (/proc/<pid>/timers).
func TimerClock(tid int, timer int32) (clock int32, err error) {
	b, err := os.ReadFile(procPath(tid, "timers"))
	if err != nil {
		return 0, err
	}
	return parseTimers(b, timer)
}

func parseTimers(b []byte, timer int32) (int32, error) {
	found := false
	for line := range bytes.Lines(b) {
		if id, ok := lineNumber(line, "ID: "); ok {
			found = id == timer
		}
		if clock, ok := lineNumber(line, "ClockID: "); ok && found {
			return clock, nil
		}
	}
	return 0, ErrNoTimer
}

// TimerFDClock returns the clock of a timer behind a descriptor of this process; ok is false for other files.
func TimerFDClock(fd int) (clock int32, ok bool) {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(b) {
		if clock, ok := lineNumber(line, "clockid: "); ok {
			return clock, true
		}
	}
	return 0, false
}

func lineNumber(line []byte, key string) (int32, bool) {
	rest, ok := bytes.CutPrefix(line, []byte(key))
	n, err := strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 32)
	return int32(n), ok && err == nil
}
