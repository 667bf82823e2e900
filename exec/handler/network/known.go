package network

import (
	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
)

// known is what spares system calls for the next of many messages: pidfds of the threads that called last, and what the
// last sockets are. A thread's own pidfd fails once the thread is gone, whoever gets its number, and the cookie of a socket
// (SO_COOKIE) is never another's. Of what a cookie stands for only the family can change, from IPv6 to IPv4
// (IPV6_ADDRFORM, ipv6(7)), and no address is passed on that would mean something else then.
type known struct {
	discard func(fd int) // closes a descriptor that may be any of the caller's
	threads [places]struct{ tid, pidfd int }
	sockets [places]struct {
		cookie uint64
		socket socket.Socket
	}
}

const places = 8

// hold duplicates a socket of the caller. Unlike after pin, the notification remains to be checked.
func (k *known) hold(tid int, descriptor int32) (s socket.Socket, err error) {
	fd, err := k.duplicate(tid, descriptor)
	if err != nil {
		return s, err
	}
	s.FD = fd
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	place := &k.sockets[cookie%places]
	if err == nil && place.cookie == cookie {
		s = place.socket
		s.FD = fd
		return s, nil
	}
	if err == nil {
		err = s.Identify()
	}
	if err != nil {
		k.discard(s.FD)
		return s, err
	}
	place.cookie, place.socket = cookie, s
	return s, nil
}

// glance is hold for a call that a socket sees once, as a rule: nothing is remembered.
func (k *known) glance(tid int, descriptor int32) (s socket.Socket, err error) {
	if s.FD, err = k.duplicate(tid, descriptor); err != nil {
		return s, err
	}
	if err = s.Identify(); err != nil {
		k.discard(s.FD)
	}
	return s, err
}

// duplicate copies a descriptor of a thread.
func (k *known) duplicate(tid int, descriptor int32) (fd int, err error) {
	place := &k.threads[tid%places]
	if place.tid == tid {
		if fd, err = kernel.DuplicateFrom(place.pidfd, descriptor); err != unix.ESRCH {
			return fd, err
		}
	}
	pidfd, err := kernel.ThreadPIDFD(tid)
	if err != nil {
		return -1, err
	}
	fd, err = kernel.DuplicateFrom(pidfd, descriptor)
	if !kernel.StandsForThread(pidfd) {
		_ = unix.Close(pidfd)
		return fd, err
	}
	if place.tid != 0 {
		_ = unix.Close(place.pidfd)
	}
	place.tid, place.pidfd = tid, pidfd
	return fd, err
}

func (k *known) close() {
	for _, t := range k.threads {
		if t.tid != 0 {
			_ = unix.Close(t.pidfd)
		}
	}
}
