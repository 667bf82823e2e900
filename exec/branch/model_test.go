package branch

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// recent is later than any time that the model sets, in nanoseconds.
const recent = 1_500_000_000 * 1_000_000_000

// modelNames are of files and directories alike, so that types change. Those that begin with u are not in the lower tree:
// directories of such names can be renamed, as overlayfs made them.
var modelNames = []string{"a", "b", "c", "d", "e", "\xff\n", "-x", "u0", "u1", "u2"}

func modelPath(r *rand.Rand) string {
	path := modelNames[r.IntN(len(modelNames))]
	for r.IntN(3) > 0 && len(path) < 8 {
		path += "/" + modelNames[r.IntN(len(modelNames))]
	}
	return path
}

// modelChild makes random changes below the current directory. The same seed makes the same.
func modelChild(args []string) error {
	seed, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	unix.Umask(0)
	r := rand.New(rand.NewPCG(seed, 0))
	for range count {
		modelStep(r)
	}
	return nil
}

func movable(path string) bool { return len(path) > 1 && path[len(path)-2] == 'u' }

func modelStep(r *rand.Rand) {
	path, other := modelPath(r), modelPath(r)
	n := r.IntN(1 << 16)
	var st unix.Stat_t
	kind := uint32(0)
	if unix.Lstat(path, &st) == nil {
		kind = kindOf(&st)
	}
	switch op := r.IntN(20); op {
	case 0, 1, 2, 3: // of the whole, at the end, somewhere with a hole before
		if kind != 0 && kind != unix.S_IFREG {
			return
		}
		flags := []int{unix.O_TRUNC, unix.O_APPEND, 0, unix.O_EXCL}[op]
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|flags, 0o600|uint32(n&0o77))
		if err != nil {
			return
		}
		_, _ = unix.Pwrite(fd, fmt.Appendf(nil, "%d %s", n, path), int64(op/2*n))
		unix.Close(fd)
	case 4, 5:
		_ = unix.Unlink(path)
	case 6:
		_ = unix.Rmdir(path)
	case 7, 8:
		_ = unix.Mkdir(path, []uint32{0o755, 0o700, 0o711, 0o2775}[n%4])
	case 9, 10:
		if kind == unix.S_IFDIR && (!movable(path) || !movable(other)) {
			return
		}
		_ = unix.Rename(path, other)
	case 11, 12:
		_ = unix.Link(path, other)
	case 13:
		_ = unix.Symlink(other, path)
	case 14:
		if kind == unix.S_IFREG {
			_ = unix.Chmod(path, 0o400|uint32(n&0o377))
		} else if kind == unix.S_IFDIR {
			_ = unix.Chmod(path, []uint32{0o755, 0o700, 0o555}[n%3])
		}
	case 15:
		t := unix.Timespec{Sec: int64(n) * 1000, Nsec: int64(n)}
		if kind != 0 {
			_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
		}
	case 16:
		if kind == unix.S_IFREG || kind == unix.S_IFDIR {
			_ = unix.Setxattr(path, "user.m"+strconv.Itoa(n%3), fmt.Append(nil, n), 0)
		}
	case 17:
		if kind == unix.S_IFREG || kind == unix.S_IFDIR {
			_ = unix.Removexattr(path, "user.m"+strconv.Itoa(n%3))
		}
	case 18:
		_ = unix.Mkfifo(path, 0o640)
	case 19:
		if n%3 == 0 && kind != 0 { // RemoveAll would wait for a FIFO in the place of a directory
			_ = os.RemoveAll(path)
		} else if kind == unix.S_IFREG {
			_ = unix.Truncate(path, int64(n))
		}
	}
}

// TestModel makes the same changes on a copy and in a branch. What is committed is what the branch showed, to the last time;
// and it is the copy, but for the times of what was changed, which are the clock's.
func TestModel(t *testing.T) {
	const count = 10_000
	eachSetting(t, func(t *testing.T, s setting) {
		w := newWorld(t, s)
		// A tree to begin with, that has no name of u.
		w.sh(`for a in a b c d e $'\xff\n' -x; do mkdir -- ./"$a"; for b in a b c; do mkdir -- ./"$a/$b"; echo "$a/$b" > ./"$a/$b/a"; echo "$b" > ./"$a/$b/-x"; done; echo "$a" > ./"$a/d"; ln -s ../a ./"$a/e"; done
find . -exec touch -h -d 2001-01-01 {} +`)
		for seed := uint64(1); seed <= 2; seed++ {
			args := []string{strconv.FormatUint(seed, 10), strconv.Itoa(count)}
			copied := &world{t: t, setting: s, workdir: w.workdir + "-" + args[0]}
			if out, err := exec.Command("cp", "-a", w.workdir, copied.workdir).CombinedOutput(); err != nil {
				t.Fatalf("copy: %v\n%s", err, out)
			}
			want := copied.plainModel(args)
			b := w.branch()
			before := w.real()
			shown := w.child(b, "model", args...)
			w.same("workdir after the command", w.real(), before)
			w.checkChanges(b, before.singles(), shown.singles())
			must(t, b.Commit(CommitOptions{}))
			got := w.real()
			w.same("committed, and as the branch showed it", got.singles(), shown.singles())
			w.same("committed, and the copy", got.timeless(), want.timeless())
			if t.Failed() {
				return
			}
			w.sh(`find . -type d -exec chmod u+rwx {} +; find . -name 'u?' -prune -exec rm -rf {} +`)
		}
	})
}

// plainModel runs the model in a directory without a branch.
func (w *world) plainModel(args []string) tree {
	w.t.Helper()
	b := &Branch{notes: notes{Workdir: w.workdir}}
	return w.child(b, "plain", args...)
}

// timeless is a tree in which the time of what was changed is just that.
func (t tree) timeless() tree {
	out := tree{}
	for p, e := range t {
		if e.Mtime > recent {
			e.Mtime = recent
		}
		out[p] = e
	}
	return out
}

// TestManyEntries is a commit of many files, for its time to be seen.
func TestManyEntries(t *testing.T) {
	n := 10_000
	if os.Getenv("SANDLOCK_SOAK") != "" {
		n = 100_000
	} else if testing.Short() || os.Getuid() != 0 {
		n = 5000
	}
	w := newWorldIn(t, setting{}, "/dev/shm")
	w.sh(fmt.Sprintf("mkdir many; cd many; seq -f f%%06.0f %d | xargs touch", n/2))
	b := w.branch()
	w.in(b, fmt.Sprintf("rm -r many; mkdir many new; cd new; seq -f f%%06.0f %d | xargs touch; cd ../many; seq -f f%%06.0f %d | xargs touch", n/2, n/4))
	changes := 0
	for _, err := range b.Changes() {
		must(t, err)
		changes++
	}
	must(t, b.Commit(CommitOptions{}))
	if got, want := len(w.real()), 1+1+n/4+1+n/2; got != want {
		t.Errorf("committed %d entries, want %d", got, want)
	}
	t.Logf("%d changes", changes)
}
