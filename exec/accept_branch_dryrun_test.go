package exec_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func (b *branched) dry(artifact, script string, flags ...string) exectest.Opts {
	o := b.Opts(artifact, "/bin/sh", "-c", script)
	o.Flags = append([]string{"--dry-run"}, flags...)
	return o
}

// Numbers 65 to 68 of the filesystem specification.
func Test_filesystem_9_3_dry_run(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.outside(t, b.Work, start)
		before := content(t, b.Work)
		artifact := b.policy(`on_exit: "keep", on_error: "commit"`)
		for name, tc := range map[string]struct {
			script, want string
			code         int
		}{
			"65_create":      {"umask 022; echo said; echo 1 >f", "said\nA  f  (0644, 2 bytes)", 0},
			"66_modify":      {"echo 2 >>edit", "M  edit  (13 → 15 bytes)", 0},
			"67_remove":      {"rm victim; rm -r full", "D  full/\nD  full/dir/\nD  full/dir/y\nD  full/x\nD  victim", 0},
			"rename":         {"mv victim moved", "A  moved  (0644, 7 bytes)\nD  victim", 0},
			"recreated":      {"rm -r becomes; umask 022; mkdir becomes; echo z >becomes/n", "A  becomes/n  (0644, 2 bytes)\nD  becomes/z", 0},
			"rewritten":      {"cat edit >/dev/null; cp edit e; cat e >edit; rm e", "", 0},
			"touched":        {"touch edit; chmod 644 edit", "", 0},
			"mode":           {"chmod 600 edit; chmod 700 d", "M  d/  (0755 → 0700)\nM  edit  (0644 → 0600)", 0},
			"type":           {"rm link; umask 022; mkdir link", "M  link/  (was a symlink)", 0},
			"failed":         {"rm zero; exit 7", "D  zero", 7},
			"signal":         {"rm zero; kill -TERM $$", "D  zero", 143},
			"closed to all":  {"umask 022; echo 1 >n; chmod 0 n; mkdir m; chmod 0 m", "A  m/  (0000)\nA  n  (0000, 2 bytes)", 0},
			"straggler":      {"(sleep 60; echo x >late) & rm zero", "D  zero", 0},
			"order of bytes": {"umask 022; mkdir a; : >a/b; : >a-b; : >a.c", "A  a/  (0755)\nA  a-b  (0644, 0 bytes)\nA  a.c  (0644, 0 bytes)\nA  a/b  (0644, 0 bytes)", 0},
		} {
			t.Run(name, func(t *testing.T) {
				r := exectest.Run(t, b.In(t).dry(artifact, tc.script))
				if got := strings.TrimSpace(r.Stdout); r.Code != tc.code || got != tc.want {
					t.Errorf("exit %d, printed\n%s\nwant %d,\n%s\nstderr: %s", r.Code, got, tc.code, tc.want, r.Stderr)
				}
				if after := content(t, b.Work); after != before {
					changed(t, before, after)
				}
				b.In(t).wantNone(t)
			})
		}
		r := exectest.Run(t, b.dry(b.Policy(b.Base(exectest.Grants{})), "echo ran"))
		if r.Code != 125 || r.Stdout != "" || !strings.Contains(r.Stderr, "filesystem.workdir") {
			t.Errorf("68, without a branch: exit %d, %q, %q", r.Code, r.Stdout, r.Stderr)
		}
	})
}

// A diff goes on where a version is closed to the user, or too large, and names that.
func Test_branch_dry_run_diff(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.outside(t, b.Work, "echo 1 >a; echo secret >closed; chmod 0 closed; echo 3 >z")
		r := exectest.Run(t, b.dry(b.policy(""), "umask 022; echo 2 >a; rm closed; echo new >mine; chmod 0 mine; truncate -s 5M large; echo 4 >z", "--diff"))
		closed, mine := "Files a/closed and /dev/null differ (permission denied)\n", "Files /dev/null and b/mine differ (permission denied)\n"
		if u.Root() {
			closed, mine = "--- a/closed\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-secret\n", "--- /dev/null\n+++ b/mine\n@@ -0,0 +1,1 @@\n+new\n"
		}
		want := "M  a  (2 bytes)\nD  closed\nA  large  (0644, 5242880 bytes)\nA  mine  (0000, 4 bytes)\nM  z  (2 bytes)\n\n" +
			"diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,1 +1,1 @@\n-1\n+2\n" +
			"diff --git a/closed b/closed\ndeleted file mode 100000\n" + closed +
			"diff --git a/large b/large\nnew file mode 100644\nFiles /dev/null and b/large differ (too large to be shown: 0 and 5242880 bytes)\n" +
			"diff --git a/mine b/mine\nnew file mode 100000\n" + mine +
			"diff --git a/z b/z\n--- a/z\n+++ b/z\n@@ -1,1 +1,1 @@\n-3\n+4\n"
		if r.Code != 0 || r.Stdout != want {
			t.Errorf("exit %d, printed\n%s\nwant\n%s\nstderr: %s", r.Code, r.Stdout, want, r.Stderr)
		}
		b.wantNone(t)
	})
}

// The list of a dry run is what a commit makes.
func Test_branch_dry_run_is_the_commit(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.outside(t, b.Work, start)
		const script = "umask 022; rm -r full; mv d e; echo x >>edit; mkdir -p n/m; ln -s a n/l; mkfifo n/p; chmod 640 secret; rm link; echo l >link"
		dry := exectest.Run(t, b.dry(b.policy(""), script, "--json"))
		keep := b.Sh(b.policy(`on_exit: "keep"`), script)
		id := b.wantOne(t, "kept").ID
		shown := b.branch(t, "show", id)
		if dry.Code != 0 || keep.Code != 0 || shown.Code != 0 {
			t.Fatalf("exit %d, %d, %d: %s%s%s", dry.Code, keep.Code, shown.Code, dry.Stderr, keep.Stderr, shown.Stderr)
		}
		list := exectest.Run(t, b.dry(b.policy(""), script))
		if _, changes, _ := strings.Cut(shown.Stdout, "\n\n"); changes != list.Stdout || strings.Count(list.Stdout, "\n") != strings.Count(dry.Stdout, "\n") {
			t.Errorf("show:\n%s\ndry run:\n%s\n%s", changes, list.Stdout, dry.Stdout)
		}
		wantRun(t, b.branch(t, "commit", id), 0, "")
		// Done again, it is nothing new but for what is not there any more.
		r := exectest.Run(t, b.dry(b.policy(""), "chmod 640 secret; mkdir -p n/m; ln -sf a n/l"))
		if got := r.Stdout; r.Code != 0 || got != "" {
			t.Errorf("after the commit: exit %d, %q, %q", r.Code, got, r.Stderr)
		}
	})
}

// A signal ends a dry run that prints more than anybody reads; its changes are dropped all the same.
func Test_branch_dry_run_is_interrupted(t *testing.T) {
	b := newBranched(t, exectest.Self())
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	name := strings.Repeat("n", 200)
	const files = 2000
	run := osexec.Command(exectest.Executor(t), "--dry-run", b.policy(""), "--", "/bin/bash", "-c", fmt.Sprintf("for ((i = 0; i < %d; i++)); do >%s$i; done", files, name))
	var stderr bytes.Buffer
	run.Stdout, run.Stderr, run.Dir = write, &stderr, b.Work
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	exectest.Within(t, 20*time.Second, "the pipe is full", func() bool {
		n, err := unix.IoctlGetInt(int(read.Fd()), unix.TIOCINQ)
		return err == nil && n > 60<<10
	})
	if err := run.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // longer, and it would only have printed less
	text, err := io.ReadAll(read)
	if err != nil {
		t.Fatal(err)
	}
	_ = run.Wait()
	if code, lines := run.ProcessState.ExitCode(), bytes.Count(text, []byte("\n")); code != 143 || lines == files {
		t.Errorf("exit %d after %d lines, %s", code, lines, stderr.String())
	}
	b.wantNone(t)
	wantMissing(t, b.Work+"/"+name+"0")
}
