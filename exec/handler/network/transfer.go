package network

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// sending is a call that sends, on its way: one message, or one after the other of a vector.
type sending struct {
	socket  socket.Socket
	flags   int // the caller's
	message message

	vector uint64 // sendmmsg: where the messages are
	count  int    // of them; 0 for the other calls
	done   int

	ahead []byte // data in the handler's buffer, read together with the address

	timed    bool      // the message waits, until deadline if that is not zero
	deadline time.Time // SO_SNDTIMEO
	pause    time.Duration
}

// message is what is sent. Its data stay in the caller's memory and are read when the kernel takes them, as the kernel does;
// all that was decided about is a copy.
type message struct {
	to       socket.Address // as the kernel is given it; none where its size is 0
	control  []byte
	segments []segment
	total    int // bytes
	sent     int

	pin    kernel.Pin // the socket that to leads to
	pinned bool
	held   []int // descriptors in control
}

func (x *sending) stream() bool { return x.socket.Kind == unix.SOCK_STREAM }

// outbox is what sending needs of the handler.
type outbox struct {
	spare  *sending // one that is not in use: most calls are over at once
	buffer []byte
	parts  []segment // that are read next
	rights []int32
	held   int // descriptors of callers, of all messages
	closer supervise.Closer
}

func (h *Handler) take() *sending {
	x := h.spare
	if h.spare = nil; x == nil {
		x = new(sending)
	}
	return x
}

// release ends a call: whatever it holds is closed.
func (h *Handler) release(x *sending) {
	h.drop(&x.message)
	x.socket.Close()
	h.unguard(x)
	*x = sending{message: message{segments: x.message.segments[:0], control: x.message.control[:0], held: x.message.held[:0]}}
	h.spare = x
}

// abandon is release for a call that is not answered; its socket is closed where it may take long.
func (h *Handler) abandon(x *sending) {
	h.drop(&x.message)
	h.closer.Close(x.socket.FD)
}

// guard bounds what system calls on the socket may take. Datagrams of the internet never wait, and closing never does.
func (h *Handler) guard(x *sending) {
	if x.guarded() {
		h.alarm.Set(patience)
	}
}

func (h *Handler) unguard(x *sending) {
	if x.guarded() {
		h.alarm.Clear()
	}
}

func (x *sending) guarded() bool { return !x.socket.Internet() || x.stream() }

// How many bytes of a call are sent before others have their turn. A message counts as so many more, and each of its parts.
const (
	turn        = 256 << 10
	messageCost = 8 << 10
	segmentCost = 512
	chunk       = 256 << 10 // of a stream, at a time
)

// proceed sends what the kernel takes at once. Where the call would wait, or has had its turn, it goes on later. refused is
// why the message is not to be sent.
func (h *Handler) proceed(c *supervise.Call, x *sending, refused error) supervise.Verdict {
	for budget := turn; ; {
		err := refused
		if refused == nil {
			err = h.transmit(c, x, &budget)
			switch {
			case err == errTurn:
				return h.later(c, x, -1, 1)
			case err == unix.EAGAIN && x.waits():
				return h.await(c, x)
			case err == unix.EPIPE && x.message.sent == 0 && x.stream() && x.flags&unix.MSG_NOSIGNAL == 0:
				breakPipe(c)
			}
		}
		if x.message.sent > 0 {
			err = nil // what went wrong shows next time
		}
		if x.count == 0 {
			sent := x.message.sent
			h.release(x)
			if err != nil {
				return supervise.FromError(err)
			}
			return supervise.Return(int64(sent))
		}
		if err == nil {
			err = x.report(c)
		}
		if err == nil {
			x.done++
		}
		done := x.done
		if err != nil || x.message.sent < x.message.total || done == x.count {
			h.release(x)
			if done == 0 {
				return supervise.FromError(err)
			}
			return supervise.Return(int64(done))
		}
		h.drop(&x.message)
		x.message.sent, x.timed, x.pause = 0, false, 0
		refused = h.load(c, x, x.vector+uint64(done)*vectorSize)
	}
}

// errTurn: others have their turn.
const errTurn = unix.ERESTART

// transmit sends until all of the message is sent or something is in the way.
func (h *Handler) transmit(c *supervise.Call, x *sending, budget *int) error {
	m := &x.message
	for {
		if *budget <= 0 {
			return errTurn
		}
		data, err := h.fetch(c, x)
		if err != nil {
			return err
		}
		*budget -= len(data) + messageCost + segmentCost*len(m.segments)
		n, err := x.send(data)
		if err != nil {
			return err
		}
		m.sent += n
		x.pause = 0
		switch {
		case m.sent == m.total || !x.stream():
			return nil
		case n == 0:
			return unix.EAGAIN
		}
	}
}

// send sends data, the next of the message, as far as possible without waiting.
func (x *sending) send(data []byte) (int, error) {
	m := &x.message
	flags := x.flags | unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	if m.sent+len(data) < m.total {
		flags &^= unix.MSG_OOB | unix.MSG_EOR // they are about the last byte
	}
	var to, control []byte
	if m.sent == 0 {
		to, control = m.to.Bytes(), m.control
	}
	n, err := kernel.Send(x.socket.FD, data, to, control, flags)
	if err == unix.EINTR { // the alarm
		err = unix.EAGAIN
	}
	return n, err
}

// scratch returns n bytes until the next call of it.
func (h *Handler) scratch(n int) []byte {
	if n > len(h.buffer) {
		h.buffer = make([]byte, max(n, chunk))
	}
	return h.buffer[:n]
}

// fetch returns the next data of a message. Netlink is decided about by what is sent.
func (h *Handler) fetch(c *supervise.Call, x *sending) ([]byte, error) {
	data := x.ahead
	var err error
	if x.ahead = nil; len(data) == 0 {
		data, err = h.read(c, x)
	}
	if err == nil && x.socket.Domain == unix.AF_NETLINK {
		if err = checkNetlink(data); err != nil {
			h.refuse(c, "netlink", unix.EPERM, "netlink requests other than questions about links, addresses, routes, neighbours and rules")
		}
	}
	return data, err
}

// read reads the next data of a message from the caller's memory: all of a datagram, or a part of a stream.
func (h *Handler) read(c *supervise.Call, x *sending) ([]byte, error) {
	m := &x.message
	want := m.total - m.sent
	if x.stream() {
		want = min(want, chunk)
	}
	if want == 0 {
		if !c.Valid() {
			return nil, unix.ESRCH
		}
		return nil, nil
	}
	h.parts = h.parts[:0]
	rest, skip := want, m.sent
	for _, s := range m.segments {
		if skip >= s.Len {
			skip -= s.Len
			continue
		}
		part := segment{Base: s.Base + uintptr(skip), Len: min(s.Len-skip, rest)}
		h.parts = append(h.parts, part)
		if rest, skip = rest-part.Len, 0; rest == 0 {
			break
		}
	}
	b := h.scratch(want)
	n, err := c.Gather(h.parts, b)
	if err != nil || n < want && !x.stream() {
		return nil, faultOr(err)
	}
	return b[:n], nil
}

// waits reports whether the call waits until the kernel takes more.
func (x *sending) waits() bool {
	if x.flags&unix.MSG_DONTWAIT != 0 {
		return false
	}
	blocks, _, err := x.socket.Blocks()
	if err != nil || !blocks {
		return false
	}
	if !x.timed {
		x.timed, x.deadline = true, time.Time{}
		if limit := x.socket.Timeout(); limit > 0 {
			x.deadline = time.Now().Add(limit)
		}
	}
	return x.deadline.IsZero() || time.Now().Before(x.deadline)
}

// await waits until the kernel may take more. That the queue of a receiver has room shows on sockets that are connected to
// it alone. What seems to have room and takes nothing is tried again later and later.
func (h *Handler) await(c *supervise.Call, x *sending) supervise.Verdict {
	unconnected := x.socket.Domain == unix.AF_UNIX && x.message.to.Size() > 0
	timeout := time.Duration(0)
	if !x.deadline.IsZero() {
		timeout = max(time.Until(x.deadline), 1)
	}
	if x.pause == 0 {
		x.pause = firstRetry
		if !unconnected {
			return h.later(c, x, x.socket.FD, timeout)
		}
	}
	pause := x.pause
	if timeout > 0 {
		pause = min(pause, timeout)
	}
	x.pause = min(2*x.pause, lastRetry)
	return h.later(c, x, -1, pause)
}

// later has the call go on when fd has room, or with -1 after a time.
func (h *Handler) later(c *supervise.Call, x *sending, fd int, after time.Duration) supervise.Verdict {
	h.unguard(x)
	x.ahead = nil
	done := int64(x.message.sent)
	if x.count > 0 {
		done = int64(x.done)
		if x.message.sent > 0 && x.report(c) == nil {
			done++
		}
	}
	release := func() { h.abandon(x) }
	if fd >= 0 {
		release = func() { h.drop(&x.message) } // WaitFD closes the socket
	}
	return supervise.WaitFD(fd, unix.EPOLLOUT, after, func(c *supervise.Call, _ bool) supervise.Verdict {
		h.guard(x)
		return h.unlessKilled(func() supervise.Verdict { return h.proceed(c, x, nil) })
	}).Dropping(release).Having(done).Interrupted(func(*supervise.Call) supervise.Verdict {
		timed := !x.deadline.IsZero()
		h.guard(x)
		h.release(x)
		switch {
		case done > 0:
			return supervise.Return(done)
		case timed: // is not begun anew: it would wait as long again (signal(7))
			return supervise.Errno(unix.EINTR)
		}
		return supervise.Restart()
	})
}

// breakPipe sends the thread SIGPIPE, as the kernel does where it sends in its own name.
func breakPipe(c *supervise.Call) {
	pidfd, err := kernel.ThreadPIDFD(c.TID)
	if err != nil {
		return
	}
	defer unix.Close(pidfd)
	if c.Valid() { // so it is the caller's
		_ = kernel.SignalThread(pidfd, unix.SIGPIPE)
	}
}
