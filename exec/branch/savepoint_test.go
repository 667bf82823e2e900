package branch

import (
	"encoding/json"
	"os"
	"testing"
)

// After a rollback the branch is what it was at the savepoint, for the command in it and for a commit.
func TestSavepoint(t *testing.T) {
	eachSetting(t, func(t *testing.T, s setting) {
		w := newWorld(t, s)
		w.sh("mkdir -p d/s e; echo a >d/a; echo b >b; echo c >c; echo s >d/s/s; ln -s a l")
		b := w.branch()
		saved := w.in(b, "rm -r d; mkdir d; echo new >d/new; rm b; echo c2 >>c; echo n >n; ln n again; mkfifo p; ln -sf b l; mkdir x; chmod 0 x; truncate -s 1M hole; chmod 400 d/new")
		for _, undone := range []string{
			"rm -r e; mv d d2; echo b >b; echo more >>c; rm again p; chmod 755 x; touch x/y; ln -sf c l",
			"rm -rf * .[!.]* 2>/dev/null; mkdir -p c/d/e; chmod 700 .",
			"true",
		} {
			must(t, b.Savepoint())
			must(t, b.Reuse())
			w.in(b, undone)
			must(t, b.Rollback())
			must(t, b.Reuse())
			w.same("after "+undone, w.in(b, "true"), saved)
		}
		if err := b.Rollback(); err == nil {
			t.Error("a savepoint is used twice")
		}
		must(t, b.Savepoint())
		must(t, b.Savepoint())
		must(t, b.Forget())
		must(t, b.Commit(CommitOptions{}))
		w.same("commit", w.real(), saved)
		if names, err := os.ReadDir(w.base); err != nil || len(names) > 0 {
			t.Errorf("left in the base: %v, %v", names, err)
		}
	})
}

// A branch that was kept is gone on with, by another process too; no other is.
func TestResume(t *testing.T) {
	w := newWorld(t, setting{})
	b := w.branch()
	last := w.in(b, "echo 1 >a")
	if err := b.Resume(); err == nil {
		t.Error("a branch is resumed that was not kept")
	}
	if text, err := b.Progress(); err != nil || text != nil {
		t.Errorf("progress %q, %v", text, err)
	}
	must(t, b.SetProgress([]byte(`{"x": 1}`)))
	must(t, b.Keep("later"))
	id := b.ID()
	b.Close()

	b, err := Open(w.base, id)
	must(t, err)
	defer b.Close()
	if text, err := b.Progress(); err != nil || string(text) != `{"x": 1}` {
		t.Errorf("progress %q, %v", text, err)
	}
	b.notes.Boot = "another" // the machine was started again meanwhile
	meta, err := json.Marshal(&b.notes)
	must(t, err)
	must(t, writeFile(b.sys, b.dir, "meta", meta))
	must(t, b.Resume())
	b.Close()
	b, err = Open(w.base, id)
	must(t, err)
	must(t, b.Reuse())
	w.same("resumed", w.in(b, "test -e a"), last)
	must(t, b.defers(os.ErrInvalid))
	if err := b.Resume(); err == nil {
		t.Error("a branch is resumed whose commit was tried")
	}
	must(t, b.Abort())
}
