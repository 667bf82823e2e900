package helper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// Line is a running helper that is talked to in messages. The helper ends when the line is hung up.
type Line struct {
	FD      int // readable when there is a message; -1 once the helper is gone
	process *Process
	errors  int // file that is its standard error, -1 if there is none
}

const (
	// startTime bounds the start of a helper.
	startTime = 10 * time.Second
	// endTime is how long a helper may take to end before it is killed.
	endTime = time.Second
)

// open starts a job that is talked to. begin says what the helper is told at first and takes its answer; what does not read
// blocks no longer than it takes to see that.
func (p *Program) open(job string, begin func(*Line) error) (l *Line, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	l = &Line{FD: pair[0], errors: -1}
	err = l.start(p, job, pair[1])
	_ = unix.Close(pair[1]) // or its end would not be seen
	if err == nil {
		err = l.patient()
	}
	if err == nil {
		err = begin(l)
	}
	if err != nil {
		l.Hang()
		l.reap()
		if said := l.Complaint(); said != "" {
			err = errors.New(said)
		}
		l.End()
		return nil, fmt.Errorf("the helper's %s does not start: %w", job, err)
	}
	return l, nil
}

func (l *Line) start(p *Program, job string, theirs int) (err error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	defer unix.Close(null)
	if l.errors, err = fixedFile(); err != nil {
		return err
	}
	l.process, err = p.Start(job, null, null, l.errors, theirs)
	return err
}

func (l *Line) patient() error {
	limit := unix.NsecToTimeval(int64(startTime))
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(l.FD, unix.SOL_SOCKET, option, &limit); err != nil {
			return err
		}
	}
	return nil
}

// maxComplaint is what a helper may write to its standard error, in bytes.
const maxComplaint = 4096

// fixedFile makes a file in memory that cannot grow.
func fixedFile() (int, error) {
	fd, err := unix.MemfdCreate("errors", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	if err = unix.Ftruncate(fd, maxComplaint); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("file in memory: %w", err)
	}
	return fd, nil
}

// Complaint returns the first line of what the helper wrote to its standard error, "" if there is none.
func (l *Line) Complaint() string {
	var b [maxReason]byte
	if l.errors < 0 {
		return ""
	}
	n, err := unix.Pread(l.errors, b[:], 0)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(bytes.TrimRight(b[:n], "\x00")), "\n")
	return strings.Map(printable, line)
}

// tell sends names, as many in a message as it holds.
func (l *Line) tell(names []string) error {
	const batch = 64 // with 256 bytes each they fit
	for len(names) > 0 {
		n := min(batch, len(names))
		if err := l.send(protocol.Names(names[:n]), 0); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

// ErrGone is returned once the helper has ended.
var ErrGone = errors.New("the helper has ended")

// Send sends a message, without waiting, and descriptors with it, which stay open here.
func (l *Line) Send(m protocol.Message, descriptors ...int) error {
	return l.send(m, unix.MSG_DONTWAIT, descriptors...)
}

func (l *Line) send(m protocol.Message, flags int, descriptors ...int) error {
	if l.FD < 0 {
		return ErrGone
	}
	b := protocol.Encode(m)
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	for {
		if err := unix.Sendmsg(l.FD, b, rights, nil, flags|unix.MSG_NOSIGNAL); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Receive returns the next message without waiting: unix.EAGAIN where there is none, ErrGone at the end.
func (l *Line) Receive() (protocol.Message, error) { return l.receive(unix.MSG_DONTWAIT) }

func (l *Line) receive(flags int) (protocol.Message, error) {
	if l.FD < 0 {
		return nil, ErrGone
	}
	var b [protocol.MaxMessage + 1]byte
	for {
		n, _, err := unix.Recvfrom(l.FD, b[:], flags)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, unix.EAGAIN
		case err != nil || n == 0:
			return nil, ErrGone
		}
		return protocol.Decode(b[:n])
	}
}

// Hang closes the line, by which the helper ends.
func (l *Line) Hang() {
	if l.FD >= 0 {
		_ = unix.Close(l.FD)
		l.FD = -1
	}
}

// End ends and reaps the helper. It may be called again.
func (l *Line) End() {
	l.Hang()
	l.reap()
	if l.errors >= 0 {
		_ = unix.Close(l.errors)
		l.errors = -1
	}
}

func (l *Line) reap() {
	if l.process == nil {
		return
	}
	if _, ended := l.process.Wait(endTime); !ended {
		// This thread may be confined by now, and then cannot signal what is not in its domain.
		done := make(chan struct{})
		go func() {
			l.process.End()
			close(done)
		}()
		<-done
	}
	l.process = nil
}
