package exec_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

var readOnly = []string{"errno EROFS", "errno EACCES", "errno EPERM"}

// protectSetup puts a protected file and directory into the write grant.
func protectSetup(t *testing.T, b *exectest.Box) []string {
	words := secretSetup(t, b)
	if err := os.Link(b.Outside+"/secret", b.Work+"/alias"); err != nil {
		t.Fatal(err)
	}
	return words
}

// What is protected can be read, and no call changes it: by any name, the kernel's or on behalf.
func Test_protected_file_cannot_be_changed(t *testing.T) {
	for name, more := range map[string]string{
		"plain":  "",
		"rules":  `rules: [{on: ["file"], if: path: "/nowhere/**", then: "deny"}]`,
		"random": "determinism: random_seed: 1",
	} {
		t.Run(name, func(t *testing.T) {
			var attempts []attempt
			for _, a := range changeAttempts {
				a.want = append(append([]string{"errno EBUSY", "errno EEXIST", "errno EXDEV"}, readOnly...), a.want...)
				attempts = append(attempts, a)
			}
			attempts = append(attempts,
				attempt{"alias_for_writing", []string{"openat", "$WORK/alias", "w"}, readOnly, works},
				attempt{"alias_chmod", []string{"call", "chmod", "s:$WORK/alias", "0600"}, readOnly, works},
				attempt{"alias_removed", []string{"call", "unlink", "s:$WORK/alias"}, mountPoint, works},
				attempt{"link_truncate", []string{"call", "truncate", "s:$WORK/link", "0"}, readOnly, works},
				attempt{"reopen_for_writing", []string{"reopen", "$SECRET", "w"}, readOnly, works},
				attempt{"fallocate", []string{"fallocate", "$SECRET"}, readOnly, works},
			)
			if name != "plain" {
				for i := range attempts {
					attempts[i].control = harmful // made by the other
				}
			}
			grants := func(b *exectest.Box) exectest.Grants {
				return exectest.Grants{Read: []string{"/proc"}, Write: []string{b.Outside}, More: protected(b.Outside+"/**") + more}
			}
			suite{grants: grants, setup: protectSetup, attempts: append(attempts,
				attempt{"read", []string{"openat", "$SECRET", "r"}, []string{"ok"}, harmful},
				attempt{"read_alias", []string{"openat", "$WORK/alias", "r"}, []string{"ok"}, harmful},
				attempt{"list", []string{"openat", "$OUT", "d"}, []string{"ok"}, harmful},
			)}.together(t)
		})
	}
}

func run(t *testing.T, b *exectest.Box, args ...string) {
	t.Helper()
	o := b.Opts("", args...)
	if r := exectest.Run(t, o); r.Code != 0 {
		t.Fatalf("%s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
}

const gitUser = "git config --global user.email a@b.c && git config --global user.name n && git config --global init.defaultBranch main; "

// The list of escape 19, with git itself at work beside it.
func Test_escape_19_protected_names_and_git(t *testing.T) {
	git := exectest.Program(t, "/usr/bin/git")
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		run(t, b, "/bin/sh", "-c", gitUser+"git init -q . && echo 1 > f && git add f && git commit -qm one && mkdir -p sub/.vscode && echo {} > sub/.vscode/tasks.json && echo old > .bashrc")
		artifact := b.Policy(b.Base(exectest.Grants{Write: []string{"/dev/null"}, More: protected("**/.git/hooks/**", ".bashrc", ".profile", "**/.vscode/tasks.json", b.Work+"/sub/absolute")}))
		before := tree(t, b.Work)
		for _, script := range []string{
			"echo x > .git/hooks/pre-commit", "echo x > .git/hooks/new", "rm -rf .git/hooks", "mv .git x", "mv .git/hooks x", "echo x >> .bashrc",
			"rm -f .bashrc", "echo x > n; mv n .bashrc", "echo x > .profile", "mkdir .profile", "ln -s /etc/passwd .profile", "mkfifo .profile",
			"echo x > n; mv n .profile", "echo x > sub/.vscode/tasks.json", "mv sub/.vscode y", "mv sub y", "rm -rf sub/.vscode", "echo x > .vscode/tasks.json",
			"mkdir -p .vscode && echo x > .vscode/tasks.json", "echo x > sub/absolute", "ln .bashrc other && echo x > other",
		} {
			if r := b.Sh(artifact, "set -e; "+script); r.Code == 0 || r.Code == 125 {
				t.Errorf("%s: exit %d\n%s", script, r.Code, r.Stderr)
			}
			for _, name := range []string{"n", "x", "y"} { // mv copies where it cannot move
				_ = os.RemoveAll(b.Work + "/" + name)
			}
		}
		changed(t, before, tree(t, b.Work))
		r := b.Sh(artifact, "cat .bashrc; ls .git/hooks > /dev/null; echo 2 > f; "+git+" add f && git commit -qm two && git status --short -uno | wc -l && git gc -q && git log --oneline | wc -l && git checkout -qb other && git fsck")
		if r.Code != 0 || !strings.HasPrefix(r.Stdout, "old\n0\n2\n") {
			t.Errorf("git: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		// A repository that the command makes itself is its own.
		if r := b.Sh(artifact, "git init -q mine && cd mine && echo 1 > f && git add f && git commit -qm one && echo '#!/bin/true' > .git/hooks/x && git status"); r.Code != 0 {
			t.Errorf("git init: exit %d\n%s", r.Code, r.Stderr)
		}
		// The control: without the rules all of it works.
		plain := b.Policy(b.Base(exectest.Grants{}))
		if r := b.Sh(plain, "set -e; echo x > .git/hooks/pre-commit; echo x >> .bashrc; echo x > .profile; echo x > sub/.vscode/tasks.json; mv .git x"); r.Code != 0 {
			t.Errorf("control: exit %d\n%s", r.Code, r.Stderr)
		}
	})
}

// tree is what lies in a directory. Times of directories are left out: a name that came and went changes them.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil {
			err = syscall.Lstat(path, &st)
		}
		if errors.Is(err, fs.ErrNotExist) { // it goes just now: this listing is not the last
			fmt.Fprintf(&text, "%s vanished\n", path)
			return nil
		}
		if err != nil {
			return err
		}
		if entry.IsDir() {
			st.Size, st.Mtim = 0, syscall.Timespec{}
		}
		fmt.Fprintf(&text, "%s %o %d %d %d.%09d\n", path, st.Mode, st.Uid, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func Test_protect_and_deny_1000_rules(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		var paths, patterns []string
		for i := range 1000 {
			n := strconv.Itoa(i)
			paths = append(paths, b.Work+"/denied"+n)
			patterns = append(patterns, "**/kept"+n)
			if i%2 == 0 {
				b.File(b.Work+"/denied"+n, "S")
				b.File(b.Work+"/kept"+n, "S")
			}
		}
		before := tree(t, b.Work)
		artifact := b.Policy(b.Base(exectest.Grants{More: denied(paths...) + protected(patterns...)}))
		r := b.Sh(artifact, `for i in 0 1 2 499 500 998 999; do cat denied$i 2>/dev/null; (echo x > denied$i) 2>/dev/null && echo wrote; (echo x > kept$i) 2>/dev/null && echo wrote; done; cat kept0; echo x > free && cat free && rm free`)
		wantRun(t, r, 0, "Sx")
		if after := tree(t, b.Work); after != before {
			t.Errorf("the tree has changed")
		}
	})
}

// litter is a setting with rules for what is missing, and the listing of the host's tree that must come back.
func litter(t *testing.T, u exectest.User) (b *exectest.Box, artifact, before string) {
	b = exectest.NewBox(t, u)
	b.File(b.Work+"/there", "S")
	// A real file that looks like a placeholder but for its time.
	if err := os.Chmod(b.File(b.Work+"/empty", ""), 0); err != nil {
		t.Fatal(err)
	}
	before = tree(t, b.Work)
	artifact = b.Policy(b.Base(exectest.Grants{More: denied(b.Work+"/missing", b.Work+"/no/such/file", b.Work+"/there", b.Work+"/empty") + protected(".git/hooks/**", ".bashrc")}))
	return b, artifact, before
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func made(b *exectest.Box) bool { return exists(b.Work + "/missing") }

func sameTree(t *testing.T, b *exectest.Box, before string) {
	t.Helper()
	after := ""
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if after = tree(t, b.Work); after == before {
			return
		}
	}
	changed(t, before, after)
}

// changed tells the lines of a listing that differ.
func changed(t *testing.T, before, after string) {
	t.Helper()
	for side, pair := range map[string][2]string{"gone": {before, after}, "new": {after, before}} {
		for line := range strings.Lines(pair[0]) {
			if !strings.Contains(pair[1], line) {
				t.Errorf("%s: %s", side, line)
			}
		}
	}
}

func Test_escape_19_no_litter(t *testing.T) {
	const wait = "test -e missing && exec sleep 60"
	for name, end := range map[string]func(t *testing.T, b *exectest.Box, artifact string){
		"exit": func(t *testing.T, b *exectest.Box, a string) {
			wantRun(t, b.Sh(a, "test -e missing && echo yes"), 0, "yes")
		},
		"exit code": func(t *testing.T, b *exectest.Box, a string) { wantRun(t, b.Sh(a, "exit 3"), 3, "") },
		"signal":    func(t *testing.T, b *exectest.Box, a string) { wantRun(t, b.Sh(a, "kill -9 $$"), 137, "") },
		"timeout": func(t *testing.T, b *exectest.Box, a string) {
			o := b.Opts(a, "/bin/sh", "-c", wait)
			o.Flags = []string{"--timeout", "300ms"}
			wantRun(t, exectest.Run(t, o), 124, "")
		},
		"not found": func(t *testing.T, b *exectest.Box, a string) { wantRun(t, b.Run(a, "/no/such/command"), 127, "") },
		"not executable": func(t *testing.T, b *exectest.Box, a string) {
			wantRun(t, b.Run(a, "/etc/passwd"), 126, "")
		},
		"SIGTERM": func(t *testing.T, b *exectest.Box, a string) {
			p := exectest.Start(t, b.Opts(a, "/bin/sh", "-c", "echo started > started; sleep 60"))
			exectest.Within(t, 10*time.Second, "start", func() bool { return exists(b.Work + "/started") })
			p.Signal(t, syscall.SIGTERM)
			p.Wait(t)
			_ = os.Remove(b.Work + "/started")
		},
		"SIGTERM while it starts": func(t *testing.T, b *exectest.Box, a string) {
			p := exectest.Start(t, b.Opts(a, "/bin/sh", "-c", wait))
			exectest.Within(t, 10*time.Second, "placeholders", func() bool { return made(b) })
			p.Signal(t, syscall.SIGTERM)
			p.Wait(t)
		},
		"SIGKILL": func(t *testing.T, b *exectest.Box, a string) {
			p := exectest.Start(t, b.Opts(a, "/bin/sh", "-c", "echo started > started; sleep 60"))
			exectest.Within(t, 10*time.Second, "start", func() bool { return exists(b.Work + "/started") })
			p.Signal(t, syscall.SIGKILL)
			p.Wait(t)
			_ = os.Remove(b.Work + "/started")
		},
	} {
		t.Run(name, func(t *testing.T) {
			exectest.InParallel(t, func(t *testing.T, u exectest.User) {
				b, artifact, before := litter(t, u)
				end(t, b, artifact)
				sameTree(t, b, before)
			})
		})
	}
}

// Sandboxes share placeholders: the last one takes them away, whichever it is.
func Test_escape_19_no_litter_of_many(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b, artifact, before := litter(t, u)
		hold := func(name string) *exectest.Process {
			p := exectest.Start(t, b.Opts(artifact, "/bin/sh", "-c", "mkdir "+name+"; while test -e "+name+"; do sleep 0.02; done; (echo x > missing) 2>/dev/null && exit 9; exit 0"))
			exectest.Within(t, 10*time.Second, "start", func() bool { return exists(b.Work + "/" + name) })
			return p
		}
		for _, order := range [][2]string{{"one", "two"}, {"two", "one"}} {
			running := map[string]*exectest.Process{"one": hold("one"), "two": hold("two")}
			for i, name := range order {
				if err := os.Remove(b.Work + "/" + name); err != nil {
					t.Fatal(err)
				}
				wantRun(t, running[name].Wait(t), 0, "")
				if i == 0 && !made(b) {
					t.Errorf("the one that ended first took the other's placeholder away")
				}
			}
			sameTree(t, b, before)
		}
		var all []*exectest.Process
		for i := range 20 {
			all = append(all, exectest.Start(t, b.Opts(artifact, "/bin/sh", "-c", fmt.Sprintf("sleep 0.0%d; (echo x > missing) 2>/dev/null && exit 9; (mkdir .git/hooks) 2>/dev/null && exit 8; exit 0", i%5))))
		}
		for _, p := range all {
			wantRun(t, p.Wait(t), 0, "")
		}
		sameTree(t, b, before)
	})
}

// Where neither the executor nor the keeper lived to clean up, the next run does.
func Test_escape_19_litter_of_a_crash_is_adopted(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b, artifact, before := litter(t, u)
		p := exectest.Start(t, b.Opts(artifact, "/bin/sleep", "60"))
		exectest.Within(t, 10*time.Second, "start", func() bool { return made(b) && len(children(p.Cmd.Process.Pid)) > 0 })
		time.Sleep(200 * time.Millisecond) // until all is mounted
		p.Signal(t, syscall.SIGSTOP)
		for _, pid := range children(p.Cmd.Process.Pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		p.Signal(t, syscall.SIGKILL)
		p.Wait(t)
		if !made(b) {
			t.Fatal("the crash left nothing behind: the test shows nothing")
		}
		r := b.Sh(artifact, "(echo x > missing) 2>/dev/null || echo refused")
		wantRun(t, r, 0, "refused")
		sameTree(t, b, before)
	})
}

// children lists the processes whose parent a process is.
func children(parent int) (pids []int) {
	out, err := exec.Command("ps", "-o", "pid=", "--ppid", strconv.Itoa(parent)).Output()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		return nil
	}
	for _, word := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
