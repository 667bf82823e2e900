package seccomp

import (
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Arguments of socket (linux/socket.h, linux/net.h, linux/in.h).
const (
	afUnix  = 1
	afInet  = 2
	afInet6 = 10

	afNetlink    = 16
	netlinkRoute = 0

	sockStream    = 1
	sockDgram     = 2
	sockRaw       = 3
	sockSeqpacket = 5

	protoDefault = 0
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoICMPv6  = 58
)

// ofType is the condition on the type of a socket without its flags SOCK_CLOEXEC and SOCK_NONBLOCK (SOCK_TYPE_MASK).
func ofType(t uint64) ir.Cond { return ir.Cond{Arg: 1, Op: ir.OpEq, Mask: 0xf, Value: t} }

// socket lets through what later layers can hold: TCP, whose ports Landlock decides, and what the policy asks for.
// The protocol must be named, because Landlock's TCP rights do not see MPTCP (262), SCTP or DCCP: a socket of those
// would connect under a policy that allows no network.
func (b *builder) socket() ir.SyscallEntry {
	unix := when(b.deny(abi.EPERM), "default deny: unix sockets", is(0, afUnix))
	if b.req.UnixSockets {
		unix.Action, unix.Reason = ir.Allow, "unix sockets"
	}
	e := ir.SyscallEntry{
		Action:  ir.Errno(abi.EAFNOSUPPORT),
		Reason:  "socket families other than unix and internet",
		Clauses: []ir.Clause{unix},
	}
	e.Clauses = append(e.Clauses, b.netlink()...)
	e.Clauses = append(e.Clauses, b.inet(afInet, protoICMP)...)
	e.Clauses = append(e.Clauses, b.inet(afInet6, protoICMPv6)...)
	return e
}

const reasonInterfaces = "network interfaces: the supervisor tells of the loopback interface only"

// answersNetlink tells whether the supervisor stands in for rtnetlink, see exec/handler/netlink.
func (b *builder) answersNetlink() bool {
	_, denied := b.deniedByPolicy("socket")
	return !denied && !b.req.NoSupervisor
}

// netlink returns the clauses for questions about interfaces. Other netlink protocols are not answered.
func (b *builder) netlink() []ir.Clause {
	if !b.answersNetlink() {
		return nil
	}
	route := func(kind uint64) ir.Clause {
		return when(ir.Notify, reasonInterfaces, is(0, afNetlink), ofType(kind), is(2, netlinkRoute))
	}
	return []ir.Clause{route(sockRaw), route(sockDgram)}
}

// bind has the supervisor look at addresses as long as a sockaddr_nl. Internet addresses are longer.
func (b *builder) bind() ir.SyscallEntry {
	const addressSize = 12
	e := ir.SyscallEntry{Action: ir.Allow}
	if b.answersNetlink() {
		e.Clauses = []ir.Clause{when(ir.Notify, reasonInterfaces, is(2, addressSize))}
	}
	return e
}

// getsockname tells Go programs that a netlink socket is one. Nothing in its registers tells which socket is meant, so only
// policies about the network pay for it.
func (b *builder) getsockname() ir.SyscallEntry {
	if !b.answersNetlink() || !b.req.UsesNetwork {
		return ir.SyscallEntry{Action: ir.Allow}
	}
	return ir.SyscallEntry{Action: ir.Notify, Reason: reasonInterfaces}
}

// inet returns the clauses for one internet family; nothing falls through them.
func (b *builder) inet(family, icmp uint32) []ir.Clause {
	allow := func(reason string, kind uint64, protocol uint32) ir.Clause {
		return when(ir.Allow, reason, is(0, family), ofType(kind), is(2, protocol))
	}
	noProtocol := ir.Errno(abi.EPROTONOSUPPORT)
	clauses := []ir.Clause{
		allow("TCP; its ports are decided by Landlock", sockStream, protoDefault),
		allow("TCP; its ports are decided by Landlock", sockStream, protoTCP),
		when(noProtocol, "stream protocols other than TCP", is(0, family), ofType(sockStream)),
	}
	if b.req.UDP {
		clauses = append(clauses, allow("UDP", sockDgram, protoDefault), allow("UDP", sockDgram, protoUDP))
	}
	if b.req.ICMP {
		clauses = append(clauses, allow("ICMP echo", sockDgram, icmp))
	}
	otherDatagram := when(noProtocol, "datagram protocols without a rule", is(0, family), ofType(sockDgram))
	if !b.req.UDP && !b.req.ICMP {
		otherDatagram.Action, otherDatagram.Reason = b.deny(abi.EPERM), "default deny: datagram sockets"
	}
	return append(clauses, otherDatagram,
		when(b.deny(abi.EPERM), "default deny: raw sockets", is(0, family), ofType(sockRaw)),
		when(noProtocol, "socket types other than stream and datagram", is(0, family)))
}

// socketpair makes unix sockets that have no name. Without a grant for unix sockets a datagram pair is refused too:
// sendto and connect could direct it to a socket in the filesystem. (SOCK_RAW is a datagram socket there.) A stream
// or sequenced-packet pair stays with its peer.
func (b *builder) socketpair() ir.SyscallEntry {
	e := ir.SyscallEntry{Action: ir.Errno(abi.EAFNOSUPPORT), Reason: "socket pairs other than unix"}
	if b.req.UnixSockets {
		e.Clauses = []ir.Clause{when(ir.Allow, "unix sockets", is(0, afUnix))}
		return e
	}
	e.Clauses = []ir.Clause{
		when(ir.Allow, "connected pair", is(0, afUnix), ofType(sockStream)),
		when(ir.Allow, "connected pair", is(0, afUnix), ofType(sockSeqpacket)),
		when(b.deny(abi.EPERM), "default deny: unix datagram sockets", is(0, afUnix)),
	}
	return e
}

// listen on an unbound TCP socket binds an ephemeral port, which Landlock's bind right does not see.
func (b *builder) listen() ir.SyscallEntry {
	switch {
	case b.req.BindPorts == BindAny:
		return ir.SyscallEntry{Action: ir.Allow}
	case b.req.BindPorts == BindListed && !b.req.NoSupervisor:
		return ir.SyscallEntry{
			Action: ir.Notify, Reason: "network.bind: the socket must be bound to a listed port", Origin: b.req.BindOrigin,
		}
	case b.req.BindPorts == BindListed:
		return ir.SyscallEntry{
			Action: b.deny(abi.EACCES), Reason: "listening on listed ports needs a supervisor", Origin: b.req.BindOrigin,
		}
	}
	return ir.SyscallEntry{Action: b.deny(abi.EACCES), Reason: "default deny: listening without a bind grant"}
}

const reasonFastOpen = "TCP fast open connects past Landlock"

// fastOpen refuses MSG_FASTOPEN in the flags argument: it connects without connect(2), and Landlock does not see it.
// Clients take EOPNOTSUPP as "not here" and connect.
func fastOpen(flags uint8) func(*builder) ir.SyscallEntry {
	const msgFastOpen = 0x20000000
	return func(*builder) ir.SyscallEntry {
		return ir.SyscallEntry{Action: ir.Allow, Clauses: []ir.Clause{
			when(ir.Errno(abi.EOPNOTSUPP), reasonFastOpen, ir.Cond{Arg: flags, Op: ir.OpSet, Mask: low, Value: msgFastOpen}),
		}}
	}
}

func (b *builder) setsockopt() ir.SyscallEntry {
	const tcpFastOpen, tcpFastOpenConnect, tcpULP = 23, 30, 31
	unsupported := ir.Errno(abi.EOPNOTSUPP)
	e := ir.SyscallEntry{Action: ir.Allow, Clauses: []ir.Clause{
		when(unsupported, reasonFastOpen, is(1, protoTCP), is(2, tcpFastOpen)),
		when(unsupported, reasonFastOpen, is(1, protoTCP), is(2, tcpFastOpenConnect)),
		when(unsupported, "upper layers of TCP: SMC connects past Landlock", is(1, protoTCP), is(2, tcpULP)),
	}}
	if b.req.Destinations {
		for _, o := range routeOptions {
			e.Clauses = append(e.Clauses, when(b.deny(abi.EPERM), "source routes pass hosts that no rule allows", is(1, o.level), is(2, o.name)))
		}
	}
	return e
}

// routeOptions are the socket options by which packets first go to another host than they are sent to: source routes
// (ip(7)), routing headers and what can hold one (RFC 3542, linux/in6.h).
var routeOptions = []struct{ level, name uint32 }{
	{0, 4},   // IPPROTO_IP, IP_OPTIONS
	{41, 6},  // IPPROTO_IPV6, IPV6_2292PKTOPTIONS
	{41, 32}, // IPV6_FLOWLABEL_MGR: options that a flow label stands for
	{41, 54}, // IPV6_HOPOPTS
	{41, 55}, // IPV6_RTHDRDSTOPTS
	{41, 57}, // IPV6_RTHDR
	{41, 59}, // IPV6_DSTOPTS
}
