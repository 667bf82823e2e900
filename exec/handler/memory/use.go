package memory

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// How often use is looked at: the sooner, the less is missing to the limit.
const (
	firstLook = 50 * time.Millisecond
	soonest   = 10 * time.Millisecond
	latest    = 250 * time.Millisecond
	breather  = 4 // times what a look took of the processor
	// slowest is how long to make do with what page faults say.
	slowest = time.Second
	// growth is how many bytes a sandbox may write in a millisecond.
	growth = 4 << 20
	// patience is for how many looks the memory of a killed process counts as given back.
	patience = 50
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
	h.rearm(max(min(max(pause, soonest), latest), min(breather*(processorTime()-before), latest)))
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

// mark is what a process had when it was last looked at closely.
type mark struct {
	taken  bool
	anon   uint64
	faults uint64
}

// look is one process at one look at the sandbox.
type look struct {
	*account
	statm kernel.Statm
	use   uint64
}

// check looks at what the sandbox uses and, if that is more than the limit, kills the largest processes until it is not.
// It returns what is used, at most.
func (h *Handler) check() uint64 {
	h.discover()
	l := h.ledger
	l.memfds.sweep()
	shared := plus(plus(l.pool.sum, l.segments.total()), l.memfds.used)
	used, grown := shared, plus(h.closely, minus(shared, h.shared))
	looks := make([]look, 0, len(l.accounts))
	for p, a := range l.accounts {
		l.disinherit(a)
		statm, err := l.sys.statm(p.PID)
		if err != nil {
			continue
		}
		looks = append(looks, look{a, statm, statm.Anon})
		used = plus(used, statm.Anon)
		if a.inherited == 0 && !a.dying && max(statm.Data, statm.Anon) > a.bound {
			// Stacks grow, and programs are executed, without being asked about.
			l.set(a, max(l.charge(p.PID, statm), a.bound))
		}
	}
	if used <= h.Limit {
		return used
	}
	// Pages that processes share were counted more than once. To tell them apart is expensive, so it is done only when
	// enough has changed.
	for i := range looks {
		grown = plus(grown, h.growth(&looks[i]))
	}
	if grown <= h.Limit && l.sys.now().Sub(h.when) < slowest {
		return grown
	}
	return h.lookClosely(looks)
}

// growth is how much more of its own a process can have at most since it was looked at closely: new pages are seen in
// their number, copied ones in the page faults that it took to copy them.
func (h *Handler) growth(k *look) uint64 {
	image, err := h.ledger.sys.image(k.process.PID)
	if err != nil {
		return 0
	}
	if !k.seen.taken && !image.Forked {
		return k.statm.Anon
	}
	more := minus(image.Faults, k.seen.faults) * pageSize
	if k.seen.taken {
		more = plus(more, minus(k.statm.Anon, k.seen.anon))
	}
	return more
}

func (h *Handler) lookClosely(looks []look) uint64 {
	used, dying := h.tellApart(looks)
	if minus(used, dying) > h.Limit {
		// What ended meanwhile was counted with its parent and by itself, so one look is not enough to kill for.
		used, dying = h.tellApart(looks)
	}
	h.closely, h.when = used, h.ledger.sys.now()
	slices.SortFunc(looks, func(a, b look) int {
		return cmp.Or(cmp.Compare(b.use, a.use), cmp.Compare(b.process.PID, a.process.PID))
	})
	for _, k := range looks {
		if minus(used, dying) <= h.Limit {
			break
		}
		if !k.dying && k.use > 0 && h.kill(k.process, used) {
			dying = plus(dying, k.use)
		}
	}
	return used
}

// tellApart measures what each process has for itself. It returns the sum, and how much of it is about to be free.
func (h *Handler) tellApart(looks []look) (used, dying uint64) {
	l := h.ledger
	l.refine()
	spaces := l.spaces()
	h.shared = plus(plus(l.pool.sum, l.segments.total()), l.memfds.used)
	used = h.shared
	for i := range looks {
		k := &looks[i]
		k.use = 0
		if image, err := l.sys.image(k.process.PID); err == nil {
			k.seen = mark{true, k.statm.Anon, image.Faults}
		}
		if spaces[k.account] != k.account || l.accounts[k.process] != k.account {
			continue
		}
		k.use = l.shareOf(k.account)
		used = plus(used, k.use)
		if k.dying && h.victims[k.process] < patience {
			h.victims[k.process]++
			dying = plus(dying, k.use)
		}
	}
	return used, dying
}

func (h *Handler) kill(p *supervise.Process, used uint64) bool {
	if unix.PidfdSendSignal(p.PIDFD, unix.SIGKILL, nil, 0) != nil {
		return false // it is gone
	}
	h.record(p, "", fmt.Sprintf("%s are in use, more than limits.memory (%s): the largest process is killed", Size(used), Size(h.Limit)))
	return true
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
