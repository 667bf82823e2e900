package exec_test

import (
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// branchfsVariable names the program branchfs (https://github.com/multikernel/branchfs; cargo install branchfs, with libfuse3-dev), to
// test with it what the other tests do with a stand-in. Users other than root must be able to open /dev/fuse.
const branchfsVariable = "SANDLOCK_BRANCHFS"

// How branches end on the real file system: committed, dropped, kept, nested, and in a conflict.
func Test_branchfs_real(t *testing.T) {
	program := os.Getenv(branchfsVariable)
	if program == "" {
		t.Skip("set " + branchfsVariable + " to the path of a program branchfs")
	}
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		box := exectest.NewBox(t, u)
		b := &onBranchFS{Box: box, mnt: box.Dir("mnt"), base: box.Dir("base")}
		b.File(b.base+"/old", "old\n")
		b.Dir("base/sub")
		storage := b.Dir("branches")
		daemon := osexec.Command(program, "mount", "--base", b.base, "--storage", storage, b.mnt)
		daemon.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}}
		if out, err := daemon.CombinedOutput(); err != nil {
			t.Fatalf("mount: %v, %s", err, out)
		}
		outside := func(script string) string {
			t.Helper()
			r := exectest.Run(t, exectest.Opts{User: u, Args: []string{"/bin/sh", "-c", "cd " + b.mnt + " && " + script}, Dir: b.Work})
			return strings.TrimSpace(r.Stdout)
		}
		t.Cleanup(func() {
			exectest.Run(t, exectest.Opts{User: u, Args: []string{program, "unmount", b.mnt, "--storage", storage}, Dir: b.Work})
		})
		exectest.Within(t, 10*time.Second, "it is mounted", func() bool { return outside("cat old") == "old" })

		commits, keeps := b.policy(b.mnt, ""), b.policy(b.mnt, `on_exit: "keep"`)
		wantRun(t, b.sh(t, commits, b.mnt, "cat old; echo 2 >old; echo 1 >new; mkdir d; ln -s new d/l"), 0, "old")
		if got := outside("cat old new; readlink d/l; ls -d @*"); got != "2\n1\nnew" {
			t.Errorf("after a commit: %q", got)
		}
		if r := b.sh(t, commits, b.mnt, "rm old; exit 3"); r.Code != 3 {
			t.Errorf("exit %d, %s", r.Code, r.Stderr)
		}
		keep := func(policy, script string) string {
			t.Helper()
			before := outside("ls -d @*")
			if r := b.sh(t, policy, b.mnt, script); r.Code != 0 {
				t.Fatalf("exit %d, %s", r.Code, r.Stderr)
			}
			for name := range strings.Lines(outside("ls -d @*")) {
				if name = strings.TrimSpace(name); !strings.Contains(before, name) {
					return b.mnt + "/" + name
				}
			}
			t.Fatal("no branch was kept")
			return ""
		}
		outer := keep(keeps, "echo outer >outer")
		wantRun(t, b.sh(t, b.policy(outer, ""), outer, "cat outer; echo inner >inner"), 0, "outer")
		if got := outside(fmt.Sprintf("cat %s/inner; ls", outer)); !strings.HasPrefix(got, "inner\n") || strings.Contains(got, "outer") {
			t.Errorf("after a nested commit: %q", got)
		}
		late := keep(keeps, "echo late >late")
		wantRun(t, b.settle(t, "commit", outer), 0, "")
		if r := b.settle(t, "commit", late); r.Code != 75 {
			t.Errorf("a conflict: exit %d, %s", r.Code, r.Stderr)
		}
		wantRun(t, b.settle(t, "abort", late), 0, "")
		if got := outside("cat outer inner old; ls -d late @*"); got != "outer\ninner\n2" {
			t.Errorf("in the end: %q", got)
		}
		wantRun(t, b.sh(t, b.policy(b.mnt+"/sub", ""), b.mnt+"/sub", "echo sub >s"), 0, "")
		wantFile(t, b.base+"/sub/s", "sub\n")
		wantFile(t, b.base+"/inner", "inner\n")
	})
}
