package branch

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemoveTree(t *testing.T) {
	for name, script := range map[string]string{
		"nothing":   "",
		"file":      "touch t",
		"empty":     "mkdir t",
		"link":      "ln -s / t",
		"names":     "mkdir t t/{1..3} t/{1..3}/d; touch t/f{1..600}; mkfifo t/p",
		"trees":     "mkdir -p t/{1..20}/{1..12}/d/e; touch t/{1..20}/{1..12}/f t/f; chmod 0 t/{1..20}/{1..12} t",
		"trees, up": "mkdir -p t/a/b/{1..9}/{1..9}/c t/z; touch t/a/b/{1..9}/{1..300}",
	} {
		t.Run(name, func(t *testing.T) {
			for what, s := range map[string]sys{"kernel": kernelSys{}, "counted": &faulty{t: t, left: -1}} {
				w := newWorldIn(t, setting{}, "/dev/shm")
				w.sh(script)
				dir, err := unix.Open(w.workdir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				must(t, err)
				defer unix.Close(dir)
				if err := removeTree(s, dir, "t"); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if entries, err := os.ReadDir(w.workdir); err != nil || len(entries) > 0 {
					t.Errorf("%s: left: %v, %v", what, entries, err)
				}
			}
		})
	}
}

// TestRemoveTreeFails has something that cannot be removed in each half of the trees.
func TestRemoveTreeFails(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root, to mount something")
	}
	for _, at := range []string{"1/d", "9/d"} {
		w := newWorldIn(t, setting{}, "/dev/shm")
		w.sh("mkdir -p t/{1..9}/d; touch t/{1..9}/d/f")
		busy := filepath.Join(w.workdir, "t", at)
		if err := unix.Mount("tmpfs", busy, "tmpfs", 0, ""); err != nil {
			lacks(t, err)
		}
		dir, err := unix.Open(w.workdir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		if err := removeTree(kernelSys{}, dir, "t"); !errors.Is(err, errMounted) {
			t.Errorf("mount in %s: %v", at, err)
		}
		must(t, unix.Unmount(busy, 0))
		if err := removeTree(kernelSys{}, dir, "t"); err != nil {
			t.Error(err)
		}
		unix.Close(dir)
	}
}
