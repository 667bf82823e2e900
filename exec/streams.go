package exec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// streams are the standard streams of a Cmd.
type streams struct {
	given   [3]*os.File // what the command gets
	ours    []io.Closer // ends of pipes that are closed when the command has its own copies
	copying []func()    // run while the command does
	theirs  []io.Closer // our ends of the pipes that they copy from and to
	stdin   io.Closer   // by StdinPipe: our end
	taken   [3]*os.File // by StdinPipe and the like: the command's end
	done    sync.WaitGroup
}

var errStreamSet = errors.New("the stream is set already")

// StdinPipe returns a pipe to the command's standard input. The command sees the end of its input when the pipe is closed;
// once the command has ended that is done.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil {
		return nil, errStreamSet
	}
	_, w, err := c.pipe(0)
	if err == nil {
		c.streams.stdin = w
	}
	return w, err
}

// StdoutPipe returns a pipe from the command's standard output. Reading ends when the command and everything that it
// started is gone; read all before Wait, which does not close it.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	if c.Stdout != nil {
		return nil, errStreamSet
	}
	r, _, err := c.pipe(1)
	return r, err
}

// StderrPipe returns a pipe from the command's standard error, as StdoutPipe does.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) {
	if c.Stderr != nil {
		return nil, errStreamSet
	}
	r, _, err := c.pipe(2)
	return r, err
}

// pipe makes the command's end of a pipe its stream.
func (c *Cmd) pipe(stream int) (r, w *os.File, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != isNew {
		return nil, nil, ErrStarted
	}
	if c.streams.taken[stream] != nil {
		return nil, nil, errors.New("the stream has a pipe already")
	}
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	c.streams.taken[stream] = w
	if stream == 0 {
		c.streams.taken[stream] = r
	}
	return r, w, nil
}

// open returns descriptors for the command, all from 3 on, whatever of 0 to 2 this process itself has open.
func (s *streams) open(c *Cmd) (*[3]int, error) {
	var fds [3]int
	for i := range fds {
		f, err := s.stream(c, i)
		if err != nil {
			return nil, err
		}
		s.given[i] = f
	}
	for i, f := range s.given {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, fmt.Errorf("standard stream %d: %w", i, err)
		}
		s.ours = append(s.ours, os.NewFile(uintptr(fd), "stream"))
		fds[i] = fd
	}
	return &fds, nil
}

// stream returns what one stream of the command is connected to.
func (s *streams) stream(c *Cmd, i int) (*os.File, error) {
	if f := s.taken[i]; f != nil {
		s.ours = append(s.ours, f)
		return f, nil
	}
	var other any = c.Stdout
	switch i {
	case 0:
		other = c.Stdin
	case 2:
		// One writer for both streams gets one pipe, so that nothing is written at the same time.
		if c.Stderr != nil && sameWriter(c.Stderr, c.Stdout) {
			return s.given[1], nil
		}
		other = c.Stderr
	}
	if f, ok := other.(*os.File); ok && f != nil {
		return f, nil
	}
	if other == nil || other == (*os.File)(nil) {
		f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err == nil {
			s.ours = append(s.ours, f)
		}
		return f, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if i == 0 {
		s.ours, s.theirs = append(s.ours, r), append(s.theirs, w)
		s.copying = append(s.copying, func() {
			_, _ = io.Copy(w, other.(io.Reader)) // EPIPE: the command reads no more
			_ = w.Close()
		})
		return r, nil
	}
	s.ours, s.theirs = append(s.ours, w), append(s.theirs, r)
	s.done.Add(1)
	s.copying = append(s.copying, func() {
		defer s.done.Done()
		_, _ = io.Copy(other.(io.Writer), r)
		_, _ = io.Copy(io.Discard, r) // a writer that fails must not stop the command
		_ = r.Close()
	})
	return w, nil
}

// sameWriter compares two writers, which need not be comparable.
func sameWriter(a, b io.Writer) bool {
	defer func() { _ = recover() }()
	return a == b
}

// handedOver closes our copies of what the command has: readers see the end when the last process of the sandbox is gone.
func (s *streams) handedOver() {
	for _, f := range s.ours {
		_ = f.Close()
	}
	s.ours = nil
}

func (s *streams) begin() {
	for _, f := range s.copying {
		go f()
	}
}

// abandon releases everything when nothing was started.
func (s *streams) abandon() {
	s.handedOver()
	for _, f := range s.theirs {
		_ = f.Close()
	}
	for _, f := range s.taken { // a failure before open leaves them
		if f != nil {
			_ = f.Close()
		}
	}
	s.closeStdin()
}

func (s *streams) closeStdin() {
	if s.stdin != nil {
		_ = s.stdin.Close()
	}
}

// wait returns when all output has been copied. A standard input that nobody read is not waited for.
func (s *streams) wait() { s.done.Wait() }
