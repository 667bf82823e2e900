package helper

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// ResolverConfig is what a resolver is to do.
type ResolverConfig struct {
	Names       []string // of rules, those with a wildcard included
	Hosts       []protocol.Host
	Private     bool             // names must not lead to private addresses
	Nameservers []netip.AddrPort // to ask; none: those of the host
}

// Resolver is a running resolver.
type Resolver struct {
	Listeners protocol.Ready
	FD        int // readable when there is a message; -1 once the helper is gone
	process   *Process
	errors    int // file that is its standard error, -1 if there is none
}

// startTime bounds the start of a resolver.
const startTime = 10 * time.Second

// endTime is how long a resolver may take to end before it is killed.
const endTime = time.Second

// StartResolver starts a resolver and returns when it listens.
func (p *Program) StartResolver(c ResolverConfig) (r *Resolver, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	r = &Resolver{FD: pair[0], errors: -1}
	err = r.start(p, pair[1])
	_ = unix.Close(pair[1]) // or its end would not be seen
	if err == nil {
		err = r.begin(c)
	}
	if err != nil {
		r.Hang()
		r.reap()
		if said := r.Complaint(); said != "" {
			err = errors.New(said)
		}
		r.End()
		return nil, fmt.Errorf("the helper's resolver does not start: %w", err)
	}
	return r, nil
}

func (r *Resolver) start(p *Program, theirs int) (err error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	defer unix.Close(null)
	if r.errors, err = fixedFile(); err != nil {
		return err
	}
	r.process, err = p.Start(protocol.JobResolver, null, null, r.errors, theirs)
	return err
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
func (r *Resolver) Complaint() string {
	var b [maxReason]byte
	if r.errors < 0 {
		return ""
	}
	n, err := unix.Pread(r.errors, b[:], 0)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(bytes.TrimRight(b[:n], "\x00")), "\n")
	return strings.Map(printable, line)
}

// begin tells the resolver what to do, and waits until it listens. What does not read blocks no longer than it takes to see
// that.
func (r *Resolver) begin(c ResolverConfig) error {
	limit := unix.NsecToTimeval(int64(startTime))
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(r.FD, unix.SOL_SOCKET, option, &limit); err != nil {
			return err
		}
	}
	const batch = 64 // names in a message: with 256 bytes each they fit
	for names := c.Names; len(names) > 0; {
		n := min(batch, len(names))
		if err := r.send(protocol.Names(names[:n]), 0); err != nil {
			return err
		}
		names = names[n:]
	}
	for _, h := range c.Hosts {
		if err := r.send(h, 0); err != nil {
			return err
		}
	}
	if err := r.send(protocol.Begin{Private: c.Private, Upstreams: c.Nameservers}, 0); err != nil {
		return err
	}
	m, err := r.receive(0)
	if err != nil {
		return err
	}
	ready, ok := m.(protocol.Ready)
	if !ok || len(ready) == 0 {
		return fmt.Errorf("it says %T", m)
	}
	for _, l := range ready {
		if !l.At.Addr().IsLoopback() || l.At.Port() == 0 {
			return fmt.Errorf("it listens at %v", l.At)
		}
	}
	r.Listeners = ready
	return nil
}

// ErrGone is returned once the helper has ended.
var ErrGone = errors.New("the helper has ended")

// Send sends a message, without waiting.
func (r *Resolver) Send(m protocol.Message) error { return r.send(m, unix.MSG_DONTWAIT) }

func (r *Resolver) send(m protocol.Message, flags int) error {
	if r.FD < 0 {
		return ErrGone
	}
	b := protocol.Encode(m)
	for {
		if err := unix.Sendto(r.FD, b, flags|unix.MSG_NOSIGNAL, nil); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Receive returns the next message without waiting: unix.EAGAIN where there is none, ErrGone at the end.
func (r *Resolver) Receive() (protocol.Message, error) { return r.receive(unix.MSG_DONTWAIT) }

func (r *Resolver) receive(flags int) (protocol.Message, error) {
	if r.FD < 0 {
		return nil, ErrGone
	}
	var b [protocol.MaxMessage + 1]byte
	for {
		n, _, err := unix.Recvfrom(r.FD, b[:], flags)
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
func (r *Resolver) Hang() {
	if r.FD >= 0 {
		_ = unix.Close(r.FD)
		r.FD = -1
	}
}

// End ends and reaps the helper. It may be called again.
func (r *Resolver) End() {
	r.Hang()
	r.reap()
	if r.errors >= 0 {
		_ = unix.Close(r.errors)
		r.errors = -1
	}
}

func (r *Resolver) reap() {
	if r.process == nil {
		return
	}
	if _, ended := r.process.Wait(endTime); !ended {
		// This thread may be confined by now, and then cannot signal what is not in its domain.
		done := make(chan struct{})
		go func() {
			r.process.End()
			close(done)
		}()
		<-done
	}
	r.process = nil
}
