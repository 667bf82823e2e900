package supervise

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestShare(t *testing.T) {
	for _, tc := range []struct {
		name             string
		mine, used, most int
		want             bool
	}{
		{"the first of all", 0, 0, 1, true},
		{"the last place, for one that has none", 0, 63, 64, true},
		{"the last place, for one that has one", 1, 63, 64, false},
		{"full", 0, 64, 64, false},
		{"beyond full", 0, 70, 64, false},
		{"a quarter of what is free", 12, 12, 64, true},
		{"more than that", 13, 13, 64, false},
	} {
		if got := share(tc.mine, tc.used, tc.most); got != tc.want {
			t.Errorf("%s: share(%d, %d, %d) = %v", tc.name, tc.mine, tc.used, tc.most, got)
		}
	}
	// However greedy many processes are, there is room for the next.
	for _, greedy := range []int{1, 4, 64} {
		have, used := make([]int, greedy), 0
		for more := true; more; {
			more = false
			for i := range have {
				if share(have[i], used, maxPending) {
					have[i]++
					used++
					more = true
				}
			}
		}
		if least := maxPending / (4 + greedy) / 2; maxPending-used < least || slices.Min(have) < least {
			t.Errorf("%d processes have %d of %d, the least of them %d", greedy, used, maxPending, slices.Min(have))
		}
	}
}

// Many threads whose deferred functions never end take neither the places of another process nor, when they are killed,
// anything that is left behind.
func TestKernelOneProcessCannotTakeAllPlaces(t *testing.T) {
	const threads = 200
	var loop *Loop
	var ran atomic.Int32
	asked, dropped := 0, 0
	blocked := make(chan struct{})
	serveGuest(t, "crowd", []string{"200"}, func(q int, c *Call) Verdict {
		switch q {
		case 1:
			asked++
			return Defer(func(context.Context) Verdict {
				ran.Add(1)
				<-blocked
				return Return(0)
			}).Dropping(func() { dropped++ })
		case 2:
			return until(func() bool { return asked == threads })
		case 3:
			return Defer(func(context.Context) Verdict { return Return(0) })
		case 4: // the places are still taken, but the calls are over
			return until(func() bool {
				if len(loop.backlog.calls) > 1 {
					return false
				}
				close(blocked)
				return true
			})
		}
		return Return(0)
	}, func(l *Loop) { loop, l.backlog.check = l, 5*time.Millisecond })
	within(t, "each function run or dropped", func() bool { return int(ran.Load())+dropped == threads })
	if n := ran.Load(); n == 0 || n > maxDeferred/4 {
		t.Errorf("of %d functions %d ran, want a quarter of %d at most", threads, n, maxDeferred)
	}
	checkEmpty(t, loop)
}

func checkEmpty(t *testing.T, l *Loop) {
	t.Helper()
	if b := l.backlog; len(b.calls) != 0 || len(b.alarms) != 0 {
		t.Errorf("%d calls and %d alarms are left", len(b.calls), len(b.alarms))
	}
}

// One call more than may be pending fails at once. Its process has more when others have their answers.
func TestKernelPendingCallsAreBounded(t *testing.T) {
	const most = 15 // of which one process may have 3, a quarter of the rest
	release := make(chan struct{})
	answers := map[syscall.Errno]int{}
	dropped := 0
	var loop *Loop
	serveGuest(t, "parallel", []string{"5", "2"}, func(q int, c *Call) Verdict {
		switch q {
		case 0:
			return Defer(func(context.Context) Verdict {
				<-release
				return Return(0)
			}).Dropping(func() { dropped++ })
		case 1: // the two that are too many have their answer
			close(release)
		case 2:
			answers[syscall.Errno(c.Args[1])]++
		case 3:
			return Defer(func(context.Context) Verdict { return Return(0) }) // there is room again
		}
		return Return(0)
	}, func(l *Loop) { l.backlog.most, loop = most, l })
	if answers[0] != 3 || len(answers) != 1 || dropped != 2 {
		t.Errorf("%d dropped, and answers after the first EAGAINs: %v, want 2, and 3 calls that worked", dropped, answers)
	}
	checkEmpty(t, loop)
	if loop.backlog.running != 0 || len(loop.backlog.callers) != 0 {
		t.Errorf("%d functions and the processes %v are left", loop.backlog.running, loop.backlog.callers)
	}
}

// With one place the functions run one by one, in the order in which their calls were decided, although all of them waited.
func TestKernelDeferredCallsStartInOrder(t *testing.T) {
	const threads = 50
	var decided, started []int
	var once sync.Once
	all := make(chan struct{})
	serveGuest(t, "parallel", []string{"50"}, func(q int, c *Call) Verdict {
		if q != 0 {
			return Return(0)
		}
		tid := c.TID
		if decided = append(decided, tid); len(decided) == threads {
			once.Do(func() { close(all) })
		}
		return Defer(func(context.Context) Verdict {
			<-all
			started = append(started, tid) // nobody else runs
			return Return(0)
		})
	}, func(l *Loop) { l.backlog.places = 1 })
	if len(started) != threads || !slices.Equal(started, decided) {
		t.Errorf("started in the order %v, decided in %v", started, decided)
	}
}

// A call that blocks keeps no other thread of its process waiting.
func TestKernelDeferredCallsOfOneProcessRunBesideEachOther(t *testing.T) {
	const threads = 5
	var together sync.WaitGroup
	together.Add(threads)
	serveGuest(t, "parallel", []string{"5"}, func(q int, c *Call) Verdict {
		if q != 0 {
			return Return(0)
		}
		return Defer(func(context.Context) Verdict {
			together.Done()
			together.Wait()
			return Return(0)
		})
	}, nil)
}

// Queues have their turns: of two processes that wait for one place, neither has two in a row.
func TestQueuesTakeTurns(t *testing.T) {
	l := idleLoop(t)
	b := l.backlog
	b.places = 0 // nobody starts yet
	b.group = func(tid int) (int, error) { return tid / 100, nil }
	var started []int
	var mu sync.Mutex
	for _, tid := range []int{100, 101, 102, 200, 300, 201} {
		b.leave(&Call{TID: tid, guest: kernelGuest{l.listener}}, Defer(func(context.Context) Verdict {
			mu.Lock()
			defer mu.Unlock()
			started = append(started, tid)
			return Return(0)
		}))
	}
	b.places = 1
	b.start()
	for end := time.Now().Add(20 * time.Second); len(b.calls) > 0; {
		if _, err := unix.Poll(l.poll[pollSources:], 1000); err == nil {
			_ = l.serveSources()
		}
		if time.Now().After(end) {
			t.Fatalf("%d calls are left", len(b.calls))
		}
	}
	if want := []int{100, 200, 300, 101, 201, 102}; !slices.Equal(started, want) {
		t.Errorf("started %v, want %v", started, want)
	}
	l.Close()
	if keys := slices.Collect(maps.Keys(b.callers)); len(keys) != 0 {
		t.Errorf("processes %v are left", keys)
	}
}

// A wait ends when its descriptor is ready, hung up or too late, and may begin anew.
func TestKernelWaitFD(t *testing.T) {
	type end struct {
		ready   bool
		returns int
	}
	pipes := map[int][2]int{}
	var ends []end
	pipe := func(q int) [2]int {
		p := newPipe(t)
		pipes[q] = p
		return p
	}
	finish := func(q int) func(*Call, bool) Verdict {
		return func(c *Call, ready bool) Verdict {
			ends = append(ends, end{ready, q})
			closeAll(pipes[q][0])
			return Return(0)
		}
	}
	serveGuest(t, "waits", nil, func(q int, c *Call) Verdict {
		switch q {
		case 0: // ready at once
			p := pipe(q)
			defer closeAll(p[1])
			if _, err := unix.Write(p[1], []byte{1}); err != nil {
				t.Error(err)
			}
			return WaitFD(p[0], unix.EPOLLIN, 0, finish(q))
		case 1: // too late
			p := pipe(q)
			return WaitFD(p[0], unix.EPOLLIN, time.Millisecond, func(c *Call, ready bool) Verdict {
				ends = append(ends, end{ready, q})
				// once more, with the other end gone
				closeAll(p[1])
				return WaitFD(p[0], unix.EPOLLIN, 0, finish(q))
			})
		case 2: // the next question, of another thread, makes it ready
			p := pipe(q)
			return WaitFD(p[0], unix.EPOLLIN, time.Minute, finish(q))
		case 3:
			if pipes[2] == [2]int{} { // it has not been asked
				return Errno(unix.EAGAIN)
			}
			closeAll(pipes[2][1])
		case 4: // what epoll does not know
			return WaitFD(int(memfd("wait", 0).value), unix.EPOLLIN, 0, finish(q))
		case 5: // a wait that is deferred and comes back
			return Wait(time.Millisecond, func(*Call) Verdict {
				return Defer(func(context.Context) Verdict {
					return Resume(func(*Call) Verdict { return Wait(0, func(*Call) Verdict { return Return(7) }) })
				})
			})
		}
		return Return(0)
	}, nil)
	if want := []end{{true, 0}, {false, 1}, {true, 1}, {true, 2}}; !slices.Equal(ends, want) {
		t.Errorf("waits ended as %v, want %v", ends, want)
	}
}

// Who is killed while it waits takes the wait with it: the descriptor is closed, then is not called.
func TestKernelCallersKilledWhileTheyWait(t *testing.T) {
	const threads = 200
	var loop *Loop
	dropped, asked := 0, 0
	serveGuest(t, "crowd", []string{"200"}, func(q int, c *Call) Verdict {
		switch q {
		case 1:
			asked++
			p := newPipe(t)
			return WaitFD(p[0], unix.EPOLLIN, 0, func(*Call, bool) Verdict {
				t.Error("the wait of a killed caller ended")
				return Return(0)
			}).Dropping(func() { dropped++; closeAll(p[1]) })
		case 2:
			return until(func() bool { return asked == threads })
		case 4:
			return until(func() bool { return dropped == threads })
		}
		return Return(0)
	}, func(l *Loop) { loop, l.backlog.check = l, time.Millisecond })
	if dropped != threads {
		t.Errorf("%d waits were dropped, want %d", dropped, threads)
	}
	checkEmpty(t, loop)
}

// The end of the loop closes what is waited for.
func TestKernelEndOfTheLoopEndsWaits(t *testing.T) {
	asked, dropped := false, false
	serveGuest(t, "leaver", nil, func(q int, c *Call) Verdict {
		if q == 0 {
			asked = true
			p := newPipe(t)
			return WaitFD(p[0], unix.EPOLLIN, 0, nil).Dropping(func() { dropped = true; closeAll(p[1]) })
		}
		return until(func() bool { return asked })
	}, nil)
	if !dropped {
		t.Error("the wait was not dropped")
	}
}

// until has a call wait until something is so.
func until(so func() bool) Verdict {
	if so() {
		return Return(0)
	}
	return Wait(time.Millisecond, func(*Call) Verdict { return until(so) })
}
