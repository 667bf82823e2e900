package explain

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// wants are the paths that a call of this process asks for in a view.
// wants are the paths on which rights are asked for, those of which nothing is known but their names aside.
func wants(t *testing.T, v supervisetest.View, name, path string, flags uint64) (paths []string) {
	t.Helper()
	nr, ok := abi.SyscallNumber(abi.AMD64, name)
	if !ok {
		t.Fatal(name)
	}
	m := &supervisetest.Memory{Bytes: append([]byte(path), 0)}
	c := supervise.NewCall(os.Getpid(), nr, [6]uint64{supervisetest.Base, flags}, m)
	for _, w := range watches[name].look(&call{c, v.Root}) {
		if !w.unseen && !w.moves {
			paths = append(paths, w.path)
		}
	}
	return paths
}

// What is reported is named as the command names it.
func TestPathsOfAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	for _, path := range v.In() {
		if got := wants(t, v, "open", path, 0); !slices.Equal(got, []string{"/etc/data"}) {
			t.Errorf("open %s asks for %q", path, got)
		}
	}
	for _, tc := range []struct {
		call, path string
		flags      uint64
		want       []string
	}{
		{"mkdir", "/sub/etc/new", 0, []string{"/etc"}},
		{"mkdir", "/../../new", 0, []string{"/"}},
		{"open", "/sub/etc/new", unix.O_CREAT, []string{"/etc"}},
		{"open", v.Outside, 0, nil},
		{"open", "/out", 0, nil},
		{"open", "/upward", 0, nil},
		{"mkdir", v.Dir + "/new", 0, nil},
		{"truncate", "/absolute", 0, []string{"/etc/data"}},
		{"execve", "/sub/up", 0, []string{"/etc/data"}},
	} {
		if got := wants(t, v, tc.call, tc.path, tc.flags); !slices.Equal(got, tc.want) {
			t.Errorf("%s %s asks for %q, want %q", tc.call, tc.path, got, tc.want)
		}
	}
}
