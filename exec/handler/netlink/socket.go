package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// socket is one netlink socket of the command.
type socket struct {
	end   int    // ours
	inode uint64 // of the command's
	port  uint32 // nl_pid
	bound bool
	// foretold counts the answers in the command's queue that it has not asked for yet, see foretell.
	foretold int
}

// newSocket makes a socket and the descriptor that the command is to get.
func newSocket(port uint32, nonblock bool) (theirs int, s *socket, err error) {
	theirs, ours, err := pair()
	if err != nil {
		return -1, nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(theirs, &st); err == nil && !nonblock {
		err = unix.SetNonblock(theirs, false)
	}
	if err != nil {
		_ = unix.Close(theirs)
		_ = unix.Close(ours)
		return -1, nil, err
	}
	s = &socket{end: ours, inode: st.Ino, port: port}
	s.foretell()
	return theirs, s, nil
}

// attempts is how often pair tries another name.
const attempts = 8

// pair connects two sockets, both without blocking. A socketpair would not do: what comes from ours must have an address
// that reads as the kernel's.
func pair() (theirs, ours int, err error) {
	for range attempts {
		if theirs, ours, err = tryPair(); !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return theirs, ours, err
}

func tryPair() (theirs, ours int, err error) {
	const kind = unix.SOCK_SEQPACKET | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	listener, err := unix.Socket(unix.AF_UNIX, kind, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(listener)
	// An abstract name. The kernel copies it out with each message that comes from here, to where the command expects a
	// sockaddr_nl: two bytes of padding, of which the second is free, the port 0, and groups, at which nobody looks.
	var name [addressSize - 2]byte
	free := rand.Uint64()
	name[1] = byte(free >> 32)
	binary.NativeEndian.PutUint32(name[6:], uint32(free))
	at := &unix.SockaddrUnix{Name: "@" + string(name[1:])}
	if err := unix.Bind(listener, at); err != nil {
		return -1, -1, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(listener, 1); err != nil {
		return -1, -1, fmt.Errorf("listen: %w", err)
	}
	if theirs, err = unix.Socket(unix.AF_UNIX, kind, 0); err != nil {
		return -1, -1, fmt.Errorf("socket: %w", err)
	}
	if err = unix.Connect(theirs, at); err != nil {
		err = fmt.Errorf("connect: %w", err) // EAGAIN: somebody else has connected to it
	} else {
		ours, err = acceptOwn(listener)
	}
	if err != nil {
		_ = unix.Close(theirs)
		return -1, -1, err
	}
	return theirs, ours, nil
}

// acceptOwn accepts the connection that this process has made. Others of the host may connect as well.
func acceptOwn(listener int) (int, error) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return -1, fmt.Errorf("accept: %w", err)
		}
		if peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && int(peer.Pid) == os.Getpid() {
			return fd, nil
		}
		_ = unix.Close(fd)
	}
}

// foretold are the requests that musl's getifaddrs and if_nameindex make, in this order. They send them without bind and
// look for the answer without waiting (MSG_DONTWAIT), as the kernel's is there when send returns. Ours would come too
// late, so it is there before.
var foretold = [...]message{
	{kind: unix.RTM_GETLINK, flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP, sequence: 1, body: []byte{unix.AF_UNSPEC}},
	{kind: unix.RTM_GETADDR, flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP, sequence: 2, body: []byte{unix.AF_UNSPEC}},
}

func (s *socket) foretell() {
	for _, m := range foretold {
		s.send(answerOne(m, s.port))
		s.foretold++
	}
}

// takeBack empties the queue again: the command has bound its socket, so it is not musl's.
func (h *Handler) takeBack(s *socket, tid int, fd int32) {
	end, err := kernel.DuplicateFD(tid, int(fd))
	if err != nil {
		return
	}
	var st unix.Stat_t
	if unix.Fstat(end, &st) != nil || st.Ino != s.inode {
		h.closer.Close(end) // another socket, which may linger
		return
	}
	defer unix.Close(end)
	for ; s.foretold > 0; s.foretold-- {
		var b [1]byte
		if _, _, err := unix.Recvfrom(end, b[:], unix.MSG_DONTWAIT); err != nil {
			break
		}
	}
	s.foretold = 0
}

// wasForetold tells whether a request has been answered in advance.
func (s *socket) wasForetold(b []byte) bool {
	if s.foretold == 0 {
		return false
	}
	want := foretold[len(foretold)-s.foretold]
	m, _, ok := next(b)
	if !ok || m.kind != want.kind || m.flags != want.flags || m.sequence != want.sequence {
		s.foretold = 0 // what is in the queue is of no use to this program; it looks for its own sequence numbers
		return false
	}
	s.foretold--
	return true
}

// serve answers what the command has sent. It is called when there is something, or the command has closed its end.
func (h *Handler) serve(s *socket) {
	n, _, err := unix.Recvfrom(s.end, h.buffer[:], unix.MSG_DONTWAIT)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
	case err != nil, n == 0 && hungUp(s.end):
		h.drop(s)
	case !s.wasForetold(h.buffer[:n]):
		for _, reply := range answer(h.buffer[:n], s.port) {
			if !s.send(reply) {
				break
			}
		}
	}
}

// send reports whether there was room for a reply. Where not, the command does not read, and has it lost, as with the
// kernel's netlink.
func (s *socket) send(b []byte) bool {
	return unix.Sendto(s.end, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil) == nil
}

// hungUp tells an end of file from an empty packet.
func hungUp(fd int) bool {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(set, 0)
	return err == nil && n > 0
}

func (h *Handler) drop(s *socket) {
	h.watcher.Unwatch(s.end)
	_ = unix.Close(s.end)
	delete(h.sockets, s.inode)
}
