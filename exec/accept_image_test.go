package exec_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
	"github.com/sandlock-go/sandlock/exec/exectest/rootfs"
)

// What an image brings runs in it as it does where it is the machine.
func Test_chroot_images(t *testing.T) {
	debian, busybox := rootfs.Debian(t), rootfs.Busybox(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := b.Dir("scripts")
		for name, text := range map[string]string{
			"sh": "#!/bin/sh -e\necho sh $0 $1\n", "env": "#!/usr/bin/env python3\nimport sys; print(\"python\", sys.argv)\n", "nested": "#!/scripts/sh\n",
			"nowhere": "#!/no/where\n", "apt": "#!/usr/bin/apt-get --version\n",
		} {
			if err := os.Chmod(b.File(script+"/"+name, text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		policy := func(root string) string {
			return b.Policy(chrooted(root, `read: ["/"], tmp: "private"`+"\n"+mounts("/scripts", script+":ro")))
		}
		r := &rooted{Box: b}
		r.scripts(t, policy(debian), []case95{
			{"debian_apt", "apt-get --version | head -n 1 | cut -d ' ' -f 1", "apt"},
			{"debian_bash", "bash -c 'a=(1 2 3); echo ${#a[@]} <(:)' | cut -c 1-9", "3 /dev/fd"},
			{"debian_python", `python3 -c 'import json, sys, os; print(json.loads("[42]")[0], sys.executable, os.getcwd(), os.readlink("/proc/self/exe")[:16])'`, "42 /usr/bin/python3 / /usr/bin/python3"},
			{"debian_scripts", "/scripts/sh a; /scripts/env b; /scripts/nested c; /scripts/apt | grep -c ^apt", "sh /scripts/sh a\npython ['/scripts/env', 'b']\nsh /scripts/sh /scripts/nested\n1"},
			{"debian_loader", "for l in /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1; do [ ! -e $l ] || $l /bin/echo loaded; done; grep -o ' /usr/.*libc[.]so' /proc/self/maps | head -n 1 | wc -l", "loaded\n1"},
			{"debian_absolute_links", "ls -d /var/run/. && readlink -f /var/run /bin/sh && cat /etc/mtab | grep -c ' / '", "/var/run/.\n/run\n/usr/bin/dash\n1"},
			{"debian_names", "cd /usr/lib && /bin/pwd && cd /lib && /bin/pwd && readlink /proc/self/cwd && cd /scripts && /bin/pwd", "/usr/lib\n/usr/lib\n/usr/lib\n/scripts"},
			{"debian_descriptors", "exec 3</scripts/sh 4>/tmp/file 5</etc/mtab; readlink /proc/self/fd/3 /proc/self/fd/4; readlink /proc/self/root", "/scripts/sh\n/tmp/file\n/"},
			{"debian_find", "find /scripts /proc/self/root/scripts -name sh; xargs -a /scripts/nested echo", "/scripts/sh\n/proc/self/root/scripts/sh\n#!/scripts/sh"},
			{"debian_ps", "ps -eo comm --no-headers >/tmp/list; sort /tmp/list | head -n 1", "ps"},
		})
		r.scripts(t, policy(busybox), []case95{
			{"busybox_sh", "echo 6 7 | awk '{print $1*$2}'; ls / | wc -l >/dev/null; readlink /bin/cat; readlink /proc/self/exe", "42\n/bin/busybox\n/bin/busybox"},
			{"busybox_scripts", "/scripts/sh a; /scripts/nested b", "sh /scripts/sh a\nsh /scripts/sh /scripts/nested"},
			{"busybox_names", "cd /usr/bin && pwd && readlink /proc/self/cwd && cat /proc/self/comm; id -u", fmt.Sprintf("/usr/bin\n/usr/bin\ncat\n%d", u.UID)},
		})
		for _, root := range []string{debian, busybox} {
			artifact := policy(root)
			if got := b.Run(artifact, "/scripts/nowhere"); got.Code != 127 {
				t.Errorf("an interpreter that is missing: exit %d, want 127\n%s", got.Code, got.Stderr)
			}
			wantRun(t, b.Run(artifact, "/scripts/sh", "direct"), 0, "sh /scripts/sh direct")
			wantRun(t, b.Run(artifact, "sh", "-c", "exit 7"), 7, "")
			if got := b.Sh(artifact, "kill -TERM $$"); got.Code != 143 {
				t.Errorf("a signal: exit %d, want 143", got.Code)
			}
		}
	})
}

// The command is looked up in the image, with the caller's PATH, and nothing of the host is run.
func Test_chroot_command(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		r.File(r.at("/usr/bin/plain"), "#!/bin/sh\n")
		r.Link("/usr/bin/busybox", r.at("/home/true"))
		r.Link("/usr/bin/python3", r.at("/usr/bin/dangling"))
		host := r.Dir("bin")
		if err := os.Chmod(r.File(host+"/host-only", "#!/bin/sh\necho host\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		artifact := r.Policy(r.filesystem(`read: ["/"]`))
		run := func(dir string, args ...string) exectest.Result {
			o := r.Opts(artifact, args...)
			o.Env = append(o.Env, "PATH=/usr/bin:/bin:"+host)
			if dir != "" {
				o.Dir = dir
			}
			return exectest.Run(t, o)
		}
		wantRun(t, run("", "only-inside", "x"), 0, "only inside x")
		wantRun(t, run("", "pwd"), 0, "/")
		wantRun(t, run("", "./home/true", "true"), 0, "")
		for _, tc := range []struct {
			command string
			code    int
		}{
			{"host-only", 127}, {host + "/host-only", 127}, {"python3", 127}, {"/usr/bin/python3", 127}, {"dangling", 127}, {"/usr/bin/dangling", 127}, {"../../../../.." + host + "/host-only", 127},
			{"plain", 126}, {"/usr/bin/plain", 126}, {"/home", 126}, {"/usr/bin/plain/x", 126}, {"", 127},
		} {
			if got := run("", tc.command); got.Code != tc.code || !strings.HasPrefix(got.Stderr, "sandlock-exec: ") {
				t.Errorf("%q: exit %d, want %d\n%s", tc.command, got.Code, tc.code, got.Stderr)
			}
		}
		// A path that is relative begins at the command's own directory.
		wantRun(t, run(r.at("/home"), "./usr/bin/only-inside"), 0, "only inside")
		if got := run(r.at("/usr/bin"), "./only-inside"); got.Code != 127 {
			t.Errorf("relative to the caller's directory: exit %d, want 127\n%s", got.Code, got.Stderr)
		}
		o := r.Opts("", host+"/host-only")
		wantRun(t, exectest.Run(t, o), 0, "host")

		program := func(text string) string { return r.Policy(r.filesystem(`read: ["/"]`) + "program: {" + text + "}") }
		wantRun(t, r.Run(program(`cwd: "/home"`), "pwd"), 0, "/home")
		wantRun(t, r.Run(program(`cwd: "/bin"`), "./only-inside"), 0, "only inside")
		wantRun(t, r.Run(program(`cwd: "/home"`), "../usr/bin/only-inside"), 0, "only inside")
		for _, cwd := range []string{"/missing", r.Work, "/etc/sentinel"} {
			got := r.Run(program(fmt.Sprintf("cwd: %q", cwd)), "echo", "started")
			if got.Code != 125 || got.Stdout != "" || !strings.Contains(got.Stderr, cwd) {
				t.Errorf("cwd %s: exit %d, printed %q, want 125\n%s", cwd, got.Code, got.Stdout, got.Stderr)
			}
		}
		wantRun(t, r.Run(program(`exec: "/usr/bin/only-inside", args: ["a", "b"]`)), 0, "only inside a b")
		if got := r.Run(program(`exec: "/usr/bin/python3"`)); got.Code != 127 {
			t.Errorf("program.exec that is only on the host: exit %d, want 127\n%s", got.Code, got.Stderr)
		}
		wantRun(t, r.Run(program(`exec: "/usr/bin/env", clean_env: true, env: A: "b"`)), 0, "A=b")
	})
}

// A fake root makes files that are the caller's outside, and has no power over others.
func Test_chroot_fake_root(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		artifact := r.Policy(r.filesystem(`read: ["/"], write: ["/tmp", "/work"]`) + "program: {uid: 0, gid: 0}")
		wantRun(t, r.Sh(artifact, "id -u; id -g; cd /work; echo made >file; mkdir dir; stat -c '%u %g' file dir /etc; readlink /proc/self/cwd; chmod 600 file"), 0, "0\n0\n0 0\n0 0\n0 0\n/work")
		wantContent(t, r.at("/work/file"), "made\n", u)
		var out exectest.Result
		for _, script := range []string{"mount -t tmpfs none /tmp", "mount -o bind /etc /tmp", "echo x >/etc/sentinel", "hostname other", "echo x >/proc/sys/kernel/hostname"} {
			if out = r.Sh(artifact, script); out.Code == 0 {
				t.Errorf("%s worked", script)
			}
		}
		if got := r.Attempt(artifact, "call", "chroot", "s:/tmp"); got != "errno EPERM" {
			t.Errorf("chroot: %s", got)
		}
		if got := r.Attempt(artifact, "call", "mknod", "s:/work/node", "0o20666", "0x103"); !refusedAs(got, refused) {
			t.Errorf("mknod: %s", got)
		}
		if got := r.Attempt(artifact, "caps"); got != "value effective=0 permitted=0 inheritable=0 bounding=0 ambient=0" {
			t.Errorf("capabilities: %s", got)
		}
		other := r.Policy(r.filesystem(`read: ["/"], write: ["/work"]`) + "program: {uid: 1000, gid: 100}")
		wantRun(t, r.Sh(other, "id -u; id -g; cd /work; echo x >other; stat -c '%u %g' other"), 0, "1000\n100\n1000 100")
		wantContent(t, r.at("/work/other"), "x\n", u)
	})
}

// The Go API: a command that waits, one that runs too long, and errors.
func Test_chroot_api(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		r := newRooted(t, exectest.Self())
		a, err := exec.Load(r.Policy(r.filesystem(`read: ["/"], write: ["/work"]`)))
		if err != nil {
			t.Fatal(err)
		}
		wantOutput(t, a.Command(bounded(t), "only-inside", "api"), "only inside api\n")
		wantOutput(t, a.Command(bounded(t), "/bin/sh", "-c", "readlink /proc/self/cwd; ls /proc/self/fd | wc -l; cat /etc/sentinel"), "/\n4\ninside\n")
		c := a.Command(bounded(t), "pwd")
		c.Dir = "/home"
		wantOutput(t, c, "/home\n")
		c = a.Command(bounded(t), "pwd")
		c.Dir = r.root
		var setup *exec.SetupError
		if err := c.Run(); !errors.As(err, &setup) || !strings.Contains(err.Error(), r.root) {
			t.Errorf("a directory that is only on the host: %v", err)
		}
		var missing *exec.CommandError
		if err := a.Command(bounded(t), "/usr/bin/python3").Run(); !errors.As(err, &missing) || missing.Code != exec.CodeNotFound {
			t.Errorf("a command that is only on the host: %v", err)
		}

		var out bytes.Buffer
		c = a.Command(bounded(t), "/bin/sh", "-c", "echo ran >/work/mark; cat /marker.txt; readlink /proc/self/root")
		c.Stdout = &out
		if err := c.Create(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(r.at("/work/mark")); err == nil {
			t.Error("the command ran before Start")
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil || out.String() != "marker\n/\n" {
			t.Errorf("after Start: %v, %q", err, out.String())
		}
		wantContent(t, r.at("/work/mark"), "ran\n", b.User)
		c = a.Command(bounded(t), "sleep", "60")
		if err := c.Create(); err != nil {
			t.Fatal(err)
		}
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err == nil {
			t.Error("a command that was killed before it ran succeeded")
		}

		c = a.Command(bounded(t), "sleep", "60")
		c.Timeout = 200 * time.Millisecond
		var exit *exec.ExitError
		if err := c.Run(); !errors.As(err, &exit) || exit.Status.Code != 124 {
			t.Errorf("timeout: %v, want code 124", err)
		}
		// This process itself is where it was.
		if _, err := os.Stat(r.at("/work/mark")); err != nil {
			t.Error(err)
		}
	})
}

func Test_chroot_timeout(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		o := r.Opts(r.Policy(r.filesystem("")), "sh", "-c", "sleep 60 & sleep 60")
		o.Flags = []string{"--timeout", "300ms"}
		if got := exectest.Run(t, o); got.Code != 124 {
			t.Errorf("exit %d, want 124\n%s", got.Code, got.Stderr)
		}
	})
}
