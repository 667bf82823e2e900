package shown

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

const pass, shown = "pass: the kernel decides", "descriptor with flags 0x0"

type notes []supervise.Event

func (n *notes) Record(e supervise.Event) { *n = append(*n, e) }

// place is a host's file in a directory, and other names for it.
func place(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/hosts", "host's")
	for name, target := range map[string]string{"link": "hosts", "again": dir + "/link", "dir": "."} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/sub/hosts", "another")
	return dir
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// open asks the handler about openat by this process, which is the caller.
func open(t *testing.T, h *Handler, dir int, path string, flags int) string {
	t.Helper()
	nr, _ := abi.SyscallNumber(abi.AMD64, "openat")
	m := &supervisetest.Memory{Bytes: append([]byte(path), 0)}
	c := supervise.NewCall(os.Getpid(), nr, [6]uint64{uint64(uint32(dir)), supervisetest.Base, uint64(flags)}, m)
	return h.Handle(c).String()
}

func newTest(t *testing.T, file string, granted bool) *Handler {
	t.Helper()
	journal := &notes{}
	t.Cleanup(func() {
		if len(*journal) > 0 {
			t.Errorf("journal %+v", *journal)
		}
	})
	return New(abi.AMD64, Config{Name: "hosts", File: file, Content: []byte("pinned"), Grants: func(string, uint64) bool { return granted }, Journal: journal})
}

func TestOpen(t *testing.T) {
	dir := place(t)
	if err := os.Link(dir+"/hosts", dir+"/hard"); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	for _, tc := range []struct {
		path    string
		flags   int
		refused bool
		want    string
	}{
		{dir + "/hosts", 0, false, shown},
		{dir + "/hosts", unix.O_CLOEXEC | unix.O_NONBLOCK, false, "descriptor with flags 0x80000"},
		{"hosts", 0, false, shown},
		{"./sub/..//hosts", 0, false, shown},
		{"/proc/self/root" + dir + "/hosts", 0, false, shown},
		{"link", 0, false, shown},
		{"again", 0, false, shown},
		{"dir/hosts", 0, false, shown},
		{"hard", 0, false, shown},
		{"hosts", unix.O_NOFOLLOW, false, shown},
		{"link", unix.O_NOFOLLOW, false, pass},
		{"hosts", 0, true, pass},
		{"hosts", unix.O_WRONLY, false, pass},
		{"hosts", unix.O_RDWR, false, pass},
		{"hosts", unix.O_TRUNC, false, pass},
		{"hosts", unix.O_PATH, false, pass},
		{"hosts", unix.O_CREAT | unix.O_EXCL, false, pass},
		{"sub/hosts", 0, false, pass},
		{"sub", 0, false, pass},
		{"nothing", 0, false, pass},
		{"", 0, false, pass},
	} {
		h := newTest(t, dir+"/hosts", !tc.refused)
		if got := open(t, h, at, tc.path, tc.flags); got != tc.want {
			t.Errorf("%q with %#x, refused %v: %s, want %s", tc.path, tc.flags, tc.refused, got, tc.want)
		}
	}
}

// Editors write a new file and rename it; programs that have pinned the old one see the same.
func TestReplaced(t *testing.T) {
	dir := place(t)
	h := newTest(t, dir+"/hosts", true)
	old, err := unix.Open(dir+"/hosts", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(old)
	write(t, dir+"/new", "host's new")
	if err := os.Rename(dir+"/new", dir+"/hosts"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/hosts", dir + "/link", kernel.Pin{FD: old}.SelfPath()} {
		if got := open(t, h, kernel.AtCWD, path, 0); got != shown {
			t.Errorf("%s: %s, want %s", path, got, shown)
		}
	}
	pin, err := (kernel.Root{}).Resolve(kernel.Base{TID: os.Getpid(), DirFD: kernel.AtCWD}, dir+"/hosts", true, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Close()
	if content, ok, err := h.Instead(pin, unix.O_RDONLY, 1); string(content) != "pinned" || !ok || err != nil {
		t.Errorf("instead of the file: %q, %v, %v", content, ok, err)
	}
	if _, ok, _ := h.Instead(pin, unix.O_RDWR, 1); ok {
		t.Error("something instead of a file that is written")
	}
}

// A host without the file.
func TestAbsent(t *testing.T) {
	dir := place(t)
	if err := os.Remove(dir + "/hosts"); err != nil {
		t.Fatal(err)
	}
	h := newTest(t, dir+"/hosts", true)
	for path, want := range map[string]string{
		dir + "/hosts": shown, dir + "/sub/../hosts": shown, dir + "/dir/hosts": shown,
		dir + "/hosts/": pass, dir + "/other": pass, dir + "/nowhere/hosts": pass, dir + "/sub/hosts": pass,
	} {
		if got := open(t, h, kernel.AtCWD, path, 0); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if got := open(t, h, kernel.AtCWD, dir+"/hosts", unix.O_CREAT); got != pass {
		t.Errorf("a file that is to be made: %s, want %s", got, pass)
	}
}

// A path that leads elsewhere from one look to the next tells of the file or of nothing.
func TestStatOfMovingPath(t *testing.T) {
	dir := place(t)
	h := newTest(t, dir+"/hosts", true)
	own, _ := h.identity()
	nr, _ := abi.SyscallNumber(abi.AMD64, "statx")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 {
			for _, target := range []string{"sub/hosts", "hosts"} {
				_ = os.Symlink(target, dir+"/next")
				_ = os.Rename(dir+"/next", dir+"/moving")
			}
		}
	}()
	for moving := true; moving; {
		select {
		case <-done:
			moving = false
		default:
		}
		m := &supervisetest.Memory{Bytes: append([]byte(dir+"/moving\x00"), make([]byte, 256)...)}
		at := supervisetest.Base + uint64(len(dir)+len("/moving")+1)
		c := supervise.NewCall(os.Getpid(), nr, [6]uint64{uint64(uint32(0xffffff9c)), supervisetest.Base, 0, unix.STATX_ALL, at}, m)
		if h.Handle(c).String() == pass {
			continue
		}
		if ino := binary.NativeEndian.Uint64(m.Bytes[at-supervisetest.Base+0x20:]); ino != 0 && ino != own.Ino {
			t.Fatalf("inode %d is told of, which is not that of the file, %d", ino, own.Ino)
		}
	}
}
