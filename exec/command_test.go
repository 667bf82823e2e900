package exec

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
)

// PATH is searched in the command's view.
func TestCandidates(t *testing.T) {
	v := supervisetest.NewView(t)
	host := t.TempDir()
	for _, path := range []string{v.Dir + "/sub/tool", host + "/tool"} {
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(host+"/tool", v.Dir+"/etc/tool"); err != nil { // nothing in the view
		t.Fatal(err)
	}
	for _, tc := range []struct {
		root      kernel.Root
		dir, path string
		want      []string
	}{
		{v.Root, "/", host + ":/etc:/sub", []string{"/sub/tool"}},
		{v.Root, "/", "/sub:" + v.Dir + "/sub:sub/etc/../sub", []string{"/sub/tool", "sub/etc/../sub/tool"}},
		{v.Root, "/etc", "../sub", []string{"../sub/tool"}},
		{v.Root, "", "sub", []string{"sub/tool"}}, // the kernel says
		{kernel.Root{}, "", host + ":/etc:/sub", []string{host + "/tool"}},
	} {
		got, err := candidates(tc.root, "tool", []string{"PATH=" + tc.path}, tc.dir)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s in %q: %q, %v; want %q", tc.path, tc.dir, got, err, tc.want)
		}
	}
	if got, err := candidates(v.Root, "tool", []string{"PATH=" + host}, "/"); err == nil {
		t.Errorf("a program of the host's: %q", got)
	}
}

// What is said of a program that did not start is said of the view's.
func TestOpenProgram(t *testing.T) {
	v := supervisetest.NewView(t)
	s := &sandbox{root: v.Root}
	fd, real, err := s.openProgram("/absolute")
	if err != nil || real != "/etc/data" {
		t.Errorf("it is %s, %v", real, err)
	}
	unix.Close(fd)
	for _, path := range append(v.Out(), "etc/data") {
		if fd, real, err := s.openProgram(path); err == nil {
			t.Errorf("%s is %s", path, real)
			unix.Close(fd)
		}
	}
}
