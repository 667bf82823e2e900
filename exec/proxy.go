package exec

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/handler/network"
	"github.com/sandlock-go/sandlock/exec/helper"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// proxy leads the sandbox's connections to the HTTP proxy in the helper program. The sandbox's socket is connected to a
// listener of ours; what arrives there from an address that no call has just connected from is closed, so nobody else on
// the host has a way to the proxy. The other end goes to the helper, which may ask for connections to where the sandbox was
// allowed to connect, and to nowhere else: it makes no sockets itself.
//
// But for its start it is used on the loop's thread only.
type proxy struct {
	helper    *helper.Proxy
	listeners []listener
	bundles   []bundle

	s       *sandbox
	loop    *supervise.Loop
	journal supervise.Journal
	begun   map[netip.AddrPort]begun // connections that have not been accepted yet, by their own address
	open    map[uint32]proxied       // connections that the helper has, by its number for them
	last    uint32
	warned  bool
	meant   meant
	closer  supervise.Closer
	stalled bool // the helper does not read: nothing is watched but that
}

type listener struct {
	fd int
	at netip.AddrPort
}

// begun is a connection that a thread of the sandbox has begun.
type begun struct {
	proxied
	when time.Time
	// socket is the sandbox's end. It is held until the connection has been accepted: so long nobody else can have its
	// address, whatever becomes of the connection.
	socket int
	held   bool // socket is a duplicate of ours
}

// proxied is a connection of the sandbox.
type proxied struct {
	tid         int
	destination netip.AddrPort // that was allowed
	real        netip.AddrPort // where that is
}

// bundle is a file of certificates as the sandbox sees it.
type bundle struct {
	path    string
	read    string // where it was read: links resolved
	content []byte
}

const (
	// maxBegun bounds connections that were begun and not accepted. Those that fail stay for a while.
	maxBegun = 1024
	// maxOpen bounds the connections that the helper is thought to have, which is for it to say.
	maxOpen   = 1 << 17
	begunTime = time.Minute
)

// listen makes what connections of the sandbox are led to, where the policy has rules about requests. A host without IPv6
// has none of it.
func (s *sandbox) listen() error {
	if !s.program.HTTP.On() {
		return nil
	}
	s.proxy = &proxy{s: s, begun: map[netip.AddrPort]begun{}, open: map[uint32]proxied{}}
	for _, address := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		l, err := listenAt(address)
		if err != nil {
			if address.Is6() {
				break
			}
			return fmt.Errorf("http: %w", err)
		}
		s.proxy.listeners = append(s.proxy.listeners, l)
	}
	return nil
}

func listenAt(address netip.Addr) (l listener, err error) {
	family := unix.AF_INET
	if address.Is6() {
		family = unix.AF_INET6
	}
	if l.fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return l, fmt.Errorf("socket: %w", err)
	}
	at, err := socket.Of(family, netip.AddrPortFrom(address, 0))
	if err == nil {
		err = kernel.Bind(l.fd, at.Bytes())
	}
	if err == nil {
		err = unix.Listen(l.fd, unix.SOMAXCONN)
	}
	if err == nil {
		var name *socket.Address
		if name, err = socket.NameOf(l.fd, false); err == nil {
			l.at, _ = name.Internet()
		}
	}
	if err != nil {
		_ = unix.Close(l.fd)
		return l, fmt.Errorf("listen at %v: %w", address, err)
	}
	return l, nil
}

// startProxy starts the helper, and makes what the sandbox sees of its authority. As pinNames it must be called before this
// thread is confined.
func (s *sandbox) startProxy() (problems []string) {
	if s.proxy == nil {
		return nil
	}
	files, problems := s.readBundles()
	secrets, more := s.secrets()
	if problems = append(problems, more...); len(problems) > 0 {
		return problems
	}
	defer unix.Close(secrets)
	encoded, err := ir.Encode(s.program)
	if err != nil {
		return []string{err.Error()}
	}
	program, err := kernel.SealedFile("program", encoded)
	if err != nil {
		return []string{err.Error()}
	}
	defer unix.Close(program)
	c := helper.ProxyConfig{Names: s.pins.names, Program: program, Secrets: secrets, Log: s.options.Audit != nil}
	for i := range s.net.Rules {
		if r := &s.net.Rules[i]; s.net.Resolver && r.Kind == ir.TargetHost {
			c.Names = append(c.Names, r.Target)
		}
	}
	found, err := s.helper()
	if err == nil {
		s.proxy.helper, err = found.StartProxy(c)
		found.Close()
	}
	if err != nil {
		return []string{fmt.Sprintf("http: %v", err)}
	}
	for _, f := range files {
		f.content = append(f.content, s.proxy.helper.CA...)
		s.proxy.bundles = append(s.proxy.bundles, f)
	}
	if err := s.writeCA(); err != nil {
		return []string{s.fieldError(s.program.HTTP.OutOrigin, "http.ca_out", err).Error()}
	}
	return nil
}

// maxBundle bounds a file of certificates, in bytes.
const maxBundle = 16 << 20

// readBundles reads the files that the sandbox is to see with one certificate more.
func (s *sandbox) readBundles() (files []bundle, problems []string) {
	for _, f := range s.program.HTTP.InjectCA {
		path, err := ir.ExpandPath(f.Path, s.bound.lookup)
		if err == nil {
			var content []byte
			var read string
			if content, read, err = readLimitedAt(path, maxBundle); err == nil {
				if n := len(content); n > 0 && content[n-1] != '\n' {
					content = append(content, '\n')
				}
				files = append(files, bundle{path, read, content})
			}
		}
		if err != nil {
			problems = append(problems, s.fieldError(f.Origin, "http.inject_ca", err).Error())
		}
	}
	return files, problems
}

// writeCA writes the authority's certificate to where the policy wants it.
func (s *sandbox) writeCA() error {
	if s.program.HTTP.CAOut == "" {
		return nil
	}
	path, err := ir.ExpandPath(s.program.HTTP.CAOut, s.bound.lookup)
	if err != nil {
		return err
	}
	// Neither a link nor a device that somebody has put there is written to.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.Write(s.proxy.helper.CA)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
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

// end ends the helper and releases the listeners. It may be called again.
func (p *proxy) end() {
	if p.helper != nil {
		p.helper.End()
	}
	for _, l := range p.listeners {
		_ = unix.Close(l.fd)
	}
	p.listeners = nil
	p.forget(0)
}

// wire has the loop serve the proxy.
func (p *proxy) wire(loop *supervise.Loop, j supervise.Journal) (*network.Intercept, error) {
	p.loop, p.journal = loop, j
	return &network.Intercept{At: p.at, Made: p.made}, p.watch()
}

func (p *proxy) watch() error {
	for _, l := range p.listeners {
		if err := p.loop.Watch(l.fd, func() { p.accept(l.fd) }); err != nil {
			return err
		}
	}
	return p.loop.Watch(p.helper.FD, p.receive)
}

// stall leaves everything until the helper reads: the loop would go round and round meanwhile.
func (p *proxy) stall() {
	if p.stalled {
		return
	}
	p.stalled = true
	for _, l := range p.listeners {
		p.loop.Unwatch(l.fd)
	}
	p.loop.Unwatch(p.helper.FD)
	if err := p.loop.WatchWrites(p.helper.FD, p.resume); err != nil {
		p.lose(err)
	}
}

func (p *proxy) resume() {
	p.loop.Unwatch(p.helper.FD)
	p.stalled = false
	if err := p.watch(); err != nil {
		p.lose(err)
	}
}

// at returns our listener for a destination whose connections are intercepted, in the same family.
func (p *proxy) at(destination netip.AddrPort) (at netip.AddrPort, ok bool) {
	if !p.s.net.Intercepts(destination.Port()) {
		return at, false
	}
	if p.helper.FD < 0 {
		return at, true
	}
	for _, l := range p.listeners {
		if l.at.Addr().Is4() == destination.Addr().Unmap().Is4() {
			return l.at, true
		}
	}
	return at, true
}

// made expects a connection of a socket that has this address.
func (p *proxy) made(tid, socket int, from, destination, real netip.AddrPort) error {
	if len(p.begun) >= maxBegun {
		p.forget(begunTime)
	}
	if len(p.begun) >= maxBegun {
		return unix.EAGAIN
	}
	canonical := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(query.Canonical(a.Addr()), a.Port()) }
	p.drop(from)
	p.begun[from] = begun{proxied{tid, canonical(destination), canonical(real)}, time.Now(), socket, false}
	p.meant.add(from, destination)
	// As a rule it has arrived by now.
	for _, l := range p.listeners {
		if l.at.Addr().Is4() == from.Addr().Is4() {
			p.accept(l.fd)
		}
	}
	b, waits := p.begun[from]
	if !waits {
		return nil
	}
	duplicate, err := unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		delete(p.begun, from)
		return unix.EAGAIN
	}
	b.socket, b.held = duplicate, true
	p.begun[from] = b
	return nil
}

// forget drops what was begun and has not arrived for long.
func (p *proxy) forget(after time.Duration) {
	for from, b := range p.begun {
		if time.Since(b.when) >= after {
			p.drop(from)
		}
	}
}

// drop forgets a connection that was begun.
func (p *proxy) drop(from netip.AddrPort) {
	if b, ok := p.begun[from]; ok && b.held {
		p.closer.Close(b.socket)
	}
	delete(p.begun, from)
}

// leads reports whether the socket is connected to one of our listeners from an address.
func (p *proxy) leads(fd int, from netip.AddrPort) bool {
	var ends [2]netip.AddrPort
	for i := range ends {
		name, err := socket.NameOf(fd, i == 1)
		if err != nil {
			return false
		}
		at, _ := name.Internet()
		ends[i] = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return ends[0] == from && slices.ContainsFunc(p.listeners, func(l listener) bool { return l.at == ends[1] })
}

// accept takes connections that have arrived at a listener, as long as the helper has room for them.
func (p *proxy) accept(fd int) {
	for range fairShare {
		if p.helper.FD >= 0 && !writable(p.helper.FD) {
			p.stall()
			return
		}
		conn, name, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return
		}
		p.hand(conn, peer(name))
		_ = unix.Close(conn)
	}
}

// hand gives a connection to the helper if the sandbox has made it; all others are somebody else's.
func (p *proxy) hand(conn int, from netip.AddrPort) {
	b, ok := p.begun[from]
	if !ok || p.helper.FD < 0 {
		return
	}
	defer p.drop(from)
	if len(p.open) >= maxOpen || !p.leads(b.socket, from) {
		return
	}
	for p.last++; p.last == 0 || p.taken(p.last); p.last++ {
	}
	names := p.names(b.destination.Addr())
	if len(names) > protocol.MaxNames {
		names = names[:protocol.MaxNames]
	}
	if p.helper.Send(protocol.Connection{ID: p.last, To: b.destination, Names: names}, conn) == nil {
		p.open[p.last] = b.proxied
	}
}

// peerOf returns what a socket of the sandbox takes for its peer.
func (p *proxy) peerOf(own, peer netip.AddrPort) (destination netip.AddrPort, ok bool) {
	if !slices.ContainsFunc(p.listeners, func(l listener) bool { return l.at == peer }) {
		return destination, false
	}
	destination, ok = p.meant.of[own]
	return destination, ok
}

// meant is where connections were meant to go, by their own address. What their sockets are is not known to us any more once
// the helper has closed its end, so the last ones are remembered.
type meant struct {
	of    map[netip.AddrPort]netip.AddrPort
	order []netip.AddrPort // a ring, once it is full
	next  int
}

const maxMeant = 4096

func (m *meant) add(own, destination netip.AddrPort) {
	if m.of == nil {
		m.of = map[netip.AddrPort]netip.AddrPort{}
	}
	_, known := m.of[own]
	m.of[own] = destination
	switch {
	case known:
	case len(m.order) < maxMeant:
		m.order = append(m.order, own)
	default:
		delete(m.of, m.order[m.next])
		m.order[m.next] = own
		m.next = (m.next + 1) % maxMeant
	}
}

func (p *proxy) taken(id uint32) bool {
	_, taken := p.open[id]
	return taken
}

// names returns the names that lead to an address.
func (p *proxy) names(a netip.Addr) []string {
	names := p.s.pins.leadTo(a)
	if p.s.learned != nil {
		names = append(names, p.s.learned.names(a)...)
	}
	return names
}

func peer(name unix.Sockaddr) netip.AddrPort {
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

func writable(fd int) bool {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(set, 0)
	return err == nil && n > 0
}

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
