package random

import (
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

type notes []supervise.Event

func (n *notes) Record(e supervise.Event) { *n = append(*n, e) }

// sandbox is a handler whose processes have their thread id as pid, and run what args says.
type sandbox struct {
	*Handler
	processes map[int]*supervise.Process
	args      map[int]string
	journal   notes
	granted   bool
}

func newSandbox(seed uint64) *sandbox {
	s := &sandbox{processes: map[int]*supervise.Process{}, args: map[int]string{}, granted: true}
	s.Handler = New(abi.AMD64, Config{
		Seed:   seed,
		Grants: func(string, uint64) bool { return s.granted },
		Of: func(tid int) (*supervise.Process, error) {
			if tid < 0 {
				return nil, errors.New("no such process")
			}
			if s.processes[tid] == nil {
				s.processes[tid] = &supervise.Process{PID: tid}
			}
			return s.processes[tid], nil
		},
		Args: func(pid int) []byte { return []byte(s.args[pid]) },
		Rule: supervise.Event{Rule: "determinism.random_seed"},
	}, &s.journal)
	return s
}

func (s *sandbox) call(tid int, name string, m *supervisetest.Memory, args ...uint64) supervise.Verdict {
	nr, _ := abi.SyscallNumber(abi.AMD64, name)
	var a [6]uint64
	copy(a[:], args)
	return s.Handle(supervise.NewCall(tid, nr, a, m))
}

// draw is n bytes of getrandom.
func (s *sandbox) draw(t *testing.T, tid, n int) string {
	t.Helper()
	m := &supervisetest.Memory{Bytes: make([]byte, n)}
	if v := s.call(tid, "getrandom", m, supervisetest.Base, uint64(n), 0); v.String() != supervise.Return(int64(n)).String() {
		t.Fatalf("getrandom of %d bytes: %v", n, v)
	}
	return string(m.Bytes)
}

func TestGetrandom(t *testing.T) {
	for _, tc := range []struct {
		name    string
		length  uint64
		flags   uint64
		memory  supervisetest.Memory
		verdict supervise.Verdict
	}{
		{"plain", 8, 0, supervisetest.Memory{Bytes: make([]byte, 8)}, supervise.Return(8)},
		{"flags that change nothing here", 8, unix.GRND_NONBLOCK | unix.GRND_RANDOM | 1<<32, supervisetest.Memory{Bytes: make([]byte, 8)}, supervise.Return(8)},
		{"an unknown flag", 8, 8, supervisetest.Memory{Bytes: make([]byte, 8)}, supervise.Errno(unix.EINVAL)},
		{"flags that contradict", 8, unix.GRND_RANDOM | unix.GRND_INSECURE, supervisetest.Memory{Bytes: make([]byte, 8)}, supervise.Errno(unix.EINVAL)},
		{"nothing", 0, 0, supervisetest.Memory{}, supervise.Return(0)},
		{"unmapped", 8, 0, supervisetest.Memory{}, supervise.Errno(unix.EFAULT)},
		{"read-only", 8, 0, supervisetest.Memory{Bytes: make([]byte, 8), ReadOnly: true}, supervise.Errno(unix.EFAULT)},
		{"more than is done at once", 1 << 63, 0, supervisetest.Memory{Bytes: make([]byte, maxFill)}, supervise.Return(maxFill)},
		{"caller is gone", 8, 0, supervisetest.Memory{Bytes: make([]byte, 8), Gone: true}, supervise.Errno(unix.ESRCH)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := newSandbox(1).call(1, "getrandom", &tc.memory, supervisetest.Base, tc.length, tc.flags)
			if got.String() != tc.verdict.String() {
				t.Errorf("verdict %v, want %v", got, tc.verdict)
			}
		})
	}
	s := newSandbox(1)
	if got := s.call(-1, "getrandom", &supervisetest.Memory{}, supervisetest.Base, 8, 0); got.String() != "errno EACCES" || len(s.journal) != 1 {
		t.Errorf("of an unknown process: %v, journal %+v; want EACCES and a record", got, s.journal)
	}
}

func TestStreams(t *testing.T) {
	one, same, other := newSandbox(1), newSandbox(1), newSandbox(2)
	first := one.draw(t, 10, 16)
	if got := same.draw(t, 77, 16); got != first {
		t.Errorf("same seed, another pid: %x, want %x", got, first)
	}
	if got := other.draw(t, 10, 16); got == first {
		t.Errorf("another seed: %x as well", got)
	}
	if got := one.draw(t, 10, 8) + one.draw(t, 10, 8); got == first || got != same.draw(t, 77, 16) {
		t.Errorf("further bytes %x: want others than %x, however they are asked for", got, first)
	}
	if got := one.draw(t, 11, 16); got == first || got != same.draw(t, 78, 16) {
		t.Errorf("a second process with the same arguments: %x, want other bytes than the first, the same in each sandbox", got)
	}
}

// The programs of a pipeline run in any order.
func TestOrderOfProgramsDoesNotMatter(t *testing.T) {
	draw := func(order ...int) map[int]string {
		s := newSandbox(1)
		s.args = map[int]string{1: "openssl\x00rand\x00", 2: "od\x00"}
		got := map[int]string{}
		for _, tid := range order {
			b, err := s.Image(supervise.NewCall(tid, 0, [6]uint64{}, &supervisetest.Memory{}))
			if err != nil {
				t.Fatal(err)
			}
			got[tid] = string(b[:]) + s.draw(t, tid, 8)
		}
		return got
	}
	a, b := draw(1, 2), draw(2, 1)
	if a[1] != b[1] || a[2] != b[2] || a[1] == a[2] {
		t.Errorf("%x and %x, want the same for each program in either order", a, b)
	}
}

func TestNewImageAndEnd(t *testing.T) {
	s := newSandbox(1)
	call := supervise.NewCall(1, 0, [6]uint64{}, &supervisetest.Memory{})
	one, _ := s.Image(call)
	drawn := s.draw(t, 1, 8)
	two, _ := s.Image(call)
	if again := s.draw(t, 1, 8); one == two || drawn == again {
		t.Errorf("after execve: AT_RANDOM %x, bytes %x, as before", two, again)
	}
	s.Forget(s.processes[1])
	if n := len(s.streams.alive); n != 0 {
		t.Errorf("%d streams of processes that have ended", n)
	}
}

func TestCommandLinesAreBounded(t *testing.T) {
	s := newStreams(1)
	p := &supervise.Process{}
	keys := map[key]bool{}
	for n := range maxCommandLines + 100 {
		keys[s.start(p, []byte{byte(n), byte(n >> 8), byte(n >> 16)}).key] = true
	}
	if len(s.before) != maxCommandLines || len(keys) != maxCommandLines+100 {
		t.Errorf("%d remembered, %d streams; want %d and each its own", len(s.before), len(keys), maxCommandLines)
	}
}

// open sets up what a path leads to, and opens it.
func (s *sandbox) open(name string, flags int, st unix.Stat_t, where string, pinErr error) supervise.Verdict {
	sources := s.files.sources
	s.files = files{
		stat:  func(*opens.Request) (unix.Stat_t, error) { return st, nil },
		where: func(*opens.Request) string { return where },
		pin: func(*opens.Request) (kernel.Pin, error) {
			return kernel.Pin{FD: -1, Path: "/dev/urandom"}, pinErr
		},
		sources: sources,
	}
	return s.call(1, "openat", &supervisetest.Memory{Bytes: append([]byte(name), 0)}, 1<<32-100, supervisetest.Base, uint64(flags))
}

func TestOpen(t *testing.T) {
	device := func(minor uint32) unix.Stat_t {
		return unix.Stat_t{Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(1, minor)}
	}
	file := unix.Stat_t{Mode: unix.S_IFREG | 0o644}
	pass, source, text := supervise.Pass(supervise.KernelDecides).String(), "descriptor with flags 0x0", "descriptor with flags 0x80000"
	for _, tc := range []struct {
		name   string
		path   string
		flags  int
		st     unix.Stat_t
		where  string
		denied bool
		pin    error
		want   string
	}{
		{"urandom", "/dev/urandom", unix.O_RDONLY, device(9), "", false, nil, source},
		{"random, closed by execve", "/dev/random", unix.O_RDONLY | unix.O_CLOEXEC, device(8), "", false, nil, text},
		{"under another name", "numbers", unix.O_RDONLY, device(9), "", false, nil, source},
		{"read and write", "/dev/urandom", unix.O_RDWR, device(9), "", false, nil, source},
		{"write only", "/dev/urandom", unix.O_WRONLY, device(9), "", false, nil, pass},
		{"a place only", "/dev/urandom", unix.O_PATH, device(9), "", false, nil, pass},
		{"a directory only", "/dev/urandom", unix.O_DIRECTORY, device(9), "", false, nil, pass},
		{"to be made", "/dev/urandom", unix.O_CREAT | unix.O_EXCL, device(9), "", false, nil, pass},
		{"not granted", "/dev/urandom", unix.O_RDONLY, device(9), "", true, nil, pass},
		{"cannot be reached from here", "/dev/urandom", unix.O_RDONLY, device(9), "", false, unix.ELOOP, "errno EACCES"},
		{"another device of memory", "/dev/zero", unix.O_RDONLY, device(5), "", false, nil, pass},
		{"another device of that number", "/dev/tty9", unix.O_RDONLY, unix.Stat_t{Mode: unix.S_IFCHR, Rdev: unix.Mkdev(4, 9)}, "", false, nil, pass},
		{"a block device", "/dev/ram9", unix.O_RDONLY, unix.Stat_t{Mode: unix.S_IFBLK, Rdev: unix.Mkdev(1, 9)}, "", false, nil, pass},
		{"a file", "/tmp/urandom", unix.O_RDONLY, file, "", false, nil, pass},
		{"no name", "", unix.O_RDONLY, device(9), "", false, nil, pass},
		{"uuid", uuidFile, unix.O_RDONLY | unix.O_CLOEXEC, file, uuidFile, false, nil, text},
		{"boot id by another path", "../random/boot_id", unix.O_RDONLY | unix.O_CLOEXEC, file, bootIDFile, false, nil, text},
		{"uuid, not granted", uuidFile, unix.O_RDONLY, file, uuidFile, true, nil, pass},
		{"uuid, to be written", uuidFile, unix.O_RDWR, file, uuidFile, false, nil, pass},
		{"another file named so", "/tmp/uuid", unix.O_RDONLY, file, "/tmp/uuid", false, nil, pass},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSandbox(1)
			s.granted = !tc.denied
			if got := s.open(tc.path, tc.flags, tc.st, tc.where, tc.pin); got.String() != tc.want {
				t.Errorf("open: %v, want %v (journal %+v)", got, tc.want, s.journal)
			}
		})
	}
}

func TestOpensAreBounded(t *testing.T) {
	s := newSandbox(1)
	s.files.sources.live.Store(maxSources)
	st := unix.Stat_t{Mode: unix.S_IFCHR, Rdev: unix.Mkdev(1, 9)}
	got := s.open("/dev/urandom", 0, st, "", nil)
	if got.String() != "errno ENFILE" || len(s.journal) != 1 || s.journal[0].Kind != "limit" {
		t.Errorf("open: %v, journal %+v; want ENFILE and a record", got, s.journal)
	}
}

func TestSource(t *testing.T) {
	var s sources
	open := func(k key, nonblock bool) *os.File {
		t.Helper()
		fd, err := s.open(k, nonblock)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "source")
	}
	a, b := open(key{1}, false), open(key{1}, false)
	defer b.Close()
	// One read gets all, as from the device.
	one := make([]byte, 64<<10)
	if n, err := a.Read(one); n != len(one) || err != nil {
		t.Errorf("the first read got %d bytes, %v; want %d", n, err, len(one))
	}
	// It is endless, and however it is read the bytes are the same.
	long := make([]byte, 5<<20)
	if _, err := io.ReadFull(b, long); err != nil || !bytes.Equal(long[:len(one)], one) {
		t.Errorf("a long read: %v, or other bytes", err)
	}
	rest := make([]byte, len(long)-len(one))
	if _, err := io.ReadFull(a, rest); err != nil || !bytes.Equal(long[len(one):], rest) {
		t.Errorf("the rest: %v, or other bytes", err)
	}
	flags, err := unix.FcntlInt(a.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %#x, %v; want a blocking descriptor", flags, err)
	}
	a.Close()
	b.Close()
	for s.live.Load() != 0 { // the test's own time limit ends it
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
}

func TestUUID(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for n := range 100 {
		if got := uuid(key{}.derive("test", nil, uint64(n))); !form.MatchString(got) {
			t.Errorf("%s is no random UUID", got)
		}
	}
}
