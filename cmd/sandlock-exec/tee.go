package main

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// liveStderr returns a writer to this process's standard error that nobody can hold up by not reading it. Who must not wait needs
// O_NONBLOCK, which belongs to the open file and so would be that of all who share it, the shell included: a terminal or pipe
// is opened anew. A file is written where it is, at the position that all share, and never makes anybody wait. A socket
// cannot be opened, but told with each message. Where none of that can be had (a terminal of another user's, after su) it
// is asked before each piece whether there is room.
func liveStderr() io.Writer {
	var st unix.Stat_t
	if err := unix.Fstat(2, &st); err != nil {
		return io.Discard
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return os.Stderr
	case unix.S_IFSOCK:
		return &live{fd: 2, write: func(fd int, p []byte) (int, error) {
			return unix.SendmsgN(fd, p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}}
	}
	fd, err := unix.Open("/proc/self/fd/2", unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &live{fd: 2, write: func(fd int, p []byte) (int, error) {
			if !roomy(fd, 0) {
				return 0, unix.EAGAIN
			}
			return unix.Write(fd, p[:min(len(p), pieceAtOnce)])
		}}
	}
	return &live{fd: fd, write: unix.Write}
}

const (
	pieceAtOnce = 512 // bytes: a pipe that has room has room for that (PIPE_BUF at least)
	patience    = 100 // milliseconds for a reader that is slow, as a terminal can be
)

// live writes to a descriptor without waiting for its reader for long: what cannot be written is dropped.
type live struct {
	fd    int
	write func(fd int, p []byte) (int, error)
	stuck bool // nobody has read for that long: it is not waited again
}

func (l *live) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n, err := l.write(l.fd, rest)
		rest = rest[max(n, 0):]
		switch {
		case err == nil:
			l.stuck = false
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN):
			return len(p), nil
		default:
			wait := patience
			if l.stuck {
				wait = 0
			}
			if l.stuck = !roomy(l.fd, wait); l.stuck {
				return len(p), nil
			}
		}
	}
	return len(p), nil
}

// roomy waits for room, some milliseconds at most.
func roomy(fd, wait int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(poll, wait)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0 && poll[0].Revents&unix.POLLOUT != 0
		}
	}
}
