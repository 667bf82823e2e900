package branch

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The change set that the commits of these tests are interrupted in has one of everything.
const (
	crashBefore = `echo mod > mod; echo del > del; echo mode > mode; mkdir -p tree/sub opq/sub merged/ro gone emp
echo 1 > tree/sub/1; echo 2 > opq/sub/2; echo 3 > merged/ro/3; echo 4 > gone/4; ln -s old lnk; echo f > totree; mkdir tofile; echo t > tofile/t
echo h > h; ln h h2; chmod 555 merged/ro gone; touch -d 2000-01-01 merged merged/ro tree . gone; touch -d 2001-01-01 mode`
	crashScript = `echo x >> mod; rm del; chmod 600 mode; rm -r tree; rm -r opq; mkdir opq; echo n > opq/n
chmod u+w merged/ro; echo new > merged/ro/new; echo x >> merged/ro/3; chmod 555 merged/ro; chmod u+w gone; rm -r gone; mkdir gone; chmod 500 gone
ln -sf new lnk; rm totree; mkdir -p totree/a/b; echo q > totree/a/b/q; rm -r tofile; echo file > tofile; ln mod mod2; rm h; mkfifo ff; chmod 700 emp`
)

// fewBefore and fewScript are a change set that is synced file by file.
const (
	fewBefore = `echo mod > mod; echo del > del; mkdir d; touch -d 2000-01-01 d mod .`
	fewScript = `echo x >> mod; rm del; mkdir -p d/n/o; echo n > d/n/o/n; chmod 500 d/n`
)

type crashWorld struct {
	*world
	id       string
	old, new tree
}

func newCrashWorld(t *testing.T, s setting) *crashWorld {
	return newCrashWorldOf(t, s, crashBefore, crashScript)
}

func newCrashWorldOf(t *testing.T, s setting, before, script string) *crashWorld {
	w := &crashWorld{world: newWorldIn(t, s, cmp.Or(os.Getenv(crashVariable), "/dev/shm"))}
	w.sh(before)
	w.old = w.real()
	b := w.branch()
	w.new = w.in(b, script).singles()
	w.id = b.ID()
	b.Close()
	return w
}

// recovered recovers until it succeeds, and says which tree there is.
func (w *crashWorld) recovered(what string, between func(b *Branch) error) Outcome {
	w.t.Helper()
	if between != nil {
		b, err := Open(w.base, w.id)
		if err == nil {
			_ = between(b)
			b.Close()
		}
	}
	outcome, err := Recover(w.base, w.id)
	if errors.Is(err, unix.ENOENT) { // the branch was gone already, or its name
		outcome, err = Completed, nil
	}
	if err != nil {
		w.t.Fatalf("%s: recover: %v", what, err)
	}
	if again, err := Recover(w.base, w.id); outcome == Completed && !errors.Is(err, unix.ENOENT) ||
		outcome != Completed && (err != nil || again != Nothing) {
		w.t.Fatalf("%s: recover after %q: %v, %v", what, outcome, again, err)
	}
	switch outcome {
	case Completed:
		if !w.same(what+": "+string(outcome), w.real().singles(), w.new) {
			w.t.FailNow()
		}
	default:
		if !w.same(what+": "+string(outcome), w.real(), w.old) {
			w.t.FailNow()
		}
	}
	return outcome
}

// interrupted commits with a fault after each number of calls. A branch whose commit was undone is used again: what an undo
// leaves must be as good as new.
func interrupted(t *testing.T, s setting, fault func(f *faulty), after func(w *crashWorld, f *faulty, what string) Outcome) {
	t.Run("few", func(t *testing.T) { interruptedIn(t, s, fewBefore, fewScript, strideOf(s)/10+1, fault, after) })
	t.Run("many", func(t *testing.T) { interruptedIn(t, s, crashBefore, crashScript, strideOf(s), fault, after) })
}

func interruptedIn(t *testing.T, s setting, before, script string, stride int, fault func(f *faulty), after func(w *crashWorld, f *faulty, what string) Outcome) {
	w := newCrashWorldOf(t, s, before, script)
	seen := map[Outcome]int{}
	for n := 0; ; n += stride {
		b, err := Open(w.base, w.id)
		must(t, err)
		f := &faulty{t: t, left: n}
		fault(f)
		b.sys = f
		err, dead := until(func() error { return b.Commit(CommitOptions{}) })
		b.Close()
		what := fmt.Sprintf("call %d", n)
		if !dead && err == nil {
			if f.left >= 0 && f.count <= n { // it never came to the fault
				w.same(what, w.real().singles(), w.new)
				t.Logf("%d calls: %v", f.count, seen)
				if seen[Undone]+seen[Nothing] == 0 || seen[Completed] == 0 {
					t.Error("want both outcomes")
				}
				return
			}
		}
		var conflict *ConflictError
		if errors.As(err, &conflict) {
			t.Fatalf("%s: %v", what, err)
		}
		o := after(w, f, what)
		seen[o]++
		// A branch that has lost something is good for no other commit.
		if o == Completed || f.hurt || w.incomplete() {
			w = newCrashWorldOf(t, s, before, script)
		}
	}
}

// incomplete tells whether the branch says so.
func (w *crashWorld) incomplete() bool {
	w.t.Helper()
	info, err := Show(w.base, w.id)
	must(w.t, err)
	return info.Incomplete
}

// strideOf tells how many calls of the large change set lie between two faults: all have theirs with SANDLOCK_SOAK, which takes
// minutes. Of the small set it is a tenth of that, each in the first setting.
func strideOf(s setting) int {
	switch {
	case os.Getenv("SANDLOCK_SOAK") != "":
		return 1
	case s == setting{name: "userxattr"} && os.Getuid() == 0:
		return 9
	}
	return 43
}

// TestKilled dies after each call of a commit; of the recoveries each dies once too, somewhere.
func TestKilled(t *testing.T) {
	eachSetting(t, func(t *testing.T, s setting) {
		r := rand.New(rand.NewPCG(1, 2))
		interrupted(t, s, func(*faulty) {}, func(w *crashWorld, _ *faulty, what string) Outcome {
			return w.recovered(what, func(b *Branch) error {
				b.sys = &faulty{t: t, left: r.IntN(60)}
				err, _ := until(func() error { _, err := b.recover(); return err })
				return err
			})
		})
	})
}

// TestKilledPlain is TestKilled where names cannot be exchanged.
func TestKilledPlain(t *testing.T) {
	w := newCrashWorld(t, setting{})
	for n := 0; ; n += 2 {
		b, err := Open(w.base, w.id)
		must(t, err)
		b.sys = &plainFaulty{faulty{t: t, left: n}}
		_, dead := until(func() error { return b.Commit(CommitOptions{}) })
		b.Close()
		if !dead {
			return
		}
		if w.recovered(fmt.Sprintf("call %d", n), nil) == Completed {
			w = newCrashWorld(t, setting{})
		}
	}
}

// TestFails has each call of a commit fail.
func TestFails(t *testing.T) {
	eachSetting(t, func(t *testing.T, s setting) {
		interrupted(t, s, func(f *faulty) { f.fail = unix.EIO }, func(w *crashWorld, f *faulty, what string) Outcome {
			return w.recovered(what, nil)
		})
	})
}

// TestPowerLoss loses what was not synced, after each call of a commit.
func TestPowerLoss(t *testing.T) {
	eachSetting(t, func(t *testing.T, s setting) {
		r := rand.New(rand.NewPCG(3, 4))
		interrupted(t, s, func(f *faulty) { f.lossy = true }, func(w *crashWorld, f *faulty, what string) Outcome {
			lost := f.loss(r)
			f.close()
			return w.recovered(fmt.Sprintf("%s, lost %q", what, lost), nil)
		})
	})
}

// TestStorageLost loses the storage with the power, as one in memory is.
func TestStorageLost(t *testing.T) {
	s := setting{memory: true}
	calls := 0
	for n := 0; ; n += 13 {
		w := newCrashWorld(t, s)
		b, err := Open(w.base, w.id)
		must(t, err)
		f := &faulty{t: t, left: n}
		b.sys = f
		_, dead := until(func() error { return b.Commit(CommitOptions{}) })
		b.Close()
		if !dead {
			break
		}
		calls++
		must(t, removePath(w.base))
		outcome, err := RecoverWorkdir(w.workdir)
		if err != nil {
			t.Fatalf("call %d: %v", n, err)
		}
		got := w.real()
		want := w.old
		if outcome == Completed || outcome == Nothing && f.count > 150 {
			got, want = got.singles(), w.new
		}
		// The time of the workdir itself is in the branch while the stage is not there.
		got, want = got.but(""), want.but("")
		if !w.same(fmt.Sprintf("call %d: %s", n, outcome), got, want) {
			return
		}
		if _, err := os.Lstat(w.workdir + "/" + stageName); err == nil {
			t.Errorf("call %d: the stage is left", n)
		}
	}
	t.Logf("%d crashes", calls)
}
