package branchfs

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// FuzzNames: no answer, and no path, has a name of a branch that leads elsewhere than into the mount.
func FuzzNames(f *testing.F) {
	f.Add([]byte("branch-0123abcd-0123-4567-89ab-0123456789ab\x00"), "@a/@b/c")
	f.Add([]byte("../\x00"), "@../x")
	f.Add([]byte{}, "@/")
	f.Fuzz(func(t *testing.T, answer []byte, rel string) {
		var raw kernel.BranchName
		copy(raw[:], answer)
		var names []string
		if name, err := madeName(raw); err == nil {
			names = append(names, name)
		}
		if name, rest, err := split(rel); err == nil && name != "" {
			names = append(names, name)
			if strings.HasPrefix(rest, "@") || !strings.HasSuffix(rel, rest) {
				t.Errorf("%q: the rest is %q", rel, rest)
			}
		}
		for _, name := range names {
			if dir := "/mnt/@" + name; filepath.Clean(dir) != dir || filepath.Dir(dir) != "/mnt" || checkName(name) != nil {
				t.Errorf("%q is taken for the name of a branch", name)
			}
		}
	})
}
