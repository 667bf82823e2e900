package branchfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// FuzzMounts: whatever users mount, the table is read without a panic, and this machine's own is always understood.
func FuzzMounts(f *testing.F) {
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	if list, err := parseMounts(own); err != nil || len(list) == 0 {
		f.Fatalf("%d mounts, %v", len(list), err)
	}
	f.Add(own)
	f.Add([]byte(`36 35 98:0 /a\040b /mnt\134\012 rw,noatime shared:1 master:2 - fuse.x a\040b rw,user_id=7,group_id=0` + "\n"))
	f.Add([]byte("1 0 0:1 / /x rw -\n"))
	f.Add([]byte(`1 0 0:1 / /x\9 rw - a b c`))
	f.Fuzz(func(t *testing.T, table []byte) {
		list, err := parseMounts(table)
		if err != nil {
			return
		}
		if lines := strings.Count(strings.TrimSuffix(string(table), "\n"), "\n") + 1; len(table) > 0 && len(list) != lines {
			t.Errorf("%d mounts in %d lines", len(list), lines)
		}
		for _, m := range list {
			if got, err := unescape(escape(m.on)); err != nil || got != m.on {
				t.Errorf("%q is read as %q, %v", m.on, got, err)
			}
		}
	})
}

// escape does what the kernel does to names in mountinfo (fs/proc_namespace.c, mangle).
func escape(name string) string {
	return strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#", `\043`).Replace(name)
}

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
