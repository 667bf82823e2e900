package throttle

import (
	"errors"
	"testing"
	"time"
)

// loads are ways to use a processor. Each is set up in a world whose throttle is told of forks, and returns what it used in
// all so far.
var loads = map[string]func(w *world, forked func()) (used func() time.Duration){
	"one busy process": func(w *world, _ func()) func() time.Duration {
		w.spawn(itself)
		return w.total
	},
	"two busy processes": func(w *world, forked func()) func() time.Duration {
		w.spawn(w.spawn(itself).pid).parent = itself
		forked()
		return w.total
	},
	"daemon": func(w *world, forked func()) func() time.Duration {
		command := w.spawn(itself)
		command.idle = true
		middle := w.spawn(command.pid)
		w.spawn(middle.pid)
		forked()
		w.end(middle)
		w.wait(middle)
		return w.total
	},
	"short processes that are waited for": func(w *world, forked func()) func() time.Duration {
		return chain(w, forked, 1500*time.Microsecond, w.wait)
	},
	"short processes that nobody waits for": func(w *world, forked func()) func() time.Duration {
		return chain(w, forked, 1500*time.Microsecond, w.discard)
	},
	"processes of 30 ms that nobody waits for": func(w *world, forked func()) func() time.Duration {
		return chain(w, forked, 30*time.Millisecond, w.discard)
	},
	"orphans": func(w *world, forked func()) func() time.Duration {
		return chain(w, forked, 1500*time.Microsecond, func(p *task) {
			p.parent = itself // as if its parent had died first
			w.wait(p)
		})
	},
}

// chain has an idle parent start one process after the other, each of which works for a time.
func chain(w *world, forked func(), each time.Duration, reap func(*task)) func() time.Duration {
	parent := w.spawn(itself)
	parent.idle = true
	var before time.Duration
	forked()
	child := w.spawn(parent.pid)
	w.live = func() {
		if !parent.stopped && child.cpu >= each {
			before += child.cpu
			w.end(child)
			reap(child)
			forked()
			child = w.spawn(parent.pid)
		}
	}
	return func() time.Duration { return before + child.cpu }
}

func TestShare(t *testing.T) {
	for name, load := range loads {
		for _, percent := range []uint8{1, 10, 50, 90, 99} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				th, _ := w.throttle(percent)
				used := load(w, func() { th.Handle(nil) })
				const long = 20 * time.Second
				w.run(long)
				got, want := float64(used())/float64(long)*100, float64(percent)
				// Whoever discards children is charged by estimate.
				if got > want+5 || got < want-5 {
					t.Errorf("%.1f %% of a core, want %.0f ± 5", got, want)
				}
			})
		}
	}
}

func TestIdlingBuysNoBurst(t *testing.T) {
	w := newWorld(t)
	th, _ := w.throttle(10)
	p := w.spawn(itself)
	p.idle = true
	w.run(time.Minute)
	if fired := w.timers[1].fired; fired > 60*15 {
		t.Errorf("an idle sandbox was looked at %d times in a minute", fired)
	}
	p.idle = false
	th.Handle(nil)
	w.run(time.Second)
	if p.cpu > 150*time.Millisecond {
		t.Errorf("%v of CPU time in the first second after a minute's rest, want about 100 ms", p.cpu)
	}
}

// A sandbox that was idle is looked at rarely: what it uses before that is noticed is paid off.
func TestBurstIsADebt(t *testing.T) {
	w := newWorld(t)
	w.throttle(10)
	p := w.spawn(itself)
	p.idle = true
	w.run(10 * time.Second)
	p.idle = false
	w.run(5 * time.Second)
	if p.cpu > 550*time.Millisecond || p.cpu < 450*time.Millisecond {
		t.Errorf("%v of CPU time in five seconds, want about 500 ms", p.cpu)
	}
}

func TestUnmeasurableEndsTheSandbox(t *testing.T) {
	w := newWorld(t)
	tree := NewTree(w)
	var failed error
	f := NewFreezer(tree, false, nil, nil)
	f.timer = w.timer(f.check)
	th := New(1, 10, 2, tree, f, func(err error) { failed = err })
	th.start(w.timer(th.step))
	w.spawn(itself)
	w.broken = errors.New("no /proc")
	w.run(2 * time.Second)
	if !errors.Is(failed, w.broken) {
		t.Errorf("failed with %v, want %v", failed, w.broken)
	}
}

func TestYieldLetsASignalThrough(t *testing.T) {
	w := newWorld(t)
	th, f := w.throttle(10)
	p := w.spawn(itself)
	for !f.holds(Throttled) {
		w.run(simTick)
	}
	th.Yield()
	if p.stopped {
		t.Error("still stopped")
	}
	w.run(2 * grace)
	if !p.stopped {
		t.Error("it goes on without end")
	}
}
