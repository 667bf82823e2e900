package exec_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Mounts in the workdir cover the branch: what is written there is the mount's. One that leads around it is refused.
func Test_branch_with_mounts(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.outside(t, b.Work, "mkdir out in")
		other := b.Dir("other")
		artifact := b.policy(fmt.Sprintf("mount: [%q]\non_exit: \"abort\"", b.Work+"/out:"+other))
		wantRun(t, b.Sh(artifact, "echo 1 >out/f; echo 2 >in/f; cat out/f in/f"), 0, "1\n2")
		wantFile(t, other+"/f", "1\n")
		wantMissing(t, b.Work+"/in/f", b.Work+"/out/f")

		r, path := b.Compile(b.text(fmt.Sprintf("mount: [%q]", "/mnt/way:"+b.Work)))
		if r.Code == 0 {
			r = b.Sh(path, "echo 1 >/mnt/way/f")
		}
		if r.Code == 0 || !strings.Contains(r.Stderr, "around the branch") {
			t.Errorf("a way around: exit %d, %s", r.Code, r.Stderr)
		}
		wantMissing(t, b.Work+"/f")
	})
}

// A workdir that is, or lies beneath, a mount of the policy's: the branch is of what is mounted there.
func Test_branch_on_a_mount(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		app := b.Dir("app")
		b.outside(t, app, "mkdir -p src/in out in; echo old >src/old; echo old >beside; ln -s src way; ln -s ../outside away")
		policy := func(workdir, more string) string {
			mounts := fmt.Sprintf("mount: [%q, %q, %q]", "/mnt/app:"+app, "/mnt/app/src/in:"+app+"/in", "/mnt/out:"+app+"/out")
			if workdir == "/mnt/app" { // the others would lead around that
				mounts = fmt.Sprintf("mount: [%q]", "/mnt/app:"+app)
			}
			fields := fmt.Sprintf("filesystem: {\n%s\nworkdir: %q\nstorage: %q\n%s\n}", mounts, workdir, b.storage, more)
			return b.Policy(b.Base(exectest.Grants{Read: []string{b.Outside}, Write: []string{"/mnt/app"}, More: fields}))
		}
		before := content(t, app+"/src")
		const script = "cd /mnt/app/src && cat old && echo new >old && echo new >new && cat old && echo 1 >in/f"
		wantRun(t, b.Sh(policy("/mnt/app/src", `on_exit: "abort"`), script), 0, "old\nnew")
		if got := content(t, app+"/src"); got != before {
			t.Errorf("the files were changed:\n%s\nbefore:\n%s", got, before)
		}
		wantFile(t, app+"/in/f", "1\n") // a mount on the branch is no part of it

		wantRun(t, b.Sh(policy("/mnt/app/way", ""), script), 0, "old\nnew")
		wantFile(t, app+"/src/old", "new\n")
		wantFile(t, app+"/src/new", "new\n")
		wantRun(t, b.Sh(policy("/mnt/app", `on_exit: "keep"`), "cd /mnt/app && echo 2 >beside && rm -r way"), 0, "")
		wantFile(t, app+"/beside", "old\n")
		i := b.list(t)[0]
		if i.Workdir != app {
			t.Errorf("kept: %+v, want a branch of %s", i, app)
		}
		wantRun(t, b.branch(t, "commit", i.ID), 0, "")
		wantFile(t, app+"/beside", "2\n")
		wantMissing(t, app+"/way")
		if r := b.Sh(policy("/mnt/app/away", ""), "true"); r.Code != 125 || !strings.Contains(r.Stderr, "leads out of the mount") {
			t.Errorf("a link out of the mount: exit %d, %s", r.Code, r.Stderr)
		}
		b.wantNone(t)
	})
}

// A workdir that is, or lies beneath, a mount of the host's.
func Test_branch_beneath_bind_mount(t *testing.T) {
	if !exectest.Self().Root() {
		t.Skip("needs root to mount")
	}
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		from, at := b.Dir("from"), b.Dir("at")
		if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(at, unix.MNT_DETACH)
		if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOEXEC, ""); err != nil {
			t.Fatal(err)
		}
		b.outside(t, at, "mkdir sub; echo 1 >f; echo 1 >sub/f")
		for _, dir := range []string{at, at + "/sub"} {
			o := b.Opts("", "/bin/sh", "-c", "echo 2 >f; echo n >n; cp /bin/true t; ./t 2>/dev/null; test $? = 126 && rm t")
			text := strings.Replace(b.text(fmt.Sprintf("workdir: %q", dir)), `"/dev/null",`, fmt.Sprintf("\"/dev/null\",\n%q,", dir), 1)
			o.Dir = dir
			o.Policy = b.Policy(text)
			wantRun(t, exectest.Run(t, o), 0, "")
			wantFile(t, dir+"/f", "2\n")
			wantFile(t, dir+"/n", "n\n")
		}
		wantFile(t, from+"/sub/f", "2\n")
		b.wantNone(t)
	})
}

// What the host has mounted in the workdir is not in the branch, which is told at the start; a commit keeps off it.
func Test_branch_above_a_mount(t *testing.T) {
	if !exectest.Self().Root() {
		t.Skip("needs root to mount")
	}
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		from := b.Dir("volume")
		b.File(from+"/f", "mine\n")
		b.outside(t, b.Work, "mkdir -p d/vol")
		at := b.Work + "/d/vol"
		if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(at, unix.MNT_DETACH)
		for script, code := range map[string]int{"ls d/vol; echo n >n": 0, "rm -r d": 74, "echo x >d/vol/f": 74} {
			r := b.Sh(b.policy(""), script)
			if !u.Root() {
				if r.Code != 125 || !strings.Contains(r.Stderr, "there are mounts in "+b.Work+", at "+at) {
					t.Errorf("%s: exit %d, %q", script, r.Code, r.Stderr)
				}
				continue
			}
			if r.Code != code || r.Stdout != "" || !strings.Contains(r.Stderr, "what is mounted at "+at+" is not in the branch") || code != 0 && !strings.Contains(r.Stderr, "is a mount point") {
				t.Errorf("%s: exit %d, %q, %q", script, r.Code, r.Stdout, r.Stderr)
			}
			wantFile(t, from+"/f", "mine\n")
		}
		if u.Root() {
			wantFile(t, b.Work+"/n", "n\n")
			return // what could not be committed is kept
		}
		b.wantNone(t)
	})
}
