package supervise

import (
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// A source is served before the next call is, however many callers wait.
func TestKernelSourcesAreServedWhileCallsFlood(t *testing.T) {
	const threads, each, every = 64, 100, 50
	var pipe [2]int
	asked, written, served := 0, 0, 0
	serveGuest(t, "flood", []string{strconv.Itoa(threads), strconv.Itoa(each)}, func(int, *Call) Verdict {
		if served != written {
			t.Fatalf("question %d: %d bytes written to a source, %d read", asked, written, served)
		}
		if asked++; asked%every == 0 {
			if _, err := unix.Write(pipe[1], []byte{1}); err != nil {
				t.Fatal(err)
			}
			written++
		}
		return Return(0)
	}, func(l *Loop) {
		pipe = newPipe(t)
		if err := l.Watch(pipe[0], func() {
			var b [8]byte
			n, _ := unix.Read(pipe[0], b[:])
			served += n
		}); err != nil {
			t.Fatal(err)
		}
		l.AtEnd(func() { closeAll(pipe[:]...) })
	})
	if asked != threads*each || served < asked/every-1 {
		t.Errorf("%d questions and %d bytes of a source served, want %d and one for each %d", asked, served, threads*each, every)
	}
}

// The index names processes as the kernel does: threads by their process, children by their parent, and the end of each.
func TestKernelIndex(t *testing.T) {
	var index *Index
	var command, child *Process
	var ended []*Process
	serveGuest(t, "index", nil, func(q int, c *Call) Verdict {
		p, err := index.Of(c.TID)
		if err != nil {
			t.Errorf("question %d: %v", q, err)
			return Return(0)
		}
		switch q {
		case 0:
			if command == nil {
				command = p
			}
			if p != command {
				t.Errorf("thread %d is of process %d, want %d", c.TID, p.PID, command.PID)
			}
		case 1:
			if child == nil && (p.Parent != command.PID || p == command) {
				t.Errorf("the child is %+v, want one of %d", p, command.PID)
			}
			child = p
		case 2: // the child lives, and need not have asked yet
			if added, err := index.Add(int(c.Args[1])); err != nil || added.Parent != command.PID {
				t.Errorf("Add = %+v, %v; want a child of %d", added, err, command.PID)
			}
		case 3:
			if len(ended) != 1 || ended[0].PID != int(c.Args[1]) || index.Known(int(c.Args[1])) != nil {
				t.Errorf("%d processes ended, want the child alone", len(ended))
			}
		}
		return Return(0)
	}, func(l *Loop) {
		index = NewIndex(l)
		index.OnExit(func(p *Process) { ended = append(ended, p) })
	})
}

func newPipe(t *testing.T) (pipe [2]int) {
	t.Helper()
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return pipe
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// idleLoop is a loop that nobody asks anything.
func idleLoop(t *testing.T) *Loop {
	t.Helper()
	listener, done := newPipe(t), newPipe(t)
	l, err := NewLoop(kernel.Listener{FD: listener[0]}, done[0], func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(append(listener[:], done[:]...)...) })
	return l
}

// A descriptor that is closed by one source and used again by the next is not taken for ready because its predecessor was.
func TestSourceIsNotMistakenForItsPredecessor(t *testing.T) {
	l := idleLoop(t)
	defer l.Close()
	pipes := [2][2]int{newPipe(t), newPipe(t)}
	calls := 0
	for i, p := range pipes {
		other := pipes[1-i]
		if err := l.Watch(p[0], func() {
			calls++
			l.Unwatch(other[0])
			closeAll(other[0])
			var fresh [2]int
			if err := unix.Pipe2(fresh[:], unix.O_CLOEXEC); err != nil {
				t.Error(err)
			}
			if fresh[0] != other[0] {
				t.Fatalf("the new pipe is %d, want %d again", fresh[0], other[0])
			}
			if err := l.Watch(fresh[0], func() { t.Error("a pipe that nothing was written to is ready") }); err != nil {
				t.Error(err)
			}
			t.Cleanup(func() { closeAll(fresh[:]...) })
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(p[1], []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.serveSources(); err != nil || calls != 1 {
		t.Errorf("%v, %d sources served, want one", err, calls)
	}
	closeAll(pipes[0][1], pipes[1][1])
}

func TestPanicOfASourceEndsTheLoop(t *testing.T) {
	l := idleLoop(t)
	pipe := newPipe(t)
	defer closeAll(pipe[:]...)
	if err := l.Watch(pipe[0], func() { panic("boom") }); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(pipe[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	d, err := NewDispatcher(abi.AMD64, nil, nil, &notes{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Run(d); err == nil || err.Error() != "internal error: boom" {
		t.Errorf("Run = %v, want the panic", err)
	}
}

// Between the receipt of a notification and its answer nothing is allocated, as long as its handlers allocate nothing.
func TestContinuedCallDoesNotAllocate(t *testing.T) {
	l := idleLoop(t)
	defer l.Close()
	h := handlerFunc{[]abi.Sysno{110}, func(c *Call) Verdict {
		if c.Arg32(0) != 7 {
			return Errno(unix.EPERM)
		}
		return Continue(DecidedOnRegisters)
	}}
	var err error
	if l.dispatcher, err = NewDispatcher(abi.AMD64, []Handler{h}, func(abi.Sysno) bool { return true }, &notes{}); err != nil {
		t.Fatal(err)
	}
	call := &Call{guest: kernelGuest{l.listener}}
	for _, arg := range []uint64{7, 8} {
		n := &kernel.Notification{ID: 1, PID: 1, Nr: 110, Args: [6]uint64{arg}}
		if got := testing.AllocsPerRun(1000, func() { l.notified(n, call) }); got != 0 {
			t.Errorf("%v allocations for a call with argument %d, want none", got, arg)
		}
	}
}

// The same with a kernel, whose calls are received and sent for: the receipt, poll(2) and the answer included.
func TestKernelContinuedCallDoesNotAllocate(t *testing.T) {
	const warm, calls = 100, 5000
	var before, after runtime.MemStats
	asked := 0
	serveGuest(t, "flood", []string{"1", strconv.Itoa(warm + calls)}, func(int, *Call) Verdict {
		switch asked++; asked {
		case warm:
			runtime.ReadMemStats(&before)
		case warm + calls:
			runtime.ReadMemStats(&after)
		}
		return Return(0)
	}, nil)
	// Other goroutines of the test binary may allocate a little meanwhile.
	if n := after.Mallocs - before.Mallocs; n > calls/100 {
		t.Errorf("%d allocations for %d calls, want none of the loop's", n, calls)
	}
}
