package processes

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// tagged is a world in which the kernel hands tags down, and the handler of its limits.
type tagged struct {
	*world
	*Handler
	tags   map[int]uint64
	events []supervise.Event
}

func newTagged(t *testing.T, limit uint32) *tagged {
	w := &tagged{tags: map[int]uint64{root: math.MaxUint64}}
	tree, c := newWorld(t)
	h := New(abi.AMD64, limit, Process{}, nil, w, supervise.Event{Rule: "limits.processes"})
	c.forkCalls, h.census = h.census.forkCalls, c
	h.scopes.tag = func(pid int) (uint64, error) {
		if tag, ok := w.tags[pid]; ok {
			return tag, nil
		}
		return 0, unix.ESRCH
	}
	h.scopes.setTag = func(pid int, tag uint64) error {
		if tag >= w.tags[pid] {
			return unix.EPERM
		}
		w.tags[pid] = tag
		return nil
	}
	h.scopes.group = func(tid int) (int, error) { return tid, nil }
	h.scopes.alive = func(int) bool { return true }
	w.world, w.Handler = tree, h
	return w
}

func (w *tagged) Record(e supervise.Event) { w.events = append(w.events, e) }

// fork makes a child if it is admitted.
func (w *tagged) fork(parent, child int) bool {
	nr, _ := abi.SyscallNumber(abi.AMD64, "fork")
	if !w.Handle(supervise.NewCall(parent, nr, [6]uint64{}, nil)).IsContinue() {
		return false
	}
	w.spawn(child, parent)
	w.tags[child] = w.tags[parent]
	return true
}

func (w *tagged) end(pid int) {
	w.die(pid, true)
	delete(w.exit, pid)
	w.clock = w.clock.Add(2 * pendingFor) // all calls are over
	delete(w.tags, pid)
}

func (w *tagged) separate(t *testing.T, pid int, limit uint32, rule string) uint64 {
	t.Helper()
	tag, err := w.Separate(&supervise.Process{PID: pid}, limit, supervise.Event{Rule: rule})
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

func (w *tagged) want(t *testing.T, parent, child int, want bool) {
	t.Helper()
	if got := w.fork(parent, child); got != want {
		t.Errorf("fork of %d by %d: %v, want %v", child, parent, got, want)
	}
}

func TestScopeIsCountedByItself(t *testing.T) {
	w := newTagged(t, 6)
	w.want(t, root, 11, true)
	w.want(t, 11, 12, true) // before the scope is opened: not in it
	w.separate(t, 11, 2, "rules[0]")
	w.want(t, 11, 13, true)
	w.want(t, 11, 14, false)
	w.want(t, 13, 14, false)
	if e := w.events[0]; e.Rule != "rules[0]" || e.Kind != "limit" || e.Verdict != "EAGAIN" || e.PID != 11 {
		t.Errorf("journal %+v", e)
	}
	w.want(t, root, 15, true)
	w.want(t, 12, 16, true)
	w.want(t, root, 17, false) // the sandbox's own limit
	if e := w.events[len(w.events)-1]; e.Rule != "limits.processes" {
		t.Errorf("journal %+v", e)
	}
	w.end(15)
	w.want(t, 13, 18, false) // room in the sandbox is none in the scope
	// Without its parent, a process of the scope belongs to it still.
	w.end(11)
	w.want(t, 13, 19, true)
	w.want(t, 19, 20, false)
	w.end(19)
	w.want(t, 13, 21, true)
}

func TestScopesWithinScopes(t *testing.T) {
	w := newTagged(t, 64)
	outer := w.separate(t, root, 4, "outer")
	w.want(t, root, 11, true)
	inner := w.separate(t, 11, 2, "inner")
	if tags, err := w.Scopes(11); err != nil || !slices.Equal(tags, []uint64{inner, outer}) {
		t.Errorf("scopes %v, %v", tags, err)
	}
	for pid, want := range map[int]uint32{root: 4, 11: 2} {
		if got, err := w.Least(pid); err != nil || got != want {
			t.Errorf("limit of %d: %d, %v, want %d", pid, got, err, want)
		}
	}
	w.want(t, 11, 12, true)
	w.want(t, 12, 13, false)
	w.want(t, root, 14, true)
	w.want(t, root, 15, false)
	w.end(12)
	w.want(t, root, 16, true)
	w.want(t, 11, 17, false) // there is room in the inner one, and none in the outer
	if rules := fmt.Sprint(w.events[0].Rule, w.events[1].Rule, w.events[2].Rule); rules != "inner"+"outer"+"outer" {
		t.Errorf("refused by %s", rules)
	}
}

// A thread that forks while another one has its process set apart: the child is in the scope or not, but must count.
func TestScopeKnowsOfForksInFlight(t *testing.T) {
	w := newTagged(t, 64)
	w.tags[500], w.parent[500] = w.tags[root], 0
	w.Handler.scopes.group = func(int) (int, error) { return root, nil }
	w.want(t, 500, 11, true)
	w.separate(t, root, 2, "rules[0]")
	w.tags[11] = w.tags[root]
	w.want(t, root, 12, false)
}

func TestEndedScopesAreForgotten(t *testing.T) {
	w := newTagged(t, 64)
	ended := map[uint64]bool{}
	w.OnEnd(func(tag uint64) { ended[tag] = true })
	const rounds = 1000
	for i := range rounds {
		child, grandchild := 1000+2*i, 1001+2*i
		w.want(t, root, child, true)
		w.separate(t, child, 3, "rules[0]")
		w.want(t, child, grandchild, true)
		w.end(child)
		w.end(grandchild)
		if n := len(w.scopes.open); n > 2*fewScopes {
			t.Fatalf("%d scopes after round %d", n, i)
		}
	}
	if len(ended) < rounds-2*fewScopes {
		t.Errorf("%d scopes have ended of %d", len(ended), rounds)
	}
	w.Release()
}

func TestScopeWithMembersIsNotForgotten(t *testing.T) {
	w := newTagged(t, 64)
	w.want(t, root, 11, true)
	w.separate(t, 11, 2, "rules[0]")
	w.want(t, 11, 12, true)
	w.end(11) // the one that is left was never seen
	w.parent[12] = 1
	for i := range 4 * fewScopes {
		w.want(t, root, 100+i, true)
		w.separate(t, 100+i, 3, "rules[1]")
		w.end(100 + i)
	}
	w.want(t, 12, 13, true)
	w.want(t, 12, 14, false)
}

func TestScopeThatCannotBeToldIsRefused(t *testing.T) {
	w := newTagged(t, 64)
	w.want(t, root, 11, true)
	w.separate(t, 11, 3, "rules[0]")
	for name, tag := range map[string]func(int) (uint64, error){
		"unreadable": func(int) (uint64, error) { return 0, unix.EMFILE },
		"nobody's":   func(int) (uint64, error) { return 77, nil },
	} {
		w.scopes.tag = tag
		w.want(t, root, 12, false)
		if e := w.events[len(w.events)-1]; e.Kind != "error" {
			t.Errorf("%s: journal %+v", name, e)
		}
		if _, err := w.Separate(&supervise.Process{PID: root}, 2, supervise.Event{}); err == nil {
			t.Errorf("%s: set apart", name)
		}
	}
}

func TestNoScopeWithoutAMark(t *testing.T) {
	w := newTagged(t, 64)
	w.scopes.setTag = func(int, uint64) error { return unix.EPERM }
	if _, err := w.Separate(&supervise.Process{PID: root}, 2, supervise.Event{}); err == nil || len(w.scopes.open) > 0 {
		t.Errorf("%v, %d scopes", err, len(w.scopes.open))
	}
	w.scopes.alive = func(int) bool { return false }
	if _, err := w.Separate(&supervise.Process{PID: root}, 2, supervise.Event{}); err != unix.ESRCH {
		t.Errorf("a process that is gone: %v", err)
	}
}
