package processes

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// Process is a live process, held by a pidfd so that its pid cannot come to mean another.
type Process struct{ PID, PIDFD int }

// census knows who is alive: the processes it has seen, and the forks it has admitted since it last looked.
//
// The sum is an upper bound that grows by one with each fork. Only when it reaches the limit does the census look:
// first which known processes have exited (one poll), then who is new (a walk through /proc).
type census struct {
	command   int                         // pidfd of the first process, which is not the census's to close: the loop waits for it
	member    func(pid int) (bool, error) // who counts; nil: everybody in the sandbox
	known     []Process
	admitted  []admission                  // forks admitted since the last walk whose outcome is unknown
	roots     func() ([]int, error)        // the executor's children that belong to the sandbox
	children  func(pid int) ([]int, error) // tests replace these four
	stat      func(pid int) (kernel.Stat, error)
	blockedIn func(tid int) (nr int, ok bool)
	open      func(pid int) (pidfd int, err error)
	now       func() time.Time
	forkCalls []int
	zombies   int
	moved     bool          // a fork is over, a process gone or admitted since walked
	walked    time.Time     // when everybody was counted and no place found
	complete  bool          // known was complete when last looked at, and nothing has been admitted since
	poll      []unix.PollFd // reused by bury
}

type admission struct {
	tid  int
	when time.Time
}

const (
	// pendingFor is how long an admitted fork counts although nothing shows that it happened: its thread runs, and may
	// still be inside the call. Longer than any scheduling delay that one sandbox can inflict on itself.
	pendingFor = 500 * time.Millisecond
	// maxZombies bounds dead processes that nobody reaps. They hold a pid and little else, so they do not count
	// against the limit, but the host's pids are not for the taking.
	maxZombies = 1024
	// stillFull is how long a count that found no place is taken to hold while nothing shows that it does not: many threads
	// that fork at the limit would otherwise have everybody counted for each attempt.
	stillFull = 5 * time.Millisecond
	// maxWalks bounds the attempts to see the tree stand still.
	maxWalks = 8
)

func newCensus(command Process, roots func() ([]int, error)) *census {
	return &census{
		command:   command.PIDFD,
		known:     []Process{command},
		roots:     roots,
		children:  kernel.Children,
		stat:      kernel.ReadStat,
		blockedIn: kernel.BlockedIn,
		open:      func(pid int) (int, error) { return unix.PidfdOpen(pid, 0) },
		now:       time.Now,
	}
}

// part makes a census of some of the processes, of which one is known.
func (s *census) part(first Process, member func(pid int) (bool, error)) *census {
	const none = -1
	return &census{
		command: none, member: member, known: []Process{first}, roots: s.roots, children: s.children, stat: s.stat, blockedIn: s.blockedIn,
		open: s.open, now: s.now, forkCalls: s.forkCalls,
	}
}

// add counts a fork of a thread.
func (s *census) add(tid int) {
	s.admitted = append(s.admitted, admission{tid, s.now()})
	s.complete, s.moved = false, true
}

// empty reports whether certainly nobody is alive any more.
func (s *census) empty() bool {
	s.bury()
	return len(s.known) == 0 && (len(s.admitted) == 0 || s.walk() && s.bound() == 0)
}

// room reports whether one more process fits.
func (s *census) room(tid, limit int) bool {
	s.settle(tid)
	if s.bound() >= limit {
		s.bury()
	}
	full := func() bool { return s.bound() >= limit }
	dead := func() bool { return s.zombies > maxZombies+limit }
	if full() && s.complete {
		return false // nobody came since everybody was counted, and nobody went: a fork bomb is answered in one poll
	}
	if full() && !s.moved && s.now().Sub(s.walked) < stillFull {
		return false // forks were under way when everybody was counted, and none of them is known to be over
	}
	if (full() || dead()) && (!s.walk() || full() || dead()) {
		s.moved, s.walked = false, s.now()
		return false
	}
	return true
}

func (s *census) bound() int { return len(s.known) + len(s.admitted) }

// settle notes that a thread is back: whatever fork it was admitted for is over, and only a walk can tell whether
// the child lives. The entry stays, but no longer depends on the thread.
func (s *census) settle(tid int) {
	for i := range s.admitted {
		if s.admitted[i].tid == tid {
			s.admitted[i].tid = 0
			s.moved = true
		}
	}
}

// bury forgets known processes that have exited. One poll asks for all of them.
func (s *census) bury() {
	s.poll = s.poll[:0]
	for _, p := range s.known {
		s.poll = append(s.poll, unix.PollFd{Fd: int32(p.PIDFD), Events: unix.POLLIN})
	}
	if n, err := unix.Poll(s.poll, 0); err != nil || n == 0 {
		return // interrupted: they are buried the next time
	}
	s.moved = true
	kept := s.known[:0]
	for i, p := range s.known {
		switch {
		case s.poll[i].Revents == 0:
			kept = append(kept, p)
		case p.PIDFD != s.command:
			_ = unix.Close(p.PIDFD)
		}
	}
	s.known = kept
}

func (s *census) release() {
	for _, p := range s.known {
		if p.PIDFD != s.command {
			_ = unix.Close(p.PIDFD)
		}
	}
	s.known = nil
}

// walk makes known complete and drops the admissions whose outcome is thereby known. It repeats until no process
// exited meanwhile: an exit moves children to another parent, where the walk may have looked already.
func (s *census) walk() bool {
	for range maxWalks {
		// Decided before the tree is read: a fork that is over by now has its child in the tree, or the child has
		// come and gone.
		pending := slices.DeleteFunc(slices.Clone(s.admitted), s.settled)
		if !s.discover() {
			return false
		}
		before := len(s.known)
		s.bury()
		if len(s.known) == before {
			s.admitted = pending
			s.complete = len(pending) == 0
			return true
		}
	}
	return false
}

// settled reports whether an admitted fork is certainly over.
func (s *census) settled(a admission) bool {
	if a.tid == 0 {
		return true
	}
	if _, err := s.stat(a.tid); err != nil {
		return true // the thread is gone
	}
	if nr, ok := s.blockedIn(a.tid); ok {
		return !slices.Contains(s.forkCalls, nr)
	}
	return s.now().Sub(a.when) > pendingFor
}

// discover adds the live processes of the tree that are not known yet. It fails when one cannot be held by a pidfd.
func (s *census) discover() bool {
	s.zombies = 0
	known := make(map[int]bool, len(s.known))
	for _, p := range s.known {
		known[p.PID] = true
	}
	roots, err := s.roots()
	if err != nil {
		return false
	}
	return supervise.Walk(roots, s.children, func(pid int) (descend bool, err error) {
		st, err := s.stat(pid)
		if err != nil {
			return false, nil // exited and reaped: the next walk sees where its children went
		}
		if st.Dead() {
			if s.member == nil {
				s.zombies++ // the sandbox's to bound
			}
			return false, nil // its children have moved on already
		}
		if !known[pid] {
			if s.member != nil {
				if counts, err := s.member(pid); err != nil || !counts {
					return true, err
				}
			}
			fd, err := s.open(pid)
			if err == unix.ESRCH {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			s.known = append(s.known, Process{pid, fd})
		}
		return true, nil
	}) == nil
}
