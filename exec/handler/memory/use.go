package memory

import (
	"cmp"
	"fmt"
	"math"
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
	h.check()
	pause := time.Duration(min(h.slack/growth, 1000)) * time.Millisecond
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
	own   uint64 // what it has for itself
}

// check looks at what the sandbox uses and, if that is more than a limit, kills the largest processes until it is not.
// It returns what the sandbox uses, at most.
func (h *Handler) check() uint64 {
	h.discover()
	l := h.ledger
	l.sweepMemfds()
	for _, limit := range l.limits {
		limit.used = limit.unowned()
	}
	looks := make([]look, 0, len(l.accounts))
	for p, a := range l.accounts {
		l.disinherit(a)
		statm, err := l.sys.statm(p.PID)
		if err != nil {
			continue
		}
		looks = append(looks, look{a, statm, statm.Anon})
		a.use(statm.Anon)
		if a.inherited == 0 && !a.dying && max(statm.Data, statm.Anon) > a.bound {
			// Stacks grow, and programs are executed, without being asked about.
			l.set(a, max(l.charge(p.PID, statm), a.bound))
		}
	}
	if h.exceeded() {
		h.estimate(looks)
	}
	if h.exceeded() {
		h.lookClosely(looks)
	}
	h.slack = math.MaxUint64
	for _, limit := range l.limits {
		h.slack = min(h.slack, minus(limit.max, limit.used))
	}
	return l.whole().used
}

func (h *Handler) exceeded() bool {
	return slices.ContainsFunc(h.ledger.limits, func(limit *limit) bool { return limit.used > limit.max })
}

// estimate lowers what is used. Pages that processes share were counted more than once. To tell them apart is expensive,
// so it is done only when enough has changed.
func (h *Handler) estimate(looks []look) {
	for _, limit := range h.ledger.limits {
		limit.grown = plus(limit.closely, minus(limit.unowned(), limit.shared))
	}
	for i := range looks {
		n := h.growth(&looks[i])
		for _, c := range looks[i].limits {
			c.grown = plus(c.grown, n)
		}
	}
	for _, limit := range h.ledger.limits {
		if limit.used > limit.max && h.ledger.sys.now().Sub(limit.when) < slowest {
			limit.used = limit.grown
		}
	}
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

func (h *Handler) lookClosely(looks []look) {
	h.tellApart(looks)
	if slices.ContainsFunc(h.ledger.limits, (*limit).overrun) {
		// What ended meanwhile was counted with its parent and by itself, so one look is not enough to kill for.
		h.tellApart(looks)
	}
	for _, limit := range h.ledger.limits {
		limit.closely, limit.when = limit.used, h.ledger.sys.now()
	}
	slices.SortFunc(looks, func(a, b look) int {
		return cmp.Or(cmp.Compare(b.own, a.own), cmp.Compare(b.process.PID, a.process.PID))
	})
	for _, limit := range slices.Backward(h.ledger.limits) { // what is killed for a scope may be enough for what it is in
		for i := range looks {
			k := &looks[i]
			if limit.overrun() && k.under(limit) && !k.account.dying && k.own > 0 && h.kill(k.process, limit) {
				k.expire(k.own)
			}
		}
	}
}

// tellApart measures what each process has for itself, and what of all is used and how much of it is about to be free.
func (h *Handler) tellApart(looks []look) {
	l := h.ledger
	l.refine()
	spaces := l.spaces()
	for _, limit := range l.limits {
		limit.shared = limit.unowned()
		limit.used, limit.dying = limit.shared, 0
	}
	for i := range looks {
		k := &looks[i]
		k.own = 0
		if image, err := l.sys.image(k.process.PID); err == nil {
			k.seen = mark{true, k.statm.Anon, image.Faults}
		}
		if spaces[k.account] != k.account || l.accounts[k.process] != k.account {
			continue
		}
		k.own = l.shareOf(k.account)
		k.use(k.own)
		if k.account.dying && h.victims[k.process] < patience {
			h.victims[k.process]++
			k.expire(k.own)
		}
	}
}

func (h *Handler) kill(p *supervise.Process, over *limit) bool {
	if unix.PidfdSendSignal(p.PIDFD, unix.SIGKILL, nil, 0) != nil {
		return false // it is gone
	}
	h.record(p, over, "", fmt.Sprintf("%s are in use, more than %s: the largest process is killed", Size(over.used), over))
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
