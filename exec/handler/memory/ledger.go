package memory

import (
	"cmp"
	"os"
	"slices"
	"time"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// ledger knows an upper bound of what each process is charged: the kernel's last reading and all that was admitted since.
// As long as the sum of the bounds keeps within the limit a call costs no look at /proc. Only when it would not are the
// processes read again, and then, if that is not enough, what they share is told apart.
type ledger struct {
	limits   []*limit // the sandbox's first, then those of scopes as they were opened
	sys      system
	accounts map[*supervise.Process]*account
	memfds   memfds
	flying   []admission
	// discover opens accounts for the processes that have not called yet.
	discover func()
	// scopes lists the scopes of a process, the innermost first.
	scopes func(pid int) ([]uint64, error)
}

// account is one process.
type account struct {
	process *supervise.Process
	limits  []charge // those that hold for it, the innermost first
	bound   uint64
	// inherited is what a child got by fork and is not charged for unless it differs from its parent's; unique is how much
	// of it did when last looked at. A process that has called execve since inherits nothing.
	inherited uint64
	unique    uint64
	brk       uint64 // end of the heap after the last admitted brk since the last reading; 0 = unknown
	brkStart  uint64
	seen      mark
	dying     bool // it was killed, and is not charged for what it is about to give back
}

// admission is a call that may not have been carried out yet, so that no reading shows it.
type admission struct {
	tid   int
	of    *account
	bytes uint64
	when  time.Time
}

// flight is how long a call may take from its admission to its effect.
const flight = 3 * time.Millisecond

// maxFlying bounds the remembered admissions; programs with more threads in flight are rare.
const maxFlying = 1024

// system is what the ledger asks the kernel; tests replace it.
type system struct {
	statm         func(pid int) (kernel.Statm, error)
	image         func(pid int) (kernel.Image, error)
	share         func(pid int) (uint64, error)
	compareMemory func(pid, other int) int
	mappings      func(pid int, f func(kernel.Mapping) bool) error
	segments      func() ([]segment, error)
	alive         func(pidfd int) bool
	now           func() time.Time
	sleep         func(time.Duration)
}

func linux() system {
	return system{
		statm: kernel.ReadStatm, image: kernel.ReadImage, share: kernel.AnonymousShare, compareMemory: kernel.CompareMemory,
		mappings: kernel.Mappings, segments: readSegments, alive: kernel.Alive, now: time.Now, sleep: time.Sleep,
	}
}

func newLedger(max uint64, s system) *ledger {
	return &ledger{
		limits: []*limit{{max: max, name: "limits.memory"}}, sys: s, accounts: map[*supervise.Process]*account{}, discover: func() {},
		scopes: func(int) ([]uint64, error) { return nil, nil },
	}
}

// account returns the account of a process, which is opened at its first call, before that is carried out: what it has is
// what it was started with. It is nil if nobody can tell which limits hold.
func (l *ledger) account(p *supervise.Process) *account {
	a := l.accounts[p]
	if a != nil {
		return a
	}
	a = &account{process: p}
	if !l.place(a) {
		return nil
	}
	l.accounts[p] = a
	image, err := l.sys.image(p.PID)
	if err == nil {
		a.brkStart = image.BrkStart
	}
	statm, _ := l.sys.statm(p.PID) // gone: nothing to charge
	if err == nil && image.Forked {
		a.inherited = statm.Data
	} else {
		l.set(a, l.charge(p.PID, statm))
	}
	return a
}

// threadStack is what libraries promise each thread unless told otherwise (RLIMIT_STACK). Threads use a few pages of it.
const threadStack = 8 << 20

// charge is what a process is charged for by a reading: its data, and what is there in any case. (Pages that were written
// and are read-only now are no longer data.) Of what it has not used yet the stacks of its threads are forgiven, or a
// hundred idle threads would take as much as a large heap; what they come to use is seen as such.
func (l *ledger) charge(pid int, statm kernel.Statm) uint64 {
	unused := minus(statm.Data, statm.Anon)
	if unused < threadStack {
		return max(statm.Data, statm.Anon)
	}
	image, err := l.sys.image(pid)
	if err != nil || image.Threads < 2 {
		return statm.Data
	}
	return statm.Data - min((image.Threads-1)*threadStack, unused)
}

func (l *ledger) set(a *account, bound uint64) {
	for _, c := range a.limits {
		c.sum = c.sum - minus(a.bound, c.before) + minus(bound, c.before)
	}
	a.bound = bound
}

// condemn stops charging a process that has been killed: what it asked for last, and all that it has, comes free.
func (l *ledger) condemn(p *supervise.Process) {
	if a := l.accounts[p]; a != nil {
		l.set(a, 0)
		a.dying = true
	}
}

func (l *ledger) forget(p *supervise.Process) {
	if a := l.accounts[p]; a != nil {
		l.set(a, 0)
		delete(l.accounts, p)
	}
}

// whole is the sandbox's limit.
func (l *ledger) whole() *limit { return l.limits[0] }

// admit charges a request, unless it would exceed a limit for certain, which it then returns.
func (l *ledger) admit(a *account, tid int, r request) (over *limit) {
	l.landed(tid)
	if r.bytes > 0 && a.exceeds(r.bytes) != nil {
		if over := l.makeRoom(a, &r); over != nil {
			return over
		}
	}
	switch {
	case r.shared:
		for _, c := range a.limits {
			c.pool.add(share{r.bytes, l.sys.now()})
		}
		if len(l.whole().pool.admitted) > maxShares {
			l.refine()
		}
	case r.kind == kindShmget && r.bytes > 0:
		for _, c := range a.limits {
			c.segments.admitted = plus(c.segments.admitted, r.bytes)
			c.segments.creator(a.process.PID)
		}
	default:
		l.set(a, a.bound+r.bytes)
	}
	if r.kind == kindBrk {
		a.brk = r.addr
	}
	if len(l.flying) >= maxFlying {
		l.flying = slices.Delete(l.flying, 0, maxFlying/2)
	}
	l.flying = append(l.flying, admission{tid, a, r.bytes, l.sys.now()})
	return nil
}

// landed notes that a thread is back: its admitted calls are over.
func (l *ledger) landed(tid int) {
	l.flying = slices.DeleteFunc(l.flying, func(f admission) bool { return f.tid == tid })
}

// inFlight returns what may not show yet of what a limit holds for, and when the last of it will.
func (l *ledger) inFlight(of *limit) (bytes uint64, over time.Time) {
	now := l.sys.now()
	l.flying = slices.DeleteFunc(l.flying, func(f admission) bool { return now.Sub(f.when) > flight })
	for _, f := range l.flying {
		if f.of.under(of) {
			bytes = plus(bytes, f.bytes)
			over = f.when.Add(flight)
		}
	}
	return bytes, over
}

// makeRoom lowers the bounds to what the kernel says, by ever more expensive means, until the request fits. It returns
// the limit that it does not fit.
func (l *ledger) makeRoom(a *account, r *request) (over *limit) {
	looks := [...]func(){l.measure, func() { l.look(a, r) }, l.refine}
	for _, look := range looks {
		if look(); a.exceeds(r.bytes) != nil {
			continue
		}
		landing, fits := l.landing(a, r.bytes)
		if fits {
			return nil
		}
		// Admitted calls of other threads are under way; the reading may have been too early for them. Wait for them, for
		// a moment, rather than promise the same memory twice.
		l.sys.sleep(landing.Sub(l.sys.now()))
		for _, look := range looks {
			look()
		}
		break
	}
	return a.exceeds(r.bytes)
}

// landing reports whether a request fits whatever is in flight, and if not, when that will show.
func (l *ledger) landing(a *account, n uint64) (when time.Time, fits bool) {
	for _, c := range a.limits {
		unseen, over := l.inFlight(c.limit)
		if !c.fits(plus(n, unseen)) {
			return over, false
		}
	}
	return time.Time{}, true
}

// measure reads every process again. It is cheap: one small file each.
func (l *ledger) measure() {
	for p, a := range l.accounts {
		l.disinherit(a) // first: else the reading may be of what it had before its execve
		if !l.sys.alive(p.PIDFD) {
			l.forget(p)
		} else if statm, err := l.sys.statm(p.PID); err == nil {
			l.read(a, statm)
		}
	}
	l.sweepMemfds()
}

// read sets an account to a reading.
func (l *ledger) read(a *account, statm kernel.Statm) {
	if a.dying {
		return
	}
	a.brk = 0
	a.inherited = min(a.inherited, statm.Data)
	if a.inherited > 0 {
		l.set(a, max(minus(l.charge(a.process.PID, statm), a.inherited), a.unique))
		return
	}
	l.set(a, l.charge(a.process.PID, statm))
}

// disinherit notes that a process has called execve: what it has is its own.
func (l *ledger) disinherit(a *account) {
	if a.inherited == 0 && !a.brings() {
		return
	}
	if image, err := l.sys.image(a.process.PID); err == nil && !image.Forked {
		a.inherited, a.unique = 0, 0
		l.leaveBehind(a)
	}
}

// look makes a request exact.
func (l *ledger) look(a *account, r *request) {
	pid := a.process.PID
	if image, err := l.sys.image(pid); err == nil {
		a.brkStart = image.BrkStart // it may have called execve since
	}
	r.bytes = min(r.bytes, r.exact(a, func(f func(kernel.Mapping) bool) error { return l.sys.mappings(pid, f) }))
}

// refine tells apart what processes share: pages since a fork, whole address spaces since vfork, and shared mappings.
func (l *ledger) refine() {
	l.discover()
	spaces := l.spaces()
	copies := false
	for _, a := range l.accounts {
		copies = copies || a.inherited > 0
	}
	for _, a := range l.accounts {
		switch {
		case a.dying:
		case spaces[a] != a:
			l.set(a, 0) // charged to the other
		case copies:
			l.refineAccount(a)
		}
	}
	for _, limit := range l.limits {
		if !limit.pool.empty() {
			limit.pool.look(limit, l.accounts, l.sys)
		}
		if len(limit.segments.creators) > 0 {
			limit.segments.look(l.sys.segments)
		}
	}
}

// refineAccount charges pages that parent and child share in part to each of them.
func (l *ledger) refineAccount(a *account) {
	statm, err := l.sys.statm(a.process.PID)
	if err != nil {
		return
	}
	share, charge := l.shareOf(a), l.charge(a.process.PID, statm)
	if a.inherited > 0 {
		a.unique = share
		l.set(a, max(minus(charge, a.inherited), share))
		return
	}
	l.set(a, charge-min(charge, minus(statm.Anon, share)))
}

// shareOf is what a process has for itself; where that cannot be seen, everything, and nothing if it is ending.
func (l *ledger) shareOf(a *account) uint64 {
	if n, err := l.sys.share(a.process.PID); err == nil {
		return n
	}
	statm, _ := l.sys.statm(a.process.PID)
	return statm.Anon
}

// spaces finds processes that use one address space (CLONE_VM): each maps to the one that is charged for it, or to none
// where that is the executor's own, as the command's is before it is executed. Only what has not called execve since it
// was created can share.
func (l *ledger) spaces() map[*account]*account {
	owners := make(map[*account]*account, len(l.accounts))
	sorted := make([]*account, 0, len(l.accounts))
	copies := false
	for _, a := range l.accounts {
		owners[a] = a
		sorted = append(sorted, a)
		copies = copies || a.inherited > 0
	}
	if !copies {
		return owners
	}
	// Those that share come to stand side by side, and first of them the one whose own the space is.
	slices.SortFunc(sorted, func(a, b *account) int {
		return cmp.Or(l.sys.compareMemory(a.process.PID, b.process.PID), cmp.Compare(a.inherited, b.inherited), cmp.Compare(a.process.PID, b.process.PID))
	})
	for i, a := range sorted {
		switch {
		case a.inherited > 0 && l.sys.compareMemory(a.process.PID, os.Getpid()) == 0:
			owners[a] = nil
		case i > 0 && l.sys.compareMemory(sorted[i-1].process.PID, a.process.PID) == 0:
			owners[a] = owners[sorted[i-1]]
		}
	}
	return owners
}
