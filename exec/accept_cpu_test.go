package exec_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func throttled(percent int) exectest.Grants {
	return exectest.Grants{More: fmt.Sprintf("limits: cpu: %d", percent)}
}

// share reads what a burn command of the probe printed: how much of one core it got.
func share(t *testing.T, printed string) float64 {
	t.Helper()
	var cpu, wall float64
	if _, err := fmt.Sscanf(printed, "value %f %f", &cpu, &wall); err != nil || wall == 0 {
		t.Fatalf("the probe printed %q", printed)
	}
	return cpu / wall
}

const sumScript = `
import os, time
start, total = time.monotonic(), 0
for i in range(2000000):
    total += i
print(total, time.monotonic() - start > 1.5 * sum(os.times()[:2]))`

func Test_supervisor_8_12_13_cpu(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		// Without the limit it takes as long as it computes, or longer where the machine is busy.
		wantRun(t, b.Run(b.Policy(b.Base(throttled(25))), py, "-c", sumScript), 0, "1999999000000 True")
		if r := b.Run(b.Policy(b.Base(throttled(100))), py, "-c", sumScript); r.Code != 0 || !strings.HasPrefix(r.Stdout, "1999999000000 ") {
			t.Errorf("with 100: exit %d, printed %q\n%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}

// What is asserted is far from what is enforced (bench/ measures that): no machine is busy enough to make the difference.
func Test_escape_35_cpu_share(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(throttled(10)))
		for _, tc := range []struct {
			name, attempt string
			killed        bool // it may be killed for it
		}{
			{"loop", "burn-loop", false},
			{"two_processes", "burn-pair", false},
			{"own_session", "burn-session", false},
			{"leader_gone", "burn-without-leader", false},
			{"short_processes", "burn-chain", false},
			{"short_processes_that_nobody_waits_for", "burn-discarded", false},
			{"escape_35_nice", "burn-nice", false},
			{"escape_35_sigcont_from_a_sibling", "burn-continued", false},
			{"escape_35_sigcont_by_a_timer", "burn-timer", true},
		} {
			t.Run(tc.name, func(t *testing.T) {
				if tc.attempt != "burn-nice" { // outside, it would get what the others leave
					t.Parallel()
				}
				b := b.In(t)
				printed := b.Attempt(artifact, tc.attempt, "600")
				if tc.killed && printed == "signal 9" {
					return
				}
				inside := share(t, printed)
				outside := 0.0
				for try := 0; try < 10 && outside < inside; try++ { // what a busy machine leaves may be as little
					outside = share(t, b.Control(tc.attempt, "200"))
				}
				if inside > 0.3 || inside > outside {
					t.Errorf("%.0f %% of a core inside and %.0f %% outside, want 10 %%", inside*100, outside*100)
				}
			})
		}
	})
}

// A stop by the throttle is none that job control is about: neither the executor nor a shell inside may take it for one.
func Test_throttle_is_no_job_control(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(throttled(10)))
		t.Run("executor_on_a_terminal", func(t *testing.T) {
			t.Parallel()
			b := b.In(t)
			got, _ := onTerminal(t, b, exectest.Executor(t), "-q", artifact, "--", b.Probe, "burn-loop", "500")
			share(t, strings.TrimSpace(got))
		})
		t.Run("parent_that_asks_for_stopped_children", func(t *testing.T) {
			t.Parallel()
			b := b.In(t)
			// A parent that is not scheduled for longer than the freezer waits can see a stop: on a busy machine.
			script := `
import os, time
pid = os.fork()
if pid == 0:
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    os._exit(7)
pid, status = os.waitpid(pid, os.WUNTRACED)
print("stopped" if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status))`
			var printed string
			for try := 0; try < 5 && printed != "7\n"; try++ {
				printed = b.Run(artifact, python(t), "-c", script).Stdout
			}
			if printed != "7\n" {
				t.Errorf("the parent saw %q, five times, want exit code 7", printed)
			}
		})
		t.Run("stopped_by_itself", func(t *testing.T) {
			t.Parallel()
			b := b.In(t)
			// The stopped process would print ok if somebody continued it.
			r := b.Sh(artifact, b.Probe+" stop-self pid & until [ -s pid ]; do sleep 0.01; done; exec "+b.Probe+" burn-loop 500")
			if r.Code != 0 || strings.Contains(r.Stdout, "ok") {
				t.Errorf("exit %d, printed %q, want the loop's line alone\n%s", r.Code, r.Stdout, r.Stderr)
			}
		})
	})
}

func Test_throttle_and_the_end(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := "echo $$ > pid; " + b.Probe + " burn-session 60000 & while :; do :; done"
		for _, tc := range []struct {
			name string
			end  syscall.Signal
			code int
		}{
			{"timeout", 0, 124},
			{"sigterm", syscall.SIGTERM, 143},
			{"sigkill_of_the_command", syscall.SIGKILL, 137},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := b.In(t)
				os.Remove(b.Work + "/pid")
				o := b.Opts(b.Policy(b.Base(throttled(1))), "/bin/sh", "-c", script)
				if tc.end == 0 {
					o.Flags = []string{"--timeout", "2s"} // the shell is throttled, too
				}
				p := exectest.Start(t, o)
				pid := readPid(t, b.Work+"/pid")
				switch tc.end {
				case 0:
				case syscall.SIGKILL:
					if err := syscall.Kill(pid, tc.end); err != nil {
						t.Fatal(err)
					}
				default:
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
