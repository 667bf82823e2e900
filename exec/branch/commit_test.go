package branch

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestConflicts(t *testing.T) {
	const before = "echo a > a; echo b > b; mkdir -p d/s e r s; echo 1 > d/s/1; echo z > e/z; echo r > r/f; echo s > s/z"
	var replaced []string // overlayfs notes which directory it has copied, if it is mounted by root
	if os.Getuid() == 0 {
		replaced = []string{"e"}
	}
	for _, tc := range []struct {
		name, inside, outside string
		want                  []string // nil: no conflict
	}{
		{"modified by both", "echo x >> a", "echo y >> a", []string{"a"}},
		{"same size and time", "echo x > a", "t=$(stat -c %y a); echo q > a; touch -d \"$t\" a", []string{"a"}},
		{"removed inside", "rm a", "echo y >> a", []string{"a"}},
		{"mode outside", "echo x >> a", "chmod 600 a", []string{"a"}},
		{"replaced outside", "echo x >> a", "echo q > q; mv q a", []string{"a"}},
		{"created by both", "echo x > n", "echo y > n", []string{"n"}},
		{"directory created by both", "mkdir n; echo x > n/x", "mkdir n; echo y > n/y", nil}, // is merged
		{"directory created by both, of other modes", "mkdir n; echo x > n/x", "mkdir -m 700 n; echo y > n/y", []string{"n"}},
		{"modified below a removed directory", "rm -r d", "echo y >> d/s/1", []string{"d/s/1"}},
		{"created below a removed directory", "rm -r d", "echo y > d/s/new", []string{"d/s", "d/s/new"}},
		{"removed outside", "echo x >> a", "rm a", []string{"a"}},
		{"directory removed outside", "echo x >> e/z", "rm -r e", []string{"e"}},
		{"directory replaced outside", "echo x >> e/z", "rm -r e; mv s e", replaced},
		{"directory's mode by both", "chmod 700 e", "chmod 711 e", []string{"e"}},
		{"other files", "echo x >> a; echo n > e/n", "echo y >> b; echo m > e/m; rm -r d", nil},
		{"removed by both", "rm a", "rm a", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, setting{})
			w.sh(before)
			b := w.branch()
			w.in(b, tc.inside)
			w.sh(tc.outside)
			mine := w.real()
			err := b.Commit(CommitOptions{})
			var conflict *ConflictError
			switch {
			case tc.want == nil:
				if err != nil {
					t.Errorf("commit: %v", err)
				}
				return
			case !errors.As(err, &conflict):
				t.Fatalf("commit: %v, want a conflict of %q", err, tc.want)
			case !slices.Equal(conflict.Paths, tc.want):
				t.Errorf("conflict of %q, want %q", conflict.Paths, tc.want)
			}
			w.same("workdir", w.real(), mine)
			if info, err := Show(w.base, b.ID()); err != nil || info.Kept != ReasonDeferred || !strings.Contains(info.Detail, "changed outside") {
				t.Errorf("show: %+v, %v", info, err)
			}
			if err := b.Commit(CommitOptions{}); !errors.As(err, &conflict) {
				t.Errorf("second commit: %v, want the conflict again", err)
			}
			w.same("workdir", w.real(), mine)
			if err := b.Commit(CommitOptions{Force: true}); err != nil {
				t.Errorf("forced: %v", err)
			}
		})
	}
}

// TestMounted has something mounted in the workdir, which the overlay does not show: a commit neither changes nor removes it.
func TestMounted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root, to mount")
	}
	for _, tc := range []struct{ name, inside string }{
		{"file", "chmod 666 f"}, // with the contents of what is mounted
		{"file removed", "rm f"},
		{"written beneath", "echo x > d/m/x"},
		{"removed", "rmdir d/m"},
		{"removed with the directory above", "rm -r d"},
		{"replaced with it", "rm -r d; mkdir d"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, setting{})
			w.sh("echo f > f; mkdir -p d/m; mkdir ../out; echo o > ../out/o; echo f > ../out/f")
			b := w.branch()
			w.in(b, tc.inside)
			for _, paths := range [][2]string{{"out", "w/d/m"}, {"out/f", "w/f"}} {
				must(t, unix.Mount(filepath.Join(w.dir, paths[0]), filepath.Join(w.dir, paths[1]), "", unix.MS_BIND, ""))
				defer unix.Unmount(filepath.Join(w.dir, paths[1]), unix.MNT_DETACH)
			}
			mine := w.real()
			for _, force := range []bool{false, true} {
				var failed *CommitError
				if err := b.Commit(CommitOptions{Force: force}); !errors.Is(err, errMounted) || !errors.As(err, &failed) || !failed.Undone {
					t.Errorf("commit: %v", err)
				}
				w.same("workdir", w.real(), mine)
			}
			var shown error
			for _, err := range b.Changes() {
				shown = err
			}
			if !errors.Is(shown, errMounted) {
				t.Errorf("changes: %v", shown)
			}
			if err := removePath(filepath.Join(w.workdir, "d")); !errors.Is(err, errMounted) { // as it would be once it is in the stage
				t.Errorf("removal: %v", err)
			}
			wantText(t, filepath.Join(w.dir, "out/o"), "o\n")
		})
	}
}

// crowded is a file system that has no room for the state "committed", nor for "undone" until something is removed.
type crowded struct {
	kernelSys
	states  int
	removed bool
}

func (c *crowded) create(dir int, name string, mode uint32) (int, error) {
	if name == ".state.new" {
		if c.states++; c.states > 1 && !c.removed {
			return -1, unix.ENOSPC
		}
	}
	return c.kernelSys.create(dir, name, mode)
}

func (c *crowded) unlink(dir int, name string, flags int) error {
	c.removed = c.removed || c.states > 2
	return c.kernelSys.unlink(dir, name, flags)
}

// TestFullAtTheEnd has the last block of the file system taken while a commit is applied.
func TestFullAtTheEnd(t *testing.T) {
	w := newWorld(t, setting{})
	w.sh("echo a > a; echo b > b; mkdir d; echo c > d/c")
	b := w.branch()
	w.in(b, "echo x >> a; rm -r d; mkdir d; echo n > n; rm b")
	mine := w.real()
	b.sys = &crowded{}
	var failed *CommitError
	if err := b.Commit(CommitOptions{}); !errors.Is(err, unix.ENOSPC) || !errors.As(err, &failed) || !failed.Undone {
		t.Errorf("commit: %v", err)
	}
	w.same("workdir", w.real(), mine)
	b.sys = kernelSys{}
	must(t, b.Commit(CommitOptions{}))
}

// TestStorageOnMount has the storage on a mount in the workdir, of the same file system: that is not in the overlay.
func TestStorageOnMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root, to mount")
	}
	w := newWorld(t, setting{})
	w.sh("mkdir m; mkdir ../out")
	must(t, unix.Mount(filepath.Join(w.dir, "out"), filepath.Join(w.workdir, "m"), "", unix.MS_BIND, ""))
	defer unix.Unmount(filepath.Join(w.workdir, "m"), unix.MNT_DETACH)
	w.base = filepath.Join(w.workdir, "m/base")
	_, err := Base(w.base)
	must(t, err)
	b := w.branch()
	w.in(b, "echo a > a")
	must(t, b.Commit(CommitOptions{}))
	wantText(t, filepath.Join(w.workdir, "a"), "a\n")
}

// TestAppendOnly has a directory in which names can be made and not taken away: a commit there could not be undone.
func TestAppendOnly(t *testing.T) {
	const flags = 0x20 // FS_APPEND_FL
	if os.Getuid() != 0 {
		t.Skip("takes root, for CAP_LINUX_IMMUTABLE")
	}
	w := newWorld(t, setting{})
	w.sh("mkdir d; echo a > a")
	b := w.branch()
	w.in(b, "echo n > d/n; echo x >> a")
	mine := w.real()
	d, err := os.Open(filepath.Join(w.workdir, "d"))
	must(t, err)
	defer d.Close()
	if err := unix.IoctlSetPointerInt(int(d.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
		lacks(t, err)
	}
	defer unix.IoctlSetPointerInt(int(d.Fd()), unix.FS_IOC_SETFLAGS, 0)
	var failed *CommitError
	if err := b.Commit(CommitOptions{Force: true}); !errors.Is(err, errAppend) || !errors.As(err, &failed) || !failed.Undone {
		t.Errorf("commit: %v", err)
	}
	w.same("workdir", w.real(), mine)
}

func wantText(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s has %q (%v), want %q", path, got, err, want)
	}
}

// TestChangedMeanwhile has a file change after the plan.
func TestChangedMeanwhile(t *testing.T) {
	for _, script := range []string{"echo y >> b", "rm b", "chmod 600 b", "echo q > q; mv q b", "rm b; mkdir b"} {
		w := newWorld(t, setting{})
		w.sh("echo a > a; echo b > b; echo c > c")
		b := w.branch()
		w.in(b, "echo x >> a; echo x >> b; rm c")
		var outside tree
		b.sys = &meddler{before: func() {
			w.sh(script)
			outside = w.real().but("", stageName)
			for p := range outside {
				if strings.HasPrefix(string(unhex(p)), stageName) {
					delete(outside, p)
				}
			}
		}}
		err := b.Commit(CommitOptions{})
		var conflict *ConflictError
		if !errors.As(err, &conflict) || !slices.Equal(conflict.Paths, []string{"b"}) {
			t.Errorf("%s: commit: %v", script, err)
		}
		w.same(script, w.real().but(""), outside)
	}
}

// meddler does something before the first name is exchanged.
type meddler struct {
	kernelSys
	before func()
}

func (m *meddler) rename(fromDir int, from string, dir int, name string, flags uint) error {
	if flags != 0 && m.before != nil {
		m.before()
		m.before = nil
	}
	return m.kernelSys.rename(fromDir, from, dir, name, flags)
}

// plain is a file system without the flags of renameat2.
type plain struct{ kernelSys }

func (p plain) rename(fromDir int, from string, dir int, name string, flags uint) error {
	if flags != 0 {
		return unix.EINVAL
	}
	return p.kernelSys.rename(fromDir, from, dir, name, flags)
}

func TestPlainRename(t *testing.T) {
	w := newCrashWorld(t, setting{})
	b, err := Open(w.base, w.id)
	must(t, err)
	b.sys = plain{}
	must(t, b.Commit(CommitOptions{}))
	w.same("committed", w.real().singles(), w.new)
}

func TestLock(t *testing.T) {
	w := newWorld(t, setting{})
	w.sh("echo a > a")
	before := w.real()
	b := w.branch()
	w.in(b, "echo x >> a")
	fd, err := unix.Open(w.workdir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	must(t, unix.Flock(fd, unix.LOCK_EX))
	var lock *LockError
	if err := b.Commit(CommitOptions{Wait: 50 * time.Millisecond}); !errors.As(err, &lock) || !lock.Busy || lock.Dir != b.Dir() {
		t.Errorf("commit under another's lock: %v", err)
	}
	w.same("workdir", w.real(), before)

	time.AfterFunc(50*time.Millisecond, b.Stop)
	if err := b.Commit(CommitOptions{Wait: time.Hour}); !errors.As(err, &lock) || lock.Busy || !errors.Is(err, ErrStopped) || lock.Dir != b.Dir() {
		t.Errorf("commit that was stopped: %v", err)
	}
	w.same("workdir after a commit that was stopped", w.real(), before)
	if info, err := Show(w.base, b.ID()); err != nil || info.Kept != ReasonDeferred || !strings.Contains(info.Detail, "interrupted") {
		t.Errorf("branch after a commit that was stopped: %+v, %v", info, err)
	}
	b.Close()
	b, err = Open(w.base, b.ID())
	must(t, err)

	time.AfterFunc(100*time.Millisecond, func() { unix.Close(fd) })
	must(t, b.Commit(CommitOptions{}))
	if err := b.Commit(CommitOptions{}); err == nil {
		t.Error("second commit: no error")
	}

	// Nobody has the lock: there is no wait to be stopped, and what is decided is done.
	b = w.branch()
	shown := w.in(b, "echo y >> a")
	b.Stop()
	must(t, b.Commit(CommitOptions{}))
	w.same("committed", w.real(), shown)
}

// TestTogether commits branches of one workdir at the same time: those that touch one file conflict, others do not.
func TestTogether(t *testing.T) {
	w := newWorld(t, setting{})
	w.sh("echo 0 > shared; for i in 0 1 2 3 4 5; do mkdir d$i; echo $i > d$i/f; done")
	var branches []*Branch
	for i := range 6 {
		b := w.branch()
		w.in(b, fmt.Sprintf("echo x >> d%d/f; echo n > n%d; if [ %d -lt 3 ]; then echo %d > shared; fi", i, i, i, i))
		branches = append(branches, b)
	}
	errs := make([]error, len(branches))
	var all sync.WaitGroup
	for i, b := range branches {
		all.Go(func() { errs[i] = b.Commit(CommitOptions{Wait: time.Minute}) })
	}
	all.Wait()
	failed := 0
	for i, err := range errs {
		var conflict *ConflictError
		_, there := w.real()[hexed(fmt.Sprintf("n%d", i))]
		switch {
		case errors.As(err, &conflict) && i < 3 && slices.Equal(conflict.Paths, []string{"shared"}):
			failed++
			if there {
				t.Errorf("branch %d conflicts, and left something", i)
			}
		case err != nil || !there:
			t.Errorf("branch %d: %v, committed: %v", i, err, there)
		}
	}
	if failed != 2 {
		t.Errorf("%d conflicts of three, want 2", failed)
	}
}

func TestKeep(t *testing.T) {
	w := newWorld(t, setting{})
	w.sh("echo victim > victim")
	b := w.branch()
	w.in(b, "rm victim; echo NEW > added")
	must(t, b.Keep("asked"))
	if info, err := Show(w.base, b.ID()); err != nil || !info.Alive || info.Kept != ReasonKept || info.Detail != "asked" || info.Workdir != w.workdir {
		t.Errorf("show: %+v, %v", info, err)
	}
	if _, err := Open(w.base, b.ID()); !errors.Is(err, errBusy) {
		t.Errorf("open of an open branch: %v", err)
	}
	id := b.ID()
	b.Close()
	all, err := List(w.base)
	if err != nil || len(all) != 1 || all[0].Alive || all[0].ID != id {
		t.Errorf("list: %+v, %v", all, err)
	}
	b, err = Open(w.base, id)
	must(t, err)
	w.checkChangesLike(b, `A "added"`, `D "victim"`)
	text, err := b.OpenNew("added")
	must(t, err)
	text.Close()
	must(t, b.Commit(CommitOptions{}))
	if got := w.real().paths(); !slices.Equal(got, []string{"", "added"}) {
		t.Errorf("committed: %q", got)
	}
	if err := Discard(w.base, id); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("discard of what is gone: %v", err)
	}
}

// TestOtherWorkdir has another directory in the place of the workdir, of the same number: all file systems have one for their top.
func TestOtherWorkdir(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root, to mount")
	}
	w := newWorld(t, setting{})
	mount := func() { must(t, unix.Mount("none", w.workdir, "tmpfs", 0, "mode=755")) }
	mount()
	defer unix.Unmount(w.workdir, unix.MNT_DETACH)
	b := w.branch()
	must(t, b.Keep("asked"))
	b.Close()
	again, err := Open(w.base, b.ID())
	must(t, err)
	again.Close()
	must(t, unix.Unmount(w.workdir, 0))
	mount()
	if _, err := Open(w.base, b.ID()); err == nil || !strings.Contains(err.Error(), "not the directory any more") {
		t.Errorf("open: %v", err)
	}
	must(t, Discard(w.base, b.ID()))
}

func TestUnfinished(t *testing.T) {
	w := newCrashWorld(t, setting{})
	b, err := Open(w.base, w.id)
	must(t, err)
	b.sys = &faulty{t: t, left: 60}
	if _, dead := until(func() error { return b.Commit(CommitOptions{}) }); !dead {
		t.Fatal("the commit was over before")
	}
	b.Close()
	var unfinished *UnfinishedError
	if _, err := New(w.base, w.workdir, Options{}); !errors.As(err, &unfinished) {
		t.Errorf("new branch of an unfinished workdir: %v", err)
	}
	if id, err := Unfinished(w.workdir); err != nil || id != w.id {
		t.Errorf("unfinished: %q, %v", id, err)
	}
	if err := Discard(w.base, w.id); !errors.As(err, &unfinished) {
		t.Errorf("discard of an unfinished branch: %v", err)
	}
	w.recovered("recover", nil)
	// One that came with files from elsewhere, as it would be checked out.
	must(t, os.MkdirAll(filepath.Join(w.workdir, stageName), 0o755))
	must(t, os.WriteFile(filepath.Join(w.workdir, stageName, "state"), []byte(statePlanned), 0o644))
	if outcome, err := RecoverWorkdir(w.workdir); err == nil || !strings.Contains(err.Error(), "no commit has made it") {
		t.Errorf("recovery by a journal from elsewhere: %s, %v", outcome, err)
	}
}

func TestWorkdirNames(t *testing.T) {
	w := newWorld(t, setting{})
	odd := filepath.Join(w.dir, `a:b,c\d e`)
	must(t, os.Mkdir(odd, 0o755))
	must(t, os.Symlink(odd, filepath.Join(w.dir, "link")))
	base := filepath.Join(w.dir, `s:t,u\v`)
	_, err := Base(base)
	must(t, err)
	b, err := New(base, filepath.Join(w.dir, "link"), Options{})
	must(t, err)
	defer b.Close()
	if b.Workdir() != odd {
		t.Errorf("workdir: %q", b.Workdir())
	}
	w.in(b, "echo a > a")
	must(t, b.Commit(CommitOptions{}))
	if _, err := os.Lstat(filepath.Join(odd, "a")); err != nil {
		t.Error(err)
	}
	bytes := filepath.Join(w.dir, "\xff")
	must(t, os.Mkdir(bytes, 0o755))
	if _, err := New(base, bytes, Options{}); err == nil { // one that is kept could not be opened
		t.Error("a name that is no UTF-8 was taken")
	}
}

func TestBase(t *testing.T) {
	dir := temporary(t, scratch)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	if got, err := Base(""); err != nil || got != filepath.Join(dir, "sandlock-cow") {
		t.Errorf("default: %q, %v", got, err)
	}
	must(t, os.Chmod(filepath.Join(dir, "sandlock-cow"), 0o750))
	tmp := temporary(t, scratch)
	t.Setenv("TMPDIR", tmp)
	want := filepath.Join(tmp, fmt.Sprintf("sandlock-cow-%d", os.Geteuid()))
	if got, err := Base(""); err != nil || got != want {
		t.Errorf("default where the first is open to others: %q, %v", got, err)
	}
	if got := Bases(); len(got) == 0 || got[0] != want || slices.Contains(got, filepath.Join(dir, "sandlock-cow")) {
		t.Errorf("bases: %q, want %q first and none that is open to others", got, want)
	}
	must(t, os.Chmod(filepath.Join(dir, "sandlock-cow"), 0o700))
	if got := Bases(); len(got) < 2 || got[0] != filepath.Join(dir, "sandlock-cow") || got[1] != want {
		t.Errorf("bases: %q", got)
	}
	must(t, os.Chmod(filepath.Join(dir, "sandlock-cow"), 0o750))
	must(t, os.Remove(want))
	must(t, os.Symlink(dir, want))
	if got, err := Base(""); err == nil {
		t.Errorf("planted symbolic link: %q, no error", got)
	}
	if _, err := Base(filepath.Join(tmp, "a/b")); err == nil {
		t.Error("missing directory above: no error")
	}
	if _, err := New(dir, filepath.Join(tmp, "gone"), Options{}); err == nil {
		t.Error("missing workdir: no error")
	}
	if os.Getuid() == 0 {
		foreign := filepath.Join(tmp, "foreign")
		must(t, os.Mkdir(foreign, 0o700))
		must(t, os.Chown(foreign, nobody, nobody))
		if _, err := Base(foreign); err == nil {
			t.Error("another user's: no error")
		}
	}
}

// TestManyNames is of a directory with so many names of all kinds that they are looked at ahead. That changes nothing: not even
// the number of calls, which the tests of crashes count by.
func TestManyNames(t *testing.T) {
	eachSetting(t, func(t *testing.T, s setting) {
		var calls []int
		for _, processors := range []int{1, 2} {
			w := newWorldIn(t, s, "/dev/shm")
			w.sh(`for i in {100..199}; do echo $i > $i; done; mkdir 21{0..9}; ln 180 h180; ln 181 h181; mkdir full; touch full/{1..9}; chmod 0 182`)
			b := w.branch()
			shown := w.in(b, `for i in {100..130}; do echo x >> $i; done; for i in {131..150}; do echo $i > $i; done; rm 15? h180; echo y >> h181
for i in 100 140 170; do ln $i l$i; ln $i m$i; chmod 0 m$i; done; rmdir 210 211; echo f > 211; mkdir n; touch n/{1..9}; echo x > 213/f; mv full u
for i in {271..279}; do ln -s $i s$i; done; rm 190; mkfifo 190`)
			f := &faulty{t: t, left: -1}
			b.sys = f
			was := runtime.GOMAXPROCS(processors)
			err := b.Commit(CommitOptions{})
			runtime.GOMAXPROCS(was)
			must(t, err)
			calls = append(calls, f.count)
			w.same("committed", w.real().singles().readable(), shown.singles().readable())
		}
		if calls[0] != calls[1] {
			t.Errorf("calls by processors: %d", calls)
		}
	})
}

// readable is a tree in which nothing is said of the contents of files that only root can read.
func (t tree) readable() tree {
	t = maps.Clone(t)
	for p, e := range t {
		if e.Mode&0o400 == 0 {
			e.Data = ""
			t[p] = e
		}
	}
	return t
}
