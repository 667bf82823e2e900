package exec_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
	"github.com/sandlock-go/sandlock/exec/exectest/rootfs"
)

// rooted is a box with a small root filesystem of its own, which belongs to the box's user: a busybox, the probe and what
// the tests look for.
type rooted struct {
	*exectest.Box
	root string
}

// applets are the names of the busybox in it. Their links are absolute, so they lead nowhere, or to the host's programs, for
// whoever does not make the directory the root.
var applets = []string{
	"sh", "cat", "echo", "ls", "pwd", "readlink", "true", "mv", "rm", "ln", "mkdir", "rmdir", "id", "stat", "wc", "touch", "chmod", "od", "head", "tail",
	"test", "env", "df", "sleep", "hostname", "grep", "dd", "tr", "cut", "cp", "md5sum", "find", "sort", "mount", "truncate", "uname",
}

func newRooted(t *testing.T, u exectest.User) *rooted {
	t.Helper()
	b := exectest.NewBox(t, u)
	r := &rooted{b, b.Dir("root")}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"usr", "usr/bin", "etc", "proc", "dev", "sys", "tmp", "home", "work"} {
		r.dir(t, "/"+dir)
	}
	check(os.Chmod(r.at("/tmp"), 0o777|fs.ModeSticky))
	b.Link("usr/bin", r.at("/bin"))
	check(linkOrCopy(rootfs.Busybox(t)+"/bin/busybox", r.at("/usr/bin/busybox")))
	check(linkOrCopy(b.Probe, r.at("/usr/bin/probe")))
	for _, name := range applets {
		b.Link("/usr/bin/busybox", r.at("/usr/bin/"+name))
	}
	for name, text := range map[string]string{
		"/etc/sentinel": "inside\n", "/etc/hostname": "image\n", "/etc/passwd": "root:x:0:0::/:/bin/sh\n", "/etc/group": "root:x:0:\n",
		"/etc/hosts": "127.0.0.1 localhost\n192.0.2.99 image.example\n", "/home/secret": "secret\n", "/marker.txt": "marker\n",
	} {
		b.File(r.at(name), text)
	}
	r.program(t, "/usr/bin/only-inside", "#!/bin/sh\necho only inside \"$@\"\n")
	return r
}

// linkOrCopy is for programs that no test changes. Who is not their owner may not link them (fs.protected_hardlinks).
func linkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	syscall.ForkLock.RLock() // or a process that starts meanwhile keeps it from being executed (ETXTBSY)
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(to, text, 0o755)
}

// at is where something of the root filesystem is on the host.
func (r *rooted) at(path string) string { return filepath.Join(r.root, path) }

func (r *rooted) dir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(r.at(path), 0o755); err != nil {
		t.Fatal(err)
	}
	r.own(t, path)
}

// Attempt is that of the box, with the probe that is inside.
func (r *rooted) Attempt(artifact string, args ...string) string {
	got := r.Run(artifact, append([]string{"/usr/bin/probe"}, args...)...)
	if got.Code != 0 {
		return fmt.Sprintf("exit %d: %s", got.Code, got.Stderr)
	}
	return strings.TrimSpace(got.Stdout)
}

func (r *rooted) own(t *testing.T, path string) {
	t.Helper()
	if !exectest.Self().Root() {
		return
	}
	if err := os.Lchown(r.at(path), r.User.UID, r.User.GID); err != nil {
		t.Fatal(err)
	}
}

func (r *rooted) program(t *testing.T, path, text string) {
	t.Helper()
	if err := os.Chmod(r.File(r.at(path), text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// filesystem is a policy that opens what 9.5 of the filesystem specification says, and more, a part of the section.
func (r *rooted) filesystem(more string) string { return chrooted(r.root, more) }

func chrooted(root, more string) string {
	if !strings.Contains(more, "read:") {
		more += "\n\tread: [\"/usr\", \"/bin\", \"/etc\", \"/proc\", \"/dev\"]"
	}
	return fmt.Sprintf("filesystem: {\n\tchroot: %q\n\t%s\n}\n", root, more)
}

// case95 is a script, and what it prints.
type case95 struct{ name, script, want string }

func (r *rooted) scripts(t *testing.T, artifact string, list []case95) {
	t.Helper()
	for _, tc := range list {
		t.Run(tc.name, func(t *testing.T) {
			wantRun(t, r.In(t).Sh(artifact, tc.script), 0, tc.want)
		})
	}
}

// Numbers 96 to 117 of the filesystem specification. Where the kernel does what REF's supervisor emulates, its own answer is
// right: what is not there is ENOENT, a mount EBUSY or EXDEV. A directory is listed if it is granted itself, "/" as any other.
func Test_filesystem_9_5_96_to_106_paths(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		r.Link("/etc/sentinel", r.at("/home/link"))
		r.Link("/", r.at("/home/slash"))
		r.Link("../../../../../../../etc", r.at("/home/up"))
		r.Link("/proc/self/fd/2", r.at("/home/stderr"))
		r.scripts(t, r.Policy(r.filesystem(`read: ["/"], write: ["/tmp", "/work"]`)), []case95{
			{"96_list", "ls /", "bin\ndev\netc\nhome\nmarker.txt\nproc\nsys\ntmp\nusr\nwork"},
			{"97_above", "cat /../../etc/sentinel ../../../etc/sentinel /home/up/sentinel", "inside\ninside\ninside"},
			{"97_links", "cat /home/link /home/slash/home/slash/etc/sentinel /proc/self/root/../../etc/sentinel", "inside\ninside\ninside"},
			{"98_pwd", "pwd; cd /home && pwd; cd .. && pwd; cd .. && pwd", "/\n/home\n/\n/"},
			{"99_chdir", "cd /tmp && pwd && cd / && pwd && cd etc && cat sentinel && cat ../marker.txt", "/tmp\n/\ninside\nmarker"},
			{"100_cwd", "cd /etc && readlink /proc/self/cwd && cat /proc/self/cwd/sentinel && stat -c %F /proc/self/cwd", "/etc\ninside\nsymbolic link"},
			{"100_cwd_root", "readlink /proc/self/cwd; cd /proc/self; readlink -f cwd/..", "/\n/proc"},
			{"101_links", "cd /work; ln -s /etc/sentinel l; mv l m; stat -c %F m; readlink m; rm m; cat /etc/sentinel", "symbolic link\n/etc/sentinel\ninside"},
			{"101_nowhere", "cd /work; ln -s /no/where l; stat -c %F l; mv l m; rm m; ls", "symbolic link"},
			{"103_stdin", "readlink /proc/self/fd/0 </dev/null; readlink /proc/self/fd/0 </etc/sentinel; readlink /proc/self/fd/0 </home/link", "/dev/null\n/etc/sentinel\n/etc/sentinel"},
			{"103_exe", "readlink /proc/self/exe; probe readlink /proc/self/exe", "/usr/bin/busybox\nvalue /usr/bin/probe"},
			{"105_proc", "cd /proc && cd self && cat comm && probe second-word /proc self/status", "sh\nvalue probe"},
			{"105_literal", "probe call chdir s:/proc; probe call chdir s:/; probe call chdir s:/nowhere", "ok\nok\nerrno ENOENT"},
			{"106_stderr", "{ { echo err >/dev/stderr; echo link >/home/stderr; } 2>&1; echo out >/dev/stdout; } | cat; echo in | cat /dev/stdin /dev/fd/0", "err\nlink\nout\nin"},
			{"109_root", "readlink /proc/self/root; readlink /proc/1/root || echo closed", "/\nclosed"},
			{"marker", "cat /marker.txt", "marker"},
		})
		// Where a policy can write, openat2 is not there: its mode is out of the filter's sight.
		r.scripts(t, r.Policy(r.filesystem(`read: ["/"]`)), []case95{
			{"99_openat2", "cd /etc && probe openat2 sentinel r none && cd / && probe openat2 sentinel r none", "ok\nerrno ENOENT"},
			{"104_openat2", "probe openat2 /etc/sentinel r none; probe openat2 /home/link r no_symlinks; probe openat2 /home/link r none; probe openat2 /home/up r beneath", "ok\nerrno ELOOP\nok\nerrno EXDEV"},
			{"104_in_root", "probe second-word /usr /etc/sentinel in_root; probe second-word /etc ../marker.txt beneath", "errno ENOENT (open)\nerrno EXDEV (open)"},
		})
		// 102: the processes of the host are not there.
		host := fmt.Sprintf("/proc/%d/cwd", os.Getpid())
		wantFailure(t, r.Sh(r.Policy(r.filesystem(`read: ["/"]`)), "readlink "+host), "")
		if _, err := os.Readlink(host); err != nil {
			t.Errorf("outside: %v", err)
		}
	})
}

func Test_filesystem_9_5_107_to_112_grants(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		r.Link("/home/secret", r.at("/etc/secret"))
		r.dir(t, "/etc/closed")
		r.File(r.at("/etc/closed/file"), "closed")
		artifact := r.Policy(r.filesystem(`write: ["/tmp"]
	deny: ["/etc/hostname", "/etc/closed"]`))

		wantRun(t, r.Sh(artifact, "echo written >/tmp/file && cat /tmp/file"), 0, "written")
		wantContent(t, r.at("/tmp/file"), "written\n", u)
		wantFailure(t, r.Sh(artifact, "echo x >/home/new"), "ermission denied")
		wantFailure(t, r.Sh(artifact, "echo x >/etc/sentinel"), "ermission denied")
		wantFailure(t, r.Sh(artifact, "cat /home/secret"), "Permission denied")
		wantFailure(t, r.Sh(artifact, "cat /etc/secret"), "Permission denied")
		wantFailure(t, r.Sh(artifact, "cat /usr/../home/secret"), "Permission denied")
		wantFailure(t, r.Sh(artifact, "ls /"), "Permission denied")
		for _, denied := range []string{"/etc/hostname", "//etc/./hostname", "/proc/self/root/etc/hostname", "/etc/closed/file", "/etc/closed/../closed/file"} {
			wantFailure(t, r.Sh(artifact, "cat "+denied), "Permission denied")
		}
		open := r.Policy(r.filesystem(`read: ["/"], write: ["/home"]`))
		wantRun(t, r.Sh(open, "cat /home/secret /etc/secret /etc/closed/file && echo x >/home/new"), 0, "secret\nsecret\nclosed")
		// 110
		wantRun(t, r.Run(open, "/bin/cat", "/etc/sentinel"), 0, "inside")
		// 112 of the host, whatever is granted: nothing of it is there.
		secret := r.File(r.Outside+"/secret", "of the host")
		wantFailure(t, r.Run(open, "/bin/cat", secret), "No such file")
		wantFailure(t, r.Run(open, "/bin/cat", "/etc/debian_version"), "No such file")
	})
}

// 113 and 117: what is written by way of a mount reaches the host, attributes included.
func Test_filesystem_9_5_113_117_mounts(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		host := r.Dir("host")
		r.File(host+"/file", "of the host\n")
		writable := r.Policy(r.filesystem(fmt.Sprintf("mount: [%q]", "/work:"+host)))
		wantRun(t, r.Sh(writable, "cat /work/file && cd /work && echo new >new && mkdir d && pwd && readlink /proc/self/cwd"), 0, "of the host\n/work\n/work")
		wantContent(t, host+"/new", "new\n", u)
		if got := r.Attempt(writable, "call", "setxattr", "s:/work/file", "s:user.probe", "s:value", "5", "0"); got != "ok" {
			t.Errorf("setxattr: %s", got)
		}
		value := make([]byte, 16)
		if n, err := unix.Getxattr(host+"/file", "user.probe", value); err != nil || string(value[:n]) != "value" {
			t.Errorf("attribute on the host: %q, %v", value[:max(n, 0)], err)
		}
		readonly := r.Policy(r.filesystem(fmt.Sprintf(`read: ["/"], write: ["/"], mount: [%q]`, "/work:"+host+":ro")))
		wantRun(t, r.Sh(readonly, "cat /work/file && echo x >/home/beside"), 0, "of the host")
		for _, script := range []string{"echo x >/work/more", "echo x >>/work/file", "rm -f /work/file", "mv /work/file /work/other", "mkdir /work/e"} {
			wantFailure(t, r.Sh(readonly, script), "Read-only file system")
		}
		for _, script := range []string{"chmod 777 /work/file", "touch /work/file"} { // the supervisor answers these
			wantFailure(t, r.Sh(readonly, script), "Permission denied")
		}
		if got := r.Attempt(readonly, "call", "setxattr", "s:/work/file", "s:user.probe", "s:value", "5", "0"); got != "errno EACCES" {
			t.Errorf("setxattr: %s, want EACCES", got)
		}
		if list, err := os.ReadDir(r.at("/work")); err != nil || len(list) > 0 {
			t.Errorf("beneath the mount: %v, %v", list, err)
		}
	})
}

// 114, and what the sandbox's own files are in an image.
func Test_filesystem_9_5_114_hosts(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		artifact := r.Policy("name: \"boxed\"\n" + r.filesystem("") + "network: hosts: \"pinned.example\": [\"192.0.2.7\"]")
		got := r.Run(artifact, "cat", "/etc/hosts")
		wantRun(t, got, 0, "127.0.0.1 localhost\n192.0.2.99 image.example\n::1 localhost\n192.0.2.7 pinned.example")
		wantRun(t, r.Sh(artifact, "cat /etc/hostname; hostname; cat /proc/sys/kernel/hostname"), 0, "boxed\nboxed\nboxed")
		for _, script := range []string{"echo x >>/etc/hosts", "rm -f /etc/hosts", "mv /etc/hosts /etc/other"} {
			wantFailure(t, r.Sh(r.Policy(r.filesystem(`read: ["/"], write: ["/"]`)), script), "")
		}
		r.scripts(t, artifact, []case95{ // network 43
			{"spellings", "for f in /etc/../etc/hosts //etc/hosts /etc/./hosts /proc/self/root/etc/hosts; do grep -c pinned $f; done; cd /etc; grep -c pinned hosts; probe second-word /etc hosts", "1\n1\n1\n1\n1\nvalue localhost"},
		})
		wantContent(t, r.at("/etc/hosts"), "127.0.0.1 localhost\n192.0.2.99 image.example\n", u)
		wantContent(t, r.at("/etc/hostname"), "image\n", u)
		// An image's link is followed in the image, and what it leads to needs a grant as ever.
		for _, link := range [][2]string{{"/home/secret", "Permission denied"}, {r.File(r.Outside+"/secret", "of the host\n"), "No such file"}} {
			target, want := link[0], link[1]
			if err := os.Remove(r.at("/etc/hosts")); err != nil {
				t.Fatal(err)
			}
			r.Link(target, r.at("/etc/hosts"))
			wantFailure(t, r.Run(artifact, "cat", "/etc/hosts"), want)
		}
		if got := r.Run(artifact, "true"); got.Code != 0 || !strings.Contains(got.Stderr, "sees no /etc/hosts") || !strings.Contains(got.Stderr, "pinned.example") {
			t.Errorf("without the file: exit %d\n%s", got.Code, got.Stderr)
		}
	})
}

// 115: the executor needs no descriptor of the command's. With too few of them the command cannot even start, which the kernel
// decides: a static program opens nothing. How many the caller has open makes no difference.
func Test_filesystem_9_5_115_open_files(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		limited := func(n int) string { return r.Policy(r.filesystem("") + fmt.Sprintf("limits: open_files: %d", n)) }
		wantRun(t, r.Sh(limited(64), "cat /etc/sentinel"), 0, "inside")
		three := limited(3)
		wantRun(t, r.Run(three, "/bin/true"), 0, "")
		wantFailure(t, r.Run(three, "/bin/cat", "/etc/sentinel"), "Too many open files")
		o := r.Opts(limited(8), "/bin/cat", "/etc/sentinel")
		for range 40 {
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			o.Files = append(o.Files, f)
		}
		wantRun(t, exectest.Run(t, o), 0, "inside")
	})
}

// 116
func Test_filesystem_9_5_116_missing_root(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		for _, tc := range []struct{ name, root, want string }{
			{"missing", r.Outside + "/missing", "no such file or directory"},
			{"file", r.File(r.Outside+"/file", ""), "not a directory"},
			{"link_to_nowhere", r.Link("/no/where", r.Outside+"/link"), "no such file or directory"},
			{"host", r.Link("/", r.Outside+"/slash"), "it is / here"},
			{"grant", r.root, "/etc/missing"},
		} {
			policy := chrooted(tc.root, "")
			if tc.name == "grant" {
				policy = chrooted(tc.root, `read: ["/usr", "/bin", "/etc/missing"]`)
			}
			got := r.Run(r.Policy(policy), "/bin/echo", "started")
			if got.Code != 125 || got.Stdout != "" || !strings.Contains(got.Stderr, tc.want) || !strings.Contains(got.Stderr, ".cue:") {
				t.Errorf("%s: exit %d, printed %q, want 125 and the policy's line with %q\n%s", tc.name, got.Code, got.Stdout, tc.want, got.Stderr)
			}
		}
		wantRun(t, r.Run(r.Policy(chrooted(r.Link(r.root, r.Outside+"/good"), "")), "/bin/echo", "started"), 0, "started")
	})
}

// Where the executor is root in a user namespace, and where the host's /proc is partly hidden, as in containers.
func Test_chroot_in_places(t *testing.T) {
	test := func(t *testing.T, b *exectest.Box) {
		r := newRooted(t, b.User)
		host := r.Dir("host")
		artifact := r.Policy(r.filesystem(mounts("/new", host) + `read: ["/"], write: ["/work"], tmp: "private"`))
		wantRun(t, r.Sh(artifact, "cat /etc/sentinel; echo x >/new/file; readlink /proc/self/cwd; echo y >/tmp/y; head -c 2 /dev/zero | wc -c; ls /new /tmp"), 0, "inside\n/\n2\n/new:\nfile\n\n/tmp:\ny")
		wantFailure(t, r.Sh(artifact, "cat "+r.File(r.Outside+"/secret", "")), "No such file")
	}
	exectest.UnshareUr.In(t, test)
	exectest.MaskedProc.In(t, test)
}

// wantContent wants a file of the host to hold something and to be a user's.
func wantContent(t *testing.T, path, want string, u exectest.User) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || string(text) != want {
		t.Errorf("%s: %q, %v, want %q", path, text, err, want)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || int(st.Uid) != u.UID || int(st.Gid) != u.GID {
		t.Errorf("%s belongs to %d:%d, %v, want %d:%d", path, st.Uid, st.Gid, err, u.UID, u.GID)
	}
}
