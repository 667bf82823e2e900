package branch

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rebooted has a branch's notes be those of another boot, as after the machine went down.
func (w *world) rebooted(id string) {
	w.t.Helper()
	path := filepath.Join(w.base, id, "meta")
	text, err := os.ReadFile(path)
	must(w.t, err)
	var n notes
	must(w.t, json.Unmarshal(text, &n))
	was, err := json.Marshal(n.Boot)
	must(w.t, err)
	must(w.t, os.WriteFile(path, bytes.ReplaceAll(text, was, []byte(`"another boot"`)), 0o600))
}

// wantIncomplete wants that a branch says so, or not, and that its commit is refused for that.
func (w *world) wantIncomplete(id string, want bool) {
	w.t.Helper()
	info, err := Show(w.base, id)
	must(w.t, err)
	if info.Incomplete != want {
		w.t.Errorf("incomplete %v, want %v: %+v", info.Incomplete, want, info)
	}
	if !want {
		return
	}
	before := w.real()
	b, err := Open(w.base, id)
	must(w.t, err)
	defer b.Close()
	var incomplete *IncompleteError
	if err := b.Commit(CommitOptions{}); !errors.As(err, &incomplete) {
		w.t.Errorf("commit: %v, want an IncompleteError", err)
	}
	if err := b.Reuse(); !errors.As(err, &incomplete) {
		w.t.Errorf("again: %v, want an IncompleteError", err)
	}
	w.same("refused", w.real(), before)
}

// wantIncompleteOpen is that of a branch which is in use.
func (w *world) wantIncompleteOpen(b *Branch, want bool) {
	w.t.Helper()
	info, err := Show(w.base, b.ID())
	must(w.t, err)
	if info.Incomplete != want {
		w.t.Errorf("incomplete %v, want %v", info.Incomplete, want)
	}
}

// TestMachineWentDown has a branch of another boot.
func TestMachineWentDown(t *testing.T) {
	eachSetting(t, func(t *testing.T, s setting) {
		w := newWorld(t, s)
		w.sh("echo old > f; echo old > g")
		for name, kept := range map[string]func(b *Branch) error{
			"left":     func(b *Branch) error { return nil },
			"kept":     func(b *Branch) error { return b.Keep("exit code 0") },
			"deferred": func(b *Branch) error { return b.defers(errInterrupted) },
		} {
			b := w.branch()
			want := w.in(b, "echo "+name+" > f")
			id := b.ID()
			must(t, kept(b))
			b.Close()
			w.wantIncomplete(id, false)
			w.rebooted(id)
			w.wantIncomplete(id, name == "left")
			b, err := Open(w.base, id)
			must(t, err)
			must(t, b.Commit(CommitOptions{Force: name == "left"}))
			w.same(name, w.real(), want)
		}
	})
}

// A branch that was kept, and mounted again in a later boot, is worth no more after the next crash than a new one.
func TestMachineWentDownAgain(t *testing.T) {
	for _, kept := range []bool{false, true} {
		w := newWorld(t, setting{})
		b := w.branch()
		w.in(b, "echo 1 > one")
		id := b.ID()
		must(t, b.Mark(nil))
		must(t, b.Keep(""))
		b.Close()
		w.rebooted(id)
		b, err := Open(w.base, id)
		must(t, err)
		must(t, b.Resume())
		must(t, b.Reuse())
		w.in(b, "echo 2 > two")
		if kept {
			must(t, b.Keep(""))
		}
		w.wantIncompleteOpen(b, false)
		b.Close()
		w.rebooted(id)
		w.wantIncomplete(id, !kept)
	}
}

// A commit that the machine went down in leaves the branch as trustworthy as it was.
func TestMachineWentDownInCommit(t *testing.T) {
	for _, kept := range []bool{false, true} {
		w := newCrashWorldOf(t, setting{}, fewBefore, fewScript)
		b, err := Open(w.base, w.id)
		must(t, err)
		if kept {
			must(t, b.Keep(""))
		}
		b.sys = &faulty{t: t, left: 40}
		if err, dead := until(func() error { return b.Commit(CommitOptions{}) }); !dead {
			t.Fatalf("commit: %v, want it to be killed", err)
		}
		b.Close()
		w.rebooted(w.id)
		if outcome := w.recovered("recover", nil); outcome != Undone {
			t.Errorf("recover: %s", outcome)
		}
		w.wantIncomplete(w.id, !kept)
	}
}

// TestOrphan is about what is left of a branch whose notes a crash has taken.
func TestOrphan(t *testing.T) {
	w := newWorld(t, setting{})
	base, err := openBase(w.base)
	must(t, err)
	defer unix.Close(base)
	const later = stamp(1 << 62)
	for name, tc := range map[string]struct {
		edit   string
		booted stamp
		want   bool
	}{
		"notes missing":          {"rm meta", later, true},
		"notes empty":            {": >meta", later, true},
		"notes of zeros":         {"printf '\\0\\0\\0' >meta", later, true},
		"a branch":               {":", later, false},
		"kept, notes missing":    {"rm meta; : >kept", later, false},
		"of this boot":           {"rm meta", bootTime(), false},
		"when it was, not known": {"rm meta", 0, false},
	} {
		b := w.branch()
		id := b.ID()
		b.Close()
		w.sh("cd " + w.base + "/" + id + "; " + tc.edit)
		if got := orphan(base, id, tc.booted); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	must(t, os.Mkdir(filepath.Join(w.base, "other"), 0o700))
	if orphan(base, "other", later) {
		t.Error("what has no name of a branch is taken for one")
	}
	if up := bootTime(); up <= 0 || up >= stamp(time.Now().UnixNano()) {
		t.Errorf("the machine started at %d", up)
	}
}

// brokenDisk fails to sync file systems.
type brokenDisk struct{ kernelSys }

func (brokenDisk) syncfs(int) error { return unix.EIO }

// TestDiskFailed is told once by the kernel, and remembered.
func TestDiskFailed(t *testing.T) {
	for name, end := range map[string]func(b *Branch) error{
		"keep":   func(b *Branch) error { return b.Keep("exit code 0") },
		"commit": func(b *Branch) error { return b.Commit(CommitOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, setting{})
			w.sh("echo old > f")
			old := w.real()
			b := w.branch()
			w.in(b, "for i in {1..20}; do echo new > new$i; done") // more than are synced one by one
			b.sys = brokenDisk{}
			if err := end(b); !errors.Is(err, unix.EIO) {
				t.Fatalf("%v, want EIO", err)
			}
			b.sys = kernelSys{}
			if err := b.Reuse(); !errors.Is(err, unix.EIO) {
				t.Errorf("again: %v, want EIO", err)
			}
			w.same("failed", w.real(), old)
			id := b.ID()
			b.Close()
			w.wantIncomplete(id, true)
		})
	}
}
