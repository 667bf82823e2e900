package network

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
)

// socket is a duplicate of the caller's: the same socket, whatever the caller's descriptor comes to mean.
type socket struct {
	fd       int
	domain   int // AF_INET, …
	protocol int // IPPROTO_TCP, …
}

// pin duplicates the socket that a call is about. The caller must close it, within the alarm.
func pin(c *supervise.Call, descriptor int32) (s socket, err error) {
	if s.fd, err = kernel.DuplicateFD(c.TID, int(descriptor)); err != nil {
		return s, err
	}
	for _, o := range []struct {
		name  int
		value *int
	}{{unix.SO_DOMAIN, &s.domain}, {unix.SO_PROTOCOL, &s.protocol}} {
		if *o.value, err = unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, o.name); err != nil {
			s.close()
			return s, err // ENOTSOCK
		}
	}
	if !c.Valid() {
		s.close()
		return s, unix.ESRCH
	}
	return s, nil
}

// close closes the duplicate. The caller waits for its answer and still has its own, so this is not the last, unless it
// cheats; then the alarm ends what its SO_LINGER makes us wait for.
func (s *socket) close() { _ = unix.Close(s.fd) }

func (s *socket) internet() bool { return s.domain == unix.AF_INET || s.domain == unix.AF_INET6 }

// transport returns the protocol as rules know it, 0 if they do not.
func (s *socket) transport() ir.Protocols {
	switch s.protocol {
	case unix.IPPROTO_TCP:
		return ir.TCP
	case unix.IPPROTO_UDP:
		return ir.UDP
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return ir.ICMP
	}
	return 0
}

// blocks reports whether calls on the socket wait (O_NONBLOCK is off), with the file's status flags.
func (s *socket) blocks() (yes bool, flags int, err error) {
	flags, err = unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0)
	return flags&unix.O_NONBLOCK == 0, flags, err
}

// timeout returns SO_SNDTIMEO, which also bounds connect (socket(7)); 0 is none.
func (s *socket) timeout() time.Duration {
	tv, err := unix.GetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO)
	if err != nil {
		return 0
	}
	return time.Duration(tv.Nano())
}
