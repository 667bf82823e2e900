package exec_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// The report of what was refused, and the audit, speak of the command's paths: links resolved, and no path of the host.
func Test_chroot_explain(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		host := r.Dir("host")
		r.File(host+"/file", "file\n")
		r.Link("/home/secret", r.at("/work/link"))
		listen(t, "unix", r.at("/home/s"))
		if err := os.Chmod(r.at("/home/s"), 0o777); err != nil {
			t.Fatal(err)
		}
		artifact := r.Policy(r.filesystem(mounts("/m", host+":ro")+`read: ["/usr", "/bin", "/etc", "/dev", "/proc"], write: ["/work"]`) +
			`network: unix: "granted"`)
		const script = `
cat /home/secret
cat /work/link
cd /etc && cat ../home/../home/secret
chmod 600 /home/secret
chmod 600 /work/link
echo x >/etc/new
echo x >/m/file
mv /work/link /home/link
probe unix-connect 1 /home/s
probe call setxattr s:/m/file s:user.a s:b 1 0
exit 0`
		o := r.Opts(artifact, "sh", "-c", script)
		o.Flags = []string{"--explain-denials"}
		got := exectest.Run(t, o)
		const who = ` \(pid \d+ [^)]+\): `
		for _, want := range []string{
			`denied openat /home/secret` + who + `EACCES: needs read_file \(3 times\)`,
			`denied \S+ /home/secret` + who + `EACCES: the file is not beneath a write grant \(2 times\)`,
			`denied openat /etc` + who + `EACCES: needs make_reg; closest is filesystem\.read\[2\] at \S+\.cue:\d+:\d+`,
			`denied openat /m/file` + who + `EROFS: mounted read-only at \S+\.cue:\d+:\d+ \(filesystem\.mount\[0\]\)`,
			`denied rename /home` + who,
			`denied connect /home/s` + who + `EACCES: the socket is not beneath a write grant`,
		} {
			if !regexp.MustCompile("(?m)^sandlock-exec: " + want).MatchString(got.Stderr) {
				t.Errorf("no line matches %s", want)
			}
		}
		if got.Code != 0 || strings.Contains(got.Stderr, r.root) || strings.Contains(got.Stderr, host) {
			t.Errorf("exit %d, or a path of the host", got.Code)
		}
		o.Flags = []string{"--audit", "-"}
		audit := exectest.Run(t, o)
		for _, want := range []string{`"path":"/home/secret","verdict":"EACCES"`, `"event":"denied"`, `"/home/s"`} {
			if !strings.Contains(audit.Stderr, want) {
				t.Errorf("the audit has no %s", want)
			}
		}
		if strings.Contains(audit.Stderr, r.root) || strings.Contains(audit.Stderr, host) {
			t.Error("the audit has a path of the host")
		}
		if t.Failed() {
			t.Log(got.Stderr, audit.Stderr)
		}
	})
}

// Limits and rules hold in a chroot as they do elsewhere.
func Test_chroot_limits(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		limited := func(limits string) string { return r.Policy(r.filesystem("") + "limits: {" + limits + "}") }
		memory := limited(`memory: "128M", machine_files: "limited"`)
		if got := r.Attempt(memory, "mem-map", "30"); got != "ok" {
			t.Errorf("within the limit: %s", got)
		}
		if got := r.Run(memory, "probe", "mem-map", "300"); got.Code != 137 || !strings.Contains(got.Stderr, "limits.memory") {
			t.Errorf("above the limit: exit %d, %q\n%s", got.Code, got.Stdout, got.Stderr)
		}
		wantRun(t, r.Sh(memory, "grep MemTotal /proc/meminfo"), 0, "MemTotal:         131072 kB")
		if got := r.Attempt(limited(""), "mem-map", "300"); got != "ok" {
			t.Errorf("without a limit: %s", got)
		}
		if got := r.Attempt(limited("processes: 5"), "fork-many", "10"); got != "value forked=4 refused=map[EAGAIN:6]" {
			t.Errorf("processes: %s", got)
		}
		if got := r.Attempt(limited(""), "fork-many", "10"); got != "value forked=10 refused=map[]" {
			t.Errorf("without a limit: %s", got)
		}
		for name, more := range map[string]string{
			"hold":  "rules: [{on: [\"open\"], if: path: \"/etc/sent*\", then: \"deny\", reason: \"kept\"}]",
			"other": "rules: [{on: [\"open\"], if: path: \"" + r.root + "/etc/sent*\", then: \"deny\"}]",
		} {
			got := r.Sh(r.Policy(r.filesystem("")+more), "cat /etc/sentinel")
			if (got.Code == 0) != (name == "other") {
				t.Errorf("rules, %s: exit %d, printed %q\n%s", name, got.Code, got.Stdout, got.Stderr)
			}
			got = r.Sh(r.Policy(r.filesystem("")+more), "cd /proc/self/root/etc && cat ./sentinel")
			if (got.Code == 0) != (name == "other") {
				t.Errorf("rules by another name, %s: exit %d, printed %q\n%s", name, got.Code, got.Stdout, got.Stderr)
			}
		}
		all := r.Policy("name: \"all\"\n" + r.filesystem(`tmp: "private", deny: ["/etc/group"]`+"\n"+mounts("/work", r.Dir("host"))) +
			"limits: {memory: \"256M\", processes: 20, open_files: 64, machine_files: \"limited\"}\ndeterminism: random_seed: 3\nprogram: {uid: 0, gid: 0, cwd: \"/work\", strict_lifetime: true}\nnetwork: allow: []\n")
		wantRun(t, r.Sh(all, "pwd; id -u; hostname; echo x >file; cat file /etc/sentinel; cat /etc/group 2>&1; ls /tmp; head -c 3 /dev/urandom | wc -c"), 0,
			"/work\n0\nall\nx\ninside\ncat: can't open '/etc/group': Permission denied\n3")
	})
}

// A chroot beneath a chroot: what a sandbox starts is in it, whatever it does.
func Test_chroot_cannot_be_left(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		secret := r.File(r.Outside+"/secret", "of the host\n")
		artifact := r.Policy(r.filesystem(`read: ["/"], write: ["/work", "/tmp"]`))
		for _, path := range []string{secret, "/../../../.." + secret, "/proc/1/root" + secret, "/proc/self/root/../.." + secret, "/proc/2/root" + secret, "/proc/self/cwd/../../.." + secret, "/proc/self/task/self/root" + secret} {
			for _, script := range []string{"cat " + path, "cd /work && cat " + path} {
				if got := r.Sh(artifact, script); got.Code == 0 || got.Stdout != "" {
					t.Errorf("%s: exit %d, printed %q", script, got.Code, got.Stdout)
				}
			}
		}
		for _, call := range [][]string{
			{"call", "chroot", "s:/work"}, {"call", "pivot_root", "s:/work", "s:/tmp"}, {"call", "mount", "s:none", "s:/work", "s:tmpfs", "0", "0"}, {"call", "umount2", "s:/", "2"}, {"call", "umount2", "s:/proc", "2"},
			{"call", "unshare", "0x20000"}, {"call", "unshare", "0x10000000"}, {"setns", "/proc/1/ns/mnt", "0"}, {"open-tree-move", "/etc", "/work"},
		} {
			if got := r.Attempt(artifact, call...); got == "ok" {
				t.Errorf("%q worked", call)
			}
		}
		// Descriptors of directories of the host do not come along.
		dir, err := os.Open(r.Outside)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		o := r.Opts(artifact, "sh", "-c", "ls /proc/self/fd/; cat /proc/self/fd/3/secret; cd /proc/self/fd/3")
		o.Files = []*os.File{dir}
		if got := exectest.Run(t, o); got.Code == 0 || strings.Contains(got.Stdout, "of the host") {
			t.Errorf("exit %d, printed %q", got.Code, got.Stdout)
		}
		// The caller's standard input may be a file of the host: it can be read, and leads no further.
		in, err := os.Open(secret)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		p := r.Opts("", append([]string{"/bin/sh", "-c", fmt.Sprintf(`exec "$@" <%s`, secret), "sh", exectest.Executor(t), artifact, "--"}, "sh", "-c", "cat; cat /proc/self/fd/0/../secret; readlink /proc/self/fd/0")...)
		got := exectest.Run(t, p)
		if !strings.HasPrefix(got.Stdout, "of the host\n") || strings.Count(got.Stdout, "of the host") != 1 {
			t.Errorf("printed %q\n%s", got.Stdout, got.Stderr)
		}
	})
}
