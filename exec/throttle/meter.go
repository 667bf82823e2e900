package throttle

import (
	"time"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// meter adds up the CPU time of a tree.
//
// A process that lives is read by its clock. What a process used between the last reading and its end, and all of one that
// came and went between two readings, shows in its parent once that has waited for it. Nobody ever learns of it where
// the parent has the kernel discard its children (SIGCHLD ignored, or SA_NOCLDWAIT), which would make short processes free
// of charge. Therefore a process that is found running at the first sight is charged with all the time since the last
// reading, for itself, the likes of it that came and went unseen, and what nobody will see of its end: since readings come
// at moments that nothing inside knows, that is on average what a core gives to such processes. If it turns up in a parent
// after all, it is taken into account then.
type meter struct {
	tree  *Tree
	cores time.Duration

	reaped  time.Duration // by the executor, as last read
	prepaid time.Duration // charged for what has not shown in a parent yet
	fresh   time.Duration // the same, for processes that are gone since the last reading
	slack   time.Duration // how much the estimate may be taken to have erred by
}

// kept is how much stays prepaid for longer than one reading: parents show their children's time in whole ticks, so it comes
// late and in lumps.
const kept = period

// errorPart is the part of what parents show that the estimate may be above it.
const errorPart = 4

// left is called when a process is gone. If it was waited for, its parent's reading will hold again what was charged for it.
func (m *meter) left(p *process) { m.fresh += p.own + p.waited }

// read returns the CPU time that was used since the last reading. Without walk it looks at known processes only, which is
// all there is to see as long as none was created. ran is for how long the sandbox could run since then.
func (m *meter) read(ran time.Duration, walk bool) (used time.Duration, err error) {
	if !walk {
		for _, p := range m.tree.processes {
			if p.pidfd < 0 {
				continue
			}
			own, ok := m.tree.cpuTime(p)
			if !ok {
				walk = true // it was reaped: its parent's time has grown
				continue
			}
			used += p.charge(own)
		}
	}
	if !walk {
		return used, nil
	}
	var inParents, guessed time.Duration
	err = m.tree.walk(func(p *process, st kernel.Stat) {
		own := p.final
		if p.pidfd >= 0 {
			var ok bool
			if own, ok = m.tree.cpuTime(p); !ok {
				return
			}
		}
		used += p.charge(own)
		if !p.metered && p.pidfd >= 0 {
			guess := min(max(time.Duration(m.tree.system.Demand(p.pid)*float64(ran))-own, 0), m.cores*ran-guessed)
			used += guess
			guessed += guess
			m.prepaid += guess
		}
		p.metered = true
		if st.Children > p.waited {
			inParents += st.Children - p.waited
			p.waited = st.Children
		}
	})
	if err != nil {
		return 0, err
	}
	reaped := m.tree.system.Reaped()
	inParents += reaped - m.reaped
	m.reaped = reaped
	return used + m.unseen(inParents), nil
}

// unseen returns how much of what has newly shown in parents had not been charged yet. It is negative where more was charged
// than shows: up to a part of what does show is given back, so that those who wait for their children do not pay for
// the error of the estimate. All of it would be what those who discard theirs are charged for.
func (m *meter) unseen(inParents time.Duration) time.Duration {
	left := m.prepaid + m.fresh - inParents
	m.prepaid = min(max(left, 0), max(m.fresh, kept))
	m.fresh = 0
	m.slack = min(m.slack+inParents/errorPart, kept)
	if left < 0 {
		return -left
	}
	back := min(left-m.prepaid, m.slack)
	m.slack -= back
	return -back
}

// charge notes a reading of the process's own clock and returns what is new in it.
func (p *process) charge(own time.Duration) time.Duration {
	growth := max(own-p.own, 0)
	p.own += growth
	return growth
}
