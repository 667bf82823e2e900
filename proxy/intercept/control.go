package intercept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

const (
	// maxQueued bounds the messages that wait for the executor. Whoever has one more waits, so that none is lost.
	maxQueued = 256
	// maxFiles bounds the descriptors of a message.
	maxFiles = 2
)

// control is the line to the executor. Its end is the end of the proxy.
type control struct {
	file *os.File
	raw  syscall.RawConn

	buffer [protocol.MaxMessage + 1]byte
	rights []byte

	out  chan []byte
	hung chan struct{} // closed when the executor has nothing more to say
	gone chan struct{} // closed when nothing more can be said to it
	lost sync.Once
	last chan struct{} // closed when what is queued is the end
	sent chan struct{} // closed when that has been sent

	mu     sync.Mutex
	dials  map[uint32]chan dialed // that wait for an answer
	dialed uint32                 // number of the last
}

// dialed is a socket, or why there is none.
type dialed struct {
	fd  int
	err error
}

func newControl(fd int) (*control, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("the executor's socket: %w", err)
	}
	unix.CloseOnExec(fd)
	c := &control{
		file: os.NewFile(uintptr(fd), "executor"), rights: make([]byte, unix.CmsgSpace(maxFiles*4)),
		out: make(chan []byte, maxQueued), dials: map[uint32]chan dialed{},
	}
	for _, signal := range []*chan struct{}{&c.hung, &c.gone, &c.last, &c.sent} {
		*signal = make(chan struct{})
	}
	var err error
	c.raw, err = c.file.SyscallConn()
	return c, err
}

// receive waits for a message. The files belong to the caller.
func (c *control) receive() (m protocol.Message, files []int, err error) {
	var n, nRights, flags int
	waitErr := c.raw.Read(func(fd uintptr) bool {
		n, nRights, flags, _, err = unix.Recvmsg(int(fd), c.buffer[:], c.rights, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if err = errors.Join(waitErr, err); err != nil {
		return nil, nil, err
	}
	if n == 0 {
		return nil, nil, io.EOF
	}
	if nRights > 0 {
		if files, err = descriptorsIn(c.rights[:nRights]); err != nil {
			return nil, nil, err
		}
	}
	if flags&unix.MSG_TRUNC != 0 {
		closeAll(files)
		return nil, nil, errors.New("message is too long")
	}
	if m, err = protocol.Decode(c.buffer[:n]); err != nil {
		closeAll(files)
		return nil, nil, err
	}
	return m, files, nil
}

func descriptorsIn(rights []byte) (files []int, err error) {
	list, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, fds...)
	}
	return files, nil
}

func closeAll(files []int) {
	for _, fd := range files {
		_ = unix.Close(fd)
	}
}

// serve takes messages until the executor hangs up. It never waits for anything else: the executor may wait for it.
func (c *control) serve(connection func(m protocol.Connection, fd int)) error {
	defer close(c.hung)
	for {
		m, files, err := c.receive()
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the executor: %w", err)
		}
		// Without a descriptor there were too many, and the kernel has closed it.
		fd := -1
		if len(files) == 1 {
			fd = files[0]
		} else {
			closeAll(files)
		}
		switch m := m.(type) {
		case protocol.Connection:
			connection(m, fd)
		case protocol.Dialed:
			c.answer(m, fd)
		default:
			closeAll(files)
			return fmt.Errorf("the executor: message %T", m)
		}
	}
}

// write sends what is in the queue, to the end.
func (c *control) write() {
	defer close(c.sent)
	defer c.lost.Do(func() { close(c.gone) })
	for {
		select {
		case b := <-c.out:
			if c.put(b) != nil {
				return // the executor is gone
			}
		case <-c.last:
			for len(c.out) > 0 {
				if c.put(<-c.out) != nil {
					return
				}
			}
			return
		}
	}
}

func (c *control) put(b []byte) (err error) {
	waitErr := c.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	return errors.Join(waitErr, err)
}

// finish sends what is queued, as long as the executor takes it.
func (c *control) finish(limit time.Duration) {
	close(c.last)
	select {
	case <-c.sent:
	case <-time.After(limit):
	}
}

// send queues a message.
func (c *control) send(m protocol.Message) {
	select {
	case c.out <- protocol.Encode(m):
	case <-c.gone:
	}
}

var errGone = errors.New("the executor is gone")

// dial asks the executor for a connection to where a session leads. The socket may still be connecting.
func (c *control) dial(ctx context.Context, s *session) (fd int, err error) {
	answer := make(chan dialed, 1)
	c.mu.Lock()
	c.dialed++
	id := c.dialed
	c.dials[id] = answer
	c.mu.Unlock()
	if s.ask(protocol.Dial{ID: id, Connection: s.id}) {
		select {
		case d := <-answer:
			return d.fd, d.err
		case <-ctx.Done():
			err = ctx.Err()
		case <-c.hung:
			err = errGone
		}
	} else {
		err = errOver
	}
	c.mu.Lock()
	_, waiting := c.dials[id]
	delete(c.dials, id)
	c.mu.Unlock()
	if !waiting {
		if d := <-answer; d.err == nil {
			_ = unix.Close(d.fd)
		}
	}
	return -1, err
}

func (c *control) answer(m protocol.Dialed, fd int) {
	d := dialed{fd: fd}
	switch {
	case m.Errno != 0:
		d.err = syscall.Errno(m.Errno)
	case fd < 0:
		d.err = unix.EMFILE
	}
	c.mu.Lock()
	answer, ok := c.dials[m.ID]
	delete(c.dials, m.ID)
	c.mu.Unlock()
	if d.err != nil && fd >= 0 || !ok && fd >= 0 {
		_ = unix.Close(fd)
	}
	if ok {
		answer <- d
	}
}
