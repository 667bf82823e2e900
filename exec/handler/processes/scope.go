package processes

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// scope is a process and all that it and its descendants have forked since a rule has set it apart.
//
// Who belongs to it the kernel keeps: each process carries the tag of its innermost scope, which it has from its parent
// before it runs (kernel.SetTag). So nothing has to be remembered of processes, and neither a parent that is gone nor a
// new session changes anything. A scope ends with its last process.
type scope struct {
	tag    uint64
	outer  *scope // nil: the sandbox
	limit  int
	census *census
	rule   supervise.Event
}

// scopes are those that have not been found to have ended.
type scopes struct {
	open map[uint64]*scope // by tag
	base uint64            // the tag of processes that belong to none
	next uint64            // tags are given out downwards: a process can only have its own lowered
	full int               // number of open scopes at which to look which have ended
	// tests replace these
	tag    func(pid int) (uint64, error)
	setTag func(pid int, tag uint64) error
	group  func(tid int) (int, error)
	alive  func(pidfd int) bool
	ended  []func(tag uint64)
}

// fewScopes is how many scopes are kept without a look which of them have ended.
const fewScopes = 16

func newScopes() scopes {
	return scopes{open: map[uint64]*scope{}, full: fewScopes, tag: kernel.Tag, setTag: kernel.SetTag, group: kernel.ThreadGroup, alive: kernel.Alive}
}

// full returns the outermost of a scope and those that it is in which has no room for one more process, nil if all have.
// A scope that only bounds memory has the limit of what it is in, which is then the one to be named.
func (s *scope) full(tid int) *scope {
	if s == nil {
		return nil
	}
	if outer := s.outer.full(tid); outer != nil {
		return outer
	}
	if s.census.room(tid, s.limit) {
		return nil
	}
	return s
}

// innermost returns the scope of a process or thread, nil if it belongs to none.
func (s *scopes) innermost(pid int) (*scope, error) {
	if len(s.open) == 0 {
		return nil, nil
	}
	tag, err := s.tag(pid)
	if err != nil {
		return nil, err
	}
	if found := s.open[tag]; found != nil || tag == s.base {
		return found, nil
	}
	return nil, fmt.Errorf("process %d has the tag %d, which is nobody's", pid, tag)
}

// holds reports whether a process belongs to a scope.
func (s *scopes) holds(outer *scope, pid int) (bool, error) {
	found, err := s.innermost(pid)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return false, nil // gone
	}
	for ; found != nil && err == nil; found = found.outer {
		if found == outer {
			return true, nil
		}
	}
	return false, err
}

// take gives out the next tag.
func (s *scopes) take(pid int) (uint64, error) {
	if s.next == 0 {
		// No process has been marked yet.
		base, err := s.tag(pid)
		if err != nil {
			return 0, err
		}
		s.base, s.next = base, min(base, math.MaxInt64)
	}
	if s.next <= 1 {
		return 0, errors.New("no scope can be told from the others any more")
	}
	s.next--
	return s.next, nil
}

// sweep forgets the scopes that have ended, once there are many.
func (s *scopes) sweep() {
	if len(s.open) < s.full {
		return
	}
	for tag, o := range s.open {
		if !o.census.empty() {
			continue
		}
		delete(s.open, tag)
		for _, f := range s.ended {
			f(tag)
		}
	}
	s.full = max(fewScopes, 2*len(s.open))
}

// OnEnd has f called with a scope that has ended.
func (h *Handler) OnEnd(f func(tag uint64)) { h.scopes.ended = append(h.scopes.ended, f) }

// Scopes lists the scopes that a process belongs to, the innermost first.
func (h *Handler) Scopes(pid int) (tags []uint64, err error) {
	s, err := h.scopes.innermost(pid)
	for ; s != nil; s = s.outer {
		tags = append(tags, s.tag)
	}
	return tags, err
}

// Least is the lowest of the limits that hold for a process.
func (h *Handler) Least(pid int) (uint32, error) {
	least := h.limit
	s, err := h.scopes.innermost(pid)
	for ; s != nil; s = s.outer {
		least = min(least, s.limit)
	}
	return uint32(least), err
}

// Separate opens a scope, within those that the process belongs to already: it and all that it and its descendants fork
// from now on may be at most limit live processes. rule is what the journal calls the limit.
func (h *Handler) Separate(p *supervise.Process, limit uint32, rule supervise.Event) (tag uint64, err error) {
	h.scopes.sweep()
	outer, err := h.scopes.innermost(p.PID)
	if err != nil {
		return 0, err
	}
	pidfd, err := h.census.open(p.PID)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(pidfd)
		}
	}()
	if !h.scopes.alive(p.PIDFD) {
		return 0, unix.ESRCH // its pid may be another's
	}
	s := &scope{outer: outer, limit: int(limit), rule: rule}
	if s.tag, err = h.scopes.take(p.PID); err != nil {
		return 0, err
	}
	if err := h.scopes.setTag(p.PID, s.tag); err != nil {
		return 0, fmt.Errorf("mark process %d: %w", p.PID, err)
	}
	s.census = h.census.part(Process{p.PID, pidfd}, func(pid int) (bool, error) { return h.scopes.holds(s, pid) })
	for _, a := range h.census.admitted {
		// Other threads of the process may be forking: the child is in the scope if it is made after now.
		if a.tid == 0 {
			continue
		}
		if group, err := h.scopes.group(a.tid); err != nil || group == p.PID {
			s.census.admitted = append(s.census.admitted, a)
		}
	}
	h.scopes.open[s.tag] = s
	return s.tag, nil
}
