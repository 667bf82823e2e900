package memory

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// How often use is looked at: the sooner, the less is missing to the limit, but never so often that looking takes more
// than a twentieth of a processor.
const (
	firstLook = 50 * time.Millisecond
	soonest   = 10 * time.Millisecond
	latest    = 250 * time.Millisecond
	slowest   = time.Second // also if looking takes long
	breather  = 20          // times what a look took of the processor
	// growth is how many bytes a sandbox may write in a millisecond.
	growth = 4 << 20
	// dying is how many looks a killed process is waited for before another is killed.
	dying = 20
)

// tick is called when the timer fires.
func (h *Handler) tick() {
	var expirations [8]byte
	if _, err := unix.Read(h.timer, expirations[:]); err != nil {
		return
	}
	before := processorTime()
	used := h.check()
	pause := time.Duration(min(minus(h.Limit, used)/growth, 1000)) * time.Millisecond
	h.rearm(max(min(max(pause, soonest), latest), min(breather*(processorTime()-before), slowest)))
}

// processorTime is what this thread has had. Time during which others ran is not held against the next look.
func processorTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // cannot fail
	return time.Duration(t.Nano())
}

func (h *Handler) rearm(d time.Duration) {
	_ = unix.TimerfdSettime(h.timer, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil)
}

// check looks at what the sandbox uses and, if that is more than the limit, kills the process that uses most. It
// returns what is used.
func (h *Handler) check() uint64 {
	h.discover()
	l := h.ledger
	l.memfds.sweep()
	shared := plus(plus(l.pool.sum, l.segments.total()), l.memfds.used)
	used := shared
	statms := make(map[*account]kernel.Statm, len(l.accounts))
	for p, a := range l.accounts {
		statm, err := l.sys.statm(p.PID)
		if err != nil {
			continue
		}
		statms[a] = statm
		used = plus(used, statm.Anon)
		l.disinherit(a)
		if a.inherited == 0 && !a.dying && max(statm.Data, statm.Anon) > a.bound {
			// Stacks grow, and programs are executed, without being asked about.
			l.set(a, max(l.charge(p.PID, statm), a.bound))
		}
	}
	if used <= h.Limit {
		return used
	}
	// Pages that processes share were counted more than once.
	l.refine()
	used = plus(plus(l.pool.sum, l.segments.total()), l.memfds.used)
	spaces := l.spaces()
	var largest *account
	var most uint64
	for a, statm := range statms {
		if spaces[a] != a || l.accounts[a.process] != a {
			continue
		}
		n := l.shareOf(a, statm)
		used = plus(used, n)
		if _, killed := h.victims[a.process]; !killed && (largest == nil || n > most || n == most && a.process.PID > largest.process.PID) {
			largest, most = a, n
		}
	}
	if used > h.Limit && largest != nil && !h.waiting() {
		h.kill(largest.process, used)
	}
	return used
}

// waiting tells whether a killed process is still giving its memory back.
func (h *Handler) waiting() bool {
	waiting := false
	for p := range h.victims {
		h.victims[p]++
		waiting = waiting || h.victims[p] <= dying
	}
	return waiting
}

func (h *Handler) kill(p *supervise.Process, used uint64) {
	if unix.PidfdSendSignal(p.PIDFD, unix.SIGKILL, nil, 0) != nil {
		return // it is gone
	}
	h.record(p, "", fmt.Sprintf("%s are in use, more than limits.memory (%s): the largest process is killed", Size(used), Size(h.Limit)))
}

// discover opens an account for each process of the sandbox that has not called yet.
func (h *Handler) discover() {
	queue, err := h.Roots()
	if err != nil {
		return
	}
	seen := map[int]bool{}
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		if p, err := h.Processes.Add(pid); err == nil {
			h.ledger.account(p)
		}
		// The children of an ended thread, and of an ended process, have moved to another one of the tree.
		if next, err := h.children(pid); err == nil {
			queue = append(queue, next...)
		}
	}
}
