package kernel

import (
	"slices"
	"testing"
)

func TestMountsBeneath(t *testing.T) {
	const info = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:20 / /w rw shared:1 - tmpfs tmpfs rw
24 23 0:21 / /w/m rw - tmpfs tmpfs rw
25 24 0:22 /x /w/m/n rw master:2 - ext4 /dev/vda rw
26 22 0:23 / /w2 rw - tmpfs tmpfs rw
27 22 0:24 / /a\040b\134/c rw - tmpfs tmpfs rw
torn`
	for dir, want := range map[string][]string{
		"/w": {"/w/m", "/w/m/n"}, "/w/m": {"/w/m/n"}, "/w/m/n": nil, "/x": nil, `/a b\`: {`/a\040b\134/c`},
	} {
		if got := mountsBeneath(info, dir); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
	if all, err := MountsBeneath("/none"); err != nil || len(all) > 0 {
		t.Errorf("beneath a directory that is not there: %q, %v", all, err)
	}
}
