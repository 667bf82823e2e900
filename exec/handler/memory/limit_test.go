package memory

import (
	"math"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// scoped is a world whose scopes the test decides.
type scoped struct {
	*world
	scopes map[int][]uint64
}

func newScoped(limit uint64) *scoped {
	w := &scoped{newWorld(limit), map[int][]uint64{}}
	w.timer = -1
	w.ledger.scopes = func(pid int) ([]uint64, error) {
		if w.scopes[pid] == nil && w.spaces[pid] == nil {
			return nil, unix.ESRCH
		}
		return w.scopes[pid], nil
	}
	return w
}

func (w *scoped) restrict(t *testing.T, pid int, scope, max uint64) {
	t.Helper()
	if err := w.Restrict(w.known[pid], scope, max, supervise.Event{Rule: "rules[0]"}); err != nil {
		t.Fatal(err)
	}
	w.scopes[pid] = append([]uint64{scope}, w.scopes[pid]...)
}

// fork starts a child in its parent's scopes.
func (w *scoped) fork(pid, parent int, data uint64) *space {
	w.scopes[pid] = w.scopes[parent]
	return w.start(pid, parent, data)
}

func TestScopeHasACapOfItsOwn(t *testing.T) {
	w := newScoped(200 * mb)
	w.start(10, 1, 10*mb)
	w.fork(11, 10, 10*mb)
	w.want(t, "before", w.mmap(11, mb), goesOn)
	w.restrict(t, 11, 5, 50*mb)
	w.fork(12, 11, 10*mb)
	w.want(t, "a child", w.mmap(12, 20*mb), goesOn)
	w.want(t, "more than the scope has", w.mmap(11, 10*mb), "kill")
	if e := w.events[0]; e.Rule != "rules[0]" || e.Kind != "limit" || e.PID != 11 {
		t.Errorf("journal %+v", e)
	}
	if got, want := w.Reached(), "rules[0]: restrict_memory (50M)"; got != want {
		t.Errorf("reached %q, want %q", got, want)
	}
	w.exit(w.known[11])
	w.want(t, "once the first is gone", w.mmap(12, 15*mb), goesOn)
	w.want(t, "outside", w.mmap(10, 100*mb), goesOn)
	w.want(t, "more than the sandbox has", w.mmap(10, 100*mb), "kill")
	if e := w.events[1]; e.Rule != "limits.memory" || e.PID != 10 {
		t.Errorf("journal %+v", e)
	}
}

func TestScopeWithinScope(t *testing.T) {
	w := newScoped(200 * mb)
	w.start(10, 1, 10*mb)
	w.restrict(t, 10, 5, 100*mb)
	w.fork(11, 10, 10*mb)
	w.restrict(t, 11, 6, 50*mb)
	for process, want := range map[int]uint64{10: 100, 11: 50} {
		if got, err := w.Least(w.known[process]); err != nil || got != want*mb {
			t.Errorf("limit of %d: %d MB, %v, want %d", process, got/mb, err, want)
		}
	}
	w.want(t, "inner", w.mmap(11, 30*mb), goesOn)
	w.want(t, "outer", w.mmap(10, 40*mb), goesOn)
	w.want(t, "inner, for which the outer has no room", w.mmap(11, 11*mb), "kill")
	if got := w.Reached(); got != "rules[0]: restrict_memory (100M)" && got != "rules[0]: restrict_memory (50M)" {
		t.Errorf("reached %q", got)
	}
	w.exit(w.known[11])
	w.End(6)
	w.want(t, "outer again", w.mmap(10, 40*mb), goesOn)
	if len(w.ledger.limits) != 2 {
		t.Errorf("%d limits, want 2: an ended scope has none", len(w.ledger.limits))
	}
}

// What belongs to no process is charged to the scope of its maker, and what was there before to nobody in it.
func TestScopeIsChargedForSharedMemory(t *testing.T) {
	shared := func(w *scoped, pid int, n uint64) string {
		return w.call(pid, "mmap", 0, n, unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON, math.MaxUint64)
	}
	object := func(ino, n uint64) kernel.Mapping {
		return kernel.Mapping{Start: 0x10000, End: 0x10000 + n, Writable: true, Shared: true, Anonymous: true, Inode: kernel.Inode{Dev: 1, Ino: ino}}
	}
	w := newScoped(200 * mb)
	parent := w.start(10, 1, 10*mb)
	w.want(t, "the parent's", shared(w, 10, 60*mb), goesOn)
	parent.mappings = []kernel.Mapping{object(1, 60*mb)}
	child := w.fork(11, 10, 10*mb)
	child.forked, child.mappings = true, parent.mappings
	w.restrict(t, 11, 5, 50*mb)
	w.want(t, "in vain", shared(w, 11, 40*mb), goesOn)
	w.clock = w.clock.Add(time.Second)
	w.want(t, "the child's", shared(w, 11, 30*mb), goesOn)
	child.mappings = append(child.mappings, object(2, 30*mb))
	w.want(t, "too much", shared(w, 11, 30*mb), "kill")
	w.want(t, "the parent's second", shared(w, 10, 30*mb), goesOn)
}

func TestScopeIsCheckedForUse(t *testing.T) {
	w := newScoped(200 * mb)
	parent := w.start(10, 1, 100*mb)
	parent.statm.Anon, parent.share = 100*mb, 50*mb
	child := w.fork(11, 10, 100*mb)
	child.forked, child.share, child.statm.Anon = true, 50*mb, 100*mb
	w.restrict(t, 11, 5, 40*mb)
	used := func(what string, want uint64) {
		t.Helper()
		w.clock = w.clock.Add(2 * slowest)
		w.check()
		if got := w.ledger.limits[1].used; got != want*mb {
			t.Errorf("%s: %d MB used in the scope, want %d", what, got/mb, want)
		}
		if len(w.events) > 0 {
			t.Errorf("%s: killed: %+v", what, w.events[0])
		}
	}
	used("what it shares with its parent is not the scope's", 0)
	child.share = 75 * mb
	used("what it has written is", 25)
	child.forked, child.statm.Anon, child.share = false, 30*mb, 30*mb
	used("after execve everything is", 30)
	if w.slack != 10*mb {
		t.Errorf("%d MB are left, want 10", w.slack/mb)
	}
}

func TestScopeOfUnknownLimitsIsRefused(t *testing.T) {
	w := newScoped(200 * mb)
	w.start(10, 1, mb)
	w.ledger.scopes = func(int) ([]uint64, error) { return nil, unix.EMFILE }
	w.want(t, "nobody knows whose limits hold", w.ask(10, mb), "errno EAGAIN")
	if err := w.Restrict(w.known[10], 5, mb, supervise.Event{}); err == nil {
		t.Error("a process without an account is restricted")
	}
}
