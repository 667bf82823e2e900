package memory

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

const mb = 1 << 20

// world is a set of processes whose memory the test decides, and the handler of their limit.
type world struct {
	*Handler
	spaces   map[int]*space
	threads  map[int]int // thread → process
	known    map[int]*supervise.Process
	children map[int][]int
	clock    time.Time
	looks    int // at /proc
	close    int // at page tables
	events   []supervise.Event
	exit     func(*supervise.Process)
}

// space is what the kernel says of one process.
type space struct {
	statm    kernel.Statm
	forked   bool
	share    uint64
	threads  uint64
	faults   uint64
	same     int // pid of a process that uses the same address space
	mappings []kernel.Mapping
	dead     bool
}

func newWorld(limit uint64) *world {
	w := &world{
		spaces: map[int]*space{}, threads: map[int]int{}, known: map[int]*supervise.Process{}, children: map[int][]int{},
		clock: time.Unix(1000, 0),
	}
	l := newLedger(limit, system{
		statm: func(pid int) (kernel.Statm, error) {
			w.looks++
			s := w.spaces[pid]
			if s == nil || s.dead {
				return kernel.Statm{}, unix.ENOENT
			}
			return s.statm, nil
		},
		image: func(pid int) (kernel.Image, error) {
			if w.spaces[pid] == nil {
				return kernel.Image{}, unix.ENOENT
			}
			return kernel.Image{Forked: w.spaces[pid].forked, BrkStart: 0x1000, Threads: w.spaces[pid].threads, Faults: w.spaces[pid].faults}, nil
		},
		share: func(pid int) (uint64, error) { w.close++; return w.spaces[pid].share, nil },
		compareMemory: func(pid, other int) int {
			if s := w.spaces[pid]; s.same != 0 {
				pid = s.same
			}
			if s := w.spaces[other]; s != nil && s.same != 0 {
				other = s.same
			}
			return cmp.Compare(pid, other)
		},
		mappings: func(pid int, f func(kernel.Mapping) bool) error {
			for _, m := range w.spaces[pid].mappings {
				if !f(m) {
					break
				}
			}
			return nil
		},
		segments: func() ([]segment, error) { return nil, errors.New("none here") },
		alive:    func(int) bool { return true },
		now:      func() time.Time { return w.clock },
		sleep:    func(d time.Duration) { w.clock = w.clock.Add(d) },
	})
	w.Handler = newHandler(Options{
		Arch: abi.AMD64, Limit: limit, Command: 10, Processes: w, Journal: w,
		Roots: func() ([]int, error) { return w.children[1], nil },
		Rule:  supervise.Event{Rule: "limits.memory", Origin: "p.cue:1:1"},
	}, l)
	w.Handler.children = func(pid int) ([]int, error) { return w.children[pid], nil }
	return w
}

// start adds a process with an amount of data.
func (w *world) start(pid, parent int, data uint64) *space {
	s := &space{statm: kernel.Statm{Total: data + mb, Data: data}}
	w.spaces[pid], w.threads[pid] = s, pid
	w.known[pid] = &supervise.Process{PID: pid, PIDFD: -1}
	w.children[parent] = append(w.children[parent], pid)
	return s
}

func (w *world) Of(tid int) (*supervise.Process, error)  { return w.known[w.threads[tid]], nil }
func (w *world) Add(pid int) (*supervise.Process, error) { return w.known[pid], nil }
func (w *world) OnExit(f func(*supervise.Process))       { w.exit = f }
func (w *world) Record(e supervise.Event)                { w.events = append(w.events, e) }

func (w *world) call(tid int, name string, args ...uint64) string {
	nr, _ := abi.SyscallNumber(abi.AMD64, name)
	var all [6]uint64
	copy(all[:], args)
	return w.Handle(supervise.NewCall(tid, nr, all, &supervisetest.Memory{})).String()
}

const anonymous = unix.MAP_PRIVATE | unix.MAP_ANON

// mmap asks for private memory, and has it if admitted.
func (w *world) mmap(tid int, n uint64) string {
	v := w.ask(tid, n)
	if v != "kill" {
		w.spaces[w.threads[tid]].statm.Data += n
	}
	return v
}

// ask asks for private memory that never comes.
func (w *world) ask(tid int, n uint64) string {
	return w.call(tid, "mmap", 0, n, unix.PROT_WRITE, anonymous, math.MaxUint64)
}

const goesOn = "continue: decided on registers"

func (w *world) want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s (charged %d MB of %d)", what, got, want, w.ledger.whole().total()/mb, w.Limit/mb)
	}
}

func TestOneCapForAll(t *testing.T) {
	w := newWorld(100 * mb)
	w.start(10, 1, 20*mb)
	w.start(11, 10, 20*mb)
	w.want(t, "first", w.mmap(10, 20*mb), goesOn)
	w.want(t, "second", w.mmap(11, 30*mb), goesOn)
	w.want(t, "too much", w.mmap(10, 20*mb), "kill")
	if len(w.events) != 1 || w.events[0].Kind != "limit" || w.events[0].Rule != "limits.memory" || w.events[0].PID != 10 {
		t.Errorf("journal: %+v", w.events)
	}
	if n, command := w.Kills(); n != 1 || !command {
		t.Errorf("%d kills, command %v", n, command)
	}
	// Neither the dying owe anything, nor the dead.
	w.want(t, "after the kill", w.ask(11, 40*mb), goesOn)
	w.exit(w.known[10])
	w.want(t, "after an exit", w.mmap(11, 20*mb), goesOn)
	w.want(t, "too much for one", w.mmap(11, 50*mb), "kill")
}

func TestNoLookWhileTheBoundsFit(t *testing.T) {
	w := newWorld(100 * mb)
	w.start(10, 1, mb)
	w.want(t, "first", w.mmap(10, 1), goesOn)
	before := w.looks
	for range 1000 {
		w.want(t, "small", w.mmap(10, 4096), goesOn)
	}
	if w.looks != before {
		t.Errorf("%d looks at /proc for calls that fit", w.looks-before)
	}
	nr, _ := abi.SyscallNumber(abi.AMD64, "mprotect")
	c := supervise.NewCall(10, nr, [6]uint64{0, 1, unix.PROT_WRITE}, nil)
	if n := testing.AllocsPerRun(1000, func() { w.Handle(c) }); n > 0 {
		t.Errorf("%v allocations a call", n)
	}
}

func TestNothingStaysChargedForEver(t *testing.T) {
	w := newWorld(100 * mb)
	s := w.start(10, 1, 10*mb)
	for range 100 { // each fails in the kernel, or is unmapped again
		w.want(t, "in vain", w.ask(10, 50*mb), goesOn)
	}
	s.statm.Data = 90 * mb
	w.want(t, "what is there", w.ask(10, 50*mb), "kill")
}

func TestThreadsShareAnAccount(t *testing.T) {
	w := newWorld(100 * mb)
	w.start(10, 1, 10*mb)
	w.threads[12], w.threads[13] = 10, 10
	w.want(t, "one thread", w.mmap(12, 40*mb), goesOn)
	w.want(t, "another", w.mmap(13, 40*mb), goesOn)
	w.want(t, "a third", w.mmap(10, 40*mb), "kill")
}

// A reading that is too early to show another thread's admitted call must not make room for a second one.
func TestCallsInFlight(t *testing.T) {
	w := newWorld(100 * mb)
	s := w.start(10, 1, 10*mb)
	w.threads[12] = 10
	w.want(t, "first", w.ask(10, 60*mb), goesOn)
	w.ledger.sys.sleep = func(d time.Duration) { // meanwhile it is carried out
		w.clock = w.clock.Add(d)
		s.statm.Data = 70 * mb
	}
	w.want(t, "second", w.ask(12, 60*mb), "kill")
}

func TestForkIsNotChargedTwice(t *testing.T) {
	w := newWorld(100 * mb)
	w.start(10, 1, 60*mb)
	w.want(t, "parent", w.mmap(10, mb), goesOn)
	child := w.start(11, 10, 61*mb)
	child.forked = true
	w.want(t, "child", w.mmap(11, 10*mb), goesOn)
	w.want(t, "child beyond the rest", w.mmap(11, 40*mb), "kill")
}

func TestExecEndsInheritance(t *testing.T) {
	w := newWorld(100 * mb)
	w.start(10, 1, 60*mb)
	w.want(t, "parent", w.mmap(10, mb), goesOn)
	child := w.start(11, 10, 61*mb)
	child.forked = true
	w.want(t, "child", w.mmap(11, mb), goesOn)
	child.forked, child.statm = false, kernel.Statm{Total: mb, Data: 30 * mb}
	w.check() // from time to time
	w.want(t, "after execve", w.mmap(11, 20*mb), "kill")
}

func TestCopiesAreCharged(t *testing.T) {
	w := newWorld(100 * mb)
	w.start(10, 1, 60*mb)
	w.want(t, "parent", w.mmap(10, mb), goesOn)
	child := w.start(11, 10, 61*mb)
	child.forked, child.share = true, 35*mb // written since
	w.want(t, "child", w.mmap(11, mb), goesOn)
	w.want(t, "child", w.mmap(11, 3*mb), goesOn)
	w.want(t, "child", w.mmap(11, 100*mb), "kill")
}

// Three children share 60 MB with their parent: it is there once, and charged once.
func TestManyChildrenShare(t *testing.T) {
	w := newWorld(100 * mb)
	parent := w.start(10, 1, 60*mb)
	parent.statm.Anon, parent.share = 60*mb, 15*mb
	w.want(t, "parent", w.mmap(10, mb), goesOn)
	for pid := 11; pid < 14; pid++ {
		child := w.start(pid, 10, 61*mb)
		child.forked, child.share = true, 15*mb
		child.statm.Anon = 60 * mb
		w.want(t, "child", w.mmap(pid, mb), goesOn)
	}
	w.want(t, "parent in the rest", w.mmap(10, 35*mb), goesOn)
	w.want(t, "parent beyond", w.mmap(10, 10*mb), "kill")
}

func TestVforkSharesTheSpace(t *testing.T) {
	w := newWorld(100 * mb)
	w.start(10, 1, 60*mb)
	w.want(t, "parent", w.mmap(10, mb), goesOn)
	child := w.start(11, 10, 61*mb)
	child.forked, child.share, child.same = true, 61*mb, 10
	child.statm.Anon = 61 * mb
	w.want(t, "child", w.mmap(11, mb), goesOn)
	w.spaces[10].statm.Data += mb // it is the same memory
	w.want(t, "child in the rest", w.mmap(11, 30*mb), goesOn)
}

func TestUnusedStacksAreForgiven(t *testing.T) {
	w := newWorld(100 * mb)
	s := w.start(10, 1, 10*mb)
	for range 50 {
		w.want(t, "stack", w.mmap(10, 8*mb), goesOn)
		s.threads++
	}
	s.statm.Anon = 95 * mb
	w.want(t, "once they are used", w.mmap(10, 30*mb), "kill")
}

func TestFilledAndMadeReadOnly(t *testing.T) {
	w := newWorld(100 * mb)
	s := w.start(10, 1, 10*mb)
	w.want(t, "first", w.mmap(10, mb), goesOn)
	s.statm.Anon = 90 * mb
	w.want(t, "more", w.mmap(10, 95*mb), "kill")
}

func TestSharedMemory(t *testing.T) {
	shared := func(w *world, n uint64) string {
		return w.call(10, "mmap", 0, n, unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON, math.MaxUint64)
	}
	object := func(ino, n uint64) kernel.Mapping {
		return kernel.Mapping{Start: 0x10000, End: 0x10000 + n, Writable: true, Shared: true, Anonymous: true, Inode: kernel.Inode{Dev: 1, Ino: ino}}
	}
	w := newWorld(100 * mb)
	s := w.start(10, 1, 10*mb)
	w.want(t, "first", shared(w, 40*mb), goesOn)
	s.mappings = []kernel.Mapping{object(1, 4096)} // a page is left, and all of it is still there
	w.want(t, "second", shared(w, 60*mb), "kill")
	w.exit(w.known[10]) // another takes its place
	s.mappings = nil
	w.clock = w.clock.Add(time.Second)
	w.want(t, "after the end", shared(w, 60*mb), goesOn)
	s.mappings = []kernel.Mapping{object(2, 60*mb)}
	w.want(t, "known", shared(w, 40*mb), "kill")
	w.exit(w.known[10])
	// Whoever maps it keeps it, even if only a child does.
	child := w.start(11, 10, 10*mb)
	child.forked, child.mappings = true, s.mappings
	s.mappings = nil
	w.clock = w.clock.Add(time.Second)
	w.want(t, "with a child", shared(w, 40*mb), "kill")
}

func TestSegments(t *testing.T) {
	w := newWorld(100 * mb)
	w.start(10, 1, 10*mb)
	var there []segment
	w.ledger.sys.segments = func() ([]segment, error) { return there, nil }
	get := func(n uint64) string { return w.call(10, "shmget", unix.IPC_PRIVATE, n, 0o600) }
	w.want(t, "first", get(40*mb), goesOn)
	there = []segment{{40 * mb, 10}, {900 * mb, 77}} // one of them is somebody else's
	w.want(t, "second", get(40*mb), goesOn)
	there = there[1:]
	w.want(t, "after removal", get(60*mb), goesOn)
	there = append(there, segment{60 * mb, 10})
	w.want(t, "third", get(40*mb), "kill")
}

func TestParseSegments(t *testing.T) {
	const head = "       key      shmid perms                  size  cpid  lpid nattch\n"
	for text, want := range map[string][]segment{
		"":   nil,
		head: nil,
		head + "         0          0   600                  4096 16525     0      0\n": {{4096, 16525}},
	} {
		got, err := parseSegments([]byte(text))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{head + "1 2 3\n", head + "0 0 600 x 1\n", head + "0 0 600 1 x\n"} {
		if _, err := parseSegments([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestUse(t *testing.T) {
	w := newWorld(100 * mb)
	parent := w.start(10, 1, 60*mb)
	parent.statm.Anon, parent.share = 60*mb, 40*mb
	child := w.start(11, 10, 60*mb)
	child.forked, child.share = true, 40*mb
	child.statm.Anon = 60 * mb
	want := func(what string, used uint64, closely bool) {
		t.Helper()
		w.close = 0
		if got := w.check(); got != used*mb || (w.close > 0) != closely {
			t.Errorf("%s: %d MB used, %d looks at page tables; want %d, %v", what, got/mb, w.close, used, closely)
		}
	}
	want("pages that are shared count once", 80, true)
	want("nothing has changed", 80, false)
	child.share, child.faults = 50*mb, 10*mb/pageSize
	want("copies are seen as page faults", 90, false)
	child.share, child.faults = 61*mb, 21*mb/pageSize
	want("too much", 101, true)
	child.share = 30 * mb
	w.clock = w.clock.Add(time.Minute)
	want("after a while", 70, true)
	parent.statm.Anon += 10 * mb
	want("new pages are seen in their number", 80, false)
	w.exit(w.known[10])
	w.children[1], parent.dead = []int{11}, true
	want("one is left", 60, false)
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0", 1: "1", 1000: "1000", 1024: "1K", 64 * mb: "64M", 1536 * mb: "1536M", 4 << 30: "4G", 63<<20 + 1: "63M", 10<<30 + 5: "10G",
	} {
		if got := Size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func FuzzParseSegments(f *testing.F) {
	f.Add([]byte("       key      shmid perms                  size  cpid\n 0 1 600 4096 77 5\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseSegments(b) })
}

// A call that fits: what the handler itself adds to the kernel's notification.
func BenchmarkAdmit(b *testing.B) {
	w := newWorld(1 << 62)
	w.start(10, 1, mb)
	nr, _ := abi.SyscallNumber(abi.AMD64, "mmap")
	c := supervise.NewCall(10, nr, [6]uint64{0, 1, unix.PROT_WRITE, anonymous, math.MaxUint64}, nil)
	b.ReportAllocs()
	for b.Loop() {
		w.Handle(c)
	}
}
