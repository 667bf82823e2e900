package dirs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// guest is a process with descriptors of this one.
type guest struct {
	t      *testing.T
	h      *Handler
	memory *supervisetest.Memory
	room   bool
}

func newGuest(t *testing.T) *guest {
	g := &guest{t: t, memory: &supervisetest.Memory{Bytes: make([]byte, 4096)}}
	g.h = New(abi.AMD64, func(*supervise.Call) bool { return g.room })
	g.h.duplicate = func(_, fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }
	return g
}

func (g *guest) open(path string, flags int) int {
	g.t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func (g *guest) call(name string, fd int, addr, count uint64) supervise.Verdict {
	nr, _ := abi.SyscallNumber(abi.AMD64, name)
	return g.h.Handle(supervise.NewCall(1, nr, [6]uint64{uint64(fd), addr, count}, g.memory))
}

// next makes one call that must succeed.
func (g *guest) next(fd int, count uint64) []item {
	g.t.Helper()
	v := g.call("getdents64", fd, supervisetest.Base, count).String()
	text, ok := strings.CutPrefix(v, "return ")
	n, err := strconv.Atoi(text)
	if !ok || err != nil || uint64(n) > count {
		g.t.Fatalf("verdict %s for a buffer of %d bytes", v, count)
	}
	return decode(g.t, g.memory.Bytes[:n], false)
}

func (g *guest) all(fd int, count uint64) (list []item) {
	g.t.Helper()
	for range 100_000 {
		got := g.next(fd, count)
		if len(got) == 0 {
			return list
		}
		list = append(list, got...)
	}
	g.t.Fatal("the listing does not end")
	return nil
}

func seek(t *testing.T, fd int, pos uint64) {
	t.Helper()
	if _, err := unix.Seek(fd, int64(pos), unix.SEEK_SET); err != nil {
		t.Fatal(err)
	}
}

func folder(t *testing.T, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range entries {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var letters = strings.Split("q w e r t z u i o p a s d f g h j k l y x c v b n m", " ")

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return append([]string{".", ".."}, list...)
}

func TestListing(t *testing.T) {
	g := newGuest(t)
	dir := folder(t, letters...)
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	want := sorted(append([]string{"link"}, letters...))
	fd := g.open(dir, unix.O_RDONLY)
	for _, count := range []uint64{24, 25, 64, 100, 4096} {
		seek(t, fd, 0)
		got := g.all(fd, count)
		if !slices.Equal(names(got), want) {
			t.Errorf("buffer of %d: %q, want %q", count, names(got), want)
		}
		for _, e := range got {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, e.name), &st); err != nil {
				t.Fatal(err)
			}
			if kind := byte(st.Mode & unix.S_IFMT >> 12); e.kind != kind || e.name != ".." && e.inode != st.Ino {
				t.Errorf("%s: type %d, inode %d, want %d, %d", e.name, e.kind, e.inode, kind, st.Ino)
			}
		}
	}
}

func TestOffsets(t *testing.T) {
	g := newGuest(t)
	dir := folder(t, letters...)
	fd := g.open(dir, unix.O_RDONLY)
	entries := g.all(fd, 100)
	if got := g.next(fd, 100); len(got) != 0 {
		t.Errorf("behind the end: %q", names(got))
	}
	for i, e := range entries[:len(entries)-1] {
		seek(t, fd, e.next)
		if got := g.next(fd, 24); got[0] != entries[i+1] {
			t.Errorf("behind %q: %q", e.name, names(got))
		}
	}
	other := g.open(dir, unix.O_RDONLY) // stands elsewhere
	copied, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	seek(t, fd, 0)
	for i := range entries {
		reader := []int{fd, copied}[i%2]
		if got := g.next(reader, 24); got[0] != entries[i] {
			t.Errorf("copies of a descriptor in turn: %q, want %q", names(got), entries[i].name)
		}
		if got := g.next(other, 24); got[0] != entries[i] {
			t.Errorf("a reader of its own: %q, want %q", names(got), entries[i].name)
		}
	}
}

// A listing that has begun is not disturbed by what happens to the directory, nor by others that begin.
func TestChangesMeanwhile(t *testing.T) {
	g := newGuest(t)
	dir := folder(t, letters...)
	fd := g.open(dir, unix.O_RDONLY)
	got := g.next(fd, 24*8)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	other := g.open(dir, unix.O_RDONLY)
	left := sorted(slices.DeleteFunc(slices.Clone(letters), func(s string) bool { return s <= "e" }))
	if got := names(g.all(other, 24)); !slices.Equal(got, left) {
		t.Errorf("begun after the change: %q, want %q", got, left)
	}
	got = append(got, g.all(fd, 24)...)
	if want := sorted(letters); !slices.Equal(names(got), want) {
		t.Errorf("begun before the change: %q, want %q", names(got), want)
	}
	seek(t, fd, 0)
	if got := names(g.all(fd, 4096)); !slices.Equal(got, left) {
		t.Errorf("after rewinddir: %q, want %q", got, left)
	}
	// Dropped listings end readers, they do not loop.
	seek(t, fd, 0)
	g.next(fd, 24*3)
	g.h.cache = cache{}
	if got := g.all(fd, 24); len(got) != len(left)-3 {
		t.Errorf("listing dropped: %q follow, want %d entries", names(got), len(left)-3)
	}
}

func TestErrors(t *testing.T) {
	const ours, kernels = 5<<indexBits | 1, "continue: decided on registers"
	g := newGuest(t)
	dir := folder(t, letters...)
	file := g.open(g.fileIn(dir), unix.O_RDONLY)
	gone := folder(t, "x") + "/gone"
	if err := os.Mkdir(gone, 0o755); err != nil {
		t.Fatal(err)
	}
	removed, started := g.open(gone, unix.O_RDONLY), g.open(gone, unix.O_RDONLY)
	g.next(started, 24)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	const end = supervisetest.Base + 4096
	for _, tc := range []struct {
		name        string
		fd          int
		pos         uint64
		addr, count uint64
		gone        bool
		want        string
	}{
		{name: "no room", fd: g.open(dir, 0), addr: supervisetest.Base, count: 23, want: "errno EINVAL"},
		{name: "nothing", fd: g.open(dir, 0), addr: supervisetest.Base, want: "errno EINVAL"},
		{name: "as int negative", fd: g.open(dir, 0), addr: supervisetest.Base, count: 1<<32 - 1, want: "errno EINVAL"},
		{name: "dirty upper half", fd: g.open(dir, 0), addr: supervisetest.Base, count: 7<<32 | 24, want: "return 24"},
		{name: "no room at the end", fd: g.open(dir, 0), pos: 1<<indexBits | 28, addr: supervisetest.Base, want: "return 0"},
		{name: "beyond the end", fd: g.open(dir, 0), pos: 1<<indexBits | 4000, addr: supervisetest.Base, count: 100, want: "return 0"},
		{name: "unmapped", fd: g.open(dir, 0), addr: 8, count: 100, want: "errno EFAULT"},
		{name: "partly unmapped", fd: g.open(dir, 0), addr: end - 80, count: 4096, want: "return 72"},
		{name: "a listing long dropped", fd: g.open(dir, 0), pos: ours, addr: supervisetest.Base, count: 24, want: "return 24"},
		{name: "an offset of the kernel's", fd: g.open(dir, 0), pos: 2, addr: supervisetest.Base, count: 100, want: kernels},
		{name: "a hash of the kernel's", fd: g.open(dir, 0), pos: 1 << 40, addr: supervisetest.Base, count: 100, want: kernels},
		{name: "procfs", fd: g.open("/proc/self/fd", 0), addr: supervisetest.Base, count: 100, want: kernels},
		{name: "no descriptor", fd: 1 << 20, addr: supervisetest.Base, count: 100, want: kernels},
		{name: "negative descriptor", fd: -1, addr: supervisetest.Base, count: 100, want: kernels},
		{name: "no directory", fd: file, addr: supervisetest.Base, count: 100, want: kernels},
		{name: "not open for reading", fd: g.open(dir, unix.O_PATH), addr: supervisetest.Base, count: 100, want: kernels},
		{name: "removed", fd: removed, addr: supervisetest.Base, count: 100, want: "errno ENOENT"},
		{name: "removed meanwhile", fd: started, pos: 1<<indexBits | 1, addr: supervisetest.Base, count: 100, want: "errno ENOENT"},
		{name: "caller is gone", fd: g.open(dir, 0), addr: supervisetest.Base, count: 100, gone: true, want: "errno ESRCH"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.pos != 0 {
				seek(t, tc.fd, tc.pos)
			}
			g.memory.Gone = tc.gone
			if got := g.call("getdents64", tc.fd, tc.addr, tc.count).String(); !alike(got, tc.want) {
				t.Errorf("verdict %q, want %q", got, tc.want)
			}
			if at, err := unix.Seek(tc.fd, 0, unix.SEEK_CUR); err == nil && !strings.HasPrefix(tc.want, "return") && uint64(at) != tc.pos {
				t.Errorf("a call that failed moved the offset to %#x", at)
			}
		})
	}
}

// alike lets an answer that was cut short be any that holds whole records.
func alike(got, want string) bool {
	if want == "return 72" {
		return got == "return 72" || got == "return 48" || got == "return 24"
	}
	return got == want
}

func (g *guest) fileIn(dir string) string { return filepath.Join(dir, "a") }

func TestLegacyRecords(t *testing.T) {
	g := newGuest(t)
	fd := g.open(folder(t, letters...), unix.O_RDONLY)
	want := g.all(fd, 4096)
	seek(t, fd, 0)
	if got := g.call("getdents", fd, supervisetest.Base, 4096).String(); got != fmt.Sprintf("return %d", 24*len(want)) {
		t.Fatal(got)
	}
	if got := decode(t, g.memory.Bytes[:24*len(want)], true); !slices.Equal(got, want) {
		t.Errorf("getdents: %v, want %v", got, want)
	}
}

// A large directory is not read on the loop, unless there is no room elsewhere.
func TestLargeDirectory(t *testing.T) {
	g := newGuest(t)
	var list []string
	for i := range 5000 {
		list = append(list, fmt.Sprintf("entry-%d", i*7919%5000))
	}
	fd := g.open(folder(t, list...), unix.O_RDONLY)
	want := sorted(list)
	g.room = true
	if got := g.call("getdents64", fd, supervisetest.Base, 4096).String(); got != "defer" {
		t.Errorf("verdict %q, want defer", got)
	}
	if got := names(g.readOn(fd)); !slices.Equal(got, want) {
		t.Errorf("read elsewhere: %d entries, want %d in order", len(got), len(want))
	}
	g.room = false
	g.h.cache = cache{}
	seek(t, fd, 0)
	if got := names(g.all(fd, 4096)); !slices.Equal(got, want) {
		t.Errorf("read on the loop: %d entries, want %d in order", len(got), len(want))
	}
}

// readOn does what the deferred call does, then lists.
func (g *guest) readOn(fd int) []item {
	g.t.Helper()
	r, err := open(fd, 0, nil)
	if err == nil {
		_, err = r.read(inlineBytes)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		g.t.Fatal(err)
	}
	if got := g.h.readOn(g.t.Context(), r, directory{st.Dev, st.Ino}).String(); got != "resume" {
		g.t.Fatalf("verdict %q, want resume", got)
	}
	fresh := newSnapshot(directory{st.Dev, st.Ino}, r.raw)
	nr, _ := abi.SyscallNumber(abi.AMD64, "getdents64")
	c := supervise.NewCall(1, nr, [6]uint64{uint64(fd), supervisetest.Base, 4096}, g.memory)
	n, err := strconv.Atoi(strings.TrimPrefix(g.h.handle(c, fresh).String(), "return "))
	if err != nil {
		g.t.Fatal(err)
	}
	return append(decode(g.t, g.memory.Bytes[:n], false), g.all(fd, 4096)...)
}

func TestTooLargeIsTheKernels(t *testing.T) {
	g := newGuest(t)
	fd := g.open(folder(t, letters...), unix.O_RDONLY)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	if got := g.h.failure(directory{st.Dev, st.Ino}, errTooLarge).String(); got != kernelsOrder().String() {
		t.Errorf("verdict %q", got)
	}
	seek(t, fd, 1<<indexBits|500) // as tmpfs numbers the entries of such a directory
	if got := g.call("getdents64", fd, supervisetest.Base, 100).String(); got != kernelsOrder().String() {
		t.Errorf("in the middle: %q", got)
	}
	seek(t, fd, 0) // it may have become smaller
	if got := g.all(fd, 4096); len(got) != len(letters)+2 {
		t.Errorf("from the start: %d entries", len(got))
	}
	for i := range uint64(1000) {
		g.h.failure(directory{1, i}, errTooLarge)
	}
	if len(g.h.tooLarge) > maxTooLarge {
		t.Errorf("%d directories are remembered", len(g.h.tooLarge))
	}
	r := &reader{fd: -1, raw: make([]byte, maxBytes)}
	if err := r.rest(); err != errTooLarge {
		t.Errorf("more than maxBytes: %v", err)
	}
}

// Once a listing is there, answering from it costs no memory.
func TestAnswersDoNotAllocate(t *testing.T) {
	g := newGuest(t)
	fd := g.open(folder(t, letters...), unix.O_RDONLY)
	pos := g.all(fd, 4096)[3].next
	nr, _ := abi.SyscallNumber(abi.AMD64, "getdents64")
	c := supervise.NewCall(1, nr, [6]uint64{uint64(fd), supervisetest.Base, 100}, g.memory)
	allocs := testing.AllocsPerRun(100, func() {
		seek(t, fd, pos)
		g.h.Handle(c)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
