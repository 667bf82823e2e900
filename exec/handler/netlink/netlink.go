// Package netlink answers programs that ask which network interfaces there are: there is "lo", with 127.0.0.1/8 and
// ::1/128.
//
// It answers socket(AF_NETLINK, …, NETLINK_ROUTE) with one end of a connected AF_UNIX pair of sequenced packets, whose
// other end it serves as rtnetlink(7) would: dumps of links and addresses, EPERM for changes, EOPNOTSUPP for all else. The
// end is a descriptor like any other: it is read, waited for, duplicated, inherited and closed without the supervisor.
// What such a socket cannot do by itself is answered too: bind of an address with the length of a sockaddr_nl, which no
// other family takes, and getsockname, because Go looks at the family there.
//
// Why no real netlink socket, in a network namespace of its own? An ordinary user can make that only in a user namespace,
// which the user then owns. A process of the same user outside of it, such as the command, has every capability there
// (user_namespaces(7)), and the kernel asks for no more than that of a message that names its destination
// (net/netlink/af_netlink.c, __netlink_ns_capable): the command would be the network administrator of that namespace.
//
// What shows that it is no netlink socket: SO_DOMAIN, options of SOL_NETLINK, and the family, but not the rest, of the
// address that a message comes from. Of that address C libraries look at nl_pid, which must be 0, the kernel's.
//
// It never blocks. The command can make it work only as much as it works itself.
//
// Read next: answer.go (what is answered), socket.go (the pair).
package netlink

import (
	"encoding/binary"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// maxSockets bounds the sockets of a sandbox that are open at the same time: each costs the executor a descriptor.
const maxSockets = 128

// Watcher tells when a descriptor is readable; [supervise.Loop] is one.
type Watcher interface {
	Watch(fd int, ready func()) error
	Unwatch(fd int)
}

// Handler answers for the interfaces of one sandbox.
type Handler struct {
	root                      kernel.Root // of the command, and its numbers of processes
	watcher                   Watcher
	journal                   supervise.Journal
	socket, bind, getsockname abi.Sysno
	sockets                   map[uint64]*socket // by inode of the command's end
	buffer                    [4096]byte
	named                     bool // getsockname is answered
	closer                    supervise.Closer
}

// New makes the handler. [Handler.Close] ends it. named tells whether getsockname is notified; if not, it tells programs
// nothing, which C libraries take for the port 0.
func New(arch abi.Arch, root kernel.Root, w Watcher, j supervise.Journal, named bool) *Handler {
	h := &Handler{root: root, watcher: w, journal: j, sockets: map[uint64]*socket{}, named: named}
	h.socket, _ = abi.SyscallNumber(arch, "socket")
	h.bind, _ = abi.SyscallNumber(arch, "bind")
	h.getsockname, _ = abi.SyscallNumber(arch, "getsockname")
	return h
}

// Name is the concern.
func (h *Handler) Name() string { return "netlink" }

// Syscalls lists the calls about sockets that it answers.
func (h *Handler) Syscalls() []abi.Sysno { return []abi.Sysno{h.socket, h.bind, h.getsockname} }

// Close lets go of all sockets; the command reads an end of file from those that it still has.
func (h *Handler) Close() {
	for _, s := range h.sockets {
		h.drop(s)
	}
}

// Handle answers what concerns netlink and leaves everything else alone.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	if c.Nr == h.socket {
		return h.open(c)
	}
	s := h.find(c)
	switch {
	case s == nil:
		return supervise.Pass(supervise.KernelDecides)
	case c.Nr == h.bind:
		return h.bindTo(c, s)
	}
	return h.tellName(c, s)
}

const typeMask = 0xf // SOCK_TYPE_MASK, linux/net.h: what is left of a socket's type without its flags

// open makes a socket.
func (h *Handler) open(c *supervise.Call) supervise.Verdict {
	domain, kind, protocol := c.Arg32(0), c.Arg32(1), c.Arg32(2)
	flags := kind &^ typeMask
	if kind &= typeMask; domain != unix.AF_NETLINK || kind != unix.SOCK_RAW && kind != unix.SOCK_DGRAM || protocol != unix.NETLINK_ROUTE {
		return supervise.Next()
	}
	if flags&^(unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK) != 0 {
		return supervise.Errno(unix.EINVAL)
	}
	if len(h.sockets) >= maxSockets {
		h.record(c, "limit", "ENFILE", "the sandbox has "+strconv.Itoa(maxSockets)+" netlink sockets open")
		return supervise.Errno(unix.ENFILE)
	}
	number, err := h.root.OwnTID(c.TID)
	if err != nil {
		return supervise.Errno(unix.ESRCH)
	}
	theirs, s, err := newSocket(h.freePort(uint32(number)), flags&unix.SOCK_NONBLOCK != 0)
	if err == nil {
		if err = h.watcher.Watch(s.end, func() { h.serve(s) }); err != nil {
			_ = unix.Close(theirs)
			_ = unix.Close(s.end)
		}
	}
	if err != nil {
		h.record(c, "error", "EAFNOSUPPORT", "make a netlink socket: "+err.Error())
		return supervise.Errno(unix.EAFNOSUPPORT) // which libraries take for "no netlink here"
	}
	h.sockets[s.inode] = s
	return supervise.AddFD(theirs, uint32(flags)&unix.SOCK_CLOEXEC) // SOCK_CLOEXEC is O_CLOEXEC
}

func (h *Handler) record(c *supervise.Call, kind, verdict, reason string) {
	h.journal.Record(supervise.Event{Kind: kind, PID: c.TID, Syscall: "socket", Verdict: verdict, Reason: reason})
}

// find returns the socket that the call's first argument stands for, nil if it is none of ours. Another thread may swap
// the descriptor, and harms only its own process.
func (h *Handler) find(c *supervise.Call) *socket {
	if len(h.sockets) == 0 {
		return nil
	}
	inode, err := kernel.SocketInode(c.TID, c.Arg32(0))
	if err != nil || !c.Valid() {
		return nil
	}
	return h.sockets[inode]
}

// freePort is a port as the kernel would choose it (netlink_autobind): the caller's id if nobody has it, else a negative
// number.
func (h *Handler) freePort(wanted uint32) uint32 {
	if !h.named {
		return 0
	}
	port := wanted
	for next := ^uint32(4096); h.taken(port, nil); next-- {
		port = next
	}
	return port
}

func (h *Handler) taken(port uint32, except *socket) bool {
	for _, s := range h.sockets {
		if s != except && s.port == port {
			return true
		}
	}
	return false
}

const addressSize = 12 // struct sockaddr_nl, linux/netlink.h: family and padding, port, groups

// bindTo takes the port that is asked for. Groups are accepted: the interfaces never change, so nothing is ever sent to
// them.
func (h *Handler) bindTo(c *supervise.Call, s *socket) supervise.Verdict {
	var address [addressSize]byte
	if c.Arg32(2) != addressSize {
		return supervise.Pass(supervise.KernelDecides)
	}
	if err := c.Bytes(c.Args[1], address[:]); err != nil {
		return supervise.FromError(err)
	}
	port := binary.NativeEndian.Uint32(address[4:])
	switch {
	case binary.NativeEndian.Uint16(address[:]) != unix.AF_NETLINK, s.bound && port != 0 && port != s.port:
		return supervise.Errno(unix.EINVAL)
	case !h.named:
	case port != 0 && h.taken(port, s):
		return supervise.Errno(unix.EADDRINUSE)
	case port != 0:
		s.port = port
	}
	s.bound = true
	if s.foretold > 0 {
		h.takeBack(s, c.TID, c.Arg32(0))
	}
	return supervise.Return(0)
}

// tellName answers getsockname.
func (h *Handler) tellName(c *supervise.Call, s *socket) supervise.Verdict {
	var length [4]byte
	if err := c.Bytes(c.Args[2], length[:]); err != nil {
		return supervise.FromError(err)
	}
	room := int32(binary.NativeEndian.Uint32(length[:]))
	if room < 0 {
		return supervise.Errno(unix.EINVAL)
	}
	address := make([]byte, addressSize)
	binary.NativeEndian.PutUint16(address, unix.AF_NETLINK)
	binary.NativeEndian.PutUint32(address[4:], s.port)
	if room > 0 {
		if err := c.Write(c.Args[1], address[:min(room, addressSize)]); err != nil {
			return supervise.FromError(err)
		}
	}
	binary.NativeEndian.PutUint32(length[:], addressSize)
	if err := c.Write(c.Args[2], length[:]); err != nil {
		return supervise.FromError(err)
	}
	return supervise.Return(0)
}
