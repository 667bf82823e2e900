package exec

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What is kept of a stage's standard error, in bytes: all of it, up to both; then the beginning and the end.
const (
	stderrHead = 32 << 10
	stderrTail = 32 << 10
)

const stderrCut = "\n[stderr truncated]\n"

// ends keeps the beginning and the end of what is written to it.
type ends struct {
	head []byte
	tail []byte // a ring once it is full
	next int    // where the oldest byte of a full ring is
	cut  bool   // something between them is lost
}

func (e *ends) Write(p []byte) (int, error) {
	n := len(p)
	take := min(stderrHead-len(e.head), n)
	e.head, p = append(e.head, p[:take]...), p[take:]
	if len(p) > stderrTail {
		p, e.cut = p[len(p)-stderrTail:], true
	}
	take = min(stderrTail-len(e.tail), len(p))
	e.tail, p = append(e.tail, p[:take]...), p[take:]
	for len(p) > 0 {
		e.cut = true
		took := copy(e.tail[e.next:], p)
		p, e.next = p[took:], (e.next+took)%stderrTail
	}
	return n, nil
}

func (e *ends) bytes() []byte {
	out := append([]byte{}, e.head...)
	if e.cut {
		out = append(out, stderrCut...)
	}
	return append(append(out, e.tail[e.next:]...), e.tail[:e.next]...)
}

// stderrCapture reads the standard error of a stage until that is over.
type stderrCapture struct {
	r    *os.File
	kept ends
	also io.Writer // nil if nobody else wants it
	done chan struct{}
}

// captureStderr makes the command's standard error a pipe that is read from now on.
func (c *Cmd) captureStderr() (*stderrCapture, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("standard error: %w", os.NewSyscallError("pipe2", err))
	}
	_ = unix.SetNonblock(p[0], true) // of our end alone: it can then be given up
	k := &stderrCapture{r: os.NewFile(uintptr(p[0]), "stderr"), also: c.Stderr, done: make(chan struct{})}
	if c.Stderr != nil && sameWriter(c.Stderr, c.Stdout) {
		if _, file := c.Stdout.(*os.File); !file { // two goroutines write to it
			shared := &lockedWriter{w: c.Stdout}
			c.Stdout, k.also = shared, shared
		}
	}
	c.mu.Lock()
	c.streams.taken[2] = os.NewFile(uintptr(p[1]), "stderr")
	c.mu.Unlock()
	go k.drain()
	return k, nil
}

func (k *stderrCapture) drain() {
	defer close(k.done)
	buf := make([]byte, 32<<10)
	for {
		n, err := k.r.Read(buf)
		k.take(buf[:n])
		if err != nil {
			return
		}
	}
}

func (k *stderrCapture) take(p []byte) {
	_, _ = k.kept.Write(p)
	if k.also != nil && len(p) > 0 {
		_, _ = k.also.Write(p) // a writer that fails must not stop the command
	}
}

// end returns what there was, once no process of the stage is left. One outside of the sandbox may have been sent the pipe and
// hold it open: it is not waited for.
func (k *stderrCapture) end() []byte {
	defer k.r.Close()
	_ = k.r.SetReadDeadline(time.Now())
	<-k.done
	_ = k.r.SetReadDeadline(time.Time{})
	if raw, err := k.r.SyscallConn(); err == nil {
		_ = raw.Read(func(fd uintptr) bool {
			left, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ) // by the stage; no more, or one outside could keep us
			buf := make([]byte, min(max(left, 0), 1<<20))
			n := 0
			if err == nil && len(buf) > 0 {
				n, _ = unix.Read(int(fd), buf)
			}
			k.take(buf[:max(n, 0)])
			return true
		})
	}
	return k.kept.bytes()
}

// lockedWriter is one writer of both streams.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
