package machine

import (
	"os"
	"testing"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// The files are those of the command's view: the host's own name nothing there.
func TestFilesOfAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	if got := identify(v.Root, memoryFiles()); len(got) != 0 {
		t.Errorf("a view without procfs has %+v", got)
	}
	if err := os.MkdirAll(v.Dir+"/proc", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.Dir+"/proc/meminfo", []byte("MemTotal: 1024 kB\nMemFree: 1024 kB\nMemAvailable: 1024 kB\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := New(abi.AMD64, Config{
		Memory: 64 << 20, Charged: func() (uint64, int) { return 0, 1 }, Files: true, Journal: &notes{}, Grants: func(string, uint64) bool { return true }, Root: v.Root,
	})
	for path, want := range map[string]string{
		"/proc/meminfo": "descriptor with flags 0x0", "/sub/../proc/meminfo": "descriptor with flags 0x0",
		v.Outside: "pass: the kernel decides", v.Dir + "/proc/meminfo": "pass: the kernel decides", "/proc/self/root/proc/meminfo": "pass: the kernel decides",
	} {
		nr, _ := abi.SyscallNumber(abi.AMD64, "open")
		m := &supervisetest.Memory{Bytes: append([]byte(path), 0)}
		if got := h.Handle(supervise.NewCall(os.Getpid(), nr, [6]uint64{supervisetest.Base}, m)).String(); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// A number that is nobody's in the caller's PID namespace is no thread.
func TestAffinityOfNobody(t *testing.T) {
	v := supervisetest.NewView(t)
	h := New(abi.AMD64, Config{CPUs: 1, Root: v.Root})
	nr, _ := abi.SyscallNumber(abi.AMD64, "sched_getaffinity")
	for number, want := range map[int]string{0: "return", os.Getpid(): "return", 1 << 30: "errno ESRCH"} {
		m := &supervisetest.Memory{Bytes: make([]byte, maxMask)}
		got := h.Handle(supervise.NewCall(os.Getpid(), nr, [6]uint64{uint64(number), maxMask, supervisetest.Base}, m)).String()
		if len(got) < len(want) || got[:len(want)] != want {
			t.Errorf("of %d: %s, want %s", number, got, want)
		}
	}
}
