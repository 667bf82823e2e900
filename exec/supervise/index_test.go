package supervise

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// tasks is what the kernel would say of threads. Pidfds are pipes: their write ends are closed at exit.
type tasks struct {
	t      *testing.T
	group  map[int]int
	start  map[int]uint64
	ends   map[int][]int // by tid: write ends of what was opened for it
	opened int
}

func newTasks(t *testing.T) (*tasks, *Index) {
	k := &tasks{t: t, group: map[int]int{}, start: map[int]uint64{}, ends: map[int][]int{}}
	open := func(tid int) (int, error) {
		if _, ok := k.group[tid]; !ok {
			return -1, unix.ESRCH
		}
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		k.opened++
		k.ends[tid] = append(k.ends[tid], pipe[1])
		return pipe[0], nil
	}
	return k, newIndex(func(int, func()) error { return nil }, func(int) {}, lookup{
		group: func(tid int) (int, error) {
			if pid, ok := k.group[tid]; ok {
				return pid, nil
			}
			return 0, unix.ESRCH
		},
		stat: func(pid int) (kernel.Stat, error) {
			return kernel.Stat{State: 'R', Parent: 1, Start: k.start[pid]}, nil
		},
		open:       open,
		openThread: open,
		alive:      kernel.Alive,
	})
}

func (k *tasks) live(tid, pid int, start uint64) { k.group[tid], k.start[tid] = pid, start }

func (k *tasks) exit(tid int) {
	for _, fd := range k.ends[tid] {
		_ = unix.Close(fd)
	}
	delete(k.ends, tid)
	delete(k.group, tid)
}

func mustBe(t *testing.T, x *Index, tid, pid int, start uint64) *Process {
	t.Helper()
	p, err := x.Of(tid)
	if err != nil || p.PID != pid || p.Start != start {
		t.Fatalf("process of %d: got %+v, %v; want pid %d from %d", tid, p, err, pid, start)
	}
	return p
}

func TestIndexKnowsThreadsAndReusedNumbers(t *testing.T) {
	k, x := newTasks(t)
	var gone []*Process
	x.OnExit(func(p *Process) { gone = append(gone, p) })
	k.live(10, 10, 100)
	k.live(11, 10, 100)
	first := mustBe(t, x, 10, 10, 100)
	for range 2 { // looked up, then remembered
		if mustBe(t, x, 11, 10, 100) != first {
			t.Error("a thread's process is another one than its leader's")
		}
	}
	if k.opened != 2 {
		t.Errorf("%d pidfds opened for a process and a thread, want 2", k.opened)
	}
	// The thread ends and its number goes to a new process.
	k.exit(11)
	k.live(11, 11, 200)
	second := mustBe(t, x, 11, 11, 200)
	if second == first {
		t.Error("the number of an ended thread is still taken for its process")
	}
	// The process ends and its pid goes to another.
	k.exit(10)
	k.live(10, 10, 300)
	if third := mustBe(t, x, 10, 10, 300); third == first {
		t.Error("a reused pid is taken for the process that had it before")
	}
	if len(gone) != 1 || gone[0] != first {
		t.Errorf("exits %+v, want the first process", gone)
	}
	k.exit(11)
	if p := x.Known(11); p != nil {
		t.Errorf("an exited process is known: %+v", p)
	}
	if _, err := x.Of(99); err == nil {
		t.Error("a thread that does not exist has a process")
	}
}

func TestIndexBoundsRememberedThreads(t *testing.T) {
	k, x := newTasks(t)
	for tid := 10; tid < 10+2*maxThreads; tid++ {
		k.live(tid, 10, 1)
		mustBe(t, x, tid, 10, 1)
		if len(x.threads) > maxThreads {
			t.Fatalf("%d threads remembered, at most %d", len(x.threads), maxThreads)
		}
	}
}
