package exec_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func Test_supervisor_8_97_98_exit_codes(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}))
		noexec := b.File(b.Work+"/noexec", "text")
		for _, tc := range []struct {
			name   string
			args   []string
			code   int
			stdout string
		}{
			{"supervisor_8_97_echo", []string{"echo", "hello"}, 0, "hello"},
			{"supervisor_8_98_exit_42", []string{"/bin/sh", "-c", "exit 42"}, 42, ""},
			{"signal_of_its_own", []string{"/bin/sh", "-c", "kill -TERM $$"}, 128 + int(syscall.SIGTERM), ""},
			{"kill", []string{"/bin/sh", "-c", "kill -KILL $$"}, 128 + int(syscall.SIGKILL), ""},
			{"cannot_be_executed", []string{noexec}, 126, ""},
			{"not_granted", []string{b.Outside}, 126, ""},
			{"not_found", []string{"sandlock-no-such-command"}, 127, ""},
			{"not_found_by_path", []string{b.Work + "/missing"}, 127, ""},
			{"arguments_as_they_are", []string{"printf", "%s|", "", "a b", "--", "-p", "*"}, 0, "|a b|--|-p|*|"},
		} {
			t.Run(tc.name, func(t *testing.T) { wantRun(t, b.In(t).Run(artifact, tc.args...), tc.code, tc.stdout) })
		}
	})
}

func Test_streams(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		o := b.Opts(b.Policy(b.Base(exectest.Grants{})), "/bin/sh", "-c", "cat; echo oops >&2")
		o.Stdin = strings.Repeat("0123456789abcdef", 1<<16)
		r := exectest.Run(t, o)
		if r.Code != 0 || r.Stdout != o.Stdin || r.Stderr != "oops\n" {
			t.Errorf("exit %d, %d bytes out, stderr %q, want 0, %d bytes, oops", r.Code, len(r.Stdout), r.Stderr, len(o.Stdin))
		}
	})
}

// gone tells whether no such process is left; a zombie is, until its parent looks.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// wantGone wants a process to be gone, whose end its sandbox has answered for. The machine may be busy.
func wantGone(t *testing.T, pid int) {
	t.Helper()
	exectest.Within(t, 10*time.Second, fmt.Sprintf("process %d gone", pid), func() bool { return gone(pid) })
}

// readPid waits until a file holds a pid.
func readPid(t *testing.T, file string) (pid int) {
	t.Helper()
	exectest.Within(t, 20*time.Second, "a pid in "+file, func() bool {
		text, _ := os.ReadFile(file)
		first, _, complete := strings.Cut(string(text), "\n")
		var err error
		pid, err = strconv.Atoi(first)
		return complete && err == nil
	})
	return pid
}

// wantTimeout wants the time to have run out, and the command, which wrote its pid, to be gone.
func wantTimeout(t *testing.T, b *exectest.Box, r exectest.Result) {
	t.Helper()
	if r.Code != 124 {
		t.Errorf("exit %d, want 124\n%s", r.Code, r.Stderr)
	}
	pid := readPid(t, b.Work+"/pid")
	wantGone(t, pid)
}

func Test_supervisor_8_14_timeout(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := "echo $$ > pid; exec sleep 300"
		t.Run("policy", func(t *testing.T) {
			artifact := b.Policy(b.Base(exectest.Grants{More: `limits: time: "1s"`}))
			wantTimeout(t, b, b.Sh(artifact, script))
		})
		t.Run("flag", func(t *testing.T) {
			o := b.Opts(b.Policy(b.Base(exectest.Grants{})), "/bin/sh", "-c", script)
			o.Flags = []string{"--timeout", "1s"}
			wantTimeout(t, b, exectest.Run(t, o))
		})
		t.Run("flag_cannot_lengthen", func(t *testing.T) {
			o := b.Opts(b.Policy(b.Base(exectest.Grants{More: `limits: time: "1s"`})), "/bin/sh", "-c", script)
			o.Flags = []string{"--timeout", "1h"}
			if r := exectest.Run(t, o); r.Code != 124 {
				t.Errorf("exit %d, want 124\n%s", r.Code, r.Stderr)
			}
		})
		t.Run("in_time", func(t *testing.T) {
			wantRun(t, b.Run(b.Policy(b.Base(exectest.Grants{More: `limits: time: "1h"`})), "echo", "ok"), 0, "ok")
		})
	})
}

// A child that ends while its parent forks again must not make that fork fail: shells that install their handler of
// SIGCHLD without SA_RESTART, dash above all, would say "Cannot fork".
func Test_fork_is_not_interrupted(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := "i=0; while [ $i -lt 100 ]; do echo a | cat | cat | cat >/dev/null || exit 1; i=$((i+1)); done; echo done"
		wantRun(t, b.Sh(b.Policy(b.Base(exectest.Grants{Write: []string{"/dev/null"}})), script), 0, "done")
	})
}

func limited(n int) exectest.Grants {
	return exectest.Grants{More: fmt.Sprintf("limits: processes: %d", n)}
}

func Test_supervisor_8_15_process_limit(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		checkAllowed(t, b, b.Policy(b.Base(limited(3))), []allowed{
			// The command itself is one of the three.
			{"supervisor_8_15_ten_children", []string{"fork-many", "10"}, "value forked=2 refused=map[EAGAIN:8]"},
			{"supervisor_8_16_twenty_in_turn", []string{"fork-wait", "20"}, "ok"},
		})
		checkAllowed(t, b, b.Policy(b.Base(limited(2))), []allowed{
			{"supervisor_8_17_threads_are_no_processes", []string{"threads", "10"}, "value threads=10"},
		})
		if got, want := b.Control("fork-many", "10"), "value forked=10 refused=map[]"; got != want {
			t.Errorf("outside: %q, want %q", got, want)
		}
	})
}

func Test_supervisor_8_15_16_17_python(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, tc := range []struct {
			name, script, want string
			processes          int
		}{
			{"supervisor_8_15_fork", `
import os, signal, time
alive = refused = 0
for _ in range(10):
    try:
        pid = os.fork()
    except BlockingIOError:
        refused += 1
        continue
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    alive += 1
print(alive, refused)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)`, "2 8", 3},
			{"supervisor_8_16_sequential", `
import os
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
print("all")`, "all", 3},
			// glibc tries clone3 first; the sandbox answers ENOSYS.
			{"supervisor_8_17_threads", `
import threading
barrier = threading.Barrier(10)
passed = []
def work():
    barrier.wait(30)
    passed.append(1)
threads = [threading.Thread(target=work) for _ in range(10)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(passed))`, "10", 2},
			{"vfork", `
import subprocess
print(sum(subprocess.run(["/bin/true"]).returncode == 0 for _ in range(20)))`, "20", 2},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := b.In(t)
				wantRun(t, b.Run(b.Policy(b.Base(limited(tc.processes))), py, "-c", tc.script), 0, tc.want)
			})
		}
	})
}

func Test_supervisor_8_19_signal_to_the_executor(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}))
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			t.Run(sig.String(), func(t *testing.T) {
				b := b.In(t)
				os.Remove(b.Work + "/pid")
				p := exectest.Start(t, b.Opts(artifact, "/bin/sh", "-c", "echo $$ > pid; exec sleep 300"))
				pid := readPid(t, b.Work+"/pid")
				p.Signal(t, sig)
				if r := p.Wait(t); r.Code != 128+int(sig) {
					t.Errorf("exit %d, want %d\n%s", r.Code, 128+int(sig), r.Stderr)
				}
				wantGone(t, pid)
			})
		}
	})
}

func Test_supervisor_8_20_cpu_cores(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		if got := b.Control("affinity"); got == "value 0" || !strings.HasPrefix(got, "value 0,") {
			t.Skipf("needs two processors, has %q", got)
		}
		checkAllowed(t, b, b.Policy(b.Base(exectest.Grants{More: "limits: cpu_cores: [0]"})), []allowed{
			{"supervisor_8_20_pinned", []string{"affinity"}, "value 0"},
		})
		wide := b.Policy(b.Base(exectest.Grants{}))
		if got, want := b.Attempt(wide, "affinity"), b.Control("affinity"); got != want {
			t.Errorf("without the limit: %q, want %q", got, want)
		}
	})
}

const openFilesScript = `
import resource
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    print("raised")
except (ValueError, PermissionError):
    print("refused")
files = []
try:
    for _ in range(200):
        files.append(open("/dev/null"))
    print("opened")
except OSError as e:
    print(e.errno)`

func Test_supervisor_8_21_22_open_files(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		// As root too: the executor's capabilities are not the command's.
		r := b.Run(b.Policy(b.Base(exectest.Grants{More: "limits: open_files: 64"})), py, "-c", openFilesScript)
		wantRun(t, r, 0, "64 64\nrefused\n24")
		free := b.Run(b.Policy(b.Base(exectest.Grants{})), py, "-c", openFilesScript)
		if free.Code != 0 || strings.HasPrefix(free.Stdout, "64 ") || !strings.HasSuffix(free.Stdout, "opened\n") {
			t.Errorf("without the limit: exit %d, printed %q, want another limit and opened\n%s", free.Code, free.Stdout, free.Stderr)
		}
	})
}

// The cap is never a grant, and the runtime of the executor, which raises its own limit, must not show.
func Test_supervisor_8_23_24_open_files_and_inherited_limits(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		lowered := func(artifact string) exectest.Result {
			o := b.Opts(artifact, "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn")
			o.Wrap = []string{"/bin/sh", "-c", `ulimit -Sn 100; exec "$@"`, "sh"}
			return exectest.Run(t, o)
		}
		wantRun(t, lowered(b.Policy(b.Base(exectest.Grants{More: "limits: open_files: 1124"}))), 0, "100\n100")
		outside := lowered("")
		if !strings.HasPrefix(outside.Stdout, "100\n") || outside.Stdout == "100\n100\n" {
			t.Fatalf("outside: %q, want a soft limit of 100 below the hard one", outside.Stdout)
		}
		wantRun(t, lowered(b.Policy(b.Base(exectest.Grants{}))), 0, strings.TrimSpace(outside.Stdout))
		wantRun(t, b.Run(b.Policy(b.Base(exectest.Grants{More: "limits: open_files: 12"})), "/bin/true"), 0, "")
	})
}

// What a file with capabilities asks for, root does not have in a sandbox: the kernel does not start it (capabilities(7), "Safety
// checking for capability-dumb binaries").
func Test_files_with_capabilities(t *testing.T) {
	if !exectest.Self().Root() {
		t.Skip("needs root, to give a file capabilities")
	}
	b := exectest.NewBox(t, exectest.User{})
	data, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	program := b.File(b.Work+"/capable", string(data))
	// struct vfs_cap_data, revision 2, effective: CAP_NET_RAW.
	capable := append([]byte{1, 0, 0, 2, 0, 1 << (unix.CAP_NET_RAW - 8)}, make([]byte, 14)...)
	if err := errors.Join(os.Chmod(program, 0o755), unix.Setxattr(program, "security.capability", capable, 0)); err != nil {
		t.Fatal(err)
	}
	r := b.Run(b.Policy(b.Base(exectest.Grants{})), program)
	if r.Code != 126 || !strings.Contains(r.Stderr, "program.capabilities") {
		t.Errorf("exit %d, %q; want 126 and a hint", r.Code, r.Stderr)
	}
	wantRun(t, b.Run(b.Policy(b.Base(exectest.Grants{More: `program: capabilities: ["net_raw"]`})), program), 0, "")
	wantRun(t, b.Run("", program), 0, "")
}

// What a launcher ignores or lacks is not the command's business.
func Test_signals_start_with_their_default(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		o := b.Opts(b.Policy(b.Base(withProc(b))), "/bin/grep", "-E", "^Sig(Ign|Blk):", "/proc/self/status")
		o.Wrap = []string{"/bin/sh", "-c", `trap "" PIPE USR1 TERM; exec "$@"`, "sh"}
		wantRun(t, exectest.Run(t, o), 0, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000")
		o.Policy = ""
		// The test's own launcher may ignore more: nohup does SIGHUP.
		const ignored = 1<<(syscall.SIGPIPE-1) | 1<<(syscall.SIGUSR1-1) | 1<<(syscall.SIGTERM-1)
		outside := exectest.Run(t, o).Stdout
		_, mask, _ := strings.Cut(outside, "SigIgn:\t")
		got, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		if err != nil || got&ignored != ignored {
			t.Errorf("outside: %q, want PIPE, USR1 and TERM ignored", outside)
		}
	})
}

func Test_process_attributes(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		plain := b.Policy(b.Base(exectest.Grants{}))
		set := b.Policy(b.Base(exectest.Grants{More: `
			program: {no_coredump: true, no_huge_pages: true, cwd: "/usr"}
			determinism: no_randomize_memory: true`}))
		checkAllowed(t, b, set, []allowed{
			{"no_coredump", []string{"limit", "4"}, "value 0 0"},
			{"no_huge_pages", []string{"thp"}, "value 1"},
			{"cwd", []string{"cwd"}, "value /usr"},
		})
		checkAllowed(t, b, plain, []allowed{
			{"huge_pages", []string{"thp"}, "value 0"},
			{"inherited_cwd", []string{"cwd"}, "value " + b.Work},
		})
		if one, two := b.Attempt(set, "layout"), b.Attempt(set, "layout"); one != two {
			t.Errorf("no_randomize_memory: %q and then %q, want the same", one, two)
		}
		if one, two := b.Attempt(plain, "layout"), b.Attempt(plain, "layout"); one == two {
			t.Errorf("without no_randomize_memory: %q twice, want a difference", one)
		}
	})
}
