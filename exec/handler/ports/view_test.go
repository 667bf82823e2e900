package ports

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
)

type quiet struct{}

func (quiet) Record(supervise.Event) {}

// A socket becomes a file where the command sees its directory.
func TestSocketFilesOfAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	runtime.LockOSThread() // never given back: its umask is its own
	if err := kernel.UnshareFS(); err != nil {
		t.Skipf("no umask of a thread's own: %v", err)
	}
	h := &Handler{journal: quiet{}, policy: Policy{
		Root:   v.Root,
		Grants: func(path string, _ uint64) (bool, string, string) { return path == "/etc", "", "" },
	}}
	c := supervise.NewCall(os.Getpid(), 49, [6]uint64{}, &supervisetest.Memory{})
	bind := func(path string) string {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var a socket.Address
		a.SetPath(path)
		return h.bindUnix(c, &socket.Socket{FD: fd, Domain: unix.AF_UNIX}, &a).String()
	}
	for path, at := range map[string]string{"/etc/a": "/etc/a", "/sub/etc/b": "/etc/b", "/../../etc/c": "/etc/c"} {
		if got := bind(path); got != "return 0" {
			t.Errorf("%s: %s", path, got)
		}
		if st, err := os.Lstat(v.Dir + at); err != nil || st.Mode()&os.ModeSocket == 0 {
			t.Errorf("%s: no socket at %s: %v", path, at, err)
		}
	}
	out := v.Outside + ".s"
	for _, path := range []string{out, "/../outside.s", "/new", "/proc/self/root" + out, "relative", "../x"} {
		if len(path) > 107 {
			continue
		}
		if got := bind(path); !strings.HasPrefix(got, "errno ") {
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, path := range []string{out, v.Dir + "/outside.s", v.Dir + "/new", "relative"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("there is %s", path)
		}
	}
}
