package intercept

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/protocol"
	"github.com/sandlock-go/sandlock/proxy/strict"
)

// session is one connection of the sandbox.
type session struct {
	p     *proxy
	id    uint32
	to    netip.AddrPort
	names []string // pinned ones, which lead to
	conn  *wire
	since time.Time

	decrypted bool
	server    string       // whom the client takes itself to speak to, where it is decrypted
	strict    *strict.Conn // nil with HTTP/2
	requests  atomic.Int64
	malformed atomic.Bool // what was read last is a malformed body

	mu     sync.Mutex // held while a message about the session is queued, so that none follows Closed
	active int        // requests that are being answered
	over   bool
	closed bool // which the executor has been told
}

var errOver = errors.New("the connection is closed")

// wire is the session's socket. Whoever closes it ends the session.
type wire struct {
	*net.TCPConn
	s *session
}

func (w *wire) Close() error {
	err := w.TCPConn.Close()
	w.s.end()
	return err
}

// connection begins a session.
func (p *proxy) connection(m protocol.Connection, fd int) {
	s := &session{p: p, id: m.ID, to: m.To, names: m.Names, since: time.Now()}
	p.untold.Add(1)
	go s.run(fd)
}

// admit counts a session, unless there are too many.
func (p *proxy) admit(s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sessions) >= int(p.limits.Connections) {
		return false
	}
	p.sessions[s] = struct{}{}
	return true
}

func (s *session) run(fd int) {
	conn, err := tcp(fd)
	if err != nil {
		s.refuse("", "", "no descriptor for the connection: "+err.Error())
		s.end()
		return
	}
	s.conn = &wire{conn, s}
	kept := false
	defer func() {
		if recover() != nil || !kept { // a panic is a bug, and must be the end of nothing but this connection
			s.conn.Close()
		}
	}()
	if !s.p.admit(s) {
		s.refuse("", "", "too many connections at a time: limits of http")
		return
	}
	if conn.SetDeadline(s.since.Add(s.p.headTime())) != nil {
		return
	}
	first, err := peek(conn)
	if err != nil {
		return
	}
	if first == recordHandshake {
		kept = s.serveTLS()
		return
	}
	if conn.SetDeadline(time.Time{}) != nil {
		return
	}
	kept = s.serve(s.conn)
}

// serve has HTTP/1 served.
func (s *session) serve(conn net.Conn) bool {
	s.strict = strict.NewConn(conn, strict.Limits{HeadBytes: int(s.p.limits.HeaderBytes)})
	return s.p.ready.add(&served{s.strict, s})
}

// tcp makes a connection of a TCP socket, and closes fd.
func tcp(fd int) (*net.TCPConn, error) {
	if fd < 0 {
		return nil, unix.EMFILE
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	return asTCP(f)
}

func asTCP(f *os.File) (*net.TCPConn, error) {
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if conn, ok := conn.(*net.TCPConn); ok {
		return conn, nil
	}
	conn.Close()
	return nil, errors.New("not a TCP socket")
}

// peek waits for the first byte, and leaves it there.
func peek(conn *net.TCPConn) (byte, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var b [1]byte
	var n int
	waitErr := raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if err = errors.Join(waitErr, err); err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, errOver
	}
	return b[0], nil
}

// ask queues a message about the session, unless the session is over.
func (s *session) ask(m protocol.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.p.control.send(m)
	return true
}

// end ends the session, once. Its requests may outlive its connection for a moment, with HTTP/2.
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	s.p.mu.Lock()
	delete(s.p.sessions, s)
	s.p.mu.Unlock()
	s.sayClosed()
}

// sayClosed tells the executor, once there is nothing more to tell.
func (s *session) sayClosed() {
	if s.over && s.active == 0 && !s.closed {
		s.closed = true
		s.p.control.send(protocol.Closed{Connection: s.id})
		s.p.untold.Done()
	}
}

func (s *session) beginRequest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active++
}

func (s *session) endRequest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	s.sayClosed()
}

// leadsTo reports whether a request for this host may be sent to where the session leads: an address must be that one, a
// name that rules or the executor know must be known to lead there. Of any other name nobody knows where it leads, and
// no rule is about it but those about every host.
func (s *session) leadsTo(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr == query.Canonical(s.to.Addr())
	}
	if slices.Contains(s.names, host) {
		return true
	}
	return !s.p.named[host] && !slices.ContainsFunc(s.p.pinned, func(name string) bool { return query.MatchName(name, host) })
}

// refuse records that the connection was refused.
func (s *session) refuse(protocolName, host, reason string) {
	s.p.control.send(protocol.Access{
		Connection: s.id, Protocol: protocolName, Authority: host, Denied: true, Reason: short(reason, protocol.MaxWords),
		Micros: micros(s.since),
	})
}

// endIdle closes sessions in which nothing moves. It asks the kernel, which sees all bytes, those that are spliced too.
func (p *proxy) endIdle() {
	tick := time.NewTicker(min(max(p.idleTime()/4, 10*time.Millisecond), 15*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.control.hung:
			return
		}
		for _, s := range p.idle() {
			s.conn.Close()
		}
	}
}

func (p *proxy) idle() (list []*session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		if time.Since(s.since) > p.idleTime() && s.idleFor() > p.idleTime() {
			list = append(list, s)
		}
	}
	return list
}

// idleFor is how long no byte has moved in either direction (tcp(7), TCP_INFO).
func (s *session) idleFor() (idle time.Duration) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO); err == nil {
			idle = time.Duration(min(info.Last_data_recv, info.Last_data_sent)) * time.Millisecond
		}
	})
	return idle
}

// forever takes the deadline of the head off.
func (w *wire) forever() error { return w.SetDeadline(time.Time{}) }
