package processes

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// world is a process tree that the test controls. Its pidfds are pipes: closing the write end "exits" the process,
// which makes the read end readable as a pidfd would be.
type world struct {
	t          *testing.T
	parent     map[int]int
	exit       map[int][]*os.File
	zombie     map[int]bool
	leaderless map[int]bool // the first thread is dead, others live
	blocked    map[int]int  // thread → system call
	clock      time.Time
	walks      int
	openErr    error
}

const root = 10

func newWorld(t *testing.T) (*world, *census) {
	w := &world{t: t, parent: map[int]int{}, exit: map[int][]*os.File{}, zombie: map[int]bool{}, leaderless: map[int]bool{}, blocked: map[int]int{}, clock: time.Unix(1000, 0)}
	w.spawn(root, 1)
	fd, err := w.open(root)
	if err != nil {
		t.Fatal(err)
	}
	c := newCensus(Process{root, fd}, func() ([]int, error) { w.walks++; return w.childrenOf(1), nil })
	c.children = func(pid int) ([]int, error) { return w.childrenOf(pid), nil }
	c.stat = func(pid int) (kernel.Stat, error) {
		if _, ok := w.parent[pid]; !ok {
			return kernel.Stat{}, os.ErrNotExist
		}
		if w.zombie[pid] {
			return kernel.Stat{State: 'Z', Threads: 1}, nil
		}
		if w.leaderless[pid] {
			return kernel.Stat{State: 'Z', Threads: 2}, nil
		}
		return kernel.Stat{State: 'R'}, nil
	}
	c.blockedIn = func(tid int) (int, bool) { nr, ok := w.blocked[tid]; return nr, ok }
	c.open = w.open
	c.now = func() time.Time { return w.clock }
	c.forkCalls = []int{56}
	return w, c
}

// admit is what the handler does with one limit.
func (s *census) admit(tid, limit int) bool {
	fits := s.room(tid, limit)
	if fits {
		s.add(tid)
	}
	return fits
}

func (w *world) spawn(pid, parent int) { w.parent[pid] = parent }

func (w *world) open(pid int) (int, error) {
	if w.openErr != nil {
		return -1, w.openErr
	}
	r, wr, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	w.exit[pid] = append(w.exit[pid], wr)
	fd, err := unix.Dup(int(r.Fd()))
	if err != nil {
		w.t.Fatal(err)
	}
	_ = r.Close()
	return fd, nil
}

// die ends a process; reaped ones vanish, others stay as zombies. Children move to the executor.
func (w *world) die(pid int, reaped bool) {
	for _, f := range w.exit[pid] {
		_ = unix.Close(int(f.Fd())) // no more writers: POLLHUP
		_ = f.Close()
	}
	for child, parent := range w.parent {
		if parent == pid {
			w.parent[child] = 1
		}
	}
	if reaped {
		delete(w.parent, pid)
	} else {
		w.zombie[pid] = true
	}
}

func (w *world) childrenOf(pid int) (list []int) {
	for child, parent := range w.parent {
		if parent == pid {
			list = append(list, child)
		}
	}
	return list
}

func TestLimitCountsTheCommandItself(t *testing.T) {
	w, c := newWorld(t)
	if !c.admit(root, 3) {
		t.Fatal("second process refused under a limit of 3")
	}
	w.spawn(11, root)
	if !c.admit(root, 3) {
		t.Fatal("third process refused under a limit of 3")
	}
	w.spawn(12, root)
	if c.admit(root, 3) {
		t.Fatal("fourth process admitted under a limit of 3")
	}
}

func TestSequentialForksNeverDrift(t *testing.T) {
	for _, reaped := range []bool{true, false} {
		w, c := newWorld(t)
		for i := range 900 { // fewer than maxZombies when nobody reaps
			if !c.admit(root, 3) {
				t.Fatalf("fork %d refused though its predecessors are dead (reaped %v)", i, reaped)
			}
			w.spawn(100+i, root)
			w.die(100+i, reaped)
		}
		if w.walks > 900 {
			t.Errorf("%d walks for 900 forks: counting must be rare", w.walks)
		}
	}
}

func TestZombiesAreBounded(t *testing.T) {
	w, c := newWorld(t)
	for i := range maxZombies + 100 {
		w.spawn(100+i, root)
		w.zombie[100+i] = true
	}
	c.admit(root, 2)
	c.admit(root, 2)
	if c.admit(root, 2) {
		t.Error("a process with more than maxZombies unreaped children may go on forking")
	}
}

func TestOrphansStayCounted(t *testing.T) {
	w, c := newWorld(t)
	c.admit(root, 3)
	w.spawn(11, root)
	c.admit(11, 3)
	w.spawn(12, 11)
	w.die(11, true) // 12 moves to the executor
	if !c.admit(root, 3) {
		t.Fatal("refused at two live processes under a limit of 3")
	}
	w.spawn(13, root)
	if c.admit(root, 3) {
		t.Fatal("the orphan is no longer counted")
	}
}

func TestProcessWithoutItsLeaderIsCounted(t *testing.T) {
	w, c := newWorld(t)
	c.admit(root, 2)
	w.spawn(11, root)
	w.leaderless[11] = true
	if c.admit(root, 2) {
		t.Error("a process whose first thread has exited is taken for dead")
	}
}

func TestForkInFlightCounts(t *testing.T) {
	w, c := newWorld(t)
	w.spawn(500, root) // a thread of the command, admitted but not yet through the call
	if !c.admit(500, 3) {
		t.Fatal("refused below the limit")
	}
	w.spawn(11, root)
	c.known = append(c.known, Process{11, mustOpen(t, w, 11)})
	delete(w.parent, 500)
	w.parent[500] = 0 // exists for stat, is nobody's child
	if c.admit(root, 3) {
		t.Error("admitted although a fork is still in flight")
	}
	w.blocked[500] = 0 // now it sleeps in read: the fork is over and its child came and went
	w.clock = w.clock.Add(stillFull)
	if !c.admit(root, 3) {
		t.Error("refused although the fork in flight is over")
	}
	c.admitted = []admission{{tid: 500, when: w.clock}}
	w.blocked[500] = 56
	if c.admit(root, 3) {
		t.Error("admitted although a thread sleeps inside clone")
	}
	if walks := w.walks; c.admit(root, 3) || w.walks != walks {
		t.Error("everybody is counted anew although nothing has happened")
	}
	delete(w.blocked, 500)
	w.clock = w.clock.Add(pendingFor + time.Millisecond)
	if !c.admit(root, 3) {
		t.Error("a fork that nothing is known of counts for ever")
	}
}

func mustOpen(t *testing.T, w *world, pid int) int {
	t.Helper()
	fd, err := w.open(pid)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestUncountableMeansRefused(t *testing.T) {
	w, c := newWorld(t)
	c.admit(root, 2)
	w.spawn(11, root)
	w.openErr = unix.EMFILE
	if c.admit(root, 2) {
		t.Error("admitted although the live processes could not be counted")
	}
	w.openErr = nil
	c.roots = func() ([]int, error) { return nil, errors.New("no /proc") }
	if c.admit(root, 2) {
		t.Error("admitted although /proc could not be read")
	}
}

// The loop waits for the command by the same descriptor: were it closed here, or its number another file's, the end would
// never be seen.
func TestCommandsDescriptorIsNotClosed(t *testing.T) {
	w, c := newWorld(t)
	command := c.known[0]
	w.spawn(11, 1) // adopted: it outlives the command
	if !c.admit(11, 3) {
		t.Fatal("refused below the limit")
	}
	w.die(root, true)
	c.bury()
	if _, err := unix.FcntlInt(uintptr(command.PIDFD), unix.F_GETFD, 0); err != nil || len(c.known) != 0 {
		t.Errorf("after the command's end: %v, %d known processes; want its pidfd open and it forgotten", err, len(c.known))
	}
	_ = unix.Close(command.PIDFD)
}
