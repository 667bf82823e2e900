package exec_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// private is policy B with a /proc of the sandbox's own, and so namespaces.
func private(more string) exectest.Grants {
	return exectest.Grants{
		Read: []string{"/proc"}, Write: []string{"/dev/null", "/dev/tty"},
		More: "filesystem: proc: \"private\"\n" + more + "\n",
	}
}

func Test_namespaces_supervisor_8_97_98_exit_codes(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private("")))
		noexec := b.File(b.Work+"/noexec", "text")
		for _, tc := range []struct {
			name   string
			args   []string
			code   int
			stdout string
		}{
			{"exit_42", []string{"/bin/sh", "-c", "exit 42"}, 42, ""},
			{"signal_of_its_own", []string{"/bin/sh", "-c", "kill -TERM $$"}, 128 + int(syscall.SIGTERM), ""},
			{"kill", []string{"/bin/sh", "-c", "kill -KILL $$"}, 128 + int(syscall.SIGKILL), ""},
			{"core", []string{"/bin/sh", "-c", "ulimit -c 0; kill -SEGV $$"}, 128 + int(syscall.SIGSEGV), ""},
			{"cannot_be_executed", []string{noexec}, 126, ""},
			{"not_granted", []string{b.Outside}, 126, ""},
			{"not_found", []string{"sandlock-no-such-command"}, 127, ""},
			// Process 1 is the keeper, which is not to be seen, and the command has no parent there.
			{"a_namespace", []string{"/bin/sh", "-c", "echo $$ $PPID; echo /proc/[0-9]*"}, 0, "2 0\n/proc/2"},
			{"of_a_user_too", []string{"/bin/sh", "-c", "kill -0 $$ && echo ok"}, 0, "ok"},
		} {
			t.Run(tc.name, func(t *testing.T) { wantRun(t, b.In(t).Run(artifact, tc.args...), tc.code, tc.stdout) })
		}
	})
}

// keeperAttempts are attacks on process 1 of a sandbox, which shares the executor's memory. The control makes them on
// another process of the same user, outside.
var keeperAttempts = []attempt{
	{"ptrace_seize", []string{"ptrace-seize", "$PID"}, eperm, works},
	{"ptrace_attach", []string{"call", "ptrace", "16", "$PID", "0", "0"}, eperm, works},
	{"process_vm_readv", []string{"vm-read", "$PID", "$ADDRESS"}, eperm, works},
	{"process_vm_writev", []string{"vm-write", "$PID", "$ADDRESS"}, eperm, works},
	{"pidfd_getfd", []string{"pidfd-getfd", "$PID", "0"}, absent, works},
	{"pidfd_open", []string{"call", "pidfd_open", "$PID", "0"}, absent, works},
	{"pidfd_signal", []string{"pidfd-signal", "$PID", "28"}, absent, works},
	{"kill_0", []string{"call", "kill", "$PID", "0"}, eperm, works},
	{"kill_stop", []string{"call", "kill", "$PID", "19"}, eperm, works},
	{"kill_kill", []string{"call", "kill", "$PID", "9"}, eperm, works},
	{"tkill", []string{"call", "tkill", "$PID", "28"}, eperm, works},
	{"tgkill", []string{"call", "tgkill", "$PID", "$PID", "28"}, eperm, works},
	{"sigqueue", []string{"call", "rt_sigqueueinfo", "$PID", "28", "h:1c00000000000000ffffffff" + strings.Repeat("00", 116)}, eperm, works},
	{"prlimit", []string{"call", "prlimit64", "$PID", "7", "0", "b:16"}, eperm, works},
	{"prlimit_set", []string{"call", "prlimit64", "$PID", "0", "b:16", "0"}, eperm, works},
	{"kcmp", []string{"call", "kcmp", "self", "$PID", "0", "0", "0"}, eperm, works},
	{"sched_setaffinity", []string{"call", "sched_setaffinity", "$PID", "8", "h:0100000000000000"}, eperm, works},
	{"sched_setscheduler", []string{"call", "sched_setscheduler", "$PID", "0", "b:4"}, eperm, works},
	{"setpriority", []string{"call", "setpriority", "0", "$PID", "5"}, eperm, works},
	{"ioprio_set", []string{"call", "ioprio_set", "1", "$PID", "0x4004"}, eperm, works},
	{"migrate_pages", []string{"call", "migrate_pages", "$PID", "8", "b:8", "b:8"}, absent, notRefused},
	{"list", []string{"openat", "/proc/$PID", "d"}, hiddenProc, works},
	{"stat", []string{"call", "newfstatat", "-100", "s:/proc/$PID", "b:256", "0"}, hiddenProc, works},
	{"mem", []string{"openat", "/proc/$PID/mem", "r"}, hiddenProc, works},
	{"mem_for_writing", []string{"openat", "/proc/$PID/mem", "w"}, hiddenProc, works},
	{"mem_of_the_thread", []string{"openat", "/proc/$PID/task/$PID/mem", "r"}, hiddenProc, works},
	{"maps", []string{"openat", "/proc/$PID/maps", "r"}, hiddenProc, works},
	{"environ", []string{"openat", "/proc/$PID/environ", "r"}, hiddenProc, works},
	{"cmdline", []string{"openat", "/proc/$PID/cmdline", "r"}, hiddenProc, works},
	{"status", []string{"openat", "/proc/$PID/status", "r"}, hiddenProc, works},
	{"auxv", []string{"openat", "/proc/$PID/auxv", "r"}, hiddenProc, works},
	{"exe", []string{"openat", "/proc/$PID/exe", "r"}, hiddenProc, works},
	{"exe_link", []string{"call", "readlinkat", "-100", "s:/proc/$PID/exe", "b:64", "64"}, hiddenProc, works},
	{"root", []string{"openat", "/proc/$PID/root", "d"}, hiddenProc, works},
	{"root_of_the_thread", []string{"openat", "/proc/$PID/task/$PID/root", "d"}, hiddenProc, works},
	{"cwd", []string{"openat", "/proc/$PID/cwd", "d"}, hiddenProc, works},
	{"fd", []string{"openat", "/proc/$PID/fd", "d"}, hiddenProc, works},
	{"fd_3", []string{"call", "readlinkat", "-100", "s:/proc/$PID/fd/0", "b:64", "64"}, hiddenProc, works},
	{"ns", []string{"openat", "/proc/$PID/ns/mnt", "r"}, hiddenProc, works},
	{"uid_map", []string{"openat", "/proc/$PID/uid_map", "r"}, hiddenProc, works},
	{"oom_score_adj", []string{"openat", "/proc/$PID/oom_score_adj", "w"}, hiddenProc, works},
	{"by_another_spelling", []string{"openat", "/proc/self/../$PID/environ", "r"}, hiddenProc, works},
	{"by_its_own_root", []string{"openat", "/proc/self/root/proc/$PID/environ", "r"}, hiddenProc, works},
}

var hiddenProc = []string{"errno EACCES", "errno EPERM", "errno ENOENT"}

// Escape attempts 4 to 8 and 35 on the keeper: as an ordinary user and root, as a root that the policy makes up, and with
// capabilities that the policy grants. None of those is one over the executor: Landlock's domain decides.
func Test_namespaces_escape_04_05_06_07_08_35_keeper(t *testing.T) {
	exectest.UserNamespaces(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policies := map[string]string{"plain": "", "fake_root": "program: {uid: 0, gid: 0}"}
		if u.Root() {
			delete(policies, "fake_root") // is no other
			policies["capable"] = capable
			policies["other_ids_capable"] = capable + "\nprogram: {uid: 1000, gid: 1000}"
		}
		for name, more := range policies {
			g := private(more)
			g.Write = append(g.Write, "/proc")
			artifact := b.Policy(b.Base(g))
			t.Run(name, func(t *testing.T) {
				for _, a := range keeperAttempts {
					args := replaceAll(a.args, []string{"$PID", "1", "$ADDRESS", "0x400000"})
					got := b.In(t).Attempt(artifact, args...)
					if !refusedAs(got, a.want) && got != "absent" {
						t.Errorf("%s: probe %q = %q, want one of %q", a.name, args, got, a.want)
					}
				}
				if got := b.In(t).Attempt(artifact, "caps"); strings.Contains(got, "effective=0 ") == strings.Contains(name, "capable") {
					t.Errorf("capabilities: %q", got)
				}
			})
		}
		t.Run("control", func(t *testing.T) {
			for _, a := range keeperAttempts {
				_, pid, address, _ := victimOf(t, b)
				a.checkControl(t, b.In(t), replaceAll(a.args, []string{"$PID", pid, "$ADDRESS", address}))
			}
		})
	})
}

// capable grants what would reach another process or mount.
const capable = `program: capabilities: ["sys_ptrace", "kill", "sys_admin", "sys_nice", "dac_override", "dac_read_search", "sys_chroot", "perfmon", "sys_rawio"]`

// Escape attempt 17: nothing in a sandbox mounts or leaves its namespaces, whatever capabilities it has. The suite of
// escape_fs_test.go makes these attempts in a direct start, with their controls.
func Test_namespaces_escape_17_mounts_and_namespaces(t *testing.T) {
	exectest.UserNamespaces(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policies := map[string]string{"plain": "", "fake_root": "program: {uid: 0, gid: 0}"}
		if u.Root() {
			delete(policies, "fake_root") // is no other
			policies["capable"] = capable
		}
		for name, more := range policies {
			artifact := b.Policy(b.Base(private(more)))
			t.Run(name, func(t *testing.T) {
				for _, args := range [][]string{
					{"call", "mount", "s:none", "s:$WORK", "s:tmpfs", "0", "0"},
					{"call", "mount", "s:none", "s:/proc/kcore", "s:", "0x1020", "0"},
					{"call", "umount2", "s:/proc/kcore", "2"},
					{"call", "umount2", "s:/etc/hosts", "2"},
					{"call", "umount2", "s:/proc", "2"},
					{"call", "pivot_root", "s:$WORK", "s:$WORK"},
					{"call", "chroot", "s:$WORK"},
					{"call", "mount_setattr", "-100", "s:/etc/hosts", "0", "b:32", "32"},
					{"call", "open_tree", "-100", "s:/", "1"},
					{"call", "fsopen", "s:proc", "0"},
					{"open-tree-move", "$WORK", "$WORK"},
					{"fsmount", "proc"},
					{"call", "unshare", "0x10000000"},
					{"call", "unshare", "0x00020000"},
					{"call", "unshare", "0x20000000"},
					{"clone", "0x10000000"},
					{"clone", "0x20020000"},
					{"clone3", "0x10000000"},
					{"setns", "/proc/self/ns/mnt", "0"},
					{"setns", "/proc/self/ns/user", "0"},
					{"setns", "/proc/self/ns/pid", "0"},
					{"call", "sethostname", "s:x", "1"},
				} {
					args = replaceAll(args, []string{"$WORK", b.Work})
					if got := b.In(t).Attempt(artifact, args...); !refusedAs(got, absent) {
						t.Errorf("probe %q = %q, want it refused", args, got)
					}
				}
				r := b.In(t).Run(artifact, "/usr/bin/nsenter", "-t", "2", "-m", "-p", "/bin/true")
				if r.Code == 0 {
					t.Errorf("nsenter: exit 0\n%s", r.Stdout)
				}
			})
		}
		if got := b.RootControl("fsmount", "tmpfs"); got != "ok" {
			t.Errorf("outside: %q", got)
		}
	})
}

// kill(-1) and signals to groups stay within.
func Test_namespaces_escape_06_kill_everyone(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private("")))
		_, pid, _, file := victimOf(t, b)
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{"-1", pid, "-" + pid} {
			b.Attempt(artifact, "call", "kill", target, "28")
		}
		if got := b.Attempt(artifact, "call", "kill", pid, "0"); got != "errno ESRCH" {
			t.Errorf("%q, want no such process", got)
		}
		// It reaches the sandbox's own.
		wantRun(t, b.Sh(artifact, `sleep 60 & kill -TERM -1; wait $!; echo $?`), 0, "143")
		wantRun(t, b.Sh(artifact, "kill -KILL -1; echo alive"), 0, "alive")
		after, err := os.ReadFile(file)
		if err != nil || string(after) != string(before) {
			t.Errorf("the victim saw %q: %v", after, err)
		}
		if got := b.Control("call", "kill", pid, "28"); got != "ok" {
			t.Errorf("outside: %q, want ok", got)
		}
	})
}

// No capability is left, none can be had by a setuid program or one with capabilities of its own.
func Test_namespaces_escape_29_no_privilege(t *testing.T) {
	exectest.UserNamespaces(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		none := "value effective=0 permitted=0 inheritable=0 bounding=0 ambient=0"
		for name, more := range map[string]string{
			"plain": "", "fake_root": "program: {uid: 0, gid: 0}", "others": "program: {uid: 1000, gid: 1000}",
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				artifact := b.Policy(b.Base(private(more)))
				if got := b.Attempt(artifact, "caps"); got != none {
					t.Errorf("capabilities: %q, want none", got)
				}
				if got := b.Attempt(artifact, "nnp"); got != "value 1" {
					t.Errorf("no_new_privs: %q", got)
				}
				for _, tool := range []string{"/usr/bin/su", "/usr/bin/newgrp", "/usr/bin/mount", "/usr/bin/passwd"} {
					if r := b.Run(artifact, "/bin/sh", "-c", tool+" --version >/dev/null 2>&1; /bin/grep -h Cap /proc/self/status | grep -v 0000000000000000"); r.Stdout != "" {
						t.Errorf("%s: %s", tool, r.Stdout)
					}
				}
			})
		}
		if u.Root() {
			if outside := b.Control("caps"); strings.Contains(outside, "effective=0 ") {
				t.Errorf("outside: %q, want some", outside)
			}
			one := b.Policy(b.Base(private(`program: capabilities: ["net_raw"]`)))
			if got := b.Attempt(one, "caps"); got != "value effective=2000 permitted=2000 inheritable=2000 bounding=2000 ambient=2000" {
				t.Errorf("one granted: %q", got)
			}
		}
	})
}

// A root file that is setuid, started by an ordinary user in namespaces.
func Test_namespaces_escape_29_setuid_of_another(t *testing.T) {
	if !exectest.Self().Root() {
		t.Skip("needs root, to make a setuid program")
	}
	exectest.UserNamespaces(t)
	b := exectest.NewBox(t, exectest.Ordinary())
	dir := b.Dir("setuid")
	program := dir + "/probe"
	text, err := os.ReadFile(b.Probe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Chmod(program, 0o4755); err != nil {
		t.Fatal(err)
	}
	for _, more := range []string{"", "program: {uid: 0, gid: 0}", "program: {uid: 1000, gid: 1000}"} {
		g := private(more)
		g.Read = append(g.Read, dir)
		o := b.Opts(b.Policy(b.Base(g)), program, "ids")
		id := exectest.Nobody
		if _, err := fmt.Sscanf(more, "program: {uid: %d", &id); err != nil && more != "" {
			t.Fatal(err)
		}
		if got, want := exectest.Run(t, o).Stdout, fmt.Sprintf("value uid=%d euid=%d gid=%d groups=0\n", id, id, id); got != want {
			t.Errorf("%s: %q, want %q", more, got, want)
		}
	}
	o := b.Opts("", program, "ids")
	if got := exectest.Run(t, o).Stdout; !strings.Contains(got, "euid=0") {
		t.Errorf("outside: %q, want it to be root", got)
	}
}

// Where the host's /proc is shown the keepers are in it, and the executors. Their memory, files and environment are not, but to
// a command with CAP_PERFMON or CAP_SYS_ADMIN: since Linux 6.13 that shows maps and environ of every process, and the kernel
// asks no security module (may_access_mm in kernel/fork.c). See docs/threat-model.md. What descriptors have for numbers is
// root's to list.
func Test_namespaces_escape_05_keeper_in_the_hosts_proc(t *testing.T) {
	py := python(t)
	exectest.UserNamespaces(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policies := map[string]string{"plain": "", "fake_root": "program: {uid: 0, gid: 0}"}
		if u.Root() {
			policies["capable"] = strings.NewReplacer(`"sys_admin", `, "", `"perfmon", `, "").Replace(capable)
		}
		for name, more := range policies {
			g := exectest.Grants{Read: []string{"/proc"}, More: "filesystem: proc: \"host\"\nprogram: strict_lifetime: true\n" + more}
			r := b.Run(b.Policy(b.Base(g)), py, "-c", `
import os
found, got = 0, []
def attempt(what, f):
    try: seen = f()
    except OSError: return
    if seen: got.append((what, seen))
def read(path):
    with open(path, "rb", 0) as f: return f.read(16)
for pid in os.listdir("/proc"):
    try: comm = open("/proc/%s/comm" % pid).read() if pid.isdigit() else ""
    except OSError: continue
    if comm != "sandlock-init\n": continue
    found += 1
    for n in "mem", "maps", "environ", "auxv", "syscall", "stack", "pagemap", "smaps", "ns/mnt", "exe", "fd/0", "map_files", "io", "timers":
        attempt(n, lambda: read("/proc/%s/%s" % (pid, n)))
    for n in "exe", "root", "cwd", "fd/0", "ns/pid", "ns/user":
        attempt(n, lambda: os.readlink("/proc/%s/%s" % (pid, n)))
    for n in "fdinfo", "root", "cwd", "map_files", "root/home":
        attempt(n, lambda: os.listdir("/proc/%s/%s" % (pid, n)))
    for n in "oom_score_adj", "comm", "mem", "clear_refs", "coredump_filter", "timerslack_ns", "uid_map", "setgroups":
        attempt("write " + n, lambda: 1 + os.open("/proc/%s/%s" % (pid, n), os.O_WRONLY))
print(found > 0, got)`)
			if got := strings.TrimSpace(r.Stdout); r.Code != 0 || got != "True []" {
				t.Errorf("%s: exit %d, %q\n%s", name, r.Code, got, r.Stderr)
			}
		}
	})
}
