package throttle

import (
	"maps"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// world is a machine with processes that the test controls, and a clock that stands still unless run moves it.
type world struct {
	t      *testing.T
	now    time.Duration
	tasks  map[int]*task
	next   int
	reaped time.Duration
	timers []*fakeTimer
	opened int
	fds    map[int]*task
	live   func() // has the processes act, once a tick
	broken error
	sent   []sent
	slept  int
}

type sent struct {
	pid int
	sig unix.Signal
}

// task is one process. It works as long as it is neither stopped nor dead.
type task struct {
	pid, parent int
	cpu, waited time.Duration
	idle        bool
	stopped     bool
	zombie      bool
	pending     uint64
	reaped      bool
}

const (
	simTick = 250 * time.Microsecond
	itself  = 1 // the executor
)

func newWorld(t *testing.T) *world {
	return &world{t: t, tasks: map[int]*task{}, next: 10, fds: map[int]*task{}, live: func() {}}
}

func (w *world) spawn(parent int) *task {
	p := &task{pid: w.next, parent: parent}
	w.next++
	w.tasks[p.pid] = p
	return p
}

// end makes a zombie; its children move to the executor.
func (w *world) end(p *task) {
	p.zombie = true
	for _, c := range w.tasks {
		if c.parent == p.pid {
			c.parent = itself
		}
	}
}

// wait reaps a zombie as its parent does: the parent learns what it used.
func (w *world) wait(p *task) {
	if parent := w.tasks[p.parent]; parent != nil {
		parent.waited += p.cpu + p.waited
	} else {
		w.reaped += p.cpu + p.waited
	}
	w.discard(p)
}

// discard reaps it as the kernel does where the parent ignores SIGCHLD.
func (w *world) discard(p *task) {
	p.reaped = true
	delete(w.tasks, p.pid)
}

func (w *world) total() (sum time.Duration) {
	for _, p := range w.tasks {
		sum += p.cpu
	}
	return sum
}

func (w *world) Roots() ([]int, error) { return w.childrenOf(itself), w.broken }

func (w *world) Children(pid int) ([]int, error) { return w.childrenOf(pid), nil }

func (w *world) childrenOf(parent int) (list []int) {
	for _, pid := range slices.Sorted(maps.Keys(w.tasks)) {
		if w.tasks[pid].parent == parent {
			list = append(list, pid)
		}
	}
	return list
}

func (w *world) Stat(pid int) (kernel.Stat, error) {
	p := w.tasks[pid]
	if p == nil {
		return kernel.Stat{}, unix.ENOENT
	}
	st := kernel.Stat{State: 'R', Parent: p.parent, Threads: 1, Start: uint64(pid), Children: p.waited.Truncate(10 * time.Millisecond)}
	switch {
	case p.zombie:
		st.State = 'Z'
	case p.stopped:
		st.State = 'T'
	case p.idle:
		st.State = 'S'
	}
	return st, nil
}

func (w *world) Open(pid int) (int, error) {
	p := w.tasks[pid]
	if p == nil {
		return -1, unix.ESRCH
	}
	w.opened++
	w.fds[w.opened] = p
	return w.opened, nil
}

func (w *world) Close(pidfd int) {
	if w.fds[pidfd] == nil {
		w.t.Errorf("pidfd %d closed twice", pidfd)
	}
	delete(w.fds, pidfd)
}

func (w *world) Signal(pidfd int, sig unix.Signal) error {
	p := w.fds[pidfd]
	if p == nil {
		w.t.Fatalf("signal to pidfd %d, which is not open", pidfd)
	}
	if p.reaped {
		return unix.ESRCH
	}
	if sig != 0 {
		w.sent = append(w.sent, sent{p.pid, sig})
	}
	switch sig {
	case unix.SIGSTOP:
		p.stopped = true
	case unix.SIGCONT:
		p.stopped = false
	case unix.SIGKILL:
		w.end(p)
	}
	return nil
}

func (w *world) CPUTime(pid int) (time.Duration, error) {
	if p := w.tasks[pid]; p != nil {
		return p.cpu, nil
	}
	return 0, unix.EINVAL
}

func (w *world) Demand(pid int) float64 {
	if p := w.tasks[pid]; p != nil && !p.zombie && !p.stopped && !p.idle {
		return 1
	}
	return 0
}

func (w *world) Halted(pid int) bool { p := w.tasks[pid]; return p == nil || p.stopped || p.zombie }

func (w *world) Pending(pid int) uint64 { return w.tasks[pid].pending }

func (w *world) Reaped() time.Duration { return w.reaped }

func (w *world) Now() time.Duration { return w.now }

func (w *world) Sleep(time.Duration) { w.slept++ }

// fakeTimer expires when the world's clock gets there.
type fakeTimer struct {
	w       *world
	due     time.Duration // 0: not set
	expired func()
	fired   int
}

func (w *world) timer(expired func()) *fakeTimer {
	f := &fakeTimer{w: w, expired: expired}
	w.timers = append(w.timers, f)
	return f
}

func (f *fakeTimer) Set(d time.Duration) { f.due = f.w.now + max(d, 1) }
func (f *fakeTimer) Stop()               { f.due = 0 }

// run lets time pass. Every process that can has a processor of its own.
func (w *world) run(d time.Duration) {
	for end := w.now + d; w.now < end; {
		w.now += simTick
		for _, p := range w.tasks {
			if !p.stopped && !p.zombie && !p.idle {
				p.cpu += simTick
			}
		}
		w.live()
		for _, f := range w.timers {
			if f.due != 0 && f.due <= w.now {
				f.due = 0
				f.fired++
				f.expired()
			}
		}
	}
}

// throttle makes what is tested, around a world.
func (w *world) throttle(percent uint8) (*Throttle, *Freezer) {
	tree := NewTree(w)
	f := NewFreezer(tree, true, func(int) {}, func(err error) { w.t.Errorf("freezer: %v", err) })
	f.timer = w.timer(f.check)
	if percent == 0 {
		return nil, f
	}
	th := New(1, percent, 2, tree, f, func(err error) { w.t.Errorf("throttle: %v", err) })
	th.start(w.timer(th.step))
	return th, f
}
