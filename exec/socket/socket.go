package socket

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
)

// Socket is a duplicate of the caller's: the same socket, whatever the caller's descriptor comes to mean.
type Socket struct {
	FD       int
	Domain   int // AF_INET, …
	Kind     int // SOCK_STREAM, …
	Protocol int // IPPROTO_TCP, …
}

// Pin duplicates the socket that a call is about. It fails with EBADF, and with ENOTSOCK for another kind of file. The
// caller must close it, within an alarm; discard does that where Pin itself fails.
func Pin(c *supervise.Call, descriptor int32, discard func(fd int)) (s Socket, err error) {
	if s.FD, err = kernel.DuplicateFD(c.TID, int(descriptor)); err != nil {
		return s, err
	}
	if err = s.Identify(); err != nil {
		discard(s.FD)
		return s, err
	}
	if !c.Valid() {
		discard(s.FD)
		return s, unix.ESRCH
	}
	return s, nil
}

// Identify asks the kernel what kind of socket FD is. It fails with ENOTSOCK for none.
func (s *Socket) Identify() (err error) {
	for _, o := range []struct {
		name  int
		value *int
	}{{unix.SO_DOMAIN, &s.Domain}, {unix.SO_TYPE, &s.Kind}, {unix.SO_PROTOCOL, &s.Protocol}} {
		if *o.value, err = unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, o.name); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the duplicate. The caller waits for its answer and still has its own, so this is not the last, unless it
// cheats; then the alarm ends what its SO_LINGER makes us wait for.
func (s *Socket) Close() { _ = unix.Close(s.FD) }

// Internet reports whether the socket is of IPv4 or IPv6.
func (s *Socket) Internet() bool { return s.Domain == unix.AF_INET || s.Domain == unix.AF_INET6 }

// Transport returns the protocol as rules know it, 0 if they do not. A raw socket, which the command may have been given,
// has the number of a protocol and sends what it wants.
func (s *Socket) Transport() ir.Protocols {
	switch {
	case s.Protocol == unix.IPPROTO_TCP && s.Kind == unix.SOCK_STREAM:
		return ir.TCP
	case s.Kind != unix.SOCK_DGRAM:
		return 0
	case s.Protocol == unix.IPPROTO_UDP:
		return ir.UDP
	case s.Protocol == unix.IPPROTO_ICMP || s.Protocol == unix.IPPROTO_ICMPV6:
		return ir.ICMP
	}
	return 0
}

// Blocks reports whether calls on the socket wait (O_NONBLOCK is off), with the file's status flags.
func (s *Socket) Blocks() (yes bool, flags int, err error) {
	flags, err = unix.FcntlInt(uintptr(s.FD), unix.F_GETFL, 0)
	return flags&unix.O_NONBLOCK == 0, flags, err
}

// Timeout returns SO_SNDTIMEO, which also bounds connect (socket(7)); 0 is none.
func (s *Socket) Timeout() time.Duration {
	tv, err := unix.GetsockoptTimeval(s.FD, unix.SOL_SOCKET, unix.SO_SNDTIMEO)
	if err != nil {
		return 0
	}
	return time.Duration(tv.Nano())
}
