package disk

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

type journal struct{ events []supervise.Event }

func (j *journal) Record(e supervise.Event) { j.events = append(j.events, e) }

// What there is no room for is refused on the directory's mount alone; all else is passed on, whatever is wrong with it.
func TestHandle(t *testing.T) {
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	tooLong := fs.Bavail*uint64(fs.Bsize)*2 + 1<<40
	path := filepath.Join(dir, "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(100); err != nil {
		t.Fatal(err)
	}
	elsewhere, err := unix.MemfdCreate("elsewhere", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(elsewhere)

	j := &journal{}
	arch, _ := abi.ParseArch("amd64")
	h, err := New(arch, Config{Workdir: dir, Origin: "policy.cue:1:1"}, j)
	if err != nil {
		t.Fatal(err)
	}
	const passes, refused = "pass: the kernel decides", "errno ENOSPC"
	memory := &supervisetest.Memory{Bytes: append([]byte(path), 0)}
	for _, tc := range []struct {
		name string
		nr   abi.Sysno
		args [6]uint64
		want string
	}{
		{"longer", h.ftruncate, [6]uint64{uint64(f.Fd()), tooLong}, refused},
		{"longer by its path", h.truncate, [6]uint64{supervisetest.Base, tooLong}, refused},
		{"fits", h.ftruncate, [6]uint64{uint64(f.Fd()), 200}, passes},
		{"shorter", h.truncate, [6]uint64{supervisetest.Base, 50}, passes},
		{"elsewhere", h.ftruncate, [6]uint64{uint64(elsewhere), tooLong}, passes},
		{"negative", h.ftruncate, [6]uint64{uint64(f.Fd()), ^uint64(0)}, passes},
		{"no such descriptor", h.ftruncate, [6]uint64{9999, tooLong}, passes},
		{"no such memory", h.truncate, [6]uint64{0x9000, tooLong}, passes},
	} {
		before := len(j.events)
		c := supervise.NewCall(os.Getpid(), tc.nr, tc.args, memory)
		if got := h.Handle(c).String(); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		if told := len(j.events) > before; told != (tc.want == refused) {
			t.Errorf("%s: %d events", tc.name, len(j.events)-before)
		}
	}
	if len(j.events) == 0 || j.events[0].Path != path || j.events[0].Rule != "limits.disk" {
		t.Errorf("%+v", j.events)
	}
	memory.Gone = true
	if got := h.Handle(supervise.NewCall(os.Getpid(), h.ftruncate, [6]uint64{uint64(f.Fd()), 200}, memory)).String(); got != "errno ESRCH" {
		t.Errorf("a caller that is gone: %s", got)
	}
}
