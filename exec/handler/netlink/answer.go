package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// message is one netlink message without its length and port (struct nlmsghdr, linux/netlink.h).
type message struct {
	kind, flags uint16
	sequence    uint32
	body        []byte
	whole       []byte // as it came
}

const (
	headerSize = unix.SizeofNlMsghdr
	ifinfoSize = unix.SizeofIfInfomsg
	firstRoute = unix.RTM_BASE
	kinds      = 4 // the messages of each subject: new, delete, get, set (linux/rtnetlink.h)
	kindGet    = 2
)

var native = binary.NativeEndian

// next cuts the first message off a datagram. It fails where the kernel would stop reading (netlink_rcv_skb).
func next(b []byte) (m message, rest []byte, ok bool) {
	if len(b) < headerSize {
		return m, nil, false
	}
	size := native.Uint32(b)
	if size < headerSize || uint64(size) > uint64(len(b)) {
		return m, nil, false
	}
	m = message{
		kind: native.Uint16(b[4:]), flags: native.Uint16(b[6:]), sequence: native.Uint32(b[8:]),
		body: b[headerSize:size], whole: b[:size],
	}
	return m, b[min(aligned(int(size)), len(b)):], true
}

// aligned rounds up to the 4 bytes that messages and attributes start at.
func aligned(n int) int { return (n + 3) &^ 3 }

// answer returns the datagrams with which rtnetlink answers one, to the socket that has a port.
func answer(b []byte, port uint32) (replies [][]byte) {
	for {
		m, rest, ok := next(b)
		if !ok {
			return replies
		}
		if reply := answerOne(m, port); reply != nil {
			replies = append(replies, reply)
		}
		b = rest
	}
}

// answerOne answers one message; nil if nothing is to be said.
func answerOne(m message, port uint32) []byte {
	if m.flags&unix.NLM_F_REQUEST == 0 || m.kind < firstRoute || len(m.body) == 0 {
		return acknowledge(m, port, 0)
	}
	subject, kind := m.kind-(m.kind-firstRoute)%kinds, (m.kind-firstRoute)%kinds
	dump := m.flags&unix.NLM_F_DUMP != 0
	switch {
	case m.kind > unix.RTM_MAX:
		return acknowledge(m, port, unix.EOPNOTSUPP)
	case kind != kindGet:
		return acknowledge(m, port, unix.EPERM)
	case subject == unix.RTM_NEWLINK && dump:
		return done(m, port, link(nil, m, port, unix.NLM_F_MULTI))
	case subject == unix.RTM_NEWLINK:
		if e := namesLoopback(m.body); e != 0 {
			return acknowledge(m, port, e)
		}
		return link(nil, m, port, 0)
	case subject == unix.RTM_NEWADDR && dump:
		var out []byte
		if family := m.body[0]; family == unix.AF_UNSPEC || family == unix.AF_INET {
			out = address(out, m, port, unix.AF_INET, 8, []byte{127, 0, 0, 1})
		}
		if family := m.body[0]; family == unix.AF_UNSPEC || family == unix.AF_INET6 {
			out = address(out, m, port, unix.AF_INET6, 128, []byte{15: 1})
		}
		return done(m, port, out)
	}
	return acknowledge(m, port, unix.EOPNOTSUPP)
}

// The loopback interface as a new network namespace has it, brought up.
const (
	loopbackIndex = 1
	loopbackFlags = unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING | unix.IFF_LOWER_UP
	loopbackMTU   = 65536
	queueLength   = 1000
)

var loopbackName = []byte("lo\x00")

// link appends the loopback interface (struct ifinfomsg).
func link(out []byte, m message, port uint32, flags uint16) []byte {
	start := len(out)
	out = header(out, m, port, unix.RTM_NEWLINK, flags)
	out = append(out, unix.AF_UNSPEC, 0)
	out = native.AppendUint16(out, unix.ARPHRD_LOOPBACK)
	out = native.AppendUint32(out, loopbackIndex)
	out = native.AppendUint32(out, loopbackFlags)
	out = native.AppendUint32(out, 0) // changed flags
	out = attribute(out, unix.IFLA_IFNAME, loopbackName)
	out = attribute(out, unix.IFLA_TXQLEN, native.AppendUint32(nil, queueLength))
	out = attribute(out, unix.IFLA_OPERSTATE, []byte{0})
	out = attribute(out, unix.IFLA_LINKMODE, []byte{0})
	out = attribute(out, unix.IFLA_MTU, native.AppendUint32(nil, loopbackMTU))
	out = attribute(out, unix.IFLA_ADDRESS, make([]byte, 6))
	out = attribute(out, unix.IFLA_BROADCAST, make([]byte, 6))
	out = attribute(out, unix.IFLA_QDISC, []byte("noqueue\x00"))
	return sized(out, start)
}

// address appends an address of the loopback interface (struct ifaddrmsg).
func address(out []byte, m message, port uint32, family, prefix byte, ip []byte) []byte {
	start := len(out)
	out = header(out, m, port, unix.RTM_NEWADDR, unix.NLM_F_MULTI)
	out = append(out, family, prefix, unix.IFA_F_PERMANENT, unix.RT_SCOPE_HOST)
	out = native.AppendUint32(out, loopbackIndex)
	out = attribute(out, unix.IFA_ADDRESS, ip)
	if family == unix.AF_INET {
		out = attribute(out, unix.IFA_LOCAL, ip)
		out = attribute(out, unix.IFA_LABEL, loopbackName)
	}
	out = attribute(out, unix.IFA_FLAGS, native.AppendUint32(nil, unix.IFA_F_PERMANENT))
	// Preferred and valid for ever (struct ifa_cacheinfo).
	out = attribute(out, unix.IFA_CACHEINFO, []byte{255, 255, 255, 255, 255, 255, 255, 255, 15: 0})
	return sized(out, start)
}

// namesLoopback returns the errno for a request about one interface, 0 for the loopback interface.
func namesLoopback(body []byte) unix.Errno {
	if len(body) < ifinfoSize {
		return unix.EINVAL
	}
	if index := int32(native.Uint32(body[4:])); index > 0 {
		if index == loopbackIndex {
			return 0
		}
		return unix.ENODEV
	}
	result := unix.EINVAL // no name
	for b := body[ifinfoSize:]; len(b) >= unix.SizeofNlAttr; {
		size := int(native.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			break
		}
		if native.Uint16(b[2:]) == unix.IFLA_IFNAME {
			if name := string(b[unix.SizeofNlAttr:size]); name == "lo" || name == "lo\x00" {
				return 0
			}
			result = unix.ENODEV
		}
		b = b[min(aligned(size), len(b)):]
	}
	return result
}

// done ends a dump.
func done(m message, port uint32, out []byte) []byte {
	start := len(out)
	out = header(out, m, port, unix.NLMSG_DONE, unix.NLM_F_MULTI)
	return sized(native.AppendUint32(out, 0), start)
}

// acknowledge reports success, if that is asked for, or an error (struct nlmsgerr). With an error comes the request.
func acknowledge(m message, port uint32, e unix.Errno) []byte {
	if e == 0 && m.flags&unix.NLM_F_ACK == 0 {
		return nil
	}
	out := header(nil, m, port, unix.NLMSG_ERROR, 0)
	out = native.AppendUint32(out, uint32(-int32(e)))
	if e == 0 {
		return sized(append(out, m.whole[:headerSize]...), 0)
	}
	return sized(append(out, m.whole...), 0)
}

func header(out []byte, m message, port uint32, kind, flags uint16) []byte {
	out = native.AppendUint32(out, 0) // see sized
	out = native.AppendUint16(out, kind)
	out = native.AppendUint16(out, flags)
	out = native.AppendUint32(out, m.sequence)
	return native.AppendUint32(out, port)
}

// sized completes the message that starts at an offset: its length, and the padding to the next one.
func sized(out []byte, start int) []byte {
	native.PutUint32(out[start:], uint32(len(out)-start))
	return pad(out)
}

func attribute(out []byte, kind uint16, value []byte) []byte {
	out = native.AppendUint16(out, uint16(unix.SizeofNlAttr+len(value)))
	out = native.AppendUint16(out, kind)
	return pad(append(out, value...))
}

func pad(out []byte) []byte { return append(out, make([]byte, aligned(len(out))-len(out))...) }
