package check

import (
	"testing"

	"github.com/sandlock-go/sandlock/compiler/policy"
)

// TestMayWriteIn: a warning that nothing can be written is given only where the text shows it.
func TestMayWriteIn(t *testing.T) {
	for _, tc := range []struct {
		dir, write string
		want       bool
	}{
		{"/work", "/work", true},
		{"/work", "/", true},
		{"/work/a", "/work", true},
		{"/work", "/work/a/b", true},
		{"/work", "/works", false},
		{"/work", "/dev/null", false},
		{"/work", "${cwd}", true}, // may be /work
		{"${cwd}", "${cwd}/out", true},
		{"${cwd}/src", "${cwd}", true},
		{"${cwd}/src", "${cwd}/out", false},
		{"${cwd}", "${home}", true},
		{"${cwd}", "/home", true},
		{"${cwd}", "/dev/tty", false},
		{"${cwd}", "/proc/sys", false},
	} {
		path := policy.Val[policy.PathRule]{Set: true, V: policy.PathRule{Path: policy.Val[string]{V: tc.write, Set: true}}}
		p := &policy.Policy{}
		p.Filesystem.Write.Items = []policy.Val[policy.PathRule]{path}
		if got := (&checker{Policy: p}).mayWriteIn(tc.dir); got != tc.want {
			t.Errorf("write %s, workdir %s: got %v, want %v", tc.write, tc.dir, got, tc.want)
		}
	}
}
