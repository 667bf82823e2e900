package throttle

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// System is what the package asks the kernel; tests replace it.
type System interface {
	Roots() ([]int, error) // the executor's children that belong to the sandbox
	Children(pid int) ([]int, error)
	Stat(pid int) (kernel.Stat, error)
	Open(pid int) (pidfd int, err error)
	Close(pidfd int)
	Signal(pidfd int, sig unix.Signal) error // 0 asks whether the process exists, be it as a zombie
	CPUTime(pid int) (time.Duration, error)
	Demand(pid int) float64 // processors that it uses at this moment
	Halted(pid int) bool    // whether it cannot run before somebody sends it SIGCONT
	Pending(pid int) uint64 // signals that wait to be taken, bit n-1 for signal n
	Reaped() time.Duration  // CPU time of processes that the executor itself has waited for
	Now() time.Duration     // monotonic
	Sleep(time.Duration)
}

// Tree is the processes of a sandbox, as far as they have been seen.
type Tree struct {
	system    System
	processes []*process // in the order in which they were found: parents before their children
	byPID     map[int]*process
	left      func(*process) // called for each that is gone
	round     uint64
}

// process is one process. It is dead, but may be a zombie, when it has no pidfd.
type process struct {
	pid   int
	start uint64
	pidfd int
	round uint64 // of the walk that last found it

	own, waited time.Duration // charged by the meter: its own CPU time, and that of children it waited for
	metered     bool
	final       time.Duration // of a dead one: its own CPU time

	stopped bool          // by the freezer
	seen    time.Duration // its CPU time when the freezer last looked
	settled bool          // and the freezer has waited for that
	defied  int           // how often it was found running although stopped
	defying bool          // during the current stop
}

// NewTree makes a tree that knows no process yet.
func NewTree(s System) *Tree {
	return &Tree{system: s, byPID: map[int]*process{}, left: func(*process) {}}
}

// walk visits every process that can be found, parents first, and forgets those that are gone. A process's children are
// looked for after the visit.
func (t *Tree) walk(visit func(*process, kernel.Stat)) error {
	roots, err := t.system.Roots()
	if err != nil {
		return fmt.Errorf("list the sandbox's processes: %w", err)
	}
	t.round++
	err = supervise.Walk(roots, t.system.Children, func(pid int) (descend bool, err error) {
		p, st, err := t.find(pid)
		if p == nil {
			return false, err
		}
		p.round = t.round
		if st.Dead() && p.pidfd >= 0 {
			p.final, _ = t.cpuTime(p)
			t.release(p)
		}
		visit(p, st)
		return p.pidfd >= 0, nil // what a dead one leaves has moved to the executor
	})
	if err != nil {
		return err
	}
	kept := t.processes[:0]
	for _, p := range t.processes {
		// One that the walk missed because it changed parents meanwhile is still there.
		if p.round == t.round || p.pidfd >= 0 && t.exists(p) {
			kept = append(kept, p)
			continue
		}
		if t.byPID[p.pid] == p {
			delete(t.byPID, p.pid)
		}
		t.release(p)
		t.left(p)
	}
	clear(t.processes[len(kept):])
	t.processes = kept
	return nil
}

// find returns the process with a pid, nil if there is none any more.
func (t *Tree) find(pid int) (*process, kernel.Stat, error) {
	st, err := t.system.Stat(pid)
	if err != nil {
		return nil, st, nil // exited and reaped
	}
	p := t.byPID[pid]
	if p == nil || p.start != st.Start {
		pidfd, err := t.system.Open(pid)
		if errors.Is(err, unix.ESRCH) {
			return nil, st, nil
		}
		if err != nil {
			return nil, st, fmt.Errorf("hold process %d: %w", pid, err)
		}
		p = &process{pid: pid, start: st.Start, pidfd: pidfd}
		// Read again: if the process behind the pidfd exists after that, both mean the same one.
		if st, err = t.system.Stat(pid); err != nil || st.Start != p.start || !t.exists(p) {
			t.system.Close(pidfd)
			return nil, st, nil
		}
		t.processes = append(t.processes, p)
		t.byPID[pid] = p
	}
	return p, st, nil
}

func (t *Tree) exists(p *process) bool { return !errors.Is(t.system.Signal(p.pidfd, 0), unix.ESRCH) }

func (t *Tree) release(p *process) {
	if p.pidfd >= 0 {
		t.system.Close(p.pidfd)
		p.pidfd = -1
	}
}

// cpuTime returns a live process's CPU time. The clock is asked for by pid: the process's if it exists afterwards.
func (t *Tree) cpuTime(p *process) (time.Duration, bool) {
	used, err := t.system.CPUTime(p.pid)
	return used, err == nil && t.exists(p)
}
