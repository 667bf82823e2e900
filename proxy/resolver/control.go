package resolver

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

const (
	// patience bounds the wait for the executor's acknowledgement.
	patience = 2 * time.Second
	// remembered is how long a UDP socket may ask after it was announced or has asked. A port may be another's later.
	remembered = 10 * time.Minute
	// maxAnnounced bounds the sockets that may ask, of each transport; the oldest are forgotten.
	maxAnnounced = 4096
)

// control is the line to the executor. Its end is the end of the process.
type control struct {
	fd int

	reading sync.Mutex // held while messages are read, so that they are taken in order
	buffer  [protocol.MaxMessage + 1]byte

	mu      sync.Mutex
	udp     announced
	tcp     announced
	waiting map[uint32]chan bool // for acknowledgements
	last    uint32
}

func newControl(fd int) *control {
	return &control{fd: fd, waiting: map[uint32]chan bool{}}
}

// configuration reads what the executor says at first.
func (c *control) configuration() (*configuration, error) {
	conf := &configuration{fixed: map[string][]netip.Addr{}}
	for {
		m, err := c.receive(0)
		if err != nil {
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
		switch m := m.(type) {
		case protocol.Names:
			conf.rules = append(conf.rules, m...)
		case protocol.Host:
			conf.fixed[m.Name] = m.Addresses
		case protocol.Begin:
			conf.private, conf.upstreams = m.Private, m.Upstreams
			return conf, nil
		default:
			return nil, fmt.Errorf("message %T before the first query", m)
		}
	}
}

var errClosed = errors.New("the executor is gone")

func (c *control) receive(flags int) (protocol.Message, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buffer[:], flags)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, errClosed
		}
		return protocol.Decode(c.buffer[:n])
	}
}

// serve takes messages until the executor is gone.
func (c *control) serve() {
	set := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(set, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		c.drain()
	}
}

// drain takes all messages that are there.
func (c *control) drain() {
	c.reading.Lock()
	defer c.reading.Unlock()
	for {
		m, err := c.receive(unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			os.Exit(0)
		}
		c.take(m)
	}
}

func (c *control) take(m protocol.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch m := m.(type) {
	case protocol.Announce:
		c.of(m.Transport).add(m.From, time.Now())
	case protocol.Ack:
		if answer, ok := c.waiting[m.ID]; ok {
			answer <- m.OK
			delete(c.waiting, m.ID)
		}
	}
}

func (c *control) of(t protocol.Transport) *announced {
	if t == protocol.TCP {
		return &c.tcp
	}
	return &c.udp
}

// mayAsk reports whether a socket is one of the sandbox's. The executor announces it before it connects it, so an
// announcement that has not been read yet is there to be read.
func (c *control) mayAsk(t protocol.Transport, from netip.AddrPort) bool {
	if c.knows(t, from) {
		return true
	}
	c.drain()
	return c.knows(t, from)
}

func (c *control) knows(t protocol.Transport, from netip.AddrPort) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of(t).has(from, time.Now(), t == protocol.TCP)
}

func (c *control) send(m protocol.Message) error {
	b := protocol.Encode(m)
	for {
		err := unix.Sendto(c.fd, b, unix.MSG_NOSIGNAL, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// learn has the executor acknowledge the addresses of a name.
func (c *control) learn(name string, list []netip.Addr, ttl uint32) bool {
	answer := make(chan bool, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.waiting[id] = answer
	c.mu.Unlock()
	err := c.send(protocol.Learned{ID: id, TTL: ttl, Name: name, Addresses: list})
	if err == nil {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case ok := <-answer:
			return ok
		case <-timer.C:
		}
	}
	c.mu.Lock()
	delete(c.waiting, id)
	c.mu.Unlock()
	return false
}

// refused tells the executor of a name that was not resolved.
func (c *control) refused(name string, why protocol.Reason) {
	_ = c.send(protocol.Refused{Name: name, Reason: why})
}

// announced are sockets with the time of their announcement or last use, in two generations: the older is forgotten when
// the younger is full.
type announced struct{ young, old map[netip.AddrPort]time.Time }

func (a *announced) add(from netip.AddrPort, now time.Time) {
	if len(a.young) >= maxAnnounced/2 || a.young == nil {
		a.young, a.old = map[netip.AddrPort]time.Time{}, a.young
	}
	a.young[from] = now
}

// has reports whether a socket was announced; where it is good for one use, no longer after that.
func (a *announced) has(from netip.AddrPort, now time.Time, once bool) bool {
	at, ok := a.young[from]
	if !ok {
		at, ok = a.old[from]
	}
	if !ok || now.Sub(at) > remembered {
		return false
	}
	delete(a.young, from)
	delete(a.old, from)
	if !once {
		a.add(from, now)
	}
	return true
}
