package exec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
	"github.com/sandlock-go/sandlock/exec/exectest/branchfs"
)

// onBranchFS is a box with a stand-in for BranchFS.
type onBranchFS struct {
	*exectest.Box
	fs        *branchfs.FS
	mnt, base string
}

// newOnBranchFS mounts one that shows the file "old" and the directory "sub", which holds a file "old" too.
func newOnBranchFS(t *testing.T, u exectest.User) *onBranchFS {
	t.Helper()
	return mountIn(t, exectest.NewBox(t, u), branchfs.Options{})
}

func mountIn(t *testing.T, box *exectest.Box, o branchfs.Options) *onBranchFS {
	t.Helper()
	if o.Dir == "" {
		o.Dir = box.Dir("mnt")
	}
	b := &onBranchFS{Box: box, mnt: o.Dir, base: box.Dir("base")}
	b.File(b.base+"/old", "old\n")
	b.Dir("base/sub")
	b.File(b.base+"/sub/old", "old\n")
	o.Base, o.Storage, o.UID, o.GID = b.base, b.Dir("branches"), b.User.UID, b.User.GID
	var err error
	if b.fs, err = branchfs.Mount(o); err != nil {
		exectest.Lacks(t, fmt.Errorf("a FUSE file system that this user may mount: %w", err))
	}
	t.Cleanup(b.fs.Close)
	return b
}

// policy keeps changes beneath a directory in a branch. It grants the whole mount, and what is above it for reading.
func (b *onBranchFS) policy(workdir, fields string, more ...string) string {
	return b.Policy(b.text(workdir, fields, more...))
}

func (b *onBranchFS) text(workdir, fields string, more ...string) string {
	return b.Base(exectest.Grants{
		Read: []string{b.Outside, "/proc"}, Write: []string{b.mnt, "/dev/null"},
		More: fmt.Sprintf("filesystem: {isolation: \"branchfs\", workdir: %q\n%s\n}\n", workdir, fields) + strings.Join(more, "\n"),
	})
}

// opts runs a script, and the executor too, in a directory of the mount. This process, which serves the mount, must not go
// there between fork and exec: it could not answer itself then.
func (b *onBranchFS) opts(artifact, dir, script string) exectest.Opts {
	o := b.Opts(artifact, "/bin/sh", "-c", script)
	o.Wrap = []string{"/bin/sh", "-c", `cd "$0" && exec "$@"`, dir}
	return o
}

func (b *onBranchFS) sh(t *testing.T, artifact, dir, script string) exectest.Result {
	t.Helper()
	return exectest.Run(t, b.opts(artifact, dir, script))
}

// How a branch of a BranchFS ends, and that nobody sees it before. The working directory is the whole mount, or lies in it.
func Test_branchfs_how_a_branch_ends(t *testing.T) {
	for name, tc := range map[string]struct {
		fields, script string
		code           int
		landed, kept   bool
		said           string
	}{
		"default, status 0": {script: "exit 0", landed: true},
		"default, status 3": {script: "exit 3", code: 3, said: "the changes are dropped"},
		"keep, status 0":    {fields: `on_exit: "keep"`, script: "exit 0", kept: true, said: "sandlock-exec branch commit"},
		"commit, signal":    {fields: `on_error: "commit"`, script: "kill -TERM $$", code: 143, landed: true},
	} {
		t.Run(name, func(t *testing.T) {
			exectest.InParallel(t, func(t *testing.T, u exectest.User) {
				for _, sub := range []string{"", "/sub"} {
					b := newOnBranchFS(t, u)
					r := b.sh(t, b.policy(b.mnt+sub, tc.fields), b.mnt+sub, "cat old && echo 1 >new && echo 2 >old && cat "+b.mnt+sub+"/new && "+tc.script)
					if r.Code != tc.code || !strings.Contains(r.Stderr, tc.said) || r.Stdout != "old\n1\n" {
						t.Fatalf("exit %d, %q, %q, want %d, %q", r.Code, r.Stdout, r.Stderr, tc.code, tc.said)
					}
					if tc.landed {
						wantFile(t, b.base+sub+"/new", "1\n")
						wantFile(t, b.base+sub+"/old", "2\n")
					} else {
						wantMissing(t, b.base+sub+"/new")
						wantFile(t, b.base+sub+"/old", "old\n")
					}
					if left := b.fs.Branches(); len(left) > 0 != tc.kept {
						t.Errorf("branches %v are left", left)
					}
				}
			})
		})
	}
}

// settle runs "sandlock-exec branch" on the directory of a branch.
func (b *onBranchFS) settle(t *testing.T, name, dir string) exectest.Result {
	t.Helper()
	return exectest.Run(t, exectest.Opts{User: b.User, Args: []string{exectest.Executor(t), "branch", name, dir}, Dir: b.Work, Env: []string{"LANG=C"}})
}

// one returns the directory of the one branch that there is.
func (b *onBranchFS) one(t *testing.T) string {
	t.Helper()
	names := b.fs.Branches()
	if len(names) != 1 {
		t.Fatalf("branches %v, want one", names)
	}
	return b.mnt + "/@" + names[0]
}

// kept has a run keep a branch with a file "new".
func (b *onBranchFS) kept(t *testing.T, workdir string) string {
	t.Helper()
	if r := b.sh(t, b.policy(workdir, `on_exit: "keep"`), workdir, "echo kept >new"); r.Code != 0 {
		t.Fatalf("exit %d: %s", r.Code, r.Stderr)
	}
	return b.one(t)
}

// started waits for a file in the one branch.
func (b *onBranchFS) started(t *testing.T, name string) {
	t.Helper()
	exectest.Within(t, 20*time.Second, name+" in the branch", func() bool {
		found, err := filepath.Glob(filepath.Dir(b.base) + "/branches/*/" + name)
		return err == nil && len(found) == 1
	})
}

const untilGo = "while ! test -e \"$HOME/../outside/go\"; do sleep 0.02; done"

// What is kept says where it is, and is committed or dropped by that; not while its command runs.
func Test_branchfs_kept(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newOnBranchFS(t, u)
		b.Dir("plain")
		p := exectest.Start(t, b.opts(b.policy(b.mnt, `on_exit: "keep"`), b.mnt, "echo 1 >new; "+untilGo))
		b.started(t, "new")
		dir := b.one(t)
		for _, name := range []string{"commit", "abort"} {
			if r := b.settle(t, name, dir); r.Code != 75 || !strings.Contains(r.Stderr, "in use") {
				t.Errorf("%s of a branch in use: exit %d, %q", name, r.Code, r.Stderr)
			}
		}
		b.File(b.Outside+"/go", "")
		if r := p.Wait(t); r.Code != 0 || !strings.Contains(r.Stderr, "branch commit "+dir+" ") {
			t.Errorf("exit %d, %q", r.Code, r.Stderr)
		}
		for _, name := range []string{"show", "diff", "recover"} {
			if r := b.settle(t, name, dir); r.Code != 125 || !strings.Contains(r.Stderr, "only be committed and aborted") {
				t.Errorf("%s: exit %d, %q", name, r.Code, r.Stderr)
			}
		}
		wantRun(t, b.settle(t, "commit", dir), 0, "")
		wantFile(t, b.base+"/new", "1\n")
		for what, dir := range map[string]string{"that was committed": dir, "on a plain directory": b.Dir("plain/@x"), "in the mount": b.mnt + "/sub/@x"} {
			if r := b.settle(t, "commit", dir); r.Code != 125 {
				t.Errorf("a branch %s: exit %d, %q", what, r.Code, r.Stderr)
			}
		}
		wantRun(t, b.settle(t, "abort", b.kept(t, b.mnt+"/sub")), 0, "")
		wantMissing(t, b.base+"/sub/new")
		if left := b.fs.Branches(); len(left) > 0 {
			t.Errorf("branches %v are left", left)
		}
	})
}

// Of two sandboxes that one commits who is done first; the other's changes are kept.
func Test_branchfs_conflict(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newOnBranchFS(t, u)
		artifact := b.policy(b.mnt, "")
		first := exectest.Start(t, b.opts(artifact, b.mnt, "echo first >old; echo 1 >one; "+untilGo))
		b.started(t, "one")
		dir := b.one(t)
		wantRun(t, b.sh(t, artifact, b.mnt, "cat old; test -e one || echo no; echo second >old"), 0, "old\nno")
		b.File(b.Outside+"/go", "")
		if r := first.Wait(t); r.Code != 75 || !strings.Contains(r.Stderr, "committed first") || !strings.Contains(r.Stderr, "branch abort "+dir) {
			t.Errorf("exit %d, %q", r.Code, r.Stderr)
		}
		wantFile(t, b.base+"/old", "second\n")
		wantMissing(t, b.base+"/one")
		if r := b.settle(t, "commit", dir); r.Code != 75 {
			t.Errorf("commit: exit %d, %q", r.Code, r.Stderr)
		}
		wantRun(t, b.settle(t, "abort", dir), 0, "")
	})
}

// A working directory in a branch makes a branch of that, and goes there.
func Test_branchfs_nested(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newOnBranchFS(t, u)
		outer := b.kept(t, b.mnt)
		for _, sub := range []string{"", "/sub"} {
			r := b.sh(t, b.policy(outer+sub, ""), outer+sub, "pwd; cat old; echo 2 >inner; ls -A "+b.mnt)
			wantRun(t, r, 0, outer+sub+"\nold\n"+filepath.Base(outer))
			wantMissing(t, b.base+sub+"/inner")
		}
		wantRun(t, b.settle(t, "commit", outer), 0, "")
		wantFile(t, b.base+"/inner", "2\n")
		wantFile(t, b.base+"/sub/inner", "2\n")
		wantFile(t, b.base+"/new", "kept\n")
	})
}

// What is no BranchFS, what leads around one, and what it cannot do is refused before the start; nothing is left.
func Test_branchfs_refused(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newOnBranchFS(t, u)
		plain := b.Dir("plain")
		b.File(plain+"/.branchfs_ctl", "")
		elsewhere := mountIn(t, exectest.NewBox(t, u), branchfs.Options{NoControl: true})
		planted := mountIn(t, exectest.NewBox(t, u), branchfs.Options{NoControl: true})
		b.File(planted.base+"/.branchfs_ctl", "")
		liar := mountIn(t, exectest.NewBox(t, u), branchfs.Options{Answer: func(string) string { return "../work\x00" }})
		b.Dir("base/sub/x")
		for name, tc := range map[string]struct {
			at      *onBranchFS
			workdir string
			fields  string
			flags   []string
			want    string
		}{
			"a plain directory":               {b, b.Work, "", nil, "on no BranchFS"},
			"one with a control file":         {b, plain, "", nil, "on no BranchFS"},
			"another FUSE file system":        {elsewhere, elsewhere.mnt, "", nil, "no BranchFS"},
			"with a control file":             {planted, planted.mnt + "/sub", "", nil, "no BranchFS"},
			"a name that is none":             {liar, liar.mnt, "", nil, "no UUID"},
			"a dry run":                       {b, b.mnt, "", []string{"--dry-run"}, "does not tell what has changed"},
			"a mount of what is above it":     {b, b.mnt + "/sub", fmt.Sprintf("mount: [%q]", "/x:"+b.Link(filepath.Dir(b.mnt), b.Outside+"/above")+":ro"), nil, "leads around the branch"},
			"a mount of another part":         {b, b.mnt + "/sub", fmt.Sprintf("mount: [%q]", "/x:"+b.mnt+"/old:ro"), nil, "leads around the branch"},
			"a grant of another part":         {b, b.mnt + "/sub", fmt.Sprintf("read: [%q]", b.mnt+"/old"), nil, "no such file"},
			"the root directory on it":        {b, "/x", fmt.Sprintf("chroot: %q", b.mnt+"/sub"), nil, "and not the other way round"},
			"the root directory is its mount": {b, "/sub", fmt.Sprintf("chroot: %q", b.mnt), nil, "and not the other way round"},
		} {
			text := strings.Replace(tc.at.text(tc.workdir, tc.fields), "write: [", fmt.Sprintf("write: [\n%q,", tc.workdir), 1)
			if strings.Contains(tc.fields, "chroot") {
				text = fmt.Sprintf("filesystem: {read: [\"/\"], write: [%q], workdir: %[1]q, isolation: \"branchfs\", %s}", tc.workdir, tc.fields)
			}
			if strings.HasPrefix(tc.fields, "read") {
				text = strings.Replace(strings.Replace(text, tc.fields, "", 1), "read: [", fmt.Sprintf("read: [\n%q,", b.mnt+"/old"), 1)
			}
			o := tc.at.Opts(b.Policy(text), "/bin/sh", "-c", "echo ran")
			o.Flags = tc.flags
			if r := exectest.Run(t, o); r.Code != 125 || !strings.Contains(r.Stderr, tc.want) || r.Stdout != "" {
				t.Errorf("%s: exit %d, %q, %q, want %q", name, r.Code, r.Stdout, r.Stderr, tc.want)
			}
		}
		if left := b.fs.Branches(); len(left) > 0 {
			t.Errorf("branches %v are left", left)
		}
	})
}

// What the command tries: to settle its branch or another's, to see others, to get from under what is mounted.
func Test_branchfs_hostile(t *testing.T) {
	perl := exectest.Program(t, "/usr/bin/perl")
	// In a working directory W of a mount M, C being its control file and S the directory of another branch.
	attempts := []string{
		`echo commit >C`,
		`echo abort >>C`,
		`echo commit | dd of=C conv=notrunc`,
		`mv C moved && echo commit >moved`,
		`ln C linked && echo commit >linked`,
		`ln -s C link && echo commit >link`,
		`rm -f C && ln -s S/.branchfs_ctl C && echo commit >C`,
		`mkdir dir; mv C dir`,
		`chmod 600 C && echo commit >C`,
		`echo commit >S/.branchfs_ctl`,
		`cat S/new`,
		`ls -d M/@*`,
		`for id in $(grep -o '@branch-[0-9a-f-]*' /proc/self/mountinfo); do cat M/$id/old ./$id/old && exit 0; done; exit 1`,
		`for id in $(grep -o '@branch-[0-9a-f-]*' /proc/self/mountinfo); do echo commit >M/$id/.branchfs_ctl && exit 0; done; exit 1`,
		`for f in /proc/1/fd/*; do echo commit >$f && exit 0; done; exit 1`,
		`cat /proc/1/root/M/@*/new`,
		`cd / && mv W M.moved`,
		`cd / && mv M M.moved`,
		`cd / && rmdir W`,
		`umount W`,
		`perl -e 'exit !(open(F, "<", "C") && ioctl(F, 0x6201, 0))'`,
		`perl -e 'ioctl(STDIN, 0x6201, 0); exit($! != 25)' </dev/null`, // ENOTTY: the request came to the file
		`perl -e 'ioctl(STDIN, 0x6202, 0); exit($! != 25)' </dev/null`,
		`perl -e '$b = " " x 128; ioctl(STDIN, 0x80806200, $b); exit($! != 25)' </dev/null`,
	}
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		for _, sub := range []string{"", "/sub"} {
			b := newOnBranchFS(t, u)
			sibling := b.kept(t, b.mnt)
			script := "echo 1 >mine\n"
			for i, a := range attempts {
				script += fmt.Sprintf("(cd W; %s) >/dev/null 2>&1 && echo attempt %d worked\n", a, i)
			}
			script = strings.NewReplacer("M", b.mnt, "W", b.mnt+sub, "C", b.mnt+"/.branchfs_ctl", "S/", sibling+"/", "perl", perl).Replace(script)
			r := b.sh(t, b.policy(b.mnt+sub, `on_exit: "keep"`), b.mnt+sub, script+"echo; cat mine; ls -A "+b.mnt)
			want := map[string]string{"": "1\n.branchfs_ctl\ndir\nlink\nmine\nold\nsub", "/sub": "1\nsub"}[sub]
			wantRun(t, r, 0, want)
			wantMissing(t, b.base+sub+"/mine", b.base+"/new")
			if left := b.fs.Branches(); len(left) != 2 {
				t.Errorf("branches %v are left, want 2", left)
			}
			wantFile(t, filepath.Dir(b.base)+"/branches/"+strings.TrimPrefix(filepath.Base(sibling), "@")+"/new", "kept\n")
		}
		// The same outside.
		b := newOnBranchFS(t, u)
		sibling := b.kept(t, b.mnt)
		for _, script := range []string{
			"cat " + sibling + "/new", "ls -d " + b.mnt + "/@*", "mv " + b.mnt + "/sub " + b.mnt + "/bus",
			perl + ` -e '$b = " " x 128; ioctl(STDIN, 0x80806200, $b); exit($! != 25)' </dev/null`,
			perl + ` -e 'exit !(open(F, "<", $ARGV[0]) && ioctl(F, 0x6201, 0))' ` + sibling + "/.branchfs_ctl",
		} {
			wantCode(t, b, script)
		}
		wantFile(t, b.base+"/new", "kept\n")
		wantCode(t, b, "echo commit >"+b.kept(t, b.mnt)+"/.branchfs_ctl")
	})
}

// wantCode wants a script to succeed without a sandbox.
func wantCode(t *testing.T, b *onBranchFS, script string) {
	t.Helper()
	if r := exectest.Run(t, b.Opts("", "/bin/sh", "-c", script)); r.Code != 0 {
		t.Errorf("without a sandbox, %s: exit %d, %s", script, r.Code, r.Stderr)
	}
}

// A file system in user space may have the kernel forget any name, and what is mounted on that is gone then: the branch is not.
func Test_branchfs_forgotten_names(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newOnBranchFS(t, u)
		for _, sub := range []string{"", "/sub"} {
			os.Remove(b.Outside + "/go")
			p := exectest.Start(t, b.opts(b.policy(b.mnt+sub, `on_exit: "abort"`), b.mnt+sub, "echo 1 >started; "+untilGo+"; cd "+b.mnt+sub+" && echo 2 >late && cat late"))
			b.started(t, strings.TrimPrefix(sub+"/started", "/"))
			if err := b.fs.Forget("sub"); err != nil {
				t.Fatal(err)
			}
			if sub == "" { // its own, and nobody else's
				if err := b.fs.Forget(filepath.Base(b.one(t))); err != nil {
					t.Fatal(err)
				}
			}
			b.File(b.Outside+"/go", "")
			wantRun(t, p.Wait(t), 0, "2")
			wantMissing(t, b.base+sub+"/late")
		}
		if !exectest.Self().Root() || !u.Root() {
			return
		}
		if err := unix.Mount(b.Outside, b.mnt+"/sub", "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		before := exists(b.mnt + "/sub/old")
		if err := b.fs.Forget("sub"); err != nil {
			t.Fatal(err)
		}
		if before || !exists(b.mnt+"/sub/old") {
			t.Error("what is mounted on a name that the kernel forgets is still there: the test shows nothing")
		}
	})
}

// An executor that is killed leaves the directory as it was, and a branch that can be dropped.
func Test_branchfs_executor_killed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newOnBranchFS(t, u)
		p := exectest.Start(t, b.opts(b.policy(b.mnt, ""), b.mnt, "echo 2 >old; echo 1 >new; exec sleep 60"))
		b.started(t, "new")
		p.Signal(t, syscall.SIGKILL)
		p.Wait(t)
		wantFile(t, b.base+"/old", "old\n")
		wantMissing(t, b.base+"/new")
		dir := b.one(t)
		exectest.Within(t, 10*time.Second, "the lock is free", func() bool { return b.settle(t, "abort", dir).Code == 0 })
		if left := b.fs.Branches(); len(left) > 0 {
			t.Errorf("branches %v are left", left)
		}
	})
}

// Programs of all days work in a branch, also where the command is somebody else in a user namespace.
func Test_branchfs_programs(t *testing.T) {
	git := exectest.Program(t, "/usr/bin/git")
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newOnBranchFS(t, u)
		r := b.sh(t, b.policy(b.mnt, "", "program: {uid: 1000, gid: 1000}"), b.mnt, `set -e
id -u
cp -r sub copy; mv copy moved; rm -r sub; ln -s moved/old link; chmod 700 moved/old; ln moved/old moved/hard
mkdir work; cd work; export GIT_CONFIG_GLOBAL=/dev/null
`+git+` init -q . ; echo x >a; `+git+` add -A; `+git+` -c user.name=n -c user.email=e commit -qm first; `+git+` status --porcelain`)
		wantRun(t, r, 0, "1000")
		wantFile(t, b.base+"/link", "old\n")
		wantFile(t, b.base+"/moved/hard", "old\n")
		wantMissing(t, b.base+"/sub", b.base+"/copy")
		if st, err := os.Stat(b.base + "/moved/old"); err != nil || st.Mode().Perm() != 0o700 || int(st.Sys().(*syscall.Stat_t).Uid) != u.UID {
			t.Errorf("moved/old: %v, %v", st, err)
		}
		if !exists(b.base + "/work/.git/HEAD") {
			t.Error("there is no repository")
		}
	})
}

// What the policy denies and protects holds in a branch, and what keeps missing names missing is not committed.
func Test_branchfs_deny_and_protect(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		for _, sub := range []string{"", "/sub"} {
			b := newOnBranchFS(t, u)
			b.File(b.base+sub+"/secret", "secret\n")
			artifact := b.policy(b.mnt+sub, fmt.Sprintf("deny: [%q, %q], protect: [%q]", b.mnt+sub+"/secret", b.mnt+sub+"/none", b.mnt+sub+"/old"))
			r := b.sh(t, artifact, b.mnt+sub, "cat secret; echo x >none; echo x >old; cat old; mv secret moved; echo 1 >new")
			wantRun(t, r, 0, "old")
			wantFile(t, b.base+sub+"/new", "1\n")
			wantFile(t, b.base+sub+"/old", "old\n")
			wantFile(t, b.base+sub+"/secret", "secret\n")
			wantMissing(t, b.base+sub+"/none", b.base+sub+"/moved")
		}
	})
}

// Other mounts of the view beside the file system, and the same beneath another root.
func Test_branchfs_among_mounts(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newOnBranchFS(t, u)
		link := b.Link(b.mnt+"/sub", b.Work+"/link")
		// The target is missing: the directory that the file system is mounted in is put together anew.
		target := filepath.Dir(b.mnt) + "/missing"
		b.File(b.Outside+"/f", "mounted\n")
		artifact := b.policy(link, fmt.Sprintf("mount: [%q, %q]", target+":"+b.Outside+":ro", b.mnt+"/sub/old:"+b.Outside+"/f"))
		r := b.sh(t, artifact, b.mnt+"/sub", "cat "+target+"/f old; echo 1 >new; cat "+link+"/new")
		wantRun(t, r, 0, "mounted\nmounted\n1")
		wantFile(t, b.base+"/sub/new", "1\n")
		wantFile(t, b.base+"/sub/old", "old\n")

		rooted := newRooted(t, u)
		at := mountIn(t, rooted.Box, branchfs.Options{Dir: rooted.at("/work")})
		for _, sub := range []string{"", "/sub"} {
			fields := fmt.Sprintf("workdir: \"/work%s\", isolation: \"branchfs\", write: [\"/work\"]\n", sub)
			r = rooted.Sh(rooted.Policy(rooted.filesystem(fields)), "cd /work"+sub+" && cat old && echo 1 >new && cat /work/.branchfs_ctl; ls /work")
			wantRun(t, r, 0, map[string]string{"": "old\nnew\nold\nsub", "/sub": "old\nsub"}[sub])
			wantFile(t, at.base+sub+"/new", "1\n")
		}
	})
}
