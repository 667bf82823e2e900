package branch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func inMemory() setting { return setting{options: Options{Disk: 1 << 20}} }

// TestMemorySaved has a commit fail: what was in memory must be as good as a branch that was in its directory all the time.
func TestMemorySaved(t *testing.T) {
	w := newWorld(t, inMemory())
	w.sh("echo a > a; echo b > b; mkdir d; echo c > d/c")
	b := w.branch()
	if info, err := Show(w.base, b.ID()); err != nil || !info.Empty {
		t.Errorf("show: %+v, %v, want nothing in its directory", info, err)
	}
	want := w.in(b, "echo x >> a; rm b; rm -r d; mkdir -m 700 d; echo n > d/n; ln d/n d/m; touch -d 2000-01-01 d/n d")
	w.sh("echo y >> a")
	mine := w.real()
	var conflict *ConflictError
	if err := b.Commit(CommitOptions{}); !errors.As(err, &conflict) || !strings.Contains(err.Error(), b.Dir()) {
		t.Fatalf("commit: %v, want a conflict", err)
	}
	w.same("workdir", w.real(), mine)
	b.Close()
	if info, err := Show(w.base, b.ID()); err != nil || info.Empty || info.Kept != ReasonDeferred {
		t.Errorf("show: %+v, %v", info, err)
	}
	b, err := Open(w.base, b.ID())
	must(t, err)
	defer b.Close()
	must(t, b.Commit(CommitOptions{Force: true}))
	got := w.real()
	if n := got.at("d/n").Names; n == "" || n != got.at("d/m").Names {
		t.Error("d/n and d/m are not one file")
	}
	w.same("committed", got.singles().but(""), want.singles().but(""))
}

// TestMemoryLost has what is in memory not be saved: no message may say that it is.
func TestMemoryLost(t *testing.T) {
	for name, end := range map[string]func(w *world, b *Branch) error{
		"kept": func(w *world, b *Branch) error { return b.Keep("asked") },
		"commit": func(w *world, b *Branch) error {
			w.sh("echo y >> a")
			return b.Commit(CommitOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, inMemory())
			w.sh("echo a > a")
			b := w.branch()
			w.in(b, "echo x >> a; echo n > n")
			b.sys = &full{}
			err := end(w, b)
			var lost *LostError
			if !errors.As(err, &lost) || !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "kept in") {
				t.Errorf("%v, want the changes to be lost", err)
			}
			if left, err := os.ReadDir(b.Dir() + "/saving"); err == nil {
				t.Errorf("left: %v", left)
			}
			b.sys = kernelSys{}
			must(t, b.Abort())
			if wantsIn := w.real().but("", "a"); len(wantsIn) > 0 {
				t.Errorf("the workdir got %v", wantsIn.paths())
			}
		})
	}
}

// full is a storage without room for contents.
type full struct{ kernelSys }

func (f *full) fill(to, from int, size int64) error {
	if path, err := os.Readlink(procPath(to)); err == nil && strings.Contains(path, "/saving/") {
		return unix.ENOSPC
	}
	return f.kernelSys.fill(to, from, size)
}

// TestMemoryKilled has the process die: its changes are gone, and nothing may fail of that but their use.
func TestMemoryKilled(t *testing.T) {
	for _, at := range []int{0, 30, 75} {
		w := newWorld(t, inMemory())
		w.sh(crashBefore)
		before := w.real()
		b := w.branch()
		w.in(b, crashScript)
		if at > 0 {
			b.sys = &faulty{t: t, left: at}
			if _, dead := until(func() error { return b.Commit(CommitOptions{}) }); !dead {
				t.Fatal("the commit was over before")
			}
		}
		b.Close()
		must(t, removePath(w.layers))
		must(t, os.Mkdir(w.layers, 0o700))
		info, err := Show(w.base, b.ID())
		if err != nil || !info.Empty {
			t.Fatalf("show: %+v, %v", info, err)
		}
		want := Nothing
		if at > 0 {
			want = Lost
		}
		if got, err := Recover(w.base, b.ID()); err != nil || got != want {
			t.Errorf("recover: %q, %v, want %q", got, err, want)
		}
		w.same("recovered", w.real(), before)
		if at > 0 {
			if _, err := os.Stat(filepath.Join(w.base, b.ID())); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the branch is there: %v", err)
			}
			continue
		}
		again, err := Open(w.base, b.ID())
		must(t, err)
		for _, err := range again.Changes() {
			if !errors.Is(err, errGone) {
				t.Errorf("changes: %v", err)
			}
		}
		if err := again.Commit(CommitOptions{}); !errors.Is(err, errGone) {
			t.Errorf("commit: %v", err)
		}
		must(t, again.Abort())
	}
}
