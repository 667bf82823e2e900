package exec_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// floodScript has 64 threads of one process make a call while another process makes notified calls of its own. The first
// goes on until the second has finished, so that there is no finishing without progress. Both exist before the flood.
const floodScript = `
$PROBE after ready chmod-loop $N other > progress & victim=$!
$PROBE hammer 64 $CALL file ready stop > hammered &
wait $victim
echo > stop
wait
while read line; do echo "$line"; done < hammered
while read line; do echo "$line"; done < progress`

func Test_escape_36_one_process_cannot_stall_another(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		for _, tc := range []struct{ name, call, more, hammered string }{
			{"escape_36_chmod", "chmod", "", "ok"},
			{"escape_36_sigaction", "sigaction", "", "ok"},
			{"escape_36_xattr", "xattr", "", "ok"},
			{"escape_36_fork", "clone", "limits: processes: 200", "ok"},
			// At the limit the processes are counted for each call.
			{"escape_36_fork_at_the_limit", "clone", "limits: processes: 4", "errno EAGAIN, ok"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := exectest.NewBox(t, u)
				b.File(b.Work+"/file", "")
				b.File(b.Work+"/other", "")
				script := strings.NewReplacer("$PROBE", b.Probe, "$CALL", tc.call, "$N", "20").Replace(floodScript)
				r := b.Sh(b.Policy(b.Base(exectest.Grants{More: tc.more})), script)
				hammered, progress, _ := strings.Cut(r.Stdout, "\n")
				// Where many race for few places, one answer or the other may not occur.
				for answer := range strings.SplitSeq(strings.TrimPrefix(hammered, "value "), ", ") {
					if !strings.Contains(", "+tc.hammered+",", ", "+answer+",") {
						t.Errorf("64 threads were answered %q, want %q", hammered, tc.hammered)
					}
				}
				if r.Code != 0 || !strings.HasPrefix(progress, "value ") {
					t.Errorf("exit %d, the other process printed %q, want its loop finished\n%s", r.Code, progress, r.Stderr)
				}
			})
		}
	})
}

// Callers that are killed while they wait for their answer, and signals at those that wait, leave the supervisor as it was.
func Test_escape_36_killed_and_signalled_callers(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		b.File(b.Work+"/file", "")
		artifact := b.Policy(b.Base(exectest.Grants{}))
		if got := b.Attempt(artifact, "kill-askers", "12", b.Work+"/file"); got != "ok" {
			t.Errorf("killed callers: %q, want ok", got)
		}
		want := "value children=40 of 40 failures=map[]"
		for name, attempt := range map[string]func(...string) string{
			"inside":  func(args ...string) string { return b.Attempt(artifact, args...) },
			"outside": b.Control,
		} {
			if got := attempt("storm", "40", b.Work+"/file"); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

// Threads that wait in an open keep nobody else waiting: while 200 of one process do, others open what is there, and a FIFO
// that has two ends. They go on when somebody opens the other end.
func Test_escape_36_waiting_opens(t *testing.T) {
	const script = `
mkfifo stuck through
$PROBE open-together 200 stuck $MODE ready >opened & many=$!
$PROBE after ready openat /etc/passwd r
(read x <through; echo got $x) & reader=$!
echo hello >through
wait $reader
test -s opened && echo "the opens did not wait"
exec 3$OTHER stuck
wait $many
cat opened`
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		for name, mode := range map[string]struct{ mode, other string }{"readers": {"r", ">"}, "writers": {"w", "<"}} {
			t.Run("escape_36_"+name, func(t *testing.T) {
				b := exectest.NewBox(t, u)
				artifact := b.Policy(b.Base(ruled(`{on: ["open"], if: path: "/etc/hostname", then: "deny"}`)))
				script := strings.NewReplacer("$PROBE", b.Probe, "$MODE", mode.mode, "$OTHER", mode.other).Replace(script)
				wantRun(t, b.Sh(artifact, script), 0, "ok\ngot hello\nvalue map[ok:200]")
			})
		}
	})
}

// Absurd arguments of notified calls are answered as the kernel would, and harm nobody.
func Test_escape_36_absurd_arguments(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		b.File(b.Work+"/file", "")
		if err := syscall.Mkfifo(b.Work+"/fifo", 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Lchown(b.Work+"/fifo", u.UID, u.GID); err != nil {
			t.Fatal(err)
		}
		artifact := b.Policy(b.Base(exectest.Grants{}))
		file, long := "s:"+b.Work+"/file", "s:/"+strings.Repeat("a", 4096)
		for _, args := range [][]string{
			{"setxattr", file, "s:user.a", "b:8", "0xffffffffffffffff", "0"},
			{"setxattr", file, "s:user.a", "b:8", "0x10000000000", "0"},
			{"setxattr", file, "s:user.a", "b:8", "65537", "0"},
			{"setxattr", file, "s:user.a", "8", "8", "0"},
			{"setxattr", file, "s:" + strings.Repeat("n", 300), "b:8", "8", "0"},
			{"setxattr", file, "b:8", "b:8", "8", "0"},
			{"setxattr", file, "8", "b:8", "8", "0"},
			{"fchmodat", "-100", long, "0600"},
			{"fchmodat", "-100", "s:", "0600"},
			{"fchmodat", "-100", "0", "0600"},
			{"fchmodat", "-100", "0xffffffffffffff00", "0600"},
			{"fchmodat", "0x7fffffff", "s:file", "0600"},
			{"fchmodat", "-2", "s:file", "0600"},
			{"fchmodat", "-100", "s:" + b.Work + "/fifo", "0600"}, // nobody has its other end open
			{"fchmod", "-1", "0600"},
			{"fchmod", "0x100000000", "0"},
			{"utimensat", "-100", file, "8", "0"},
			{"utimensat", "-100", file, "0", "0xffffffff"},
			{"utimensat", "-100", file, "h:" + strings.Repeat("ff", 32), "0"},
			{"fchownat", "-100", file, "0xffffffff", "0xffffffff", "0xffffffff"},
			{"rt_sigaction", "17", "8", "0", "8"},
			{"rt_sigaction", "17", "b:32", "0", "0xffffffffffffffff"},
			{"rt_sigaction", "17", "b:32", "8", "8"},
			{"rt_sigaction", "0x100000011", "0xffffffffffffff00", "0", "8"},
		} {
			args = append([]string{"call"}, args...)
			inside, outside := b.Attempt(artifact, args...), b.Control(args...)
			if inside != outside {
				t.Errorf("%.60q: inside %q, outside %q", args, inside, outside)
			}
		}
	})
}

// The limit holds and is given back however processes are made and waited for. Threads are not processes.
func Test_escape_33_the_limit_does_not_drift(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(limited(4)))
		checkAllowed(t, b, artifact, []allowed{
			{"escape_33_wnohang", []string{"fork-drift", "300", "wnohang"}, "value refused=map[]"},
			{"escape_33_failing_waits", []string{"fork-drift", "300", "failing"}, "value refused=map[]"},
			{"escape_33_ignored_children", []string{"fork-drift", "300", "ignored"}, "value refused=map[]"},
			{"escape_33_double_forks", []string{"fork-drift", "300", "double"}, "value refused=map[]"},
			{"escape_33_thousand_threads", []string{"threads", "1000"}, "value threads=1000"},
			{"escape_33_clone3", []string{"clone3-loop", "100000"}, "value map[errno ENOSYS:100000]"},
		})
		for _, how := range []string{"wnohang", "failing", "ignored", "double"} {
			// Afterwards there are as many places as before, and no more, once the last to end are no longer counted.
			want, r := "value refused=map[]\nvalue forked=3 refused=map[EAGAIN:7]\n", exectest.Result{}
			for _, pause := range []string{"0.1", "0.6", "3"} {
				script := b.Probe + " fork-drift 100 " + how + "; sleep " + pause + "; exec " + b.Probe + " fork-many 10"
				if r = b.Sh(artifact, script); r.Stdout == want {
					break
				}
			}
			wantRun(t, r, 0, strings.TrimSpace(want))
		}
		if got := b.Control("fork-drift", "200", "double"); got != "value refused=map[]" {
			t.Errorf("outside: %q, want no refusal", got)
		}
	})
}

// Parents that wait in vfork for a child whose fork is refused, or which asks the supervisor itself, go on.
func Test_escape_33_vfork(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := `
import subprocess, threading
done = []
def work():
    for _ in range(10):
        try:
            subprocess.run(["/bin/chmod", "600", "file"], check=True)
            done.append("ran")
        except BlockingIOError:
            done.append("refused")
threads = [threading.Thread(target=work) for _ in range(16)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(done), "ran" in done, "refused" in done)`
		b.File(b.Work+"/file", "")
		wantRun(t, b.Run(b.Policy(b.Base(limited(4))), py, "-c", script), 0, "160 True True")
	})
}

// A filter of the program's own stands beside ours: the kernel takes the stricter answer of the two.
func Test_escape_37_own_filter_cannot_mask(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		file := b.File(b.Work+"/file", "")
		limited := b.Policy(b.Base(limited(3)))
		setuid := []string{"call", "fchmodat", "-100", "s:" + file, "04755"} // refused by the supervisor alone
		for _, answer := range []string{"allow", "log", "trace", "notify", "errno"} {
			t.Run(answer, func(t *testing.T) {
				b := b.In(t)
				forks, chmod := "value forked=2 refused=map[EAGAIN:8]", "errno EPERM"
				switch answer {
				case "notify": // the newer filter's request to notify wins, and it has nobody to ask
					forks, chmod = "value forked=0 refused=map[ENOSYS:10]", "errno ENOSYS"
				case "errno":
					forks, chmod = "value forked=0 refused=map[EXDEV:10]", "errno EXDEV"
				}
				if got := b.Attempt(limited, "own-filter", answer, "fork-many", "10"); got != forks {
					t.Errorf("forks: %q, want %q", got, forks)
				}
				if got := b.Attempt(limited, append([]string{"own-filter", answer}, setuid...)...); got != chmod {
					t.Errorf("chmod 4755: %q, want %q", got, chmod)
				}
			})
		}
		if got := b.Control(append([]string{"own-filter", "allow"}, setuid...)...); got != "ok" {
			t.Errorf("outside: chmod 4755: %q, want ok", got)
		}
		// What a program does to itself is no other's business.
		r := b.Sh(limited, b.Probe+" own-filter errno sleep 1 & "+b.Probe+" chmod-loop 5 file; wait")
		if r.Code != 0 || !strings.Contains(r.Stdout, "value ") || !strings.Contains(r.Stdout, "ok") {
			t.Errorf("beside another's filter: exit %d, printed %q\n%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}
