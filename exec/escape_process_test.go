package exec_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// victimOf starts a process of the same user outside the sandbox. It notes signals that reach it in the file.
func victimOf(t *testing.T, b *exectest.Box) (p *exectest.Process, pid, address, file string) {
	t.Helper()
	file = fmt.Sprintf("%s/victim-%d", b.Outside, time.Now().UnixNano())
	p = exectest.Start(t, b.Opts("", b.Probe, "victim", file, "120"))
	exectest.Within(t, 20*time.Second, "the victim's address", func() bool {
		text, _ := os.ReadFile(file)
		fields := strings.Fields(string(text))
		if len(fields) < 2 {
			return false
		}
		pid, address = fields[0], fields[1]
		return true
	})
	return p, pid, address, file
}

func Test_escape_04_05_06_07_other_processes(t *testing.T) {
	// Each attempt gets a victim of its own, since a control may end it.
	setup := func(t *testing.T, b *exectest.Box) []string {
		_, pid, address, _ := victimOf(t, b)
		return []string{"$VICTIM", pid, "$ADDRESS", address}
	}
	hidden := []string{"errno EACCES", "errno EPERM", "errno ENOENT"}
	noHandle := []string{"errno ENOSYS", "errno EPERM"}
	suite{grants: withProc, setup: setup, attempts: []attempt{
		{"escape_04_ptrace_seize", []string{"ptrace-seize", "$VICTIM"}, eperm, works},
		{"escape_04_ptrace_attach", []string{"call", "ptrace", "16", "$VICTIM", "0", "0"}, eperm, works},
		{"escape_04_ptrace_the_supervisor", []string{"ptrace-seize", "parent"}, eperm, harmful},
		{"escape_05_process_vm_readv", []string{"vm-read", "$VICTIM", "$ADDRESS"}, eperm, works},
		{"escape_05_process_vm_writev", []string{"vm-write", "$VICTIM", "$ADDRESS"}, eperm, works},
		{"escape_05_process_vm_readv_supervisor", []string{"vm-read", "parent", "0x400000"}, eperm, harmful},
		{"escape_05_mem_for_reading", []string{"openat", "/proc/$VICTIM/mem", "r"}, hidden, works},
		{"escape_05_mem_for_writing", []string{"openat", "/proc/$VICTIM/mem", "w"}, hidden, works},
		{"escape_05_mem_of_thread", []string{"openat", "/proc/$VICTIM/task/$VICTIM/mem", "r"}, hidden, works},
		{"escape_05_environ", []string{"openat", "/proc/$VICTIM/environ", "r"}, hidden, works},
		{"escape_05_maps", []string{"openat", "/proc/$VICTIM/maps", "r"}, hidden, works},
		{"escape_05_fd_0", []string{"openat", "/proc/$VICTIM/fd/0", "r"}, hidden, worksForRoot},
		{"escape_05_fd_0_link", []string{"call", "readlinkat", "-100", "s:/proc/$VICTIM/fd/0", "b:64", "64"}, hidden, works},
		{"escape_05_root", []string{"openat", "/proc/$VICTIM/root", "d"}, hidden, works},
		{"escape_05_cwd", []string{"openat", "/proc/$VICTIM/cwd", "d"}, hidden, works},
		{"escape_05_exe", []string{"openat", "/proc/$VICTIM/exe", "r"}, hidden, works},
		{"escape_06_kill_0", []string{"call", "kill", "$VICTIM", "0"}, eperm, works},
		{"escape_06_kill_stop", []string{"call", "kill", "$VICTIM", "19"}, eperm, works},
		{"escape_06_kill_kill", []string{"call", "kill", "$VICTIM", "9"}, eperm, works},
		{"escape_06_tkill", []string{"call", "tkill", "$VICTIM", "28"}, eperm, works},
		{"escape_06_tgkill", []string{"call", "tgkill", "$VICTIM", "$VICTIM", "28"}, eperm, works},
		{"escape_06_kill_group", []string{"call", "kill", "-$VICTIM", "28"}, eperm, works},
		{"escape_06_sigqueue", []string{"call", "rt_sigqueueinfo", "$VICTIM", "28", "h:1c00000000000000ffffffff" + strings.Repeat("00", 116)}, eperm, works},
		{"escape_06_pidfd_send_signal", []string{"pidfd-signal", "$VICTIM", "28"}, noHandle, works},
		{"escape_06_kill_the_supervisor", []string{"call", "kill", "parent", "0"}, eperm, harmful},
		{"escape_07_pidfd_getfd", []string{"pidfd-getfd", "$VICTIM", "0"}, noHandle, works},
		{"escape_07_pidfd_open_the_supervisor", []string{"call", "pidfd_open", "parent", "0"}, noHandle, works},
		{"escape_08_kcmp", []string{"call", "kcmp", "self", "$VICTIM", "0", "0", "0"}, eperm, works},
		{"escape_08_perf_event_open", []string{"perf-event", "$VICTIM"}, absent, worksForRoot},
		{"escape_35_prlimit", []string{"call", "prlimit64", "$VICTIM", "7", "0", "b:16"}, eperm, works},
		{"escape_35_prlimit_set", []string{"call", "prlimit64", "$VICTIM", "4", "b:16", "0"}, eperm, works},
		{"escape_35_prlimit_the_supervisor", []string{"call", "prlimit64", "parent", "7", "0", "b:16"}, eperm, harmful},
		{"escape_35_sched_setaffinity", []string{"call", "sched_setaffinity", "$VICTIM", "8", "h:0100000000000000"}, eperm, works},
		{"escape_35_sched_setscheduler", []string{"call", "sched_setscheduler", "$VICTIM", "0", "b:4"}, eperm, works},
		{"escape_35_sched_setparam", []string{"call", "sched_setparam", "$VICTIM", "b:4"}, eperm, works},
		{"escape_35_sched_setattr", []string{"call", "sched_setattr", "$VICTIM", "h:30" + strings.Repeat("00", 47), "0"}, eperm, works},
		{"escape_35_setpriority", []string{"call", "setpriority", "0", "$VICTIM", "5"}, eperm, works},
		{"escape_35_setpriority_of_the_user", []string{"call", "setpriority", "2", "0", "0"}, eperm, harmful},
		{"escape_35_ioprio_set", []string{"call", "ioprio_set", "1", "$VICTIM", "0x4004"}, eperm, works},
		{"escape_35_migrate_pages", []string{"call", "migrate_pages", "$VICTIM", "8", "b:8", "b:8"}, absent, notRefused},
	}}.run(t)
}

func Test_network_6_31_own_signals(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}))
		checkAllowed(t, b, artifact, []allowed{
			{"network_6_31_kill_self", []string{"self-signal"}, "ok"},
			{"network_6_31_kill_parent", []string{"call", "kill", "parent", "0"}, "errno EPERM"},
			{"own_limits", []string{"call", "prlimit64", "0", "7", "0", "b:16"}, "ok"},
			{"own_priority", []string{"call", "setpriority", "0", "0", "5"}, "ok"},
			{"own_affinity", []string{"call", "sched_setaffinity", "0", "8", "h:0100000000000000"}, "ok"},
		})
		wantRun(t, b.Sh(artifact, `sleep 100 & kill -TERM $!; wait $!; echo $?`), 0, "143")
	})
}

// kill(-1) answers success when it reached nobody, so that only the victim can tell.
func Test_escape_06_kill_everyone(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		_, pid, _, file := victimOf(t, b)
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b.Attempt(b.Policy(b.Base(exectest.Grants{})), "call", "kill", "-1", "28")
		// The control is to the victim alone: outside, -1 would be every process of the user.
		if got := b.Control("call", "kill", pid, "28"); got != "ok" {
			t.Fatalf("outside: %q, want ok", got)
		}
		var after string
		exectest.Within(t, 20*time.Second, "the control's signal", func() bool {
			text, _ := os.ReadFile(file)
			after = string(text)
			return len(after) > len(before)
		})
		if got := strings.Count(after, "winch"); got != 1 {
			t.Errorf("the victim saw %d signals, want the control's alone", got)
		}
	})
}

func Test_escape_29_no_privilege(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(withProc(b)))
		wantRun(t, b.Run(artifact, "/bin/grep", "NoNewPrivs", "/proc/self/status"), 0, "NoNewPrivs:\t1")
		got := b.Attempt(artifact, "caps")
		if !strings.HasPrefix(got, "value effective=0 permitted=0 inheritable=0 ") || !strings.HasSuffix(got, " ambient=0") {
			t.Errorf("capabilities: %q, want none", got)
		}
		if u.Root() {
			if !strings.Contains(got, "bounding=0 ") {
				t.Errorf("capabilities of root: %q, want an empty bounding set", got)
			}
			if outside := b.Control("caps"); strings.Contains(outside, "effective=0 ") {
				t.Errorf("outside: %q, want some", outside)
			}
		}
		for _, tool := range []string{"/usr/bin/sudo", "/usr/bin/su", "/usr/bin/newuidmap"} {
			if _, err := os.Stat(tool); err != nil || u.Root() {
				continue
			}
			if r := b.Run(artifact, tool, "-c", "true"); r.Code == 0 {
				t.Errorf("%s worked\n%s", tool, r.Stdout)
			}
		}
	})
}

// The executor's own memory and environment may hold secrets that it was told not to hand on.
func Test_escape_28_environment(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		grants := withProc(b)
		grants.More += `
			program: {clean_env: true, pass_env: ["LANG", "LC_*"], env: {SET: "by policy", LC_ALL: "C"}}`
		o := b.Opts(b.Policy(b.Base(grants)), "/usr/bin/env")
		o.Env = []string{
			"PATH=/usr/bin:/bin", "LANG=C", "LC_TIME=C", "LC_ALL=overridden", "LANGUAGE=x", "SECRET=hunter2",
			"LD_PRELOAD=/nonexistent.so", "LD_AUDIT=/nonexistent.so", "BASH_ENV=/nonexistent", "GIT_DIR=/nonexistent",
		}
		r := exectest.Run(t, o)
		got := map[string]bool{}
		for line := range strings.Lines(r.Stdout) {
			got[strings.TrimSpace(line)] = true
		}
		for _, want := range []string{"LANG=C", "LC_TIME=C", "LC_ALL=C", "SET=by policy"} {
			if !got[want] {
				t.Errorf("no %s in\n%s", want, r.Stdout)
			}
		}
		for line := range got {
			name, _, _ := strings.Cut(line, "=")
			switch name {
			case "LANG", "LC_TIME", "LC_ALL", "SET", "TMPDIR":
			default:
				t.Errorf("%s was handed on", line)
			}
		}
		o.Args = []string{"/bin/sh", "-c", "cat /proc/$PPID/environ /proc/$PPID/mem /proc/*/environ"}
		if r := exectest.Run(t, o); strings.Contains(r.Stdout, "hunter2") {
			t.Errorf("the secret could be read:\n%q", r.Stdout)
		}
	})
}

func Test_escape_30_survivors(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{Write: []string{"/dev/null"}}))
		for _, tc := range []struct {
			name string
			args []string
		}{
			{"escape_30_daemon", []string{b.Probe, "daemon", "$FILE", "60"}},
			{"escape_30_daemon_with_subreaper", []string{b.Probe, "daemon", "$FILE", "60", "subreaper"}},
			{"escape_30_background", []string{"/bin/sh", "-c", b.Probe + " heartbeat $FILE 60 >/dev/null & until [ -s $FILE ]; do sleep 0.01; done"}},
			{"escape_30_setsid", []string{"/bin/sh", "-c", "setsid " + b.Probe + " heartbeat $FILE 60 >/dev/null & until [ -s $FILE ]; do sleep 0.01; done"}},
			{"escape_30_failing_command", []string{"/bin/sh", "-c", b.Probe + " daemon $FILE 60; exit 3"}},
			{"escape_30_command_killed", []string{"/bin/sh", "-c", b.Probe + " daemon $FILE 60; kill -KILL $$"}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := b.In(t)
				file := b.Work + "/" + tc.name
				b.Run(artifact, replaceAll(tc.args, []string{"$FILE", file})...)
				pid := readPid(t, file)
				wantGone(t, pid)
			})
		}
		t.Run("control", func(t *testing.T) {
			file := b.Work + "/outside"
			exectest.Run(t, b.Opts("", "/bin/sh", "-c", b.Probe+" daemon "+file+" 60 >/dev/null 2>&1"))
			pid := readPid(t, file)
			if gone(pid) {
				t.Error("outside the daemon is gone too: this test would see no survivor")
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		})
	})
}

func Test_escape_30_32_survivors_of_the_end_from_outside(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}))
		for _, tc := range []struct {
			name string
			args []string
			end  syscall.Signal // 0: by --timeout
			code int
		}{
			{"escape_32_ignores_sigterm", []string{b.Probe, "heartbeat", "$FILE", "60"}, 0, 124},
			{"escape_32_shell_ignores_sigterm", []string{"/bin/sh", "-c", "trap '' TERM; echo $$ > $FILE; while :; do sleep 1; done"}, 0, 124},
			{"escape_32_stopped", []string{b.Probe, "stop-self", "$FILE"}, 0, 124},
			{"escape_30_daemon_at_timeout", []string{"/bin/sh", "-c", b.Probe + " daemon $FILE 60; exec sleep 60"}, 0, 124},
			{"escape_30_daemon_at_sigterm", []string{"/bin/sh", "-c", b.Probe + " daemon $FILE 60; exec sleep 60"}, syscall.SIGTERM, 143},
			{"escape_30_daemon_at_sigint", []string{"/bin/sh", "-c", b.Probe + " daemon $FILE 60; exec sleep 60"}, syscall.SIGINT, 130},
		} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel() // they wait for the time to run out
				b := b.In(t)
				file := b.Work + "/" + tc.name
				o := b.Opts(artifact, replaceAll(tc.args, []string{"$FILE", file})...)
				if tc.end == 0 {
					o.Flags = []string{"--timeout", "1s"}
				}
				p := exectest.Start(t, o)
				pid := readPid(t, file)
				if tc.end != 0 {
					p.Signal(t, tc.end)
				}
				if r := p.Wait(t); r.Code != tc.code {
					t.Errorf("exit %d, want %d\n%s", r.Code, tc.code, r.Stderr)
				}
				wantGone(t, pid)
			})
		}
	})
}

// The direct child of a supervisor that is killed dies with it; its descendants keep their confinement.
func Test_escape_31_supervisor_killed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		file := b.Work + "/pid"
		p := exectest.Start(t, b.Opts(b.Policy(b.Base(exectest.Grants{})), b.Probe, "heartbeat", file, "60"))
		pid := readPid(t, file)
		p.Signal(t, syscall.SIGKILL)
		p.Wait(t)
		wantGone(t, pid)
	})
}

func Test_escape_33_bombs(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(limited(8)))
		checkAllowed(t, b, artifact, []allowed{
			{"escape_33_children", []string{"fork-many", "100"}, "value forked=7 refused=map[EAGAIN:93]"},
			{"escape_33_threads", []string{"threads", "200"}, "value threads=200"},
			{"escape_33_many_in_turn", []string{"fork-wait", "2000"}, "ok"},
		})
		got := b.Attempt(artifact, "fork-flood", "200")
		var first, second int
		if _, err := fmt.Sscanf(got, "value first=%d second=%d", &first, &second); err != nil || first == 0 || second < 7 {
			t.Errorf("fork-flood: %q, want forks to work again after zombies were reaped", got)
		}
		r := b.Sh(artifact, "f() { f | f & }; f 2>/dev/null; sleep 0.2; echo survived")
		if r.Code != 0 || !strings.HasSuffix(r.Stdout, "survived\n") {
			// The shell itself may be refused the fork for sleep; the limit must then have said so.
			if !strings.Contains(r.Stderr, "fork") {
				t.Errorf("fork bomb: exit %d, printed %q\n%s", r.Code, r.Stdout, r.Stderr)
			}
		}
	})
}
