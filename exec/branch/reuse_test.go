package branch

import (
	"os"
	"path/filepath"
	"testing"
)

// What several commands do one after the other, each in a mount of its own, is what they do in one.
func TestReuse(t *testing.T) {
	each(t, append(settings(), setting{name: "in memory", options: Options{Disk: 1 << 20}}), func(t *testing.T, s setting) {
		const start = "mkdir d e; echo a >d/a; echo b >b; echo c >c; chmod 755 d"
		scripts := []string{
			"rm -r d; rm b; echo 1 >new; mkdir -p m/n; echo c2 >>c; touch -d 2020-01-01T00:00:00Z c",
			"mkdir d; echo other >d/o; mv new moved; ln moved again; rmdir e; chmod 700 m",
			"test ! -e d/a; test ! -e b; test ! -e e; echo b >b; rm -r m; cat c moved >sum; chmod 640 moved",
		}
		w, one := newWorld(t, s), newWorld(t, s)
		for _, w := range []*world{w, one} {
			w.sh(start)
		}
		b := w.branch()
		var last tree
		for i, script := range scripts {
			if i > 0 {
				must(t, b.Reuse())
				w.place(b)
			}
			last = w.in(b, script)
		}
		whole := ""
		for _, script := range scripts {
			whole += script + "\n"
		}
		other := one.branch()
		w.same("several mounts", last.but("sum").timeless(), one.in(other, whole).but("sum").timeless())
		must(t, b.Commit(CommitOptions{}))
		w.same("commit", w.real(), last)
	})
}

// A mount that was made with "volatile" leaves a mark with which the kernel refuses the next one.
func TestReuseAfterVolatile(t *testing.T) {
	eachSetting(t, func(t *testing.T, s setting) {
		w := newWorld(t, s)
		w.sh("echo a >a")
		b := w.branch()
		if text, err := w.command(b, "sh", "echo 1 >new").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if text, err := w.command(b, "sh", "true").CombinedOutput(); err == nil {
			t.Errorf("mounted in spite of the mark: %s", text)
		}
		must(t, b.Reuse())
		w.in(b, "test -e new; echo 2 >>new")
		must(t, b.Commit(CommitOptions{}))
		if text, err := os.ReadFile(filepath.Join(w.workdir, "new")); err != nil || string(text) != "1\n2\n" {
			t.Errorf("new has %q, %v", text, err)
		}
	})
}

// A branch that is over, or was to be kept, or whose workdir has moved, is not used again.
func TestReuseRefused(t *testing.T) {
	w := newWorld(t, setting{})
	b := w.branch()
	must(t, b.Reuse())
	must(t, os.Rename(w.workdir, w.workdir+"2"))
	must(t, os.Mkdir(w.workdir, 0o755))
	if err := b.Reuse(); err == nil {
		t.Error("a branch is used with another workdir")
	}
	must(t, os.Remove(w.workdir))
	must(t, os.Rename(w.workdir+"2", w.workdir))
	must(t, b.Reuse())
	must(t, b.Keep("asked for"))
	if err := b.Reuse(); err == nil {
		t.Error("a kept branch is used again")
	}
	must(t, b.Abort())
	if err := b.Reuse(); err == nil {
		t.Error("a branch that is gone is used again")
	}
}
