package kernel

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestMountsBeneath(t *testing.T) {
	for _, dir := range []string{"/none", "/proc/self"} {
		if all, err := MountsBeneath(dir); err != nil || len(all) > 0 {
			t.Errorf("beneath %s: %q, %v", dir, all, err)
		}
	}
	if all, err := MountsBeneath(""); err != nil || !slices.Contains(all, "/proc") {
		t.Errorf("beneath the root: %q, %v", all, err)
	}
}

// FuzzMounts: whatever users mount, the table is read without a panic, and this machine's own is always understood.
func FuzzMounts(f *testing.F) {
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	if list, err := ParseMounts(own); err != nil || len(list) == 0 {
		f.Fatalf("%d mounts, %v", len(list), err)
	}
	f.Add(own)
	f.Add([]byte(`36 35 98:0 /a\040b /mnt\134\012 rw,noatime shared:1 master:2 - fuse.x a\040b rw,user_id=7,group_id=0` + "\n"))
	f.Add([]byte("1 0 0:1 / /x rw -\n"))
	f.Add([]byte(`1 0 0:1 / /x\9 rw - a b c`))
	f.Fuzz(func(t *testing.T, table []byte) {
		list, err := ParseMounts(table)
		if err != nil {
			return
		}
		if lines := strings.Count(strings.TrimSuffix(string(table), "\n"), "\n") + 1; len(table) > 0 && len(list) != lines {
			t.Errorf("%d mounts in %d lines", len(list), lines)
		}
		for _, m := range list {
			if got, err := unescape(escape(m.On)); err != nil || got != m.On {
				t.Errorf("%q is read as %q, %v", m.On, got, err)
			}
		}
	})
}

// escape does what the kernel does to names in mountinfo (fs/proc_namespace.c, mangle).
func escape(name string) string {
	return strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#", `\043`).Replace(name)
}
