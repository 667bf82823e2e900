package branch

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMillion tells, commits and drops a million changes in one branch, and looks how much memory that takes: it must be that
// of one directory's names, not of all.
func TestMillion(t *testing.T) {
	if os.Getenv("SANDLOCK_SOAK") == "" {
		t.Skip("takes minutes: SANDLOCK_SOAK is not set")
	}
	const dirs, each = 1000, 1000
	w := newWorldIn(t, setting{}, "/dev/shm")
	w.sh(fmt.Sprintf(`for d in {1..%d}; do mkdir $d; for i in {1..%d}; do echo old >$d/$i; done; done`, dirs, each/2))
	// Of each thousand a quarter is written anew, a quarter removed, and half is new.
	change := fmt.Sprintf(`for d in {1..%d}; do cd $d; rm {1..%d}; for i in {%d..%d}; do echo new >$i; done; cd ..; done`, dirs, each/4, each/4+1, each)
	for _, end := range []struct {
		name string
		do   func(b *Branch) error
	}{
		{"abort", (*Branch).Abort},
		{"commit", func(b *Branch) error { return b.Commit(CommitOptions{}) }},
	} {
		b := w.branch()
		w.child(b, "quiet", change)
		for _, step := range []struct {
			name string
			do   func(b *Branch) error
		}{{"changes", func(b *Branch) error {
			n := 0
			for _, err := range b.Changes() {
				if err != nil {
					return err
				}
				n++
			}
			if n < dirs*each {
				return fmt.Errorf("%d changes, want %d", n, dirs*each)
			}
			return nil
		}}, end} {
			before := resident(t, true)
			start := time.Now()
			must(t, step.do(b))
			took := time.Since(start)
			grown := resident(t, false) - before
			t.Logf("%s: %.1f µs each, %d MiB more at most", step.name, float64(took.Microseconds())/(dirs*each), grown>>20)
			if grown > 64<<20 {
				t.Errorf("%s took %d MiB", step.name, grown>>20)
			}
		}
	}
	names, err := os.ReadDir(w.workdir)
	must(t, err)
	if len(names) != dirs {
		t.Errorf("%d directories, want %d", len(names), dirs)
	}
	for _, d := range names {
		in, err := os.ReadDir(w.workdir + "/" + d.Name())
		must(t, err)
		if len(in) != each*3/4 {
			t.Fatalf("%s has %d names, want %d", d.Name(), len(in), each*3/4)
		}
	}
}

// resident is how much memory this process has had at most, in bytes; from now on, if reset (proc_pid_clear_refs(5)).
func resident(t *testing.T, reset bool) int64 {
	t.Helper()
	if reset {
		must(t, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0))
	}
	text, err := os.ReadFile("/proc/self/status")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			must(t, err)
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
