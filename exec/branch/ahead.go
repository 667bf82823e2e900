package branch

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Half of what a plan costs is looking, and looking does not have to wait for what is made: one other goroutine looks at the next
// names of a directory meanwhile. It makes and changes nothing, so that each call of sys is still one goroutine's, in the order of
// the names. What it finds is what the plan would find at its turn: nobody else writes the upper, and in the lower the apply
// notices whatever changes after the look. What it cannot look at the plan looks at again, and fails of.

const (
	aheadMost = 64 // how many names are looked at before their turn
	aheadFew  = 8  // directories with fewer names are not worth it
)

// found is what a plan finds under a name.
type found struct {
	up  upperEntry
	low *unix.Stat_t

	compared        bool // two that are no directories
	diff            difference
	upMeta, lowMeta *meta
}

// find looks at a name in both.
func (p *planner) find(at *dirs, name string, notes overlay) (*found, error) {
	up, err := p.b.look(at.up, name, notes.xwhiteouts)
	if err != nil {
		return nil, opError("look at upper", join(string(p.path), name), err)
	}
	low, err := lookup(at.low, name)
	if err != nil {
		return nil, opError("look at", join(string(p.path), name), err)
	}
	return &found{up: up, low: low}, nil
}

// compare compares the two, unless that is done.
func (p *planner) compare(at *dirs, name string, f *found) (err error) {
	if !f.compared {
		f.diff, f.upMeta, f.lowMeta, err = p.b.compare(at.up, at.low, name, &f.up, f.low)
		f.compared = err == nil
	}
	return err
}

// pair tells whether there are two that are to be compared.
func (f *found) pair() bool {
	return f.up.st != nil && f.low != nil && !isDir(f.up.st) && !isDir(f.low)
}

// ahead looks at the names of one directory.
type ahead struct {
	look  func(name string) *found // nil: the plan is to look itself
	names []string

	mu      sync.Mutex
	next    int // the first name that nobody has looked at, or is at
	limit   int // the first one that nobody may look at yet
	slots   []aheadSlot
	idle    bool
	running sync.WaitGroup
}

// aheadSlot has what is known of a name that is not taken yet: a ring, by the places of the names.
type aheadSlot struct {
	done  bool
	found *found
}

// lookAhead is for the names of a directory; nil for too few of them.
func (p *planner) lookAhead(at *dirs, names []string, notes overlay) *ahead {
	if len(names) < aheadFew || runtime.GOMAXPROCS(0) == 1 {
		return nil
	}
	a := &ahead{names: names, slots: make([]aheadSlot, min(aheadMost, len(names))), idle: true}
	a.look = func(name string) *found {
		f, err := p.find(at, name, notes)
		// What the plan makes of one name of a file, it changes the others by.
		if err != nil || f.up.st != nil && f.up.st.Nlink > 1 && !isDir(f.up.st) {
			return nil
		}
		if f.pair() && p.compare(at, name, f) != nil {
			return nil
		}
		return f
	}
	return a
}

// take returns what is known of the name whose turn it is; nil for nothing. While the other one is at it, it looks at later names
// itself.
func (a *ahead) take(turn int) *found {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit = min(turn+len(a.slots), len(a.names))
	if a.next == turn {
		a.next++
		a.start()
		return nil
	}
	a.start()
	for slot := &a.slots[turn%len(a.slots)]; ; {
		if slot.done {
			defer func() { *slot = aheadSlot{} }()
			return slot.found
		}
		if !a.step() {
			a.mu.Unlock()
			a.running.Wait()
			a.mu.Lock()
		}
	}
}

// start has another goroutine go on, if there is something to do for it.
func (a *ahead) start() {
	if n := a.limit - a.next; !a.idle || n == 0 || n < len(a.slots)/2 && a.limit < len(a.names) {
		return
	}
	a.idle = false
	a.running.Go(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for a.step() {
		}
		a.idle = true
	})
}

// step looks at one name; false if there is none to be looked at.
func (a *ahead) step() bool {
	n := a.next
	if n >= a.limit {
		return false
	}
	a.next++
	a.mu.Unlock()
	f := a.look(a.names[n])
	a.mu.Lock()
	a.slots[n%len(a.slots)] = aheadSlot{true, f}
	return true
}

// stop returns once nobody looks, or uses the directory's descriptors; the next take goes on.
func (a *ahead) stop() {
	if a == nil {
		return
	}
	a.mu.Lock()
	a.limit = 0
	a.mu.Unlock()
	a.running.Wait()
}
