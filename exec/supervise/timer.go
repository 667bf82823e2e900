package supervise

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Timer calls a function on the loop's thread after a time that can be set again and again. The time is monotonic.
type Timer struct{ fd int }

// NewTimer makes a timer that is not set.
func NewTimer(l *Loop, expired func()) (*Timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("timer: %w", err)
	}
	err = l.Watch(fd, func() {
		var expirations [8]byte
		if _, err := unix.Read(fd, expirations[:]); err == nil { // else it was set anew meanwhile
			expired()
		}
	})
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	t := &Timer{fd}
	l.AtEnd(func() {
		t.fd = -1
		_ = unix.Close(fd)
	})
	return t, nil
}

// Set has the function called once, after d.
func (t *Timer) Set(d time.Duration) {
	d = max(d, 1) // 0 would disarm it
	// It fails only when the loop has ended: the descriptor is a timer and the time is none that the kernel refuses.
	_ = unix.TimerfdSettime(t.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil)
}

// Stop takes a Set back.
func (t *Timer) Stop() { _ = unix.TimerfdSettime(t.fd, 0, &unix.ItimerSpec{}, nil) }
