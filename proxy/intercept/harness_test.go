package intercept

import (
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/compiler"
	"github.com/sandlock-go/sandlock/compiler/load"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/confine"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// executor plays the other side of the protocol, and the sandbox.
type executor struct {
	t      testing.TB
	line   *net.UnixConn
	listen *net.TCPListener
	ca     []byte // of ProxyReady
	dialed func(to netip.AddrPort) (*os.File, unix.Errno)

	mu       sync.Mutex
	sending  sync.Mutex
	last     uint32
	to       map[uint32]netip.AddrPort
	dials    int
	closed   map[uint32]bool
	accesses []protocol.Access
	plain    []protocol.Plain
	changed  *sync.Cond
	ended    chan error
}

// settings are what a test begins with.
type settings struct {
	http    ir.HTTP
	pinned  []string
	secrets map[string]string
	log     bool
	// start runs the proxy with its end of the line, in this process by default.
	start func(end *os.File, ended chan<- error)
}

// rule reads a rule such as "GET a.test/x/*".
func rule(t testing.TB, s string) ir.HTTPRule {
	t.Helper()
	method, rest, _ := strings.Cut(s, " ")
	host, path, found := strings.Cut(rest, "/")
	if host, path = strings.Trim(host, "[]"), "/"+path; !found {
		path = "/*"
	}
	prefix := strings.HasSuffix(path, "*")
	parsed, err := query.ParsePath(path)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return ir.HTTPRule{Method: method, Host: host, Path: strings.TrimSuffix(parsed.Text(), "*"), Prefix: prefix}
}

func rules(t testing.TB, list ...string) (rules []ir.HTTPRule) {
	t.Helper()
	for _, s := range list {
		rules = append(rules, rule(t, s))
	}
	return rules
}

// base is a program that intercepts, without rules.
var base = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "policy.cue")
	if err := os.WriteFile(file, []byte(`name: "test", network: allow: ["tcp://127.0.0.0/8:80"]`), 0o600); err != nil {
		return nil, err
	}
	p, diags, err := compiler.Compile(compiler.Options{Source: load.Options{Args: []string{file}}})
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, errors.New(diags[0].String())
	}
	return ir.Encode(p)
})

func program(t testing.TB, h ir.HTTP) []byte {
	t.Helper()
	b, err := base()
	if err != nil {
		t.Fatal(err)
	}
	p, err := ir.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	p.Net.Intercepted = []uint16{80, 443}
	p.HTTP = h
	limits := &p.HTTP.Limits
	for _, l := range []struct {
		at    *uint64
		else_ uint64
	}{{&limits.HeaderBytes, 64 << 10}, {&limits.HeaderMS, 10_000}, {&limits.IdleMS, 60_000}} {
		if *l.at == 0 {
			*l.at = l.else_
		}
	}
	if limits.Connections == 0 {
		limits.Connections = 256
	}
	if b, err = ir.Encode(p); err != nil {
		t.Fatal(err)
	}
	return b
}

func inProcess(end *os.File, ended chan<- error) {
	fd, err := unix.Dup(int(end.Fd()))
	end.Close()
	if err != nil {
		ended <- err
		return
	}
	go func() {
		p, err := run(fd, func(confine.Needs) error { return nil })
		if p != nil {
			p.stop()
		}
		ended <- err
	}()
}

// stop ends what the end of the process would.
func (p *proxy) stop() {
	_ = p.server.Close()
	p.mu.Lock()
	open := slices.Collect(maps.Keys(p.sessions))
	p.mu.Unlock()
	for _, s := range open {
		s.conn.Close()
	}
	p.transport.CloseIdleConnections()
	_ = p.store.Close()
}

// begin starts a proxy.
func begin(t testing.TB, s settings) *executor {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	e := &executor{t: t, to: map[uint32]netip.AddrPort{}, closed: map[uint32]bool{}, dialed: connect, ended: make(chan error, 1)}
	e.changed = sync.NewCond(&e.mu)
	mine := os.NewFile(uintptr(pair[0]), "")
	line, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		t.Fatal(err)
	}
	e.line = line.(*net.UnixConn)
	if e.listen, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	if s.start == nil {
		s.start = inProcess
	}
	s.start(os.NewFile(uintptr(pair[1]), ""), e.ended)
	t.Cleanup(e.end)

	var secrets []byte
	for name, value := range s.secrets {
		secrets = protocol.AppendSecret(secrets, name, []byte(value))
	}
	if len(s.pinned) > 0 {
		e.send(protocol.Names(s.pinned))
	}
	e.send(protocol.ProxyBegin{Log: s.log}, file(t, program(t, s.http)), file(t, secrets))
	m, _ := e.receive()
	ready, ok := m.(protocol.ProxyReady)
	if !ok {
		t.Fatalf("the proxy said %#v, and ended with %v", m, <-e.ended)
	}
	e.ca = ready.CA
	go e.serve()
	return e
}

func (e *executor) end() {
	e.line.Close()
	e.listen.Close()
	select {
	case err := <-e.ended:
		if err != nil {
			e.t.Errorf("the proxy ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		e.t.Error("the proxy did not end with the executor's socket")
	}
}

func file(t testing.TB, content []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "")
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f
}

func (e *executor) send(m protocol.Message, files ...*os.File) {
	var rights []byte
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		rights = unix.UnixRights(fds...)
	}
	e.sending.Lock()
	_, _, err := e.line.WriteMsgUnix(protocol.Encode(m), rights, nil)
	e.sending.Unlock()
	for _, f := range files {
		f.Close()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		e.t.Errorf("send %T: %v", m, err)
	}
}

func (e *executor) receive() (protocol.Message, error) {
	b := make([]byte, protocol.MaxMessage+1)
	n, err := e.line.Read(b)
	if err != nil || n == 0 {
		return nil, errors.Join(err, io.EOF)
	}
	return protocol.Decode(b[:n])
}

func (e *executor) serve() {
	for {
		m, err := e.receive()
		if err != nil {
			return
		}
		e.mu.Lock()
		switch m := m.(type) {
		case protocol.Dial:
			e.dials++
			to, ok := e.to[m.Connection]
			if !ok || e.closed[m.Connection] {
				e.t.Errorf("Dial for connection %d, which is not there", m.Connection)
			}
			go e.dial(m.ID, to)
		case protocol.Closed:
			if e.closed[m.Connection] {
				e.t.Errorf("connection %d is closed twice", m.Connection)
			}
			e.closed[m.Connection] = true
		case protocol.Access:
			if e.closed[m.Connection] {
				e.t.Errorf("a record after the end of connection %d: %+v", m.Connection, m)
			}
			e.accesses = append(e.accesses, m)
		case protocol.Plain:
			e.plain = append(e.plain, m)
		default:
			e.t.Errorf("the proxy sent %#v", m)
		}
		e.changed.Broadcast()
		e.mu.Unlock()
	}
}

// fail has connecting fail in some places.
func (e *executor) fail(how func(to netip.AddrPort) unix.Errno) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dialed = func(to netip.AddrPort) (*os.File, unix.Errno) {
		if errno := how(to); errno != 0 {
			return nil, errno
		}
		return connect(to)
	}
}

func (e *executor) dial(id uint32, to netip.AddrPort) {
	f, errno := e.dialed(to)
	if errno != 0 {
		e.send(protocol.Dialed{ID: id, Errno: uint16(errno)})
		return
	}
	e.send(protocol.Dialed{ID: id}, f)
}

// connect begins to connect, as the executor does.
func connect(to netip.AddrPort) (*os.File, unix.Errno) {
	family := unix.AF_INET6
	var address unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err.(unix.Errno)
	}
	if err := unix.Connect(fd, address); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, err.(unix.Errno)
	}
	return os.NewFile(uintptr(fd), ""), 0
}

// open makes a connection of the sandbox that leads to a place.
func (e *executor) open(to string, names ...string) *net.TCPConn {
	e.t.Helper()
	conn, err := e.tryOpen(netip.MustParseAddrPort(to), names)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	return conn
}

func (e *executor) tryOpen(to netip.AddrPort, names []string) (*net.TCPConn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	conn, err := net.DialTCP("tcp", nil, e.listen.Addr().(*net.TCPAddr))
	if err != nil {
		return nil, err
	}
	other, err := e.listen.AcceptTCP()
	if err != nil {
		return nil, err
	}
	f, err := other.File()
	other.Close()
	if err != nil {
		return nil, err
	}
	e.last++
	e.to[e.last] = to
	e.send(protocol.Connection{ID: e.last, To: to, Names: names}, f)
	return conn, nil
}

// wait waits until something holds, which the lock guards.
func (e *executor) wait(what string, holds func() bool) {
	e.t.Helper()
	timeout := time.AfterFunc(10*time.Second, e.changed.Broadcast)
	defer timeout.Stop()
	begun := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for !holds() {
		if time.Since(begun) > 9*time.Second {
			e.t.Fatalf("%s: waited for nothing; records: %+v", what, e.accesses)
		}
		e.changed.Wait()
	}
}

// record waits for a record, and takes it.
func (e *executor) record() (m protocol.Access) {
	e.t.Helper()
	e.wait("record", func() bool { return len(e.accesses) > 0 })
	e.mu.Lock()
	defer e.mu.Unlock()
	m = e.accesses[0]
	e.accesses = slices.Delete(e.accesses, 0, 1)
	return m
}

func (e *executor) dialCount() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dials
}
