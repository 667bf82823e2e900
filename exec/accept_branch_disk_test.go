package exec_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Number 43 of the filesystem specification: every way to grow ends in ENOSPC, and nothing else does.
func Test_filesystem_9_2_43_disk(t *testing.T) {
	const noSpace = "No space left on device"
	cases := map[string]struct {
		script string
		fails  bool
		python bool
	}{
		"fits":                {script: "head -c 900K /dev/zero >f"},
		"is too large":        {script: "head -c 1100K /dev/zero >f", fails: true},
		"exactly":             {script: "head -c 1008K /dev/zero >f"}, // of 1024, less the directories of overlayfs
		"in parts":            {script: "for i in 1 2 3; do head -c 400K /dev/zero >f$i; done", fails: true},
		"many small files":    {script: "i=0; while [ $i -lt 2000 ]; do echo >f$i || exit; i=$((i+1)); done", fails: true},
		"many empty files":    {script: "i=0; while [ $i -lt 2000 ]; do : >f$i || exit; i=$((i+1)); done", fails: true},
		"many directories":    {script: "i=0; while [ $i -lt 2000 ]; do mkdir d$i || exit; i=$((i+1)); done", fails: true},
		"many links":          {script: "i=0; while [ $i -lt 2000 ]; do ln -s x l$i || exit; i=$((i+1)); done", fails: true},
		"change of a large":   {script: "echo x >>large", fails: true},
		"mode of a large":     {script: "chmod 600 large", fails: true},
		"rename of a large":   {script: "mv large larger", fails: true},
		"link to a large":     {script: "ln large larger", fails: true},
		"reads of a large":    {script: "cat large >/dev/null && stat large >/dev/null"},
		"removal of a large":  {script: "rm large"},
		"large is cut":        {script: ": >large; head -c 900K /dev/zero >f"},
		"what was freed":      {script: "head -c 900K /dev/zero >f; rm f; head -c 900K /dev/zero >g; : >g; head -c 900K /dev/zero >h"},
		"second change":       {script: "echo x >>small; echo y >>small; head -c 900K /dev/zero >>small"},
		"growth of an opened": {script: "exec 3>>small; head -c 600K /dev/zero >&3; head -c 600K /dev/zero >&3", fails: true},
		"preallocated":        {script: "fallocate -l 2M f", fails: true},
		"preallocated beyond": {script: ": >f; fallocate -n -o 4M -l 2M f", fails: true},
		"sparse holds little": {script: "dd if=/dev/zero of=f bs=1 count=1 seek=1G; echo x >>f"},
		"declared longer":     {script: "truncate -s 2M f", fails: true},
		"declared to fit":     {script: "truncate -s 900K f; truncate -s 10K f; truncate -s 900K f; head -c 900K /dev/zero >f"},
		"cut":                 {script: "truncate -s 0 large; head -c 900K /dev/zero >f"},
		"declared by its path": {python: true, script: `
import os
open("f", "w").write("x" * 100)
os.truncate("f", 50)
os.truncate("f", 600 << 10)
fd = os.memfd_create("m")
os.ftruncate(fd, 1 << 30)
open("g", "w").write("x" * (600 << 10))
try: os.truncate(os.getcwd() + "/f", 1100 << 10)
except OSError as e: raise SystemExit(e.strerror)
`, fails: true},
		"sparse is filled": {python: true, script: `
import mmap, os, signal
fd = os.open("f", os.O_RDWR|os.O_CREAT)
os.pwrite(fd, b"x", (4 << 20) - 1)
m = mmap.mmap(fd, 4 << 20)
if os.fork() == 0:
    for i in range(0, 4 << 20, 4096): m[i] = 1
    os._exit(0)
ended = os.waitstatus_to_exitcode(os.wait()[1])
assert ended == -signal.SIGBUS, ended
assert os.fstat(fd).st_blocks * 512 <= 1 << 20
try:
    while os.write(fd, bytes(1 << 20)): pass
except OSError as e: raise SystemExit(e.strerror)
`, fails: true},
	}
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.File(b.Work+"/small", "small\n")
		b.File(b.Work+"/large", strings.Repeat("large\n", 400<<10))
		before := tree(t, b.Work)
		p := b.policy(`on_exit: "abort"`, `limits: disk: "1M"`)
		for name, tc := range cases {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				argv := []string{"/bin/bash", "-c", tc.script}
				if tc.python {
					argv = []string{"/usr/bin/python3", "-c", tc.script}
				}
				r := exectest.Run(t, b.Opts(p, argv...))
				switch {
				case !tc.fails && r.Code != 0:
					t.Errorf("exit %d, %s", r.Code, r.Stderr)
				case tc.fails && (r.Code == 0 || !strings.Contains(r.Stderr, noSpace)):
					t.Errorf("exit %d, %q, want %q", r.Code, r.Stderr, noSpace)
				}
			})
		}
		b.wantNone(t)
		sameTree(t, b.Box, before)
	})
}

// What was within the bound is applied, kept, shown and found again as without one.
func Test_branch_disk_ends(t *testing.T) {
	const script = "echo 1 >new; echo 2 >>old; rm gone; mkdir -m 700 d; ln -s x d/l; head -c 300K /dev/urandom >d/f"
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		for _, tc := range []struct{ fields, state string }{{"", ""}, {`on_exit: "keep"`, "kept"}} {
			b := newBranched(t, u)
			b.File(b.Work+"/old", "old\n")
			b.File(b.Work+"/gone", "gone\n")
			p := b.policy(tc.fields, `limits: disk: "1M"`)
			dry := exectest.Run(t, b.dry(p, script))
			if want := "A  d/  (0700)\n"; dry.Code != 0 || !strings.HasPrefix(dry.Stdout, want) {
				t.Errorf("dry run: exit %d, %q", dry.Code, dry.Stdout)
			}
			if r := b.Sh(p, script); r.Code != 0 {
				t.Fatalf("exit %d, %s", r.Code, r.Stderr)
			}
			if tc.state != "" {
				i := b.wantOne(t, tc.state)
				wantMissing(t, b.Work+"/new")
				if r := b.branch(t, "show", i.ID); r.Code != 0 || !strings.Contains(r.Stdout, "\nbound    1048576 bytes") || !strings.HasSuffix(r.Stdout, "\n\n"+dry.Stdout) {
					t.Errorf("show: exit %d, %s%s; the dry run had %s", r.Code, r.Stdout, r.Stderr, dry.Stdout)
				}
				if r := b.branch(t, "commit", i.ID); r.Code != 0 {
					t.Errorf("commit: exit %d, %s", r.Code, r.Stderr)
				}
			}
			wantFile(t, b.Work+"/old", "old\n2\n")
			wantFile(t, b.Work+"/new", "1\n")
			wantMissing(t, b.Work+"/gone")
			if st, err := os.Lstat(b.Work + "/d/f"); err != nil || st.Size() != 300<<10 {
				t.Errorf("d/f: %v, %v", st, err)
			}
			b.wantNone(t)
		}
	})
}

// A killed executor takes what is in memory along. Nothing else is lost, and the rest can be removed.
func Test_branch_disk_executor_killed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.File(b.Work+"/old", "old\n")
		p := b.policy("", `limits: disk: "1M"`)
		started := exectest.Start(t, b.Opts(p, "/bin/sh", "-c", "echo new >old; exec sleep 60"))
		exectest.Within(t, 10*time.Second, "the command runs", func() bool { return len(b.list(t)) == 1 })
		started.Signal(t, syscall.SIGKILL)
		started.Wait(t)
		exectest.Within(t, 10*time.Second, "the lock is free", func() bool { return b.list(t)[0].State != "running" })
		i := b.wantOne(t, "lost")
		wantFile(t, b.Work+"/old", "old\n")
		if r := b.branch(t, "show", i.ID); r.Code != 0 || !strings.Contains(r.Stdout, "were in memory") {
			t.Errorf("show: exit %d, %q", r.Code, r.Stdout)
		}
		if r := b.branch(t, "commit", i.ID); r.Code != 74 || !strings.Contains(r.Stderr, "were in memory") {
			t.Errorf("commit: exit %d, %q", r.Code, r.Stderr)
		}
		if r := b.branch(t, "abort", i.ID); r.Code != 0 {
			t.Errorf("abort: exit %d, %q", r.Code, r.Stderr)
		}
		b.wantNone(t)
	})
}

// Where the changes did not fit, the user is told which limit that was.
func Test_branch_disk_is_told(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		const said = "the sandbox reached limits.disk"
		p := b.policy("", `limits: disk: "1M"`)
		if r := b.Sh(p, "cat /dev/zero >f"); r.Code == 0 || !strings.Contains(r.Stderr, said) {
			t.Errorf("exit %d, %q", r.Code, r.Stderr)
		}
		if r := b.Sh(p, "echo >f"); r.Code != 0 || strings.Contains(r.Stderr, said) {
			t.Errorf("exit %d, %q", r.Code, r.Stderr)
		}
	})
}

// The file system of the changes is nowhere in what the command sees, but in the options of the overlay.
func Test_branch_disk_is_not_seen(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		p := b.policy("proc: \"private\"\nrules: [{path: \"/proc\", access: [\"read_file\", \"read_dir\"]}]", `limits: disk: "1M"`)
		r := b.Sh(p, `grep -c " - tmpfs " /proc/self/mountinfo; ls -l /proc/self/fd`)
		without := b.Sh(b.policy("proc: \"private\"\nrules: [{path: \"/proc\", access: [\"read_file\", \"read_dir\"]}]"), `grep -c " - tmpfs " /proc/self/mountinfo`)
		n, _, _ := strings.Cut(r.Stdout, "\n")
		if m := strings.TrimSpace(without.Stdout); r.Code != 0 || n != m || strings.Contains(r.Stdout, "upper") {
			t.Errorf("exit %d, %q, %s; without a bound there are %s mounts of tmpfs", r.Code, r.Stdout, r.Stderr, m)
		}
	})
}
