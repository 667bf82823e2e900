package memory

import (
	"fmt"
	"slices"
	"time"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// limit is what processes may have together: all of the sandbox, or those of a scope that a rule has set apart.
type limit struct {
	scope    uint64 // 0: the sandbox
	max      uint64
	name     string
	rule     supervise.Event
	sum      uint64 // of the bounds of the processes
	pool     pool   // anonymous memory that is mapped shared
	segments segments
	memfds   uint64 // files in memory

	// Of the last look at what is used:
	used  uint64 // at most
	dying uint64 // how much of it is about to be free
	grown uint64
	// Of the last close one: when it was, what was used, and how much of it belonged to no process.
	when            time.Time
	closely, shared uint64
}

func (l *limit) String() string { return fmt.Sprintf("%s (%s)", l.name, Size(l.max)) }

// unowned is what belongs to no process.
func (l *limit) unowned() uint64 { return plus(plus(l.pool.sum, l.segments.total()), l.memfds) }

// total is what is charged at most.
func (l *limit) total() uint64 { return plus(l.sum, l.unowned()) }

func (l *limit) fits(n uint64) bool { return plus(l.total(), n) <= l.max }

// overrun reports whether more is used than there may be, and will be.
func (l *limit) overrun() bool { return minus(l.used, l.dying) > l.max }

// charge is a limit that holds for a process.
type charge struct {
	*limit
	// before is what the process that the scope was opened for had got by fork then. It is charged outside of the scope,
	// and not here unless it differs from what others have. After execve it has nothing of it.
	before uint64
}

// exceeds returns a limit that a process would exceed with so much more, nil if there is none.
func (a *account) exceeds(n uint64) *limit {
	for _, c := range a.limits {
		if !c.fits(n) {
			return c.limit
		}
	}
	return nil
}

// under reports whether a limit holds for a process.
func (a *account) under(l *limit) bool {
	return slices.ContainsFunc(a.limits, func(c charge) bool { return c.limit == l })
}

// use counts what a process uses.
func (a *account) use(n uint64) {
	for _, c := range a.limits {
		c.used = plus(c.used, minus(n, c.before))
	}
}

// expire counts what a process has and will give back.
func (a *account) expire(n uint64) {
	for _, c := range a.limits {
		c.dying = plus(c.dying, minus(n, c.before))
	}
}

// brings reports whether a process has something from before its scope was opened.
func (a *account) brings() bool {
	return slices.ContainsFunc(a.limits, func(c charge) bool { return c.before > 0 })
}

// place finds the limits of a process that is new. It reports whether they could be found.
func (l *ledger) place(a *account) bool {
	scopes, err := l.scopes(a.process.PID)
	if err != nil {
		return false
	}
	for _, scope := range scopes {
		if i := slices.IndexFunc(l.limits, func(limit *limit) bool { return limit.scope == scope }); i >= 0 {
			a.limits = append(a.limits, charge{limit: l.limits[i]})
		}
	}
	a.limits = append(a.limits, charge{limit: l.whole()})
	return true
}

// separate puts a process under one more limit, within those that it is under. Shared mappings that it has already, and
// memory that it shares with others since a fork, are not charged there.
func (l *ledger) separate(a *account, limit *limit) {
	if a.under(limit) {
		return
	}
	l.limits = append(l.limits, limit)
	c := charge{limit: limit}
	if image, err := l.sys.image(a.process.PID); err == nil && image.Forked {
		c.before, _ = l.sys.share(a.process.PID) // gone: nothing to charge
	}
	limit.pool.foreign = map[kernel.Inode]bool{}
	_ = l.sys.mappings(a.process.PID, func(m kernel.Mapping) bool {
		if m.Anonymous {
			limit.pool.foreign[m.Inode] = true
		}
		return true
	})
	limit.sum = minus(a.bound, c.before)
	a.limits = slices.Insert(a.limits, 0, c)
}

// leaveBehind charges a process that has called execve for all that it has.
func (l *ledger) leaveBehind(a *account) {
	for i := range a.limits {
		c := &a.limits[i]
		c.sum = c.sum - minus(a.bound, c.before) + a.bound
		c.before = 0
	}
}

// end forgets the limit of a scope.
func (l *ledger) end(scope uint64) {
	l.limits = slices.DeleteFunc(l.limits, func(limit *limit) bool { return limit.scope == scope && scope != 0 })
}
