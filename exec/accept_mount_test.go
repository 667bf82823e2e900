package exec_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// mounts is a part of the section filesystem: mounts, by pairs of a target and a source.
func mounts(pairs ...string) string {
	var list []string
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, fmt.Sprintf("%q", pairs[i]+":"+pairs[i+1]))
	}
	return "mount: [" + strings.Join(list, ", ") + "]\n"
}

// treeState is what a tree holds, to be compared: names, kinds, modes, owners, sizes and times of change.
func treeState(t *testing.T, dirs ...string) string {
	t.Helper()
	var text strings.Builder
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			fmt.Fprintln(&text, path, st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}

func Test_mount_kinds(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		dir, colons := r.Dir("host"), r.Dir("with:colons")
		r.File(dir+"/file", "file\n")
		r.File(colons+"/file", "colons\n")
		file := r.File(r.Outside+"/one", "one\n")
		link := r.Link(dir, r.Outside+"/link")
		r.Link("/etc/sentinel", dir+"/absolute")
		r.Link("../etc/sentinel", dir+"/up")
		for _, chroot := range []bool{true, false} {
			name := map[bool]string{true: "chroot", false: "host"}[chroot]
			t.Run(name, func(t *testing.T) {
				target := func(path string) string { return r.Work + path }
				policy := func(more string) string { return r.Policy(r.Base(exectest.Grants{More: "filesystem: {" + more + "}"})) }
				if chroot {
					target = func(path string) string { return path }
					policy = func(more string) string { return r.Policy(r.filesystem(more)) }
				}
				run := func(artifact, script string) exectest.Result {
					return r.In(t).Sh(artifact, "cd "+target("/")+" && "+script)
				}
				readwrite := policy(mounts(target("/d"), dir, target("/f"), file, target("/l"), link, target("/c"), colons+":ro", target("/etc2/deep/er"), dir+":rw"))
				wantRun(t, run(readwrite, "cat d/file f l/file c/file etc2/deep/er/file; echo more >>f; echo x >d/x; cat l/x; rm d/x"), 0, "file\none\nfile\ncolons\nfile\nx")
				wantContent(t, file, "one\nmore\n", u)
				r.File(file, "one\n")
				for _, script := range []string{"echo x >c/new", "echo x >c/file", "rm -f c/file", "mv c/file c/other"} {
					wantFailure(t, run(readwrite, script), "Read-only file system")
				}
				// The target itself stays what it is.
				for _, script := range []string{"rm -f f", "mv f g", "rmdir d", "mv d e"} {
					wantFailure(t, run(readwrite, script), "")
				}
				if chroot { // links are the command's to follow
					wantRun(t, run(readwrite, "cat d/absolute d/up"), 0, "inside\ninside")
					wantFailure(t, run(readwrite, "cat "+dir+"/file"), "No such file")
				}
			})
		}
	})
}

// What a target lacks is made for the command alone.
func Test_mount_leaves_nothing(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		dir, other := r.Dir("host"), r.Dir("other")
		r.File(dir+"/file", "file\n")
		r.File(other+"/file", "other\n")
		r.dir(t, "/run")
		r.dir(t, "/home/sub")
		r.Link("/run", r.at("/home/run"))
		file := dir + "/file"
		trees := []string{r.root, dir, other, r.Work, r.Outside}
		for _, tc := range []struct {
			name, policy, script, want string
		}{
			{"root", r.filesystem(mounts("/new", dir) + `read: ["/"]`), "ls / && cat /new/file /etc/sentinel", "bin\ndev\netc\nhome\nmarker.txt\nnew\nproc\nrun\nsys\ntmp\nusr\nwork\nfile\ninside"},
			{"nested", r.filesystem(mounts("/etc/a/b/c", dir)), "cat /etc/a/b/c/file /etc/sentinel", "file\ninside"},
			{"several", r.filesystem(mounts("/new", dir, "/etc/a", other, "/etc/f", file, "/home/sub/x/y", dir, "/deep/er", other)), "cat /new/file /etc/a/file /etc/f /home/sub/x/y/file /deep/er/file", "file\nother\nfile\nfile\nother"},
			{"by_a_link", r.filesystem(mounts("/home/run/x", dir) + `read: ["/"]`), "cat /home/run/x/file /run/x/file; readlink /home/run", "file\nfile\n/run"},
			{"beneath", r.filesystem(mounts("/new", r.Work, "/new/sub", dir, "/new/f", file)), "cat /new/sub/file /new/f", "file\nfile"},
			{"file_in_root", r.filesystem(mounts("/f", file)), "cat /f", "file"},
			{"over_dev", r.filesystem(mounts("/dev/null", file)), "cat /dev/null", "file"},
			{"in_own_tmp", r.filesystem(mounts("/tmp/a", dir, "/tmp/b/c/d", file, "/tmp/b/e", other) + `tmp: "private"`), "cat /tmp/a/file /tmp/b/c/d /tmp/b/e/file && ls /tmp", "file\nfile\nother\na\nb"},
			{"in_own_dev", r.filesystem(mounts("/dev/a", dir, "/dev/b/c", file)), "cat /dev/a/file /dev/b/c", "file\nfile"},
			{"without_chroot", r.Base(exectest.Grants{More: "filesystem: " + mounts(r.Outside+"/new", dir, "/sandlock-test/a/b", other)}), "cat " + r.Outside + "/new/file /sandlock-test/a/b/file", "file\nother"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				if tc.name == "beneath" {
					if err := os.Mkdir(r.Work+"/sub", 0o755); err != nil {
						t.Fatal(err)
					}
					r.File(r.Work+"/f", "")
				}
				artifact := r.In(t).Policy(tc.policy)
				before := treeState(t, trees...)
				wantRun(t, r.In(t).Sh(artifact, tc.script), 0, tc.want)
				if after := treeState(t, trees...); after != before {
					t.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
			})
		}
		if _, err := os.Lstat("/sandlock-test"); err == nil {
			t.Error("/sandlock-test was made on the host")
		}
	})
}

func Test_mount_order(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		one, two := r.Dir("one"), r.Dir("two")
		r.File(one+"/file", "one\n")
		r.File(two+"/file", "two\n")
		for _, dir := range []string{one + "/sub", two + "/sub"} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		wantRun(t, r.Sh(r.Policy(r.filesystem(mounts("/work", one, "/work/sub", two))), "cat /work/file /work/sub/file"), 0, "one\ntwo")
		wantRun(t, r.Sh(r.Policy(r.filesystem(mounts("/work", one+":ro", "/work/sub", two))), "cat /work/sub/file; echo x >/work/sub/x; echo x 2>&- >/work/x || echo closed"), 0, "two\nclosed")
		// A writable mount in the place of a read-only one, and the reverse, by the same source.
		wantFailure(t, r.Sh(r.Policy(r.filesystem(mounts("/work", one, "/work/sub", two+":ro"))), "echo x >/work/sub/y"), "Read-only file system")
		if _, err := os.Lstat(two + "/x"); err != nil {
			t.Error(err)
		}
	})
}

// What is mounted beneath a source comes along, and "ro" holds for it too.
func Test_mount_recursion(t *testing.T) {
	exectest.UserNamespaces(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		dir := r.Dir("host")
		if err := os.MkdirAll(dir+"/sub", 0o777); err != nil {
			t.Fatal(err)
		}
		r.File(dir+"/sub/file", "beneath\n")
		flags := "-m"
		if !u.Root() {
			flags = "-Urm"
		}
		wrap := []string{"/usr/bin/unshare", flags, "/bin/sh", "-c", "mount -t tmpfs none " + dir + "/sub && echo mounted >" + dir + `/sub/file && "$@"; code=$?; ls ` + dir + "/sub; exit $code", "sh"}
		run := func(more, script string) exectest.Result {
			o := r.Opts(r.Policy(r.filesystem(more)), "/bin/sh", "-c", script)
			o.Wrap = wrap
			return exectest.Run(t, o)
		}
		wantRun(t, run(mounts("/work", dir), "cat /work/sub/file; echo x >/work/sub/new"), 0, "mounted\nfile\nnew")
		r2 := run(mounts("/work", dir+":ro"), "cat /work/sub/file; echo x >/work/sub/new")
		wantFailure(t, r2, "Read-only file system")
		if strings.TrimSpace(r2.Stdout) != "mounted\nfile" {
			t.Errorf("printed %q", r2.Stdout)
		}
	})
}

func Test_mount_mistakes(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		dir := r.Dir("host")
		file := r.File(dir+"/file", "file\n")
		loop := r.Link("loop", r.Outside+"/loop")
		r.Link("/no/where", r.at("/etc/dangling"))
		before := treeState(t, r.root, dir)
		for _, tc := range []struct{ name, mounts, want string }{
			{"source_missing", mounts("/work", r.Outside+"/missing"), "no such file or directory"},
			{"source_loop", mounts("/work", loop), "too many"},
			{"source_beneath_a_file", mounts("/work", file+"/x"), "not a directory"},
			{"second_of_two", mounts("/work", dir, "/etc", r.Outside+"/missing"), "filesystem.mount[1]"},
			{"missing_beneath_a_mount", mounts("/work", dir, "/work/new", dir), "/work/new"},
			{"directory_on_a_file", mounts("/etc/sentinel", dir), "/etc/sentinel"},
			{"file_on_a_directory", mounts("/etc", file), "/etc"},
			{"beneath_a_file", mounts("/etc/sentinel/x", dir), "/etc/sentinel"},
			{"dangling", mounts("/etc/dangling", dir), "/etc/dangling"},
			{"proc", mounts("/work", r.Link("/proc/self", r.Outside+"/process")), "of the host's /proc"},
		} {
			got := r.Run(r.Policy(r.filesystem(tc.mounts)), "/bin/echo", "started")
			if got.Code != 125 || got.Stdout != "" || !strings.Contains(got.Stderr, tc.want) || !strings.Contains(got.Stderr, "filesystem.mount") {
				t.Errorf("%s: exit %d, printed %q, want 125 and %q\n%s", tc.name, got.Code, got.Stdout, tc.want, got.Stderr)
			}
			if !strings.Contains(got.Stderr, ".cue:") {
				t.Errorf("%s: names no line: %s", tc.name, got.Stderr)
			}
		}
		if after := treeState(t, r.root, dir); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		for _, bad := range []string{"/work", "/work:", ":/src", "work:/src", "/work:src", "/:/src", "/proc/x:/src", "/work/../etc:/src"} {
			if got, _ := r.Compile(chrooted(r.root, fmt.Sprintf("mount: [%q]", bad))); got.Code != 2 || !strings.Contains(got.Stderr, ".cue:") {
				t.Errorf("compile %q: exit %d, want 2\n%s", bad, got.Code, got.Stderr)
			}
		}
	})
}

// What the sandbox itself rests on, such as its artifact, cannot be written by way of a mount, whatever the source is called.
func Test_mount_guards(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		box := filepath.Dir(r.Work) // where the artifacts are
		link := r.Link(box, r.Outside+"/link")
		for _, source := range []string{box, link, link + "/work/..", filepath.Dir(box), r.Outside + "/../outside/link"} {
			source = filepath.Clean(source)
			got := r.Run(r.Policy(r.filesystem(mounts("/work", source))), "/bin/echo", "started")
			if got.Code != 125 || got.Stdout != "" || !strings.Contains(got.Stderr, "it could rewrite it") {
				t.Errorf("%s: exit %d, printed %q, want 125\n%s", source, got.Code, got.Stdout, got.Stderr)
			}
			wantRun(t, r.Run(r.Policy(r.filesystem(mounts("/work", source+":ro"))), "/bin/echo", "started"), 0, "started")
		}
		// So with a target that is reached by a link.
		r.dir(t, "/run")
		r.Link("/run", r.at("/home/run"))
		for _, target := range []string{"/home/run", "/home/run/new"} {
			got := r.Run(r.Policy(r.filesystem(mounts(target, box))), "/bin/echo", "started")
			if got.Code != 125 || !strings.Contains(got.Stderr, "it could rewrite it") {
				t.Errorf("%s: exit %d, printed %q, want 125\n%s", target, got.Code, got.Stdout, got.Stderr)
			}
		}
		policy := r.filesystem(mounts("/work/file", r.File(r.Outside+"/other", "")) + `read: ["/"], write: ["/"]`)
		wantRun(t, r.Run(r.Policy(policy), "/bin/echo", "started"), 0, "started")
	})
}
