package network

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
)

// This file decodes what callers hand to sendmsg(2) and sendmmsg(2), as bytes of a 64-bit program.

const (
	headerSize  = 56 // struct msghdr
	vectorSize  = 64 // struct mmsghdr
	sentOffset  = 56 // of its msg_len
	segmentSize = 16 // struct iovec
	controlHead = 16 // struct cmsghdr

	maxSegments = 1024       // UIO_MAXIOV (linux/uio.h): of a message, and of messages in a vector
	maxTransfer = 0x7ffff000 // MAX_RW_COUNT (linux/fs.h): a longer message is cut there
	maxControl  = 16 << 10   // the kernel's own limit is a setting, net.core.optmem_max, and not lower
	maxRights   = 253        // SCM_MAX_FD (net/scm.h)
)

// header is struct msghdr.
type header struct {
	name         uint64
	nameSize     int32
	segments     uint64
	segmentCount uint64
	control      uint64
	controlSize  uint64
}

func parseHeader(b []byte) header {
	word := func(at int) uint64 { return binary.NativeEndian.Uint64(b[at:]) }
	return header{
		name: word(0), nameSize: int32(binary.NativeEndian.Uint32(b[8:])),
		segments: word(16), segmentCount: word(24), control: word(32), controlSize: word(40),
	}
}

// segment is struct iovec: a part of a message in the caller's memory.
type segment = kernel.Range

// parseSegments appends the segments in b to a list, cut where the message gets too long (lib/iov_iter.c).
func parseSegments(list []segment, b []byte) (_ []segment, total int, err error) {
	for ; len(b) >= segmentSize; b = b[segmentSize:] {
		size := int64(binary.NativeEndian.Uint64(b[8:]))
		if size < 0 {
			return list, 0, unix.EINVAL
		}
		size = min(size, int64(maxTransfer-total))
		list = append(list, segment{Base: uintptr(binary.NativeEndian.Uint64(b)), Len: int(size)})
		total += int(size)
	}
	return list, total, nil
}

// controlMessage is struct cmsghdr with its data (cmsg(3)).
type controlMessage struct {
	level, kind int32
	data        []byte
}

// nextControl takes the first message off control data. ok is false where there is none.
func nextControl(b []byte) (m controlMessage, rest []byte, ok bool, err error) {
	if len(b) < controlHead {
		return m, nil, false, nil
	}
	size := binary.NativeEndian.Uint64(b)
	if size < controlHead || size > uint64(len(b)) {
		return m, nil, false, unix.EINVAL
	}
	m = controlMessage{int32(binary.NativeEndian.Uint32(b[8:])), int32(binary.NativeEndian.Uint32(b[12:])), b[controlHead:size]}
	aligned := (size + 7) &^ 7
	return m, b[min(aligned, uint64(len(b))):], true, nil
}

// Control messages that the system's headers for Go lack.
const (
	scmTSOptID      = 81   // SCM_TS_OPT_ID (asm/socket.h)
	udpSegment      = 103  // UDP_SEGMENT (linux/udp.h)
	solTLS          = 282  // SOL_TLS (linux/socket.h)
	tlsRecordType   = 1    // TLS_SET_RECORD_TYPE (linux/tls.h)
	ipv6OldPktInfo  = 2    // IPV6_2292PKTINFO (linux/in6.h)
	ipv6OldHopLimit = 8    // IPV6_2292HOPLIMIT
	timestampingNew = 0x41 // SO_TIMESTAMPING_NEW (asm-generic/socket.h)
)

// harmless are the control messages that internet sockets may be given. They choose among the own addresses and interfaces,
// or say how a packet is sent, and not where to. Routing headers and source routes name further hosts (IP_RETOPTS,
// IPV6_RTHDR), IPV6_FLOWINFO can mean such a header by its label, and SO_MARK is for the privileged.
var harmless = map[[2]int32]bool{
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPING}: true,
	{unix.SOL_SOCKET, timestampingNew}:      true,
	{unix.SOL_SOCKET, unix.SCM_TXTIME}:      true,
	{unix.SOL_SOCKET, scmTSOptID}:           true,
	{unix.IPPROTO_IP, unix.IP_PKTINFO}:      true,
	{unix.IPPROTO_IP, unix.IP_TOS}:          true,
	{unix.IPPROTO_IP, unix.IP_TTL}:          true,
	{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO}:  true,
	{unix.IPPROTO_IPV6, ipv6OldPktInfo}:     true,
	{unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT}: true,
	{unix.IPPROTO_IPV6, ipv6OldHopLimit}:    true,
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}:   true,
	{unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG}: true,
	{unix.IPPROTO_UDP, udpSegment}:          true,
	{solTLS, tlsRecordType}:                 true,
}

// checkInternetControl lets the control messages of internet sockets through that are harmless.
func checkInternetControl(b []byte) error {
	for {
		m, rest, ok, err := nextControl(b)
		if err != nil || !ok {
			return err
		}
		if !harmless[[2]int32{m.level, m.kind}] {
			return unix.EPERM
		}
		b = rest
	}
}

// parseRights appends the descriptors that control messages of a unix socket pass on to a list. Credentials are refused:
// they would be the executor's.
func parseRights(list []int32, b []byte) ([]int32, error) {
	for {
		m, rest, ok, err := nextControl(b)
		if err != nil || !ok {
			return list, err
		}
		switch {
		case m.level != unix.SOL_SOCKET: // ignored by the kernel (net/core/scm.c)
		case m.kind == unix.SCM_RIGHTS:
			if len(m.data)/4 > maxRights-len(list) {
				return list, unix.EINVAL
			}
			for data := m.data; len(data) >= 4; data = data[4:] {
				list = append(list, int32(binary.NativeEndian.Uint32(data)))
			}
		case m.kind == unix.SCM_CREDENTIALS:
			return list, unix.EPERM
		default:
			return list, unix.EINVAL
		}
		b = rest
	}
}

// appendRights appends a control message that passes descriptors on.
func appendRights(b []byte, fds []int) []byte {
	b = binary.NativeEndian.AppendUint64(b, uint64(controlHead+4*len(fds)))
	b = binary.NativeEndian.AppendUint32(b, unix.SOL_SOCKET)
	b = binary.NativeEndian.AppendUint32(b, unix.SCM_RIGHTS)
	for _, fd := range fds {
		b = binary.NativeEndian.AppendUint32(b, uint32(fd))
	}
	return b
}

// checkNetlink lets messages of NETLINK_ROUTE through that ask about links, addresses, routes, neighbours and rules
// (rtnetlink(7)), which needs no rights. What else there is would be done with the executor's rights.
func checkNetlink(b []byte) error {
	for len(b) >= unix.NLMSG_HDRLEN { // less at the end is ignored by the kernel (net/netlink/af_netlink.c, netlink_rcv_skb)
		size := binary.NativeEndian.Uint32(b)
		if size < unix.NLMSG_HDRLEN || uint64(size) > uint64(len(b)) {
			return unix.EPERM
		}
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.RTM_GETLINK, unix.RTM_GETADDR, unix.RTM_GETROUTE, unix.RTM_GETNEIGH, unix.RTM_GETRULE:
		default:
			return unix.EPERM
		}
		aligned := (uint64(size) + 3) &^ 3
		b = b[min(aligned, uint64(len(b))):]
	}
	return nil
}

// netlinkToKernel reports whether a netlink address is the kernel's: no port and no groups (struct sockaddr_nl).
func netlinkToKernel(a *socket.Address) bool {
	b := a.Bytes()
	return a.Family() == unix.AF_NETLINK && len(b) >= unix.SizeofSockaddrNetlink &&
		binary.NativeEndian.Uint32(b[4:]) == 0 && binary.NativeEndian.Uint32(b[8:]) == 0
}
