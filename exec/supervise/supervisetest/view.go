package supervisetest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// View is a root that is not this process's own, and what lies beside it. Beneath it are
//
//	/etc/data    a file that holds "inside"
//	/absolute    a link to /etc/data
//	/sub/up      a link to ../../../../../../etc/data
//	/out         a link to the host's path of Outside
//	/upward      a link to ../outside
//	/sub/etc     a link to /etc
//
// The test's own process may be the caller: descriptors of what is beneath Dir are the view's.
type View struct {
	Root    kernel.Root
	Dir     string // the root on the host
	Outside string // a file on the host that holds "outside"
}

// NewView makes a View for a test.
func NewView(tb testing.TB) View {
	tb.Helper()
	base, err := filepath.EvalSymlinks(tb.TempDir())
	check := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	check(err)
	v := View{Dir: base + "/root", Outside: base + "/outside"}
	check(os.WriteFile(v.Outside, []byte("outside"), 0o644))
	for _, d := range []string{"/etc", "/sub"} {
		check(os.MkdirAll(v.Dir+d, 0o755))
	}
	check(os.WriteFile(v.Dir+"/etc/data", []byte("inside"), 0o644))
	for path, target := range map[string]string{
		"/absolute": "/etc/data", "/sub/up": "../../../../../../etc/data", "/out": v.Outside, "/upward": "../outside", "/sub/etc": "/etc",
	} {
		check(os.Symlink(target, v.Dir+path))
	}
	v.Root = kernel.NewRoot(v.Open(tb, "/"))
	return v
}

// Open opens a path of the view (O_PATH) for as long as the test runs.
func (v View) Open(tb testing.TB, path string) int {
	tb.Helper()
	fd, err := unix.Open(v.Dir+path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// Out are paths that lead out of the view, or would for who takes them for its own.
func (v View) Out() []string {
	return []string{v.Outside, "/out", "/upward", "/../outside", "/sub/../../outside", "/proc/self/root" + v.Outside, "/proc/self/cwd/../outside"}
}

// In are paths that lead to /etc/data of the view.
func (v View) In() []string { return []string{"/etc/data", "/absolute", "/sub/up", "/sub/etc/data"} }
