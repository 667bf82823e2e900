package branch

import (
	"encoding/json"
	"errors"
	"fmt"
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
			must(t, b.Savepoint(nil))
			must(t, b.Reuse())
			w.in(b, undone)
			must(t, b.Rollback())
			must(t, b.Reuse())
			w.same("after "+undone, w.in(b, "true"), saved)
		}
		if err := b.Rollback(); err == nil {
			t.Error("a savepoint is used twice")
		}
		must(t, b.Savepoint(nil))
		must(t, b.Savepoint(nil))
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
	if err := b.Resume(); !errors.Is(err, errNoSavepoint) {
		t.Errorf("a branch is resumed that has no savepoint: %v", err)
	}
	if text, err := b.Progress(); err != nil || text != nil {
		t.Errorf("progress %q, %v", text, err)
	}
	must(t, b.Mark([]byte(`{"x":1}`)))
	must(t, b.Keep("later"))
	id := b.ID()
	b.Close()

	b, err := Open(w.base, id)
	must(t, err)
	defer b.Close()
	if text, err := b.Progress(); err != nil || string(text) != `{"x":1}` {
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
	if text, err := b.Progress(); err != nil || text != nil {
		t.Errorf("somebody runs in it, and it is noted as %q, %v", text, err)
	}
	w.same("resumed", w.in(b, "test -e a"), last)
	must(t, b.Mark([]byte("2")))
	must(t, b.defers(os.ErrInvalid))
	if err := b.Resume(); err == nil {
		t.Error("a branch is resumed whose commit was tried")
	}
	must(t, b.Abort())
}

// Whatever call a process was killed after, be it at a savepoint, running, or going back: what is gone on with is what the
// branch was at the savepoint that its note tells of.
func TestResumeKilled(t *testing.T) {
	const (
		doOne = "echo one >one; rm b; touch -d 2000-01-01 one ."
		doTwo = "mkdir e; mv one e/two; rm -r d; touch -d 2001-01-01 e ."
	)
	w := newWorld(t, setting{})
	w.sh("mkdir d; echo a >d/a; echo b >b")
	first := w.branch()
	one := w.in(first, doOne)
	must(t, first.Savepoint([]byte("1")))
	must(t, first.Reuse())
	two := w.in(first, doTwo)
	id := first.ID()
	first.Close()
	wants := map[string]tree{"1": one, "2": two}
	seen := map[string]int{}
	for calls, over := 0, false; !over; calls++ {
		b, err := Open(w.base, id)
		must(t, err)
		f := &faulty{t: t, left: calls}
		b.sys = f
		_, dead := until(func() error {
			if err := b.Savepoint([]byte("2")); err != nil {
				return err
			}
			return b.Rollback()
		})
		b.Close()
		over = !dead

		again, err := Open(w.base, id)
		must(t, err)
		note, err := again.Progress()
		must(t, err)
		must(t, again.Resume())
		must(t, again.Savepoint(note)) // by which it was resumed, as a transaction makes one before it goes on
		must(t, again.Reuse())
		want, ok := wants[string(note)]
		if !ok || !w.same(fmt.Sprintf("call %d, at %s", calls, note), w.in(again, "true"), want) {
			t.FailNow()
		}
		seen[string(note)]++
		// Back to where the next round begins.
		if string(note) == "2" {
			must(t, again.Abort())
			b := w.branch()
			w.in(b, doOne)
			must(t, b.Savepoint([]byte("1")))
			must(t, b.Reuse())
			w.in(b, doTwo)
			id = b.ID()
			b.Close()
			continue
		}
		must(t, again.Reuse())
		w.in(again, doTwo)
		again.Close()
	}
	if seen["1"] == 0 || seen["2"] == 0 {
		t.Errorf("want both savepoints to be gone back to: %v", seen)
	}
}
