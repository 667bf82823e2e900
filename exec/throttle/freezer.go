package throttle

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// Reason is why a sandbox is stopped. It runs when there is none.
type Reason uint8

// The reasons are independent: each is given and taken back by its own side.
const (
	Throttled Reason = 1 << iota // it has used up its CPU time
	Paused                       // its owner paused it
	Suspended                    // the executor is about to be stopped, and nobody could throttle it
)

// Freezer stops all processes of a tree, and continues those that it stopped.
//
// SIGSTOP holds a process that nobody sends SIGCONT. What could send it is stopped as well, but for one case: a process can
// have the kernel send it, by a timer of its own for example. Therefore the freezer goes on watching the clocks of what it
// stopped, stops again what runs, and kills what keeps on running.
type Freezer struct {
	tree     *Tree
	timer    timer
	terminal bool // stop signals may come from a terminal while the sandbox is stopped
	defied   func(pid int)
	fail     func(error)

	reasons Reason
	wait    time.Duration // until the next check
}

const (
	// maxPasses bounds the walks of one stop; what they leave is caught by the checks.
	maxPasses = 8
	// maxSettle bounds the time that one stop waits for parents, settleStep is the time between two looks at one.
	maxSettle, settleStep = 10 * time.Millisecond, 50 * time.Microsecond
	// firstCheck and lastCheck are the times between the checks of a stopped sandbox, which double in between.
	firstCheck, lastCheck = time.Millisecond, 100 * time.Millisecond
	// maxDefied is how often a process may be found running while it is stopped. A program that does not mean to
	// defeat the stop hardly ever is: SIGCONT comes from outside, or when its process group loses its shell.
	maxDefied = 20
)

// NewFreezer makes a freezer for the processes of t. terminal tells whether the sandbox shares a terminal; defied is told
// of processes that were killed because they would not stay stopped.
func NewFreezer(t *Tree, terminal bool, defied func(pid int), fail func(error)) *Freezer {
	return &Freezer{tree: t, terminal: terminal, defied: defied, fail: fail}
}

// Start gives the freezer its timer on the loop.
func (f *Freezer) Start(l *supervise.Loop) (err error) {
	f.timer, err = supervise.NewTimer(l, f.check)
	return err
}

// Held reports whether there is any reason.
func (f *Freezer) Held() bool { return f.reasons != 0 }

func (f *Freezer) holds(r Reason) bool { return f.reasons&r != 0 }

// Stopped reports whether the freezer, and nobody else, has stopped a process.
func (f *Freezer) Stopped(pid int) bool {
	p := f.tree.byPID[pid]
	return p != nil && p.stopped
}

// Hold stops the sandbox for a reason. When it returns every process is stopped or has yet to take its SIGSTOP, which is
// before its next instruction outside of the kernel. After an error some run.
func (f *Freezer) Hold(r Reason) error {
	held := f.Held()
	f.reasons |= r
	if held {
		return nil
	}
	f.wait = firstCheck
	f.timer.Set(f.wait)
	return f.stopAll(maxSettle)
}

// stopAll walks the tree until a walk finds it stopped. A process has its SIGSTOP before its children are looked for, and a
// fork does not go through with a signal waiting, so there are no further ones. Who was still running meanwhile may have
// sent SIGCONT to one that was stopped, or died and left its children to the executor: that is what the next walk is for.
// patience bounds the wait for parents.
func (f *Freezer) stopAll(patience time.Duration) error {
	for range maxPasses {
		still := true
		var failed error
		err := f.tree.walk(func(p *process, st kernel.Stat) {
			switch {
			case p.pidfd < 0: // dead
			case st.State == 'T' && !p.stopped:
				// Somebody else's stop, and not ours to end. The checks see if it does not last.
				p.seen, _ = f.tree.cpuTime(p)
			case p.stopped && settled(st):
			default:
				still = false
				f.settle(f.tree.byPID[st.Parent], &patience)
				failed = errors.Join(failed, f.stop(p))
			}
		})
		if err = errors.Join(err, failed); err != nil || still {
			return err
		}
	}
	return nil
}

// settled reports whether a process that was sent SIGSTOP runs no more outside of the kernel. D: it stops before it leaves
// the kernel. Z: a leader that left its threads behind, whose state says nothing of them.
func settled(st kernel.Stat) bool { return st.State == 'T' || st.State == 'D' || st.State == 'Z' }

// settle waits until a parent has stopped, for one that sleeps in wait(2) would still be told of its child's stop (WUNTRACED)
// and take it for one of job control. Within patience: nobody can delay the stop of the others for long.
func (f *Freezer) settle(parent *process, patience *time.Duration) {
	if parent == nil || !parent.stopped || parent.settled {
		return
	}
	for ; *patience > 0; *patience -= settleStep {
		if st, err := f.tree.system.Stat(parent.pid); err != nil || settled(st) {
			break
		}
		f.tree.system.Sleep(settleStep)
	}
	parent.settled = true
}

func (f *Freezer) stop(p *process) error {
	err := f.tree.system.Signal(p.pidfd, unix.SIGSTOP)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop process %d: %w", p.pid, err)
	}
	p.stopped, p.settled = true, false
	p.seen, _ = f.tree.cpuTime(p)
	return nil
}

// Release takes a reason back. Without any left it continues what the freezer stopped, children first: a parent that waits
// for stopped children (WUNTRACED) so never finds one.
func (f *Freezer) Release(r Reason) {
	if !f.holds(r) {
		return
	}
	f.reasons &^= r
	if !f.Held() {
		f.timer.Stop()
		f.resumeAll()
	}
}

func (f *Freezer) resumeAll() {
	for i := len(f.tree.processes) - 1; i >= 0; i-- {
		p := f.tree.processes[i]
		if !p.defying {
			p.defied = 0
		}
		p.defying = false
		if !p.stopped {
			continue
		}
		p.stopped = false
		if p.pidfd >= 0 {
			f.resume(p)
		}
	}
}

// jobStops are the signals by which a terminal stops a process.
var jobStops = []unix.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}

// resume continues a process. SIGCONT discards stop signals that wait to be taken, so a Ctrl-Z from while the process
// was stopped is sent once more.
func (f *Freezer) resume(p *process) {
	var pending uint64
	if f.terminal {
		pending = f.tree.system.Pending(p.pid)
	}
	_ = f.tree.system.Signal(p.pidfd, unix.SIGCONT)
	for _, s := range jobStops {
		if pending>>(uint(s)-1)&1 == 1 {
			_ = f.tree.system.Signal(p.pidfd, s)
		}
	}
}

// Forward reports whether a signal that the executor received is to be passed on to the sandbox. What continues a paused
// sandbox is its owner's Resume, and it is stopped already: then SIGCONT only ends stops that are not ours, from Resume on.
func (f *Freezer) Forward(sig unix.Signal) bool {
	if !f.holds(Paused) {
		return true
	}
	switch sig {
	case unix.SIGCONT:
		for _, p := range f.tree.processes {
			p.stopped = p.pidfd >= 0
		}
		return false
	case unix.SIGTSTP:
		return false
	}
	return true
}

// check sees to it that what is stopped stays so.
func (f *Freezer) check() {
	if !f.Held() {
		return
	}
	moved := false
	var failed error
	for _, p := range f.tree.processes {
		if p.pidfd < 0 {
			continue
		}
		used, ok := f.tree.cpuTime(p)
		if !ok || used == p.seen {
			continue
		}
		p.seen, moved = used, true
		if !f.tree.system.Halted(p.pid) {
			failed = errors.Join(failed, f.stopAgain(p))
		}
	}
	f.wait = min(2*f.wait, lastCheck)
	if moved {
		f.wait = firstCheck
		failed = errors.Join(failed, f.stopAll(0))
	}
	if failed != nil {
		f.fail(failed)
		return
	}
	f.timer.Set(f.wait)
}

// stopAgain deals with a process that runs although it, or somebody else before it, was stopped.
func (f *Freezer) stopAgain(p *process) error {
	if p.stopped {
		p.defied++
		p.defying = true
	}
	if p.defied > maxDefied {
		p.defied = 0
		err := f.tree.system.Signal(p.pidfd, unix.SIGKILL)
		if err == nil {
			f.defied(p.pid)
		}
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return err
	}
	return f.stop(p)
}
