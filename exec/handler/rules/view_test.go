package rules

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir"
)

// Files are found, made and refused where the command sees them.
func TestFilesOfAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	closed := ir.DynamicRule{On: ir.EventFile, Path: "/etc/closed", Then: errnoOutcome(unix.ENXIO), Scope: ir.ScopeSandbox}
	h, _ := newHandler(t, Policy{Rules: []ir.DynamicRule{closed}, Held: ir.EventFile, Root: v.Root})
	if err := os.WriteFile(v.Dir+"/etc/closed", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/dangling", v.Dir+"/sub/dangling"); err != nil {
		t.Fatal(err)
	}
	const creates = unix.O_CREAT | unix.O_WRONLY
	for _, tc := range []struct {
		call, path, want string
		args             []uint64
		made             string // beneath the view
	}{
		{"open", "/etc/data", "descriptor with flags 0x0", nil, ""},
		{"open", "/sub/up", "descriptor with flags 0x0", nil, ""},
		{"open", "/etc/closed", "errno ENXIO", nil, ""},
		{"open", "/sub/etc/closed", "errno ENXIO", nil, ""},
		{"unlink", "/../../etc/closed", "errno ENXIO", nil, "/etc/closed"},
		{"open", "/sub/etc/new", "descriptor with flags 0x0", []uint64{creates, 0o600}, "/etc/new"},
		{"open", "/sub/dangling", "descriptor with flags 0x0", []uint64{creates, 0o600}, "/etc/dangling"},
		{"mkdir", "/../made", "return 0", []uint64{0o700}, "/made"},
		{"open", v.Outside, "errno ENOENT", nil, ""},
		{"open", "/out", "errno ENOENT", nil, ""},
		{"open", "/upward", "errno ENOENT", nil, ""},
		{"open", "/out", "errno ENOENT", []uint64{creates, 0o600}, ""}, // its target has no directory here
		{"truncate", "/out", "errno ENOENT", []uint64{0}, ""},
		{"unlink", v.Outside, "errno ENOENT", nil, ""},
		{"mkdir", v.Dir + "/no", "errno ENOENT", []uint64{0o700}, ""},
	} {
		if got := handle(h, tc.call, tc.path, tc.args...).String(); got != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.call, tc.path, got, tc.want)
		}
		if _, err := os.Lstat(v.Dir + tc.made); err != nil {
			t.Errorf("%s %s: %v", tc.call, tc.path, err)
		}
	}
	// The link up is to a name in the root: that is what is made.
	if got := handle(h, "open", "/upward", creates, 0o600).String(); got != "descriptor with flags 0x0" {
		t.Errorf("make what a link up leads to: %s", got)
	}
	if _, err := os.Lstat(v.Dir + "/outside"); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"/proc/self/root" + v.Outside, "/proc/self/cwd/rules.go", "rules.go", "/proc/self/exe"} {
		if got := handle(h, "open", path).String(); !strings.HasPrefix(got, "errno ") {
			t.Errorf("open %s: %s", path, got)
		}
	}
	if b, err := os.ReadFile(v.Outside); err != nil || string(b) != "outside" {
		t.Errorf("outside is %q, %v", b, err)
	}
}

// What a rule names is looked up in the view, too.
func TestTargetsOfAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	closed := ir.DynamicRule{On: ir.EventFile, Path: "/sub/up", Then: errnoOutcome(unix.ENXIO), Scope: ir.ScopeSandbox}
	h, _ := newHandler(t, Policy{Rules: []ir.DynamicRule{closed}, Held: ir.EventFile, Root: v.Root})
	if err := os.Link(v.Dir+"/etc/data", v.Dir+"/hard"); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(v.In(), "/hard") {
		if got := handle(h, "open", path).String(); got != "errno ENXIO" {
			t.Errorf("open %s: %s", path, got)
		}
	}
}
