package exec_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
	"github.com/sandlock-go/sandlock/exec/exectest/rootfs"
)

// An own /dev has the devices that do no harm, terminals and shared memory of its own, and nothing of the root's own /dev.
func Test_chroot_dev(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		r.File(r.at("/dev/of-the-image"), "")
		const grants = `read: ["/usr", "/bin", "/etc", "/proc", "/dev"], write: ["/dev/null", "/dev/full", "/dev/tty", "/dev/shm"]`
		artifact := r.Policy(r.filesystem(grants))
		r.scripts(t, artifact, []case95{
			{"list", "ls /dev", "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero"},
			{"numbers", "for d in null zero full random urandom tty; do stat -c '%F %t:%T' /dev/$d; done", "character special file 1:3\ncharacter special file 1:5\ncharacter special file 1:7\n" +
				"character special file 1:8\ncharacter special file 1:9\ncharacter special file 5:0"},
			{"null_zero", "echo x >/dev/null && cat /dev/null && head -c 4 /dev/zero | od -An -tx1", "00 00 00 00"},
			{"random", "head -c 64 /dev/random | wc -c; head -c 64 /dev/urandom | wc -c; head -c 5 /dev/full | wc -c", "64\n64\n5"},
			{"shm", "echo x >/dev/shm/file && cat /dev/shm/file && rm /dev/shm/file && stat -c '%a' /dev/shm", "x\n1777"},
		})
		wantFailure(t, r.Sh(artifact, "echo x >/dev/full"), "No space left")
		wantFailure(t, r.Sh(artifact, "echo x >/dev/zero"), "ermission denied")
		wantFailure(t, r.Sh(artifact, "echo x >/dev/new"), "ermission denied")
		wantFailure(t, r.Sh(artifact, "cat /dev/tty"), "") // no terminal: ENXIO
		for _, device := range []string{"mem", "kmsg", "vda", "fuse", "kvm", "net/tun", "loop0"} {
			wantFailure(t, r.Sh(artifact, "cat /dev/"+device), "No such file")
		}
		// What is made there is the sandbox's alone, and no device can be.
		writable := r.Policy(r.filesystem(`read: ["/"], write: ["/dev"]`))
		wantRun(t, r.Sh(writable, "echo x >/dev/mine && cat /dev/mine && ls /dev/shm"), 0, "x")
		if got := r.Attempt(writable, "call", "mknod", "s:/dev/made", "0o20666", "0x103"); !refusedAs(got, refused) {
			t.Errorf("mknod: %s", got)
		}
		if list, err := os.ReadDir(r.at("/dev")); err != nil || len(list) != 1 {
			t.Errorf("the root's own /dev: %v, %v", list, err)
		}
		if _, err := os.Lstat("/dev/mine"); err == nil {
			t.Error("/dev/mine was made on the host")
		}

		// Only what is granted can be used, and without a grant there is none of it.
		some := r.Policy(r.filesystem(`read: ["/usr", "/bin", "/dev/urandom"], write: ["/dev/null"]`))
		wantRun(t, r.Sh(some, "head -c 4 /dev/urandom | wc -c; echo x >/dev/null; cat /dev/zero 2>&1"), 1, "4\ncat: can't open '/dev/zero': Permission denied")
		wantFailure(t, r.Sh(some, "cat /dev/random"), "Permission denied")
		wantFailure(t, r.Sh(some, "ls /dev"), "Permission denied")
		none := r.Policy(r.filesystem(`read: ["/usr", "/bin", "/etc"]`))
		wantFailure(t, r.Sh(none, "cat /dev/zero"), "No such file")
		wantFailure(t, r.Sh(none, "cat /proc/self/status"), "No such file")
		wantFailure(t, r.Sh(none, "ls /sys/kernel"), "No such file")
		r.scripts(t, r.Policy(r.filesystem(`read: ["/usr", "/bin", "/sys"]`)), []case95{
			{"sys", "cd /sys && test -d kernel && test -d devices && ls firmware 2>&1; cat /proc/self/status 2>&1 || true", "ls: can't open 'firmware': Permission denied\ncat: can't open '/proc/self/status': No such file or directory"},
		})
		wantFailure(t, r.Sh(r.Policy(r.filesystem(`read: ["/"], write: ["/"]`)), "echo 0 >/sys/kernel/mm/ksm/run"), "")
		wantFailure(t, r.Sh(r.Policy(r.filesystem(`read: ["/"], write: ["/"]`)), "echo x >/proc/sys/kernel/hostname"), "Read-only file system")
	})
}

// Nothing of a root that the policy makes itself needs to be there.
func Test_chroot_bare_root(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		for _, dir := range []string{"dev", "proc", "sys", "tmp"} {
			if err := os.Remove(r.at(dir)); err != nil {
				t.Fatal(err)
			}
		}
		before := treeState(t, r.root)
		artifact := r.Policy(r.filesystem(`read: ["/"], write: ["/dev/null"], tmp: "private"`))
		wantRun(t, r.Sh(artifact, "ls / && echo x >/tmp/x && cat /tmp/x && echo y >/dev/null && readlink /proc/self/root && test -d /sys/kernel && cat /etc/sentinel"), 0,
			"bin\ndev\netc\nhome\nmarker.txt\nproc\nsys\ntmp\nusr\nwork\nx\n/\ninside")
		wantFailure(t, r.Sh(artifact, "echo x >/new"), "") // the root is put together anew, read-only
		if after := treeState(t, r.root); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

const openPTY = `
import os
a, b = os.openpty()
os.write(a, b"typed\n")
print(os.ttyname(b), os.isatty(b), os.read(b, 100), flush=True)
pid, fd = os.forkpty()
if pid == 0:
    print(os.ttyname(0), open("/dev/tty").isatty(), flush=True)
    os._exit(0)
print(os.read(fd, 100).decode().strip())
os.waitpid(pid, 0)
`

func Test_chroot_terminals(t *testing.T) {
	debian := rootfs.Debian(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := func(more string) string {
			return b.Policy(chrooted(debian, `read: ["/usr", "/lib", {path: "/lib64", optional: true}, "/bin", "/etc", "/dev", "/proc"]`+more))
		}
		writable := policy(`, write: ["/dev/pts", "/dev/tty"]`)
		wantRun(t, b.Run(writable, "python3", "-c", openPTY), 0, "/dev/pts/0 True b'typed\\n'\n/dev/pts/1 True")
		wantFailure(t, b.Run(policy(""), "python3", "-c", openPTY), "Permission denied")
		// The caller's own terminal goes on to work, though it is none of the sandbox's.
		o := b.Opts(writable, "sh", "-c", "test -t 0 && test -t 1 && echo terminal && echo tty >/dev/tty && ls /dev/pts")
		o.TTY = exectest.NewPTY(t, u)
		if got := exectest.Run(t, o); got.Code != 0 || got.Stdout != "terminal\ntty\nptmx\n" {
			t.Errorf("exit %d, printed %q", got.Code, got.Stdout)
		}
	})
}

// There may be no GPU here: the start must not mind.
func Test_chroot_gpu(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		all := r.Policy(r.filesystem(`read: ["/usr", "/bin"]`) + `limits: gpu_devices: "all"`)
		got := r.Sh(all, "ls -d /dev/null /dev/nvidia* /dev/dri 2>&1; cat /dev/zero 2>&1")
		if !strings.Contains(got.Stdout, "/dev/null\n") || !strings.Contains(got.Stdout, "/dev/zero': Permission denied") {
			t.Errorf("exit %d, printed %q\n%s", got.Code, got.Stdout, got.Stderr)
		}
	})
}

// A private /tmp is empty, writable, bounded, and gone at exit, with a chroot and without.
func Test_private_tmp(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		r.File(r.at("/tmp/of-the-image"), "")
		mark := "sandlock-mark-" + strconv.Itoa(u.UID) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
		small := "limits: memory: \"64M\"\n"
		// Without a chroot the box's own folder lies beneath /tmp, which is why the policy grants another.
		bare := `filesystem: {tmp: "private", read: ["/usr", "/lib", {path: "/lib64", optional: true}, "/bin", "/etc"]}` + "\n"
		for name, policy := range map[string]string{"chroot": r.filesystem(`tmp: "private"`), "host": bare} {
			t.Run(name, func(t *testing.T) {
				r := &rooted{r.In(t), r.root}
				run := func(policy, script string) exectest.Result {
					o := r.Opts(r.Policy(policy), "/bin/sh", "-c", script)
					o.Dir = "/"
					return exectest.Run(t, o)
				}
				wantRun(t, run(policy, "ls -A /tmp; stat -c '%a %F' /tmp; cd /tmp && echo x >"+mark+" && mkdir d && ln "+mark+" d/l && cat d/l && pwd"), 0, "1777 directory\nx\n/tmp")
				wantRun(t, run(policy, "ls -A /tmp"), 0, "")
				for _, path := range []string{"/tmp/" + mark, r.at("/tmp/" + mark)} {
					if _, err := os.Lstat(path); err == nil {
						t.Errorf("%s was made on the host", path)
					}
				}
				wantRun(t, run(policy+small, "df /tmp | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"), 0, "65536")
				wantFailure(t, run(policy+small, "cat /usr/bin/* /usr/bin/* /usr/bin/* >/tmp/big"), "No space left")
			})
		}
	})
}

// In the host's name space only /tmp is another.
func Test_private_tmp_notice(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(`filesystem: {tmp: "private", read: ["/usr", "/lib", {path: "/lib64", optional: true}, "/bin"]}`)
		got := b.Run(artifact, "/bin/pwd") // in a folder beneath the host's /tmp
		if got.Code != 0 || got.Stdout != "/\n" || !strings.Contains(got.Stderr, fmt.Sprintf("the command starts in /: it does not see %s", b.Work)) {
			t.Errorf("exit %d, printed %q\n%s", got.Code, got.Stdout, got.Stderr)
		}
	})
}
