package exec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Attempt 21: every way to write, and none reaches the files that the branch is of. Each prints its name when it worked: a way
// that fails proves nothing.
const waysToWrite = `
import ctypes, errno, fcntl, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def way(name):
    def run(f):
        try:
            f()
        except OSError as e:
            print(name, errno.errorcode[e.errno])
        else:
            print(name, "done")
    return run

@way("mmap")
def _():
    with open("mapped", "r+b") as f, mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as m:
        m[:4] = b"MMAP"
        m.flush()

@way("mmap_after_read")
def _():
    r = open("mapped2", "rb")
    with open("mapped2", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        m[:4] = b"MMAP"

@way("direct")
def _():
    buf = mmap.mmap(-1, 4096)
    buf[:4] = b"DIRE"
    fd = os.open("direct", os.O_RDWR | os.O_DIRECT)
    os.writev(fd, [buf])

@way("copy_file_range")
def _():
    a, b = os.open("source", os.O_RDONLY), os.open("copied", os.O_WRONLY)
    if os.copy_file_range(a, b, 100) != 100: raise OSError(errno.EIO, "")

@way("sendfile")
def _():
    a, b = os.open("source", os.O_RDONLY), os.open("sent", os.O_WRONLY)
    if os.sendfile(b, a, 0, 100) != 100: raise OSError(errno.EIO, "")

@way("splice")
def _():
    r, w = os.pipe()
    os.write(w, b"x" * 100)
    fd = os.open("spliced", os.O_WRONLY)
    if libc.splice(r, None, fd, None, 100, 0) != 100: raise OSError(ctypes.get_errno(), "")

@way("ficlone")
def _():
    a, b = os.open("source", os.O_RDONLY), os.open("cloned", os.O_WRONLY)
    fcntl.ioctl(b, 0x40049409, a)

@way("fallocate")
def _():
    fd = os.open("allocated", os.O_WRONLY)
    os.posix_fallocate(fd, 0, 100000)

@way("punch")
def _():
    fd = os.open("punched", os.O_RDWR)
    if libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4096)) != 0: raise OSError(ctypes.get_errno(), "")

@way("proc_fd")
def _():
    r = os.open("reopened", os.O_RDONLY)
    w = os.open("/proc/self/fd/%d" % r, os.O_WRONLY | os.O_TRUNC)
    os.write(w, b"PROC")

@way("path_fd")
def _():
    d = os.open(".", os.O_PATH)
    os.close(os.open("dirfd", os.O_WRONLY | os.O_TRUNC, dir_fd=d))

@way("hard_link")
def _():
    os.link("linked", "name")
    with open("name", "a") as f: f.write("LINK")

@way("whiteout")
def _():
    os.unlink("gone")
    os.mkdir("gone")
    os.rmdir("gone")

@way("mknod_whiteout")
def _():
    os.mknod("node", 0o020000, 0)

@way("rename")
def _(): os.rename("dir/file", "dir/other")

@way("exchange")
def _():
    if libc.renameat2(-100, b"one", -100, b"two", 2) != 0: raise OSError(ctypes.get_errno(), "")

@way("rename_dir")
def _(): os.rename("dir", "moved")

@way("chmod")
def _(): os.fchmod(os.open("mode", os.O_RDONLY), 0o600)

@way("times")
def _(): os.utime("time", (1, 1))

@way("attribute")
def _(): os.setxattr("attr", "user.x", b"x")

@way("tmpfile")
def _():
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"tmp")
    os.link("/proc/self/fd/%d" % fd, "tmpfile", follow_symlinks=True)

@way("symlink")
def _():
    os.symlink(os.getcwd() + "/through", "sl")
    with open("sl", "w") as f: f.write("THROUGH")

@way("inherited")
def _(): os.write(3, b"INHERITED")
`

func Test_escape_21_nothing_reaches_the_workdir(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		py := python(t)
		b := newBranched(t, u)
		b.outside(t, b.Work, `for n in mapped mapped2 direct copied sent spliced cloned allocated punched reopened dirfd linked gone one two mode time attr through source; do
	head -c 16384 /dev/zero | tr '\0' o >$n; done; mkdir dir; echo f >dir/file; chmod 644 *; chmod 755 dir`)
		before := content(t, b.Work)
		script := b.File(b.Outside+"/ways.py", waysToWrite)
		artifact := b.policy(`on_exit: "abort"`)
		r := b.Run(artifact, py, script)
		if r.Code != 0 {
			t.Fatalf("exit %d: %s", r.Code, r.Stderr)
		}
		if after := content(t, b.Work); after != before {
			changed(t, before, after)
		}
		b.wantNone(t)
		// Which ways there are depends on the file system and the policy; these are there everywhere.
		for _, way := range []string{"mmap", "mmap_after_read", "copy_file_range", "sendfile", "splice", "proc_fd", "path_fd", "hard_link", "whiteout", "rename", "chmod", "times", "symlink"} {
			if !strings.Contains(r.Stdout, way+" done\n") {
				t.Errorf("%s did not work:\n%s", way, r.Stdout)
			}
		}
		if !strings.Contains(r.Stdout, "rename_dir EXDEV\n") || strings.Contains(r.Stdout, "mknod_whiteout done") || strings.Contains(r.Stdout, "inherited done") {
			t.Errorf("unexpected:\n%s", r.Stdout)
		}
		// The control: the same program changes them where nothing keeps it off.
		o := b.Opts("", py, script)
		exectest.Run(t, o)
		if content(t, b.Work) == before {
			t.Error("the control changed nothing")
		}
	})
}

// A descriptor of a workdir's file that was open before the branch is the real file, and is not handed on.
func Test_branch_descriptor_from_before(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		f, err := os.OpenFile(b.File(b.Work+"/open", "old"), os.O_RDWR|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		o := b.Opts(b.policy(`on_exit: "abort"`), "/bin/sh", "-c", "(echo x >&3) 2>/dev/null || echo closed")
		o.Files = []*os.File{f}
		wantRun(t, exectest.Run(t, o), 0, "closed")
		wantFile(t, b.Work+"/open", "old")
	})
}

// Where a grant to write stands, beneath, at or above the workdir, changes nothing of that; what is outside is as ever.
func Test_branch_grants(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		for name, tc := range map[string]struct {
			grant string // beneath "top"
			other bool   // what lies beside the workdir can be written
			all   bool   // so can all of the workdir
		}{
			"above":   {"", true, true},
			"at":      {"/work", false, true},
			"beneath": {"/work/part", false, false},
		} {
			t.Run(name, func(t *testing.T) {
				b := newBranched(t, u)
				top := b.Dir("top")
				b.outside(t, top, "mkdir -p work/part; echo 1 >work/part/f; echo 2 >work/f; echo 3 >beside")
				text := strings.Replace(b.text(fmt.Sprintf("workdir: %q\non_exit: \"abort\"", top+"/work")), fmt.Sprintf("%q,\n\t]\n}", "/dev/null"),
					fmt.Sprintf("%q,\n%q,\n\t]\n}", "/dev/null", top+tc.grant), 1)
				before := content(t, top+"/work")
				r := b.Sh(b.Policy(text), "cd "+top+`; for f in work/part/f work/f beside work/part/n work/n; do (echo x >>$f) 2>/dev/null && echo $f; done; exit 0`)
				want := []string{"work/part/f"}
				if tc.all {
					want = append(want, "work/f")
				}
				if tc.other {
					want = append(want, "beside")
				}
				want = append(want, "work/part/n")
				if tc.all {
					want = append(want, "work/n")
				}
				wantRun(t, r, 0, strings.Join(want, "\n"))
				if after := content(t, top+"/work"); after != before {
					changed(t, before, after)
				}
				wantBeside := "3\n"
				if tc.other {
					wantBeside = "3\nx\n"
				}
				wantFile(t, top+"/beside", wantBeside)
			})
		}
	})
}

// What hides or protects something in the workdir leaves no trace in a commit.
func Test_branch_deny_and_protect(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.outside(t, b.Work, "echo secret >.env; mkdir -p .git/hooks; echo h >.git/hooks/h; echo 1 >f; chmod 600 .env; touch -d 2020-02-02 .env .git/hooks/h f")
		before := content(t, b.Work)
		artifact := b.policy("", denied(b.Work+"/.env", b.Work+"/no/such", b.Work+"/missing"), protected(".git/hooks/**", ".bashrc"))
		r := b.Sh(artifact, `cat .env 2>/dev/null && echo read; (echo x >.env) 2>/dev/null && echo wrote; (echo x >.git/hooks/h) 2>/dev/null && echo wrote
(echo x >.git/hooks/new) 2>/dev/null && echo wrote; (echo x >missing) 2>/dev/null && echo wrote; (echo x >.bashrc) 2>/dev/null && echo wrote; exit 0`)
		wantRun(t, r, 0, "")
		if after := content(t, b.Work); after != before {
			changed(t, before, after)
		}
		wantRun(t, b.Sh(artifact, "echo 2 >new; rm f"), 0, "")
		b.outside(t, b.Work, "test -e new && rm new && echo 1 >f && touch -d 2020-02-02 f")
		if after := content(t, b.Work); after != before {
			changed(t, before, after)
		}
		b.wantNone(t)
	})
}

// Numbers 3, 4: relative names, and a workdir by a parameter, a symbolic link or the directory that the run starts in.
func Test_filesystem_9_1_3_workdir_names(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.Link(b.Work, filepath.Dir(b.Work)+"/link")
		for name, workdir := range map[string]string{
			"cwd": "${cwd}", "link": filepath.Dir(b.Work) + "/link", "home": "${home}",
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				script := "echo x >rel; echo y >$HOME/abs; cd .. && echo z >work/up"
				fields := fmt.Sprintf("workdir: %q", workdir)
				wantRun(t, b.Sh(b.policy(fields+"\non_exit: \"abort\""), script), 0, "")
				wantMissing(t, b.Work+"/rel", b.Work+"/abs", b.Work+"/up")
				wantRun(t, b.Sh(b.policy(fields), script), 0, "")
				for _, f := range []string{"rel", "abs", "up"} {
					if err := os.Remove(b.Work + "/" + f); err != nil {
						t.Error(err)
					}
				}
				b.wantNone(t)
			})
		}
	})
}

func Test_branch_in_chroot(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		storage := r.Dir("storage")
		if err := os.Chmod(storage, 0o700); err != nil {
			t.Fatal(err)
		}
		r.File(r.at("/work/old"), "old\n")
		fields := fmt.Sprintf("workdir: \"/work\", storage: %q, write: [\"/work\", \"/tmp\"]\n", storage)
		abort, commit := r.Policy(r.filesystem(fields+`on_exit: "abort"`)), r.Policy(r.filesystem(fields))
		const script = "cd /work && cat old && echo new >old && echo 1 >n && ls && echo t >/tmp/t"
		wantRun(t, r.Sh(abort, script), 0, "old\nn\nold")
		wantFile(t, r.at("/work/old"), "old\n")
		wantMissing(t, r.at("/work/n"))
		wantFile(t, r.at("/tmp/t"), "t\n")
		wantRun(t, r.Sh(commit, script), 0, "old\nn\nold")
		wantFile(t, r.at("/work/old"), "new\n")
		wantFile(t, r.at("/work/n"), "1\n")
		wantMissing(t, "/work/n")
		if left, err := os.ReadDir(storage); err != nil || len(left) > 0 {
			t.Errorf("storage: %v, %v", left, err)
		}
	})
}

// Numbers 19 and 64: where branches are kept, and what a storage must be.
func Test_filesystem_9_1_19_storage(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		keep := b.Policy(strings.Replace(b.text(`on_exit: "keep"`), fmt.Sprintf("storage: %q", b.storage), "", 1))
		in := func(env ...string) (exectest.Result, exectest.Result) {
			o := b.Opts(keep, "/bin/sh", "-c", "echo 1 >new")
			o.Env = append(o.Env, env...)
			run := exectest.Run(t, o)
			o.Policy, o.Args = "", []string{exectest.Executor(t), "branch", "list", "--json"}
			return run, exectest.Run(t, o)
		}
		runtime, tmp := b.Dir("runtime"), b.Dir("tmp")
		for _, tc := range []struct {
			env  []string
			base string
		}{
			{[]string{"XDG_RUNTIME_DIR=" + runtime, "TMPDIR=" + tmp}, runtime + "/sandlock-cow"},
			{[]string{"TMPDIR=" + tmp}, fmt.Sprintf("%s/sandlock-cow-%d", tmp, u.UID)},
			{[]string{"XDG_RUNTIME_DIR=relative", "TMPDIR=" + tmp}, fmt.Sprintf("%s/sandlock-cow-%d", tmp, u.UID)},
			{[]string{"XDG_RUNTIME_DIR=/usr/no/such", "TMPDIR=" + tmp}, fmt.Sprintf("%s/sandlock-cow-%d", tmp, u.UID)},
		} {
			run, list := in(tc.env...)
			if run.Code != 0 || !strings.Contains(run.Stderr, tc.base) || !strings.Contains(list.Stdout, `"dir":"`+tc.base+"/") {
				t.Errorf("%v: exit %d, %s; list %q %q", tc.env, run.Code, run.Stderr, list.Stdout, list.Stderr)
			}
			if st, err := os.Stat(tc.base); err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("%s: %v, %v", tc.base, st, err)
			}
		}
		wantMissing(t, b.Work+"/new")

		file, open, real := b.File(filepath.Dir(b.Work)+"/file", ""), b.Dir("open"), b.Dir("real")
		if err := os.Chmod(real, 0o700); err != nil {
			t.Fatal(err)
		}
		link := b.Link(real, filepath.Dir(b.Work)+"/planted")
		for storage, want := range map[string]string{
			file: "no directory", open: "others have permissions", link: "no directory", b.Work: "is filesystem.workdir itself",
			filepath.Dir(b.Work) + "/no/parents": "no such file", "/usr": "",
		} {
			r, path := b.Compile(b.text(fmt.Sprintf("storage: %q", storage)))
			if r.Code == 0 {
				r = b.Sh(path, "echo 1 >new; echo ran")
			}
			if (r.Code != 125 && r.Code != 2) || r.Stdout != "" || !strings.Contains(r.Stderr, want) {
				t.Errorf("storage %s: exit %d, %q, %q", storage, r.Code, r.Stdout, r.Stderr)
			}
			wantMissing(t, b.Work+"/new", filepath.Dir(b.Work)+"/no")
		}
	})
}

// Number 40: the storage may lie in the workdir. The command sees none of it, its own branch or others, and a commit keeps off.
func Test_filesystem_9_2_40_storage_in_workdir(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.File(b.Work+"/old", "old\n")
		b.Dir("work/.cache")
		b.storage = b.Dir("work/.cache/branches")
		if err := os.Chmod(b.storage, 0o700); err != nil {
			t.Fatal(err)
		}
		keep := b.policy(`on_exit: "keep"`)
		if r := b.Sh(keep, "ls .cache; echo 1 >kept"); r.Code != 0 || r.Stdout != "" {
			t.Fatalf("exit %d, %q, %q", r.Code, r.Stdout, r.Stderr)
		}
		kept := b.wantOne(t, "kept")
		r := b.Sh(b.policy(""), "ls .cache; mkdir -p .cache/branches/"+kept.ID+"/upper; echo planted >.cache/branches/"+kept.ID+"/upper/kept; echo 2 >>old")
		if r.Code != 74 || r.Stdout != "" || !strings.Contains(r.Stderr, "the workdir is as it was") {
			t.Errorf("what was made in its place: exit %d, %q, %q", r.Code, r.Stdout, r.Stderr)
		}
		for _, i := range b.list(t) {
			if i.ID != kept.ID {
				wantRun(t, b.branch(t, "abort", i.ID), 0, "")
			}
		}
		if r := b.Sh(b.policy(""), "echo 2 >>old; echo x >.cache/beside"); r.Code != 0 {
			t.Errorf("exit %d, %s", r.Code, r.Stderr)
		}
		wantFile(t, b.Work+"/old", "old\n2\n")
		wantFile(t, b.Work+"/.cache/beside", "x\n")
		wantRun(t, b.branch(t, "commit", kept.ID), 0, "")
		wantFile(t, b.Work+"/kept", "1\n")
		b.wantNone(t)
	})
}

// The storage may be on another file system than the workdir.
func Test_branch_storage_elsewhere(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		var here, there syscall.Stat_t
		if syscall.Stat(b.Work, &here) != nil || syscall.Stat("/dev/shm", &there) != nil || here.Dev == there.Dev {
			exectest.Lacks(t, "/dev/shm on a file system of its own")
		}
		storage, err := os.MkdirTemp("/dev/shm", "sandlock-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(storage) })
		if exectest.Self().Root() {
			if err := os.Chown(storage, u.UID, u.GID); err != nil {
				t.Fatal(err)
			}
		}
		b.storage = storage
		plain := b.Dir("plain")
		const script = "rm -r d/sub; echo two >edit; mkdir -p a/b; echo 1 >a/b/f; ln a/b/f a/l; chmod 700 a; truncate -s 10M hole; ln -s x y; find . ! -type d -exec touch -h -d 2022-02-02 {} +"
		for _, dir := range []string{b.Work, plain} {
			b.outside(t, dir, start)
		}
		wantRun(t, b.Sh(b.policy(""), script), 0, "")
		b.outside(t, plain, script)
		if got, want := content(t, b.Work), content(t, plain); got != want {
			changed(t, want, got)
		}
		b.wantNone(t)
	})
}

// Files of others: an ordinary user cannot copy them with their owner, so they stay as they are, and nothing else suffers.
func Test_branch_files_of_others(t *testing.T) {
	if !exectest.Self().Root() {
		t.Skip("needs root to make files of others")
	}
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		other := b.Work + "/other"
		b.File(other, "theirs\n")
		if err := os.Chown(other, 1234, 1234); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(other, 0o666); err != nil {
			t.Fatal(err)
		}
		r := b.Sh(b.policy(""), "cat other; (echo mine >>other) 2>&1 | grep -o 'Value too large'; echo 1 >new; exit 0")
		if u.Root() {
			wantRun(t, r, 0, "theirs")
			wantFile(t, other, "theirs\nmine\n")
		} else {
			wantRun(t, r, 0, "theirs\nValue too large")
			wantFile(t, other, "theirs\n")
		}
		wantFile(t, b.Work+"/new", "1\n")
		var st syscall.Stat_t
		if err := syscall.Lstat(other, &st); err != nil || st.Uid != 1234 || st.Gid != 1234 || st.Mode&0o7777 != 0o666 {
			t.Errorf("uid %d, gid %d, mode %o, %v", st.Uid, st.Gid, st.Mode, err)
		}
		b.wantNone(t)
	})
}

// What became of the branch is in the audit.
func Test_branch_audit(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		for fields, want := range map[string]string{"": `"verdict":"commit"`, `on_exit: "abort"`: `"verdict":"abort"`, `on_exit: "keep"`: `"path":"` + b.storage} {
			o := b.Opts(b.policy(fields), "/bin/sh", "-c", "echo 1 >new")
			o.Flags = []string{"--audit", "-"}
			if r := exectest.Run(t, o); r.Code != 0 || !strings.Contains(r.Stderr, `"event":"branch"`) || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s: exit %d, %s", fields, r.Code, r.Stderr)
			}
		}
	})
}
