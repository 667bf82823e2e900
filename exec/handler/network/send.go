package network

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// sendto carries out sendto(2).
func (h *Handler) sendto(c *supervise.Call) supervise.Verdict {
	x, err := h.begin(c, c.Arg32(3))
	if err != nil {
		return supervise.FromError(err)
	}
	return h.proceed(c, x, h.loadSendto(c, x))
}

// loadSendto reads and decides about the message of sendto. Address and data of a datagram are read at once.
func (h *Handler) loadSendto(c *supervise.Call, x *sending) error {
	m := &x.message
	m.total = int(min(c.Args[2], maxTransfer))
	m.segments = append(m.segments, segment{Base: uintptr(c.Args[1]), Len: m.total})
	named, size := c.Args[4] != 0, int(c.Arg32(5))
	if !named {
		size = 0
	}
	if size < 0 || size > socket.MaxAddress || named && size == 0 && x.socket.Internet() && !x.stream() {
		return unix.EINVAL // unlike sendmsg, where an address of no bytes is none
	}
	ahead := 0
	if m.total <= maxPacket && !x.stream() {
		ahead = m.total
	}
	if size+ahead > 0 {
		h.parts = append(h.parts[:0], segment{Base: uintptr(c.Args[4]), Len: size}, segment{Base: uintptr(c.Args[1]), Len: ahead})
		b := h.scratch(size + ahead)
		if n, err := c.Gather(h.parts, b); err != nil || n < len(b) {
			return faultOr(err)
		}
		m.to.Set(b[:size])
		x.ahead = b[size:]
	}
	return h.direct(c, x)
}

func faultOr(err error) error {
	if err == nil {
		return unix.EFAULT
	}
	return err
}

// sendmsg carries out sendmsg(2). Its registers do not tell whether a destination is named, so it comes here for connected
// sockets, too, and is not continued: the kernel would read the name again.
func (h *Handler) sendmsg(c *supervise.Call) supervise.Verdict {
	x, err := h.begin(c, c.Arg32(2))
	if err != nil {
		return supervise.FromError(err)
	}
	return h.proceed(c, x, h.load(c, x, c.Args[1]))
}

// sendmmsg carries out sendmmsg(2).
func (h *Handler) sendmmsg(c *supervise.Call) supervise.Verdict {
	x, err := h.begin(c, c.Arg32(3))
	if err != nil {
		return supervise.FromError(err)
	}
	x.vector, x.count = c.Args[1], int(min(uint32(c.Args[2]), maxSegments))
	if x.count == 0 {
		h.release(x)
		return supervise.Return(0)
	}
	return h.proceed(c, x, h.load(c, x, x.vector))
}

// begin pins the socket of a call.
func (h *Handler) begin(c *supervise.Call, flags int32) (*sending, error) {
	s, err := h.hold(c.TID, c.Arg32(0))
	if err != nil {
		return nil, err
	}
	x := h.take()
	x.socket, x.flags = s, int(flags)
	h.guard(x)
	if err := x.checkFlags(); err != nil {
		h.release(x)
		return nil, err
	}
	return x, nil
}

// checkFlags refuses what must not reach the kernel. MSG_FASTOPEN connects without connect(2), which Landlock does not see.
// MSG_ZEROCOPY, on a socket that asked for it (SO_ZEROCOPY), sends from memory that would be the executor's; others do not
// notice that it is missing.
func (x *sending) checkFlags() error {
	if x.flags&unix.MSG_FASTOPEN != 0 {
		return unix.EOPNOTSUPP
	}
	if x.flags&unix.MSG_ZEROCOPY != 0 {
		if on, err := unix.GetsockoptInt(x.socket.FD, unix.SOL_SOCKET, unix.SO_ZEROCOPY); err != nil || on != 0 {
			return unix.EOPNOTSUPP
		}
		x.flags &^= unix.MSG_ZEROCOPY
	}
	return nil
}

// load reads a message and decides about it. Errors and their order are those of the kernel (net/socket.c).
func (h *Handler) load(c *supervise.Call, x *sending, at uint64) error {
	b := h.scratch(headerSize)
	if err := c.Bytes(at, b); err != nil {
		return err
	}
	hdr, m := parseHeader(b), &x.message
	m.total, m.segments, m.control = 0, m.segments[:0], m.control[:0]
	switch {
	case hdr.name == 0:
		hdr.nameSize = 0
	case hdr.nameSize < 0:
		return unix.EINVAL
	}
	name := min(int(hdr.nameSize), socket.MaxAddress)
	switch {
	case hdr.segmentCount > maxSegments:
		return unix.EMSGSIZE
	case hdr.controlSize > maxControl:
		return unix.ENOBUFS
	}
	segments, control := int(hdr.segmentCount)*segmentSize, int(hdr.controlSize)
	if b = h.scratch(name + segments + control); len(b) > 0 {
		h.parts = append(h.parts[:0], segment{Base: uintptr(hdr.name), Len: name},
			segment{Base: uintptr(hdr.segments), Len: segments}, segment{Base: uintptr(hdr.control), Len: control})
		if n, err := c.Gather(h.parts, b); err != nil || n < len(b) {
			return faultOr(err)
		}
	}
	m.to.Set(b[:name])
	m.control = append(m.control, b[name+segments:]...)
	var err error
	if m.segments, m.total, err = parseSegments(m.segments, b[name:name+segments]); err != nil {
		return err
	}
	return h.direct(c, x)
}

// Sizes of messages on sockets that take them as a whole.
const (
	maxPacket   = 0xffff  // of the internet protocols: the kernel refuses more without a look at it
	maxDatagram = 1 << 20 // of unix sockets: the kernel's limit is SO_SNDBUF, 208 KiB unless it is raised
	maxNetlink  = 64 << 10
)

// direct decides where a message goes and what goes along, and makes it what the kernel is to be given.
func (h *Handler) direct(c *supervise.Call, x *sending) error {
	m := &x.message
	limit := maxTransfer
	var err error
	switch {
	case x.socket.Internet():
		if !x.stream() {
			limit = maxPacket
		}
		if err = h.directInternet(c, x); err != nil {
			break
		}
		if err = checkInternetControl(m.control); err == unix.EPERM {
			h.refuse(c, "", unix.EPERM, "a control message that is not known to be harmless")
		}
	case x.socket.Domain == unix.AF_UNIX:
		if !x.stream() {
			limit = maxDatagram
		}
		err = h.directUnix(c, x)
	case x.socket.Domain == unix.AF_NETLINK:
		limit = maxNetlink
		if x.socket.Protocol != unix.NETLINK_ROUTE || m.to.Size() > 0 && !netlinkToKernel(&m.to) || len(m.control) > 0 {
			h.refuse(c, "netlink", unix.EPERM, "netlink sockets ask the kernel for routes, and nothing else")
			err = unix.EPERM
		}
	case m.to.Size() > 0 || len(m.control) > 0:
		h.refuse(c, "", unix.EAFNOSUPPORT, "sockets of this family send nowhere")
		err = unix.EAFNOSUPPORT
	}
	if err == nil && m.total > limit {
		err = unix.EMSGSIZE
	}
	return err
}

// directInternet decides about the destination of a datagram; streams have none but the one that they are connected to.
func (h *Handler) directInternet(c *supervise.Call, x *sending) error {
	s, to := &x.socket, &x.message.to
	if to.Size() == 0 || x.stream() {
		to.Set(nil)
		return nil
	}
	udp := s.Protocol == unix.IPPROTO_UDP
	switch family := to.Family(); {
	case to.Size() < 2:
		return unix.EINVAL
	case family == unix.AF_INET, family == unix.AF_INET6 && s.Domain == unix.AF_INET6:
	case family == unix.AF_UNSPEC && udp && s.Domain == unix.AF_INET: // taken for AF_INET (net/ipv4/udp.c, udp_sendmsg)
		to.SetFamily(unix.AF_INET)
	case family == unix.AF_UNSPEC && udp: // no address (net/ipv6/udp.c, udpv6_sendmsg)
		to.Set(nil)
		return nil
	case udp && s.Domain == unix.AF_INET6:
		return unix.EINVAL
	default:
		return unix.EAFNOSUPPORT
	}
	destination, ok := to.Internet()
	if !ok {
		return unix.EINVAL
	}
	_, err := h.lead(c, s, to, destination)
	return err
}

// directUnix decides about the destination of a message on a unix socket, and fetches the descriptors that it passes on.
func (h *Handler) directUnix(c *supervise.Call, x *sending) error {
	m := &x.message
	switch {
	case x.stream():
		m.to.Set(m.to.Bytes()[:min(m.to.Size(), 2)]) // the kernel refuses any
	case x.socket.Kind == unix.SOCK_SEQPACKET:
		m.to.Set(nil) // the kernel ignores it
	case m.to.Size() == 0:
	case m.to.Family() != unix.AF_UNIX || m.to.Size() <= 2 || m.to.Size() > unix.SizeofSockaddrUnix:
		return unix.EINVAL
	case h.policy.Unix == nil:
		h.refuse(c, "unix", unix.EACCES, "unix sockets cannot be reached")
		return unix.EACCES
	case m.to.Abstract(): // sockets of the sandbox alone: the executor's Landlock domain sees to that
	default:
		pin, through, err := h.unixTarget(c, &m.to)
		if err != nil {
			return err
		}
		m.pin, m.pinned, m.to = pin, true, through
	}
	return h.fetchRights(c, m)
}

// maxHeld bounds the callers' descriptors that waiting messages hold.
const maxHeld = 512

// fetchRights duplicates the descriptors that a message passes on, and names the duplicates in its control data.
func (h *Handler) fetchRights(c *supervise.Call, m *message) error {
	list, err := parseRights(h.rights[:0], m.control)
	h.rights = list[:0]
	if err == unix.EPERM {
		h.refuse(c, "unix", unix.EPERM, "credentials would be the executor's")
	}
	if m.control = m.control[:0]; err != nil || len(list) == 0 {
		return err
	}
	if h.held+len(list) > maxHeld {
		return unix.ETOOMANYREFS
	}
	for _, fd := range list {
		own, err := h.duplicate(c.TID, fd)
		switch err {
		case nil:
			m.held = append(m.held, own)
			h.held++
		case unix.EMFILE, unix.ENFILE:
			return unix.ETOOMANYREFS
		default:
			return unix.EBADF
		}
	}
	if !c.Valid() {
		return unix.ESRCH
	}
	m.control = appendRights(m.control, m.held)
	return nil
}

// drop releases what the message holds.
func (h *Handler) drop(m *message) {
	if m.pinned {
		m.pin.Close()
		m.pinned = false
	}
	for _, fd := range m.held {
		h.closer.Close(fd)
	}
	h.held -= len(m.held)
	m.held = m.held[:0]
}

// report tells the caller how much of an entry of its vector was sent.
func (x *sending) report(c *supervise.Call) error {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(x.message.sent))
	return c.Write(x.vector+uint64(x.done)*vectorSize+sentOffset, b[:])
}
