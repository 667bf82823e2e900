package exec

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// receive takes what the helper says. It is less trusted than the executor: whatever it says, a connection leads to where
// the sandbox was allowed to connect.
func (p *proxy) receive() {
	for range fairShare {
		if !writable(p.helper.FD) {
			p.stall() // it is to read first
			return
		}
		m, err := p.helper.Receive()
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err == nil {
			err = p.take(m)
		}
		if err != nil {
			p.lose(err)
			return
		}
	}
}

// lose gives the helper up. Its connections end with it, and no new one is made.
func (p *proxy) lose(err error) {
	p.loop.Unwatch(p.helper.FD)
	p.helper.Hang()
	clear(p.open)
	p.forget(0)
	reason := err.Error()
	if said := p.helper.Complaint(); said != "" {
		reason += ": " + said
	}
	p.journal.Record(supervise.Event{Kind: "error", Reason: "requests are no longer served: " + reason})
}

func (p *proxy) take(m protocol.Message) error {
	switch m := m.(type) {
	case protocol.Dial:
		return p.dial(m)
	case protocol.Closed:
		delete(p.open, m.Connection)
	case protocol.Access:
		p.log(&m)
	case protocol.Plain:
		p.warn(&m)
	default:
		return fmt.Errorf("unexpected %T", m)
	}
	return nil
}

// dial begins a connection to where one of the sandbox's leads.
func (p *proxy) dial(m protocol.Dial) error {
	c, ok := p.open[m.Connection]
	if !ok {
		return p.helper.Send(protocol.Dialed{ID: m.ID, Errno: uint16(unix.ENOTCONN)})
	}
	fd, err := connect(c.real)
	if err != nil {
		errno := unix.EIO
		errors.As(err, &errno)
		return p.helper.Send(protocol.Dialed{ID: m.ID, Errno: uint16(errno)})
	}
	defer unix.Close(fd)
	return p.helper.Send(protocol.Dialed{ID: m.ID}, fd)
}

// connect begins a connection, without waiting for it.
func connect(to netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	address, err := socket.Of(family, to)
	if err != nil {
		return -1, err
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if err = kernel.Connect(fd, address.Bytes()); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// log records a request.
func (p *proxy) log(m *protocol.Access) {
	e := supervise.Event{
		Kind: "request", Verdict: "allowed", Reason: m.Reason, Rule: m.Rule, Origin: where(p.s.program, ir.OriginRef(m.Origin)),
		HTTP: &supervise.HTTP{
			Protocol: m.Protocol, Method: m.Method, Authority: m.Authority, Path: m.Path, Status: m.Status, Credential: m.Credential,
			Received: m.Received, Sent: m.Sent, Micros: m.Micros,
		},
	}
	if m.Denied {
		e.Kind, e.Verdict = "denied", "refused"
	}
	if c, ok := p.open[m.Connection]; ok {
		e.PID, e.Address = c.tid, "tcp "+c.destination.String()
	}
	if m.Upstream.IsValid() {
		e.HTTP.Upstream = m.Upstream.String()
	}
	p.journal.Record(e)
}

// drainTime bounds how long the end of a run waits for what the helper still has to tell.
const drainTime = time.Second

// drain has the helper end, and takes what it still has to tell: of the last requests, whose clients have ended.
func (p *proxy) drain() {
	if p.helper.FD < 0 || unix.Shutdown(p.helper.FD, unix.SHUT_WR) != nil {
		return
	}
	for end := time.Now().Add(drainTime); ; {
		left := time.Until(end).Milliseconds()
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.helper.FD), Events: unix.POLLIN}}, int(max(left, 0))); n == 0 && err == nil {
			return
		}
		if time.Now().After(end) {
			return // it has more to tell than there can be
		}
		m, err := p.helper.Receive()
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return
		}
		if m, ok := m.(protocol.Access); ok {
			p.log(&m)
		}
	}
}
