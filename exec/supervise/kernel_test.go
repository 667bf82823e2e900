package supervise

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// TestKernelAsOrdinaryUser runs all others named so once more.
func TestKernelAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the tests run as an ordinary user already")
	}
	// The link leads to the binary even where the user cannot reach its folder.
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKernel", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
	cmd.Dir = "/"
	if text, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(text), "--- PASS: TestKernelVerdicts") {
		t.Errorf("%v\n%s", err, text)
	}
}

// records is a Journal of the reasons, for several goroutines.
type records struct {
	mu      sync.Mutex
	reasons []string
}

func (r *records) Record(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reasons = append(r.reasons, e.Reason)
}

// serveGuest starts a guest and answers its questions by handle, whose first argument is the question. set changes the loop
// before it runs. The guest must end well, and nothing of the loop may stay behind.
func serveGuest(t *testing.T, guest string, args []string, handle func(question int, c *Call) Verdict, set func(*Loop)) *records {
	t.Helper()
	runtime.LockOSThread()       // never unlocked: the guest dies with the thread that started it
	time.Sleep(time.Millisecond) // the first time has the runtime open descriptors of its own
	fds, goroutines := openDescriptors(t), runtime.NumGoroutine()
	child, err := supervisetest.Start(append([]string{"/proc/self/exe"}, args...), []string{guestVariable + "=" + guest, "GORACE=atexit_sleep_ms=0"}, "getpgid")
	if err != nil {
		t.Fatal(err)
	}
	reaped := false
	t.Cleanup(func() {
		if !reaped {
			child.Abandon()
		}
	})
	loop, err := NewLoop(kernel.Listener{FD: child.Listener}, child.PIDFD, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if set != nil {
		set(loop)
	}
	arch, _ := abi.ParseArch(runtime.GOARCH)
	var journal records
	h := handlerFunc{[]abi.Sysno{unix.SYS_GETPGID}, func(c *Call) Verdict { return handle(int(c.Args[0])-question, c) }}
	d, err := NewDispatcher(arch, []Handler{h}, func(abi.Sysno) bool { return true }, &journal)
	if err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(time.Minute, func() { _ = unix.Kill(child.PID, unix.SIGKILL) })
	err = loop.Run(d)
	limit.Stop()
	if err != nil {
		t.Fatalf("loop: %v", err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(child.PID, &status, 0, nil); err != nil || status != 0 {
		t.Errorf("guest %s: status %#x, %v; want 0", guest, status, err)
	}
	reaped = true
	child.Close()
	within(t, "the loop's goroutines gone", func() bool { return runtime.NumGoroutine() <= goroutines })
	within(t, "all descriptors closed", func() bool { return openDescriptors(t) <= fds })
	return &journal
}

// within waits for what happens on other threads. It says nothing about speed.
func within(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s (%d goroutines, %d descriptors)", what, runtime.NumGoroutine(), openDescriptors(t))
		}
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// questions are what guestVerdicts asks in turn: how the handler answers, and what the guest must see.
var questions = []struct {
	name    string
	answer  func(c *Call) Verdict
	returns int // -1: any
	errno   syscall.Errno
	record  string    // in the reason that is recorded
	then    func(int) // in the guest, with what the call returned
}{
	{name: "return", answer: func(*Call) Verdict { return Return(42) }, returns: 42},
	{name: "errno", answer: func(*Call) Verdict { return Errno(unix.EXDEV) }, errno: unix.EXDEV},
	{name: "errno 0", answer: func(*Call) Verdict { return Errno(0) }, errno: unix.EPERM},
	{name: "continue", answer: func(*Call) Verdict { return Continue(DecidedOnRegisters) }, errno: unix.ESRCH},
	{name: "nobody takes it", answer: func(*Call) Verdict { return Next() }, errno: unix.EPERM, record: "no handler"},
	{name: "panic", answer: func(*Call) Verdict { panic("boom") }, errno: unix.EPERM, record: "boom"},
	{name: "after a panic", answer: func(*Call) Verdict { return Return(43) }, returns: 43},
	{
		name: "continue after memory was read",
		answer: func(c *Call) Verdict {
			_, _ = c.Path(1)
			return Continue(DecidedOnRegisters)
		},
		errno: unix.EPERM, record: "after reading",
	},

	{name: "defer return", answer: later(func() Verdict { return Return(44) }), returns: 44},
	{name: "defer errno", answer: later(func() Verdict { return Errno(unix.EXDEV) }), errno: unix.EXDEV},
	{name: "defer continue", answer: later(func() Verdict { return Continue(DecidedOnRegisters) }), errno: unix.ESRCH},
	{name: "defer panic", answer: later(func() Verdict { panic("later boom") }), errno: unix.EPERM, record: "later boom"},
	{name: "defer next", answer: later(Next), errno: unix.EPERM, record: "cannot be answered with: next"},
	{name: "defer resume", answer: later(func() Verdict { return Resume(func(*Call) Verdict { return Return(45) }) }), returns: 45},
	{
		name: "resume panic", errno: unix.EPERM, record: "resume boom",
		answer: later(func() Verdict { return Resume(func(*Call) Verdict { panic("resume boom") }) }),
	},
	{name: "defer kill", answer: later(Kill), errno: unix.EPERM, record: "cannot be answered with: kill"},
	{name: "defer wait", answer: later(func() Verdict { return Wait(0, func(*Call) Verdict { return Return(0) }) }), errno: unix.EPERM, record: "with: wait"},
	{name: "wait", answer: func(*Call) Verdict { return Wait(time.Millisecond, func(*Call) Verdict { return Return(46) }) }, returns: 46},
	{
		name: "wait panic", errno: unix.EPERM, record: "wait boom",
		answer: func(*Call) Verdict { return Wait(0, func(*Call) Verdict { panic("wait boom") }) },
	},
	{name: "wait for a file", answer: func(*Call) Verdict { return waitForFile() }, errno: unix.EPERM},
	{name: "wait for a file, something done", answer: func(*Call) Verdict { return waitForFile().Having(47) }, returns: 47},
	{name: "defer defer", answer: later(func() Verdict { return Defer(nil) }), errno: unix.EPERM, record: "with: defer"},
	{
		name: "defer continue after memory was read",
		answer: func(c *Call) Verdict {
			_, _ = c.Path(1)
			return later(func() Verdict { return Continue(DecidedOnRegisters) })(c)
		},
		errno: unix.EPERM, record: "with: continue",
	},

	{name: "descriptor", answer: func(*Call) Verdict { return memfd("now", 0) }, returns: -1, then: wantFile("now", 0)},
	{name: "descriptor, close-on-exec", answer: func(*Call) Verdict { return memfd("cloexec", unix.O_CLOEXEC) }, returns: -1, then: wantFile("cloexec", unix.FD_CLOEXEC)},
	{name: "defer descriptor", answer: later(func() Verdict { return memfd("later", 0) }), returns: -1, then: wantFile("later", 0)},
	{name: "bad descriptor", answer: func(*Call) Verdict { return AddFD(-1, 0) }, errno: unix.EACCES, then: func(int) { fillTable() }},
	{name: "full table", answer: func(*Call) Verdict { return memfd("full", 0) }, errno: unix.EMFILE},
	{name: "defer, full table", answer: later(func() Verdict { return memfd("full", 0) }), errno: unix.EMFILE, then: func(int) { check(unix.Close(0)) }},
	{name: "one place", answer: func(*Call) Verdict { return memfd("place", 0) }, returns: 0, then: wantFile("place", 0)},
}

// later answers by a deferred call.
func later(f func() Verdict) func(*Call) Verdict {
	return func(*Call) Verdict { return Defer(func(context.Context) Verdict { return f() }) }
}

// waitForFile waits for what epoll does not know.
func waitForFile() Verdict {
	fd, err := unix.MemfdCreate("file", unix.MFD_CLOEXEC)
	if err != nil {
		return FromError(err)
	}
	return WaitFD(fd, unix.EPOLLIN, 0, nil)
}

func memfd(text string, flags uint32) Verdict {
	fd, err := unix.MemfdCreate("answer", unix.MFD_CLOEXEC)
	if err != nil {
		return FromError(err)
	}
	if _, err := unix.Pwrite(fd, []byte(text), 0); err != nil {
		return FromError(err)
	}
	return AddFD(fd, flags)
}

func wantFile(text string, flags int) func(int) {
	return func(fd int) {
		var b [16]byte
		n, err := unix.Pread(fd, b[:], 0)
		check(err)
		got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		check(err)
		if string(b[:n]) != text || got != flags {
			guestFails("descriptor %d holds %q with flags %d, want %q with %d", fd, b[:n], got, text, flags)
		}
	}
}

// fillTable leaves the guest no descriptor number.
func fillTable() {
	check(syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}))
	for {
		if _, err := unix.Dup(2); err != nil {
			return
		}
	}
}

func TestKernelVerdicts(t *testing.T) {
	j := serveGuest(t, "verdicts", nil, func(q int, c *Call) Verdict { return questions[q].answer(c) }, nil)
	var want []string
	for _, q := range questions {
		if q.record != "" {
			want = append(want, q.record)
		}
	}
	if len(j.reasons) != len(want) {
		t.Fatalf("records %q, want %q", j.reasons, want)
	}
	for i, reason := range j.reasons {
		if !strings.Contains(reason, want[i]) {
			t.Errorf("record %d is %q, want %q in it", i, reason, want[i])
		}
	}
}

// A deferred call ends with EIO at its deadline, whether its function heeds the context or not. What comes later is dropped.
func TestKernelDeferredCallsHaveADeadline(t *testing.T) {
	stubborn := make(chan struct{})
	answers := map[syscall.Errno]int{}
	serveGuest(t, "parallel", []string{"2"}, func(q int, c *Call) Verdict {
		switch q {
		case 0:
			return Defer(func(ctx context.Context) Verdict {
				<-ctx.Done()
				<-stubborn
				return memfd("late", 0)
			})
		case 2:
			answers[syscall.Errno(c.Args[1])]++
		case 3:
			close(stubborn)
		}
		return Return(0)
	}, func(l *Loop) { l.backlog.time = 20 * time.Millisecond })
	if answers[unix.EIO] != 2 || len(answers) != 1 {
		t.Errorf("answers %v, want EIO twice", answers)
	}
}

// The end of the loop ends what is deferred, whoever asked.
func TestKernelEndOfTheLoopCancelsDeferredCalls(t *testing.T) {
	cancelled := make(chan struct{})
	started := make(chan struct{})
	serveGuest(t, "leaver", nil, func(q int, c *Call) Verdict {
		if q == 0 {
			return Defer(func(ctx context.Context) Verdict {
				close(started)
				<-ctx.Done()
				close(cancelled)
				return memfd("late", 0)
			})
		}
		return Defer(func(context.Context) Verdict {
			<-started
			return Return(0)
		})
	}, nil)
	<-cancelled
}

// Who is killed while its call is deferred takes the context with it.
func TestKernelCallerKilledWhileDeferred(t *testing.T) {
	blocked, cancelled := make(chan struct{}), make(chan struct{})
	serveGuest(t, "abandoner", nil, func(q int, c *Call) Verdict {
		switch q {
		case 1: // the child's
			return Defer(func(ctx context.Context) Verdict {
				close(blocked)
				<-ctx.Done()
				close(cancelled)
				return memfd("late", 0)
			})
		case 2:
			return Defer(func(context.Context) Verdict {
				<-blocked
				return Return(0)
			})
		}
		return Defer(func(context.Context) Verdict {
			<-cancelled
			return Return(0)
		})
	}, func(l *Loop) { l.backlog.check = 5 * time.Millisecond })
}

// Signals at the callers change nothing: each question is decided once and has its own answer.
func TestKernelEachCallIsAnsweredOnce(t *testing.T) {
	const threads, each = 8, 1000
	seen := make([]int, threads*each)
	serveGuest(t, "once", []string{"8", "1000"}, func(q int, c *Call) Verdict {
		seen[q]++
		if q%10 == 0 {
			return Defer(func(context.Context) Verdict { return Return(int64(2*q + 1)) })
		}
		return Return(int64(2*q + 1))
	}, nil)
	for q, n := range seen {
		if n != 1 {
			t.Fatalf("question %d was decided %d times, want once", q, n)
		}
	}
}

// Callers that are killed before, while and after their call is taken up do not end the loop.
func TestKernelSurvivesKilledCallers(t *testing.T) {
	asked := 0
	serveGuest(t, "storm", []string{"20"}, func(q int, c *Call) Verdict {
		if asked++; q == 1 && asked%3 == 0 {
			return Defer(func(context.Context) Verdict { return Return(0) })
		}
		return Return(0)
	}, func(l *Loop) { l.backlog.check = time.Millisecond })
}

func TestKernelKillEndsTheCallersProcessOnly(t *testing.T) {
	var before atomic.Bool // the bystander must have asked, so that it is there
	serveGuest(t, "victims", nil, func(q int, c *Call) Verdict {
		switch q {
		case 1:
			if before.Load() {
				return Kill()
			}
		case 2:
			before.Store(true)
		}
		return Return(0)
	}, nil)
}
