package exec_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// branched is a box whose folder for work is kept in a branch, with a storage that is its own.
type branched struct {
	*exectest.Box
	storage string
}

func newBranched(t *testing.T, u exectest.User) *branched {
	t.Helper()
	return newBranchedIn(t, exectest.NewBox(t, u))
}

// newBranchedIn makes the storage of a box that is there.
func newBranchedIn(t *testing.T, box *exectest.Box) *branched {
	t.Helper()
	b := &branched{Box: box, storage: box.Dir("storage")}
	if err := os.Chmod(b.storage, 0o700); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *branched) In(t *testing.T) *branched { return &branched{b.Box.In(t), b.storage} }

// policy has fields of the section filesystem, and text of other sections after a line of its own.
func (b *branched) policy(fields string, more ...string) string {
	return b.Policy(b.text(fields, more...))
}

func (b *branched) text(fields string, more ...string) string {
	if !strings.Contains(fields, "workdir:") {
		fields += fmt.Sprintf("\n\tworkdir: %q", b.Work)
	}
	if !strings.Contains(fields, "storage:") {
		fields += fmt.Sprintf("\n\tstorage: %q", b.storage)
	}
	return b.Base(exectest.Grants{Read: []string{b.Outside}, Write: []string{"/dev/null"}, More: "filesystem: {\n" + fields + "\n}\n" + strings.Join(more, "\n")})
}

// branch runs a command of "sandlock-exec branch" on the storage.
func (b *branched) branch(t *testing.T, name string, args ...string) exectest.Result {
	t.Helper()
	argv := append([]string{exectest.Executor(t), "branch", name, "--storage", b.storage}, args...)
	return exectest.Run(t, exectest.Opts{User: b.User, Args: argv, Dir: b.Work, Env: []string{"LANG=C"}})
}

// info is what "branch list --json" tells.
type info struct{ ID, Dir, Workdir, State, Detail string }

func (b *branched) list(t *testing.T) (all []info) {
	t.Helper()
	r := b.branch(t, "list", "--json")
	if r.Code != 0 {
		t.Fatalf("list: exit %d, %s", r.Code, r.Stderr)
	}
	for line := range strings.Lines(r.Stdout) {
		var i info
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	return all
}

// wantNone wants that the storage is as if no branch had been.
func (b *branched) wantNone(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(b.storage)
	if err != nil || len(entries) > 0 {
		t.Errorf("the storage has %v (%v), want nothing", entries, err)
	}
}

// wantOne wants one branch, in this state.
func (b *branched) wantOne(t *testing.T, state string) info {
	t.Helper()
	all := b.list(t)
	if len(all) != 1 || all[0].State != state || all[0].Workdir != b.Work {
		t.Fatalf("branches %+v, want one of %s that is %q", all, b.Work, state)
	}
	return all[0]
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s has %q (%v), want %q", path, got, err, want)
	}
}

func wantMissing(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if exists(path) {
			t.Errorf("%s is there", path)
		}
	}
}

// Numbers 1, 2, 16, 25 of the filesystem specification, and how else a command can end.
func Test_filesystem_9_1_16_how_a_branch_ends(t *testing.T) {
	const limit = "limits: memory: \"64M\""
	for name, tc := range map[string]struct {
		fields, more, script string
		code                 int
		landed, kept         bool
		said                 string
	}{
		"default, status 0":      {script: "exit 0", landed: true},
		"default, status 3":      {script: "exit 3", code: 3, said: "the changes are dropped"},
		"commit abort, status 0": {fields: `on_exit: "commit", on_error: "abort"`, script: "exit 0", landed: true},
		"commit abort, status 3": {fields: `on_exit: "commit", on_error: "abort"`, script: "exit 3", code: 3, said: "the changes are dropped"},
		"abort commit, status 3": {fields: `on_exit: "abort", on_error: "commit"`, script: "exit 3", code: 3, landed: true},
		"abort commit, status 0": {fields: `on_exit: "abort", on_error: "commit"`, script: "exit 0", said: "the changes are dropped"},
		"keep, status 0":         {fields: `on_exit: "keep"`, script: "exit 0", kept: true, said: "the changes are kept"},
		"keep, status 3":         {fields: `on_error: "keep"`, script: "exit 3", code: 3, kept: true, said: "the changes are kept"},
		"signal":                 {script: "kill -TERM $$", code: 143},
		"killed, keep":           {fields: `on_error: "keep"`, script: "kill -KILL $$", code: 137, kept: true},
		"timeout":                {more: `limits: time: "700ms"`, script: "sleep 30", code: 124},
		"timeout, commit":        {fields: `on_error: "commit"`, more: `limits: time: "700ms"`, script: "sleep 30", code: 124, landed: true},
		"limit":                  {more: limit, script: "head -c 200M /dev/zero | tail", code: 1},
		"limit of a part":        {more: limit, script: "head -c 200M /dev/zero | tail; exit 0"},
	} {
		t.Run(name, func(t *testing.T) {
			exectest.InParallel(t, func(t *testing.T, u exectest.User) {
				b := newBranched(t, u)
				b.File(b.Work+"/old", "old\n")
				r := b.Sh(b.policy(tc.fields, tc.more), "echo 1 >new; echo 2 >old; "+tc.script)
				if limited := strings.HasPrefix(name, "limit"); r.Code != tc.code && !limited || !strings.Contains(r.Stderr, tc.said) {
					t.Errorf("exit %d, %q, want %d, %q", r.Code, r.Stderr, tc.code, tc.said)
				} else if limited && !strings.Contains(r.Stderr, "limits.memory") {
					t.Errorf("no limit was reached: %q", r.Stderr)
				}
				if tc.landed {
					wantFile(t, b.Work+"/new", "1\n")
					wantFile(t, b.Work+"/old", "2\n")
				} else {
					wantMissing(t, b.Work+"/new")
					wantFile(t, b.Work+"/old", "old\n")
				}
				if tc.kept {
					i := b.wantOne(t, "kept")
					wantFile(t, i.Dir+"/upper/new", "1\n")
				} else {
					b.wantNone(t)
				}
			})
		})
	}
}

// What the user ends, and what ends the executor.
func Test_branch_signals(t *testing.T) {
	for name, tc := range map[string]struct {
		signal syscall.Signal
		code   int
	}{
		"interrupt": {syscall.SIGINT, 130},
		"terminate": {syscall.SIGTERM, 143},
	} {
		t.Run(name, func(t *testing.T) {
			exectest.InParallel(t, func(t *testing.T, u exectest.User) {
				b := newBranched(t, u)
				p := exectest.Start(t, b.Opts(b.policy(""), "/bin/sh", "-c", "echo 1 >new; exec sleep 60"))
				upperHas(t, b, "new")
				p.Signal(t, tc.signal)
				if r := p.Wait(t); r.Code != tc.code {
					t.Errorf("exit %d, want %d: %s", r.Code, tc.code, r.Stderr)
				}
				wantMissing(t, b.Work+"/new")
				b.wantNone(t)
			})
		})
	}
}

// upperHas waits until the one branch has a file.
func upperHas(t *testing.T, b *branched, name string) {
	t.Helper()
	exectest.Within(t, 20*time.Second, name+" in the branch", func() bool {
		found, err := filepath.Glob(b.storage + "/*/upper/" + name)
		return err == nil && len(found) == 1
	})
}

// An executor that is killed leaves the workdir as it was, and a branch that can be looked at and dropped.
func Test_branch_executor_killed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.File(b.Work+"/old", "old\n")
		before := tree(t, b.Work)
		p := exectest.Start(t, b.Opts(b.policy(""), "/bin/sh", "-c", "echo 2 >old; echo 1 >new; exec sleep 60"))
		upperHas(t, b, "new")

		id := b.wantOne(t, "running").ID
		for _, refused := range []string{"abort", "commit", "diff", "recover"} {
			if r := b.branch(t, refused, id[:6]); r.Code != 75 || !strings.Contains(r.Stderr, "in use") {
				t.Errorf("%s of a branch in use: exit %d, %q", refused, r.Code, r.Stderr)
			}
		}
		if r := b.branch(t, "show", id); r.Code != 0 || !strings.Contains(r.Stdout, "running") {
			t.Errorf("show: exit %d, %q, %q", r.Code, r.Stdout, r.Stderr)
		}

		p.Signal(t, syscall.SIGKILL)
		p.Wait(t)
		exectest.Within(t, 10*time.Second, "the lock is free", func() bool { return b.list(t)[0].State == "abandoned" })
		sameTree(t, b.Box, before)
		wantRun(t, b.branch(t, "recover"), 0, "") // no commit was under way
		if r := b.branch(t, "show", id[:8]); r.Code != 0 || !strings.Contains(r.Stdout, "A  new  (0644, 2 bytes)\nM  old  (4 → 2 bytes)\n") {
			t.Errorf("show: exit %d, %q, %q", r.Code, r.Stdout, r.Stderr)
		}
		wantRun(t, b.branch(t, "abort", id[:8]), 0, "")
		b.wantNone(t)
		sameTree(t, b.Box, before)
	})
}

// What runs on when the command ends is ended, and nothing that it writes then is seen.
func Test_branch_stragglers(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		r := b.Sh(b.policy(""), `
for i in 1 2 3 4; do
	(trap "" TERM HUP; while :; do echo x >>log$i; mv log$i moved$i 2>/dev/null; done) &
	setsid sh -c "while :; do echo y >>other$i; done" &
done
sleep 0.2; exit 0`)
		if r.Code != 0 {
			t.Errorf("exit %d: %s", r.Code, r.Stderr)
		}
		before := tree(t, b.Work)
		time.Sleep(300 * time.Millisecond)
		sameTree(t, b.Box, before)
		b.wantNone(t)
	})
}

// A start that fails leaves nothing, wherever it fails.
func Test_branch_failed_start(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		before := tree(t, b.Work)
		for name, tc := range map[string]struct {
			artifact string
			args     []string
			code     int
		}{
			"not found":     {b.policy(""), []string{"no-such-command"}, 127},
			"not a program": {b.policy(""), []string{"/etc/passwd"}, 126},
			"no such grant": {b.Policy(strings.Replace(b.text(""), "\"/usr\"", "\"/usr\", \"/no/such/path\"", 1)), []string{"true"}, 125},
			"no workdir":    {b.policy(`workdir: "/usr/no/such/path"`), []string{"true"}, 125},
		} {
			r := b.Run(tc.artifact, tc.args...)
			if r.Code != tc.code {
				t.Errorf("%s: exit %d, want %d: %s", name, r.Code, tc.code, r.Stderr)
			}
			b.wantNone(t)
		}
		sameTree(t, b.Box, before)
	})
}

// Two sandboxes on one workdir: what both change is whose is done first, and the other's is kept.
func Test_branch_conflict(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.File(b.Work+"/same", "old\n")
		artifact := b.policy(`on_error: "commit"`)
		first := exectest.Start(t, b.Opts(artifact, "/bin/sh", "-c", "echo first >same; echo 1 >one; while ! test -e "+b.Outside+"/go; do sleep 0.02; done"))
		upperHas(t, b, "one")
		// It sees neither what the other has changed, nor that.
		wantRun(t, b.Sh(artifact, "cat same; test -e one || echo no; echo 2 >two"), 0, "old\nno")
		wantFile(t, b.Work+"/two", "2\n")
		wantRun(t, b.Sh(artifact, "echo second >same"), 0, "")
		b.File(b.Outside+"/go", "")
		r := first.Wait(t)
		if r.Code != 75 || !strings.Contains(r.Stderr, `changed outside the branch: "same"`) || !strings.Contains(r.Stderr, "branch commit --force "+b.storage) {
			t.Errorf("exit %d, %q", r.Code, r.Stderr)
		}
		wantMissing(t, b.Work+"/one")
		wantFile(t, b.Work+"/same", "second\n")

		id := b.wantOne(t, "commit-deferred").ID
		if r := b.branch(t, "commit", id); r.Code != 75 || !strings.Contains(r.Stderr, "same") {
			t.Errorf("commit: exit %d, %q", r.Code, r.Stderr)
		}
		wantFile(t, b.Work+"/same", "second\n")
		wantRun(t, b.branch(t, "commit", "--force", id), 0, "")
		wantFile(t, b.Work+"/same", "first\n")
		wantFile(t, b.Work+"/one", "1\n")
		wantFile(t, b.Work+"/two", "2\n")
		b.wantNone(t)
	})
}

// holdLock takes the lock that a commit to a directory takes, until the end of the test or until it is released.
func holdLock(t *testing.T, dir string) (release func()) {
	t.Helper()
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Flock(fd, syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Flock(fd, syscall.LOCK_UN); err != nil {
			t.Error(err)
		}
	}
}

func hasChildren(pid int) bool {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		if text, err := os.ReadFile(list); err == nil && len(text) > 0 {
			return true
		}
	}
	return false
}

// Somebody else commits all the time: the branch is kept, with the exit code that says to try again.
func Test_branch_lock_is_held(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		release := holdLock(t, b.Work)
		if r := b.Sh(b.policy(""), "echo 1 >new"); r.Code != 75 || !strings.Contains(r.Stderr, "tries again") {
			t.Errorf("exit %d, %q", r.Code, r.Stderr)
		}
		wantMissing(t, b.Work+"/new")
		wantRun(t, b.branch(t, "abort", b.wantOne(t, "commit-deferred").ID), 0, "")

		// A signal ends the wait.
		p := exectest.Start(t, b.Opts(b.policy(""), "/bin/sh", "-c", "echo 1 >new"))
		upperHas(t, b, "new")
		exectest.Within(t, 20*time.Second, "the command's end", func() bool { return !hasChildren(p.Cmd.Process.Pid) })
		exectest.Within(t, 20*time.Second, "the executor's end", func() bool { // a signal that still comes to the command is lost
			return p.Cmd.Process.Signal(syscall.SIGTERM) != nil
		})
		if r := p.Wait(t); r.Code != 143 || !strings.Contains(r.Stderr, "interrupted") || !strings.Contains(r.Stderr, b.storage) {
			t.Errorf("terminated: exit %d, %q", r.Code, r.Stderr)
		}
		wantMissing(t, b.Work+"/new")
		id := b.wantOne(t, "commit-deferred").ID
		release()
		wantRun(t, b.branch(t, "commit", id[:4]), 0, "")
		wantFile(t, b.Work+"/new", "1\n")
		b.wantNone(t)
	})
}

// Number 18: what stands in the way of a commit is told, and nothing is lost.
func Test_filesystem_9_1_18_commit_fails(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		if u.Root() {
			t.Skip("nothing is closed to root")
		}
		b := newBranched(t, u)
		dir := b.Work + "/dir"
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if exectest.Self().Root() {
			if err := os.Chown(dir, u.UID, u.GID); err != nil {
				t.Fatal(err)
			}
		}
		p := exectest.Start(t, b.Opts(b.policy(""), "/bin/sh", "-c", "echo 1 >dir/new; echo 2 >other; while ! test -e "+b.Outside+"/go; do sleep 0.02; done"))
		upperHas(t, b, "other")
		if err := os.Chmod(b.Work, 0o555); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(b.Work, 0o755)
		b.File(b.Outside+"/go", "")
		r := p.Wait(t)
		if r.Code != 74 && r.Code != 75 {
			t.Errorf("exit %d, %q", r.Code, r.Stderr)
		}
		wantMissing(t, dir+"/new", b.Work+"/other")
		id := b.wantOne(t, "commit-deferred").ID
		if err := os.Chmod(b.Work, 0o755); err != nil {
			t.Fatal(err)
		}
		wantRun(t, b.branch(t, "commit", "--force", id), 0, "")
		wantFile(t, dir+"/new", "1\n")
		wantFile(t, b.Work+"/other", "2\n")
	})
}
