package throttle

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// wantStopped wants the processes stopped, or all not.
func wantStopped(t *testing.T, want bool, tasks ...*task) {
	t.Helper()
	for _, p := range tasks {
		if p.stopped != want {
			t.Errorf("process %d: stopped is %v, want %v", p.pid, p.stopped, want)
		}
	}
}

func hold(t *testing.T, f *Freezer, r Reason) {
	t.Helper()
	if err := f.Hold(r); err != nil {
		t.Fatal(err)
	}
}

func TestReasonsAreIndependent(t *testing.T) {
	w := newWorld(t)
	_, f := w.throttle(0)
	p := w.spawn(itself)
	hold(t, f, Paused)
	hold(t, f, Throttled)
	hold(t, f, Paused)
	f.Release(Throttled)
	wantStopped(t, true, p)
	f.Release(Suspended)
	wantStopped(t, true, p)
	f.Release(Paused)
	wantStopped(t, false, p)
	f.Release(Paused)
	if len(w.sent) != 2 {
		t.Errorf("signals %v, want SIGSTOP and SIGCONT", w.sent)
	}
}

func TestThrottleDoesNotEndAPause(t *testing.T) {
	w := newWorld(t)
	_, f := w.throttle(50)
	p := w.spawn(itself)
	w.run(200 * time.Millisecond)
	hold(t, f, Paused)
	before := p.cpu
	w.run(5 * time.Second)
	if p.cpu != before {
		t.Errorf("it ran for %v while it was paused", p.cpu-before)
	}
	f.Release(Paused)
	w.run(time.Second)
	if p.cpu == before {
		t.Error("it did not go on")
	}
}

func TestForeignStopsStay(t *testing.T) {
	w := newWorld(t)
	_, f := w.throttle(0)
	ours, theirs := w.spawn(itself), w.spawn(itself)
	theirs.stopped = true
	hold(t, f, Throttled)
	if !f.Stopped(ours.pid) || f.Stopped(theirs.pid) {
		t.Error("the freezer does not know its own stops from others")
	}
	f.Release(Throttled)
	wantStopped(t, false, ours)
	wantStopped(t, true, theirs)
}

func TestChildrenAreContinuedFirst(t *testing.T) {
	w := newWorld(t)
	_, f := w.throttle(0)
	parent := w.spawn(itself)
	child := w.spawn(parent.pid)
	hold(t, f, Paused)
	f.Release(Paused)
	want := []sent{{parent.pid, unix.SIGSTOP}, {child.pid, unix.SIGSTOP}, {child.pid, unix.SIGCONT}, {parent.pid, unix.SIGCONT}}
	if !slices.Equal(w.sent, want) {
		t.Errorf("signals %v, want %v", w.sent, want)
	}
}

// racing has something happen in between two looks at the tree.
type racing struct {
	*world
	looks int
	event func(look int)
}

func (r *racing) Stat(pid int) (st kernel.Stat, err error) {
	r.looks++
	r.event(r.looks)
	return r.world.Stat(pid)
}

func TestForkAndContinueDuringTheStop(t *testing.T) {
	w := newWorld(t)
	first, second := w.spawn(itself), w.spawn(itself)
	var child *task
	r := &racing{world: w}
	r.event = func(look int) {
		// The second, which runs still, continues the first and forks before its own stop.
		if child == nil && first.stopped && !second.stopped {
			first.stopped = false
			child = w.spawn(second.pid)
			child.parent = first.pid // CLONE_PARENT, into a family that was looked at already
		}
	}
	f := NewFreezer(NewTree(r), false, nil, nil)
	f.timer = w.timer(f.check)
	hold(t, f, Throttled)
	wantStopped(t, true, first, second, child)
}

func TestForkedWhileStoppedIsCaught(t *testing.T) {
	w := newWorld(t)
	_, f := w.throttle(0)
	p := w.spawn(itself)
	hold(t, f, Paused)
	p.stopped = false // somebody outside sends SIGCONT
	w.run(simTick)
	child := w.spawn(p.pid)
	w.run(lastCheck + time.Millisecond)
	wantStopped(t, true, p, child)
	f.Release(Paused)
	wantStopped(t, false, p, child)
}

func TestWhoWillNotStopIsKilled(t *testing.T) {
	w := newWorld(t)
	_, f := w.throttle(0)
	var killed []int
	f.defied = func(pid int) { killed = append(killed, pid) }
	meek, defiant := w.spawn(itself), w.spawn(itself)
	w.live = func() { defiant.stopped = false } // by a timer of its own
	hold(t, f, Throttled)
	w.run(time.Second)
	if !slices.Equal(killed, []int{defiant.pid}) || !defiant.zombie {
		t.Errorf("killed %v, want %d alone", killed, defiant.pid)
	}
	wantStopped(t, true, meek)
}

// Being continued now and then is no defiance: process groups that lose their shell get SIGCONT, and people send it.
func TestRareContinueIsForgiven(t *testing.T) {
	w := newWorld(t)
	_, f := w.throttle(0)
	f.defied = func(pid int) { t.Errorf("process %d was killed", pid) }
	p := w.spawn(itself)
	for range 10 * maxDefied {
		hold(t, f, Throttled)
		p.stopped = false
		w.run(50 * time.Millisecond)
		wantStopped(t, true, p)
		f.Release(Throttled)
		hold(t, f, Throttled)
		w.run(50 * time.Millisecond)
		f.Release(Throttled)
	}
}

func TestStopOfTheTerminalIsKept(t *testing.T) {
	w := newWorld(t)
	_, f := w.throttle(0)
	p := w.spawn(itself)
	hold(t, f, Throttled)
	p.pending = 1 << (unix.SIGTSTP - 1)
	f.Release(Throttled)
	want := []sent{{p.pid, unix.SIGSTOP}, {p.pid, unix.SIGCONT}, {p.pid, unix.SIGTSTP}}
	if !slices.Equal(w.sent, want) {
		t.Errorf("signals %v, want %v", w.sent, want)
	}
}

func TestForwardWhilePaused(t *testing.T) {
	w := newWorld(t)
	_, f := w.throttle(0)
	p, theirs := w.spawn(itself), w.spawn(itself)
	theirs.stopped = true
	if !f.Forward(unix.SIGCONT) || !f.Forward(unix.SIGTSTP) {
		t.Error("signals to a running sandbox are kept back")
	}
	hold(t, f, Paused)
	if f.Forward(unix.SIGTSTP) || !f.Forward(unix.SIGTERM) {
		t.Error("want SIGTSTP kept back and SIGTERM passed on")
	}
	if f.Forward(unix.SIGCONT) {
		t.Error("SIGCONT would end the pause")
	}
	wantStopped(t, true, p, theirs)
	f.Release(Paused)
	wantStopped(t, false, p, theirs) // somebody has sent SIGCONT after all
}

func TestHoldWithoutATreeFails(t *testing.T) {
	w := newWorld(t)
	_, f := w.throttle(0)
	w.broken = errors.New("no /proc")
	if err := f.Hold(Paused); !errors.Is(err, w.broken) {
		t.Errorf("got %v, want %v", err, w.broken)
	}
}

func TestNoDescriptorIsLeftOpen(t *testing.T) {
	w := newWorld(t)
	th, _ := w.throttle(50)
	used := chain(w, func() { th.Handle(nil) }, time.Millisecond, w.wait)
	w.run(5 * time.Second)
	if len(w.fds) > 4 {
		t.Errorf("%d pidfds are open for two processes", len(w.fds))
	}
	if used() == 0 {
		t.Error("nothing ran")
	}
}

// sluggish takes a while to stop.
type sluggish struct {
	*world
	asleep *task
}

func (s *sluggish) Stat(pid int) (kernel.Stat, error) {
	st, err := s.world.Stat(pid)
	if s.asleep != nil && pid == s.asleep.pid && s.slept < 3 {
		st.State = 'S'
	}
	return st, err
}

func TestParentsStopBeforeTheirChildren(t *testing.T) {
	w := newWorld(t)
	parent := w.spawn(itself)
	child := w.spawn(parent.pid)
	s := &sluggish{w, parent}
	f := NewFreezer(NewTree(s), false, nil, nil)
	f.timer = w.timer(f.check)
	hold(t, f, Throttled)
	wantStopped(t, true, parent, child)
	if w.slept != 3 {
		t.Errorf("waited %d times for the parent, want 3", w.slept)
	}
	// A parent that cannot be seen to stop delays its child's stop, but not for ever.
	f.Release(Throttled)
	w.slept = -1 << 30
	hold(t, f, Throttled)
	wantStopped(t, true, child)
}
