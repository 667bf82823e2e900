package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

type notes []supervise.Event

func (n *notes) Record(e supervise.Event) { *n = append(*n, e) }

// This process is the caller, so that what it names is what the handler sees.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{"link": "/proc/meminfo", "again": "link", "proc": "/proc", "other": "/proc/version"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "meminfo"), []byte("MemTotal: 1 kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	const pass, shown = "pass: the kernel decides", "descriptor with flags 0x0"
	for _, tc := range []struct {
		name, path string
		flags      int
		refused    bool
		want       string
	}{
		{"plain", "/proc/meminfo", 0, false, shown},
		{"closed by execve", "/proc/meminfo", unix.O_CLOEXEC | unix.O_NONBLOCK, false, "descriptor with flags 0x80000"},
		{"spelled otherwise", "//proc/./self/../meminfo", 0, false, shown},
		{"by the caller's root", "/proc/thread-self/root/proc/meminfo", 0, false, shown},
		{"by a link", "link", 0, false, shown},
		{"by two", dir + "/again", 0, false, shown},
		{"by a link to the directory", "proc/meminfo", 0, false, shown},
		{"the link itself", "link", unix.O_NOFOLLOW, false, pass},
		{"no link", "proc/meminfo", unix.O_NOFOLLOW, false, shown},
		{"of processors", "/proc/cpuinfo", 0, false, shown},
		{"of times", "/proc/stat", 0, false, shown},
		{"not granted", "/proc/meminfo", 0, true, pass},
		{"to be written", "/proc/meminfo", unix.O_WRONLY, false, pass},
		{"to be written as well", "/proc/meminfo", unix.O_RDWR, false, pass},
		{"to be emptied", "/proc/meminfo", unix.O_TRUNC, false, pass},
		{"a place only", "/proc/meminfo", unix.O_PATH, false, pass},
		{"a directory only", "/proc/meminfo", unix.O_DIRECTORY, false, pass},
		{"to be made", "/proc/meminfo", unix.O_CREAT | unix.O_EXCL, false, pass},
		{"another file of the name", "meminfo", 0, false, pass},
		{"another file of procfs", "other", 0, false, pass},
		{"nothing", "nothing", 0, false, pass},
		{"no name", "", 0, false, pass},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var journal notes
			h := New(abi.AMD64, Config{
				CPUs: 1, Memory: 64 << 20, Charged: func() (uint64, int) { return 1 << 20, 1 }, Files: true, Journal: &journal,
				Grants: func(string, uint64) bool { return !tc.refused },
			})
			m := &supervisetest.Memory{Bytes: append([]byte(tc.path), 0)}
			if got := h.Handle(call(t, "openat", m, uint64(at), supervisetest.Base, uint64(tc.flags))).String(); got != tc.want || len(journal) > 0 {
				t.Errorf("%s, journal %+v; want %s", got, journal, tc.want)
			}
		})
	}
}

func TestCalls(t *testing.T) {
	number := func(name string) abi.Sysno { nr, _ := abi.SyscallNumber(abi.AMD64, name); return nr }
	for _, tc := range []struct {
		config Config
		want   []string
	}{
		{Config{CPUs: 1}, []string{"sched_getaffinity"}},
		{Config{Memory: 1}, []string{"sysinfo"}},
		{Config{Memory: 1, CPUs: 1}, []string{"sysinfo", "sched_getaffinity"}},
		{Config{CPUs: 1, Files: true}, []string{"sched_getaffinity", "open", "openat", "openat2"}},
	} {
		got := map[abi.Sysno]bool{}
		for _, nr := range New(abi.AMD64, tc.config).Syscalls() {
			got[nr] = true
		}
		for _, name := range tc.want {
			if !got[number(name)] {
				t.Errorf("%+v does not answer %s", tc.config, name)
			}
		}
		if len(got) != len(tc.want) {
			t.Errorf("%+v answers %v, want %v", tc.config, got, tc.want)
		}
	}
}

// What is not limited is left as it is, and what cannot be shown is an error.
func TestInstead(t *testing.T) {
	pin := func(path string) kernel.Pin {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return kernel.Pin{FD: fd, Path: path}
	}
	h := New(abi.AMD64, Config{Memory: 64 << 20, Files: true, Charged: func() (uint64, int) { return 0, 1 }})
	content, ok, err := h.Instead(pin("/proc/meminfo"), unix.O_RDONLY, unix.Gettid())
	if !ok || err != nil || !strings.HasPrefix(string(content), "MemTotal:          65536 kB\n") {
		t.Errorf("meminfo: %v, %v\n%s", ok, err, content)
	}
	for path, flags := range map[string]int{"/proc/cpuinfo": 0, "/proc/meminfo": unix.O_RDWR, "/proc/version": 0, "/": 0} {
		if _, ok, err := h.Instead(pin(path), flags, unix.Gettid()); ok || err != nil {
			t.Errorf("%s, flags %#x: %v, %v, want nothing", path, flags, ok, err)
		}
	}
	h.files[0].write = func(*Handler, int, []byte) ([]byte, error) { return nil, unix.EFBIG }
	if _, ok, err := h.Instead(pin("/proc/meminfo"), 0, unix.Gettid()); !ok || err == nil {
		t.Errorf("what is not understood: %v, %v, want an error", ok, err)
	}
}
