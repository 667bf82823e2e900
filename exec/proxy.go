package exec

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/handler/network"
	"github.com/sandlock-go/sandlock/exec/helper"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
)

// proxy leads the sandbox's connections to the HTTP proxy in the helper program. The sandbox's socket is connected to a
// listener of ours; what arrives there from an address that no call has just connected from is closed, so nobody else on
// the host has a way to the proxy. The other end goes to the helper, which may ask for connections to where the sandbox was
// allowed to connect, and to nowhere else: it makes no sockets itself.
//
// But for its start it is used on the loop's thread only.
//
// Read next: proxy_connections.go (how a connection gets there), proxy_helper.go (what the helper says),
// proxy_certificates.go (what the sandbox sees of its authority), secrets.go.
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
	program, err := kernel.SealedFile("program", s.options.Artifact.payload)
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
