// Package throttle holds a sandbox to its share of CPU time, and stops and continues its processes.
//
// In: the share (limits.cpu), the roots of the sandbox's process tree, the requests of whoever pauses it. Out: SIGSTOP and
// SIGCONT. Everything runs on the supervisor's thread, driven by its timers.
//
// It consists of a [Tree] (the processes, by descent from the executor, so that no session and no double fork leaves it), a
// meter (what they used), a [Freezer] (stops them all for one or more reasons, continues them when none is left), and the
// [Throttle], which decides. It must never signal a process outside the sandbox (processes are held by pidfds), never
// continue what somebody else has stopped, and never let a process of the sandbox run because it could not be measured.
//
// Read next: tree.go, meter.go, freezer.go.
package throttle

import (
	"math/rand/v2"
	"time"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

const (
	// period is about how long a busy process takes to run, be stopped and run again.
	period = 100 * time.Millisecond
	// shortest is the least time between two readings, and the least budget that is worth continuing for.
	shortest = 3 * time.Millisecond
	// longest is the most: what a sandbox that was idle may run unseen. It is less on many cores.
	longest = period
	// afterFork is how long a fork may be under way before its child shows. Longer than any delay of the scheduler; and
	// the tree is walked once in this time in any case.
	afterFork = time.Second
	// effort bounds what readings cost: each waits for this many times as long as the last one took.
	effort = 10
	// grace is how long the sandbox runs when it was let go to receive a signal.
	grace = 5 * time.Millisecond
)

// Throttle keeps the CPU time of a sandbox's processes at a share of one core.
//
// It is a token bucket: time passing fills it at the share's rate, CPU time used empties it. An empty bucket stops the
// sandbox until enough for the rest of a period is there. What was used beyond the budget, between two readings or while
// the stop took effect, is a debt that the stop pays off, so the share holds on average however coarse the readings are.
type Throttle struct {
	percent time.Duration // 1 to 99
	cores   time.Duration // how many can be used at once, at least 1
	system  System
	meter   meter
	freezer *Freezer
	timer   timer
	fail    func(error)
	calls   []abi.Sysno

	budget   time.Duration
	last     time.Duration // when the budget was last settled
	lastFork time.Duration
	lastWalk time.Duration
	quiet    time.Duration // how far readings are apart because the sandbox is idle; 0: it is not
	due      time.Duration // when the timer expires
}

// timer is supervise.Timer; tests replace it.
type timer interface {
	Set(time.Duration)
	Stop()
}

// New makes the throttle for 1 to 99 percent of one core. fail ends a sandbox that cannot be measured.
func New(arch abi.Arch, percent uint8, cores int, t *Tree, f *Freezer, fail func(error)) *Throttle {
	th := &Throttle{
		percent: time.Duration(percent), cores: time.Duration(max(cores, 1)), system: t.system,
		meter: meter{tree: t, cores: time.Duration(max(cores, 1))}, freezer: f, fail: fail,
	}
	t.left = th.meter.left
	for _, name := range []string{"clone", "fork", "vfork"} {
		if nr, ok := abi.SyscallNumber(arch, name); ok {
			th.calls = append(th.calls, nr)
		}
	}
	th.budget = th.credit()
	return th
}

// Start begins, on the loop's timers.
func (t *Throttle) Start(l *supervise.Loop) error {
	timer, err := supervise.NewTimer(l, t.step)
	if err != nil {
		return err
	}
	t.start(timer)
	return nil
}

func (t *Throttle) start(timer timer) {
	t.timer, t.last = timer, t.system.Now()
	t.lastFork, t.lastWalk = t.last, t.last
	t.set(t.last, t.untilEmpty())
}

// credit is the most that idling may save up: one period's budget.
func (t *Throttle) credit() time.Duration { return period * t.percent / 100 }

// debt is the most that can be owed. Only a supervisor that was itself stopped for longer than a second meets it.
func (t *Throttle) debt() time.Duration { return t.cores * time.Second }

// enough is the budget at which a stopped sandbox goes on: what one busy core then uses up by the end of the period.
func (t *Throttle) enough() time.Duration {
	return max(period*t.percent*(100-t.percent)/10000, shortest*t.percent/100)
}

// untilEmpty is the earliest time at which the budget can be used up.
func (t *Throttle) untilEmpty() time.Duration { return t.budget / t.cores }

// step settles the budget and decides.
func (t *Throttle) step() {
	now := t.system.Now()
	elapsed := now - t.last
	ran := elapsed
	if t.freezer.Held() {
		ran = 0
	}
	walk := now-t.lastFork < afterFork || now-t.lastWalk >= afterFork
	if walk {
		t.lastWalk = now
	}
	used, err := t.meter.read(ran, walk)
	if err != nil {
		t.fail(err)
		return
	}
	cost := t.system.Now() - now
	t.last = now
	earned := elapsed * t.percent / 100
	t.budget = min(max(t.budget+earned-used, -t.debt()), t.credit())
	switch throttled := t.freezer.holds(Throttled); {
	case throttled && t.budget >= t.enough():
		t.freezer.Release(Throttled)
		t.quiet = 0
	case !throttled && t.budget <= 0:
		if err := t.freezer.Hold(Throttled); err != nil {
			t.fail(err)
			return
		}
	case used*4 < earned:
		t.quiet = min(max(2*t.quiet, shortest), max(longest*2/t.cores, 4*shortest), longest)
	default:
		t.quiet = 0
	}
	t.schedule(cost)
}

// schedule sets the timer for the next step. A step that walks costs more than one that reads clocks; a sandbox of very many
// processes and threads is looked at less often, and pays for what it did meanwhile.
func (t *Throttle) schedule(cost time.Duration) {
	now := t.system.Now()
	if t.freezer.holds(Throttled) {
		t.set(now, max((t.enough()-t.budget)*100/t.percent, effort*cost))
		return
	}
	wait := max(t.untilEmpty(), t.quiet, shortest, effort*cost)
	// Nothing inside can know when it will be looked at, which the estimate of the meter relies on.
	t.set(now, wait*3/4+rand.N(wait/2))
}

func (t *Throttle) set(now, wait time.Duration) {
	t.due = now + wait
	t.timer.Set(wait)
}

// Yield lets the sandbox run for a moment if the throttle has it stopped: a signal is about to be forwarded, and the
// SIGCONT that ends the stop would discard one that asks for another stop.
func (t *Throttle) Yield() {
	if t.freezer.holds(Throttled) {
		t.freezer.Release(Throttled)
		t.set(t.system.Now(), grace)
	}
}

// Name is the concern.
func (t *Throttle) Name() string { return "throttle" }

// Syscalls lists the fork family.
func (t *Throttle) Syscalls() []abi.Sysno { return t.calls }

// Handle notes that a process is about to be created, and leaves the call to the next handler. As long as nobody forks,
// reading the clocks of the known processes is enough.
func (t *Throttle) Handle(*supervise.Call) supervise.Verdict {
	t.lastFork = t.system.Now()
	if t.quiet > 0 && t.timer != nil && !t.freezer.holds(Throttled) {
		t.quiet = 0
		if soon := max(t.untilEmpty(), shortest); t.lastFork+soon < t.due {
			t.set(t.lastFork, soon)
		}
	}
	return supervise.Next()
}
