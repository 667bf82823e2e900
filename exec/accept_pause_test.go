package exec_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// pausable is a run that can be paused.
type pausable struct {
	*exectest.Process
	t        *testing.T
	requests *os.File
	answers  *bufio.Scanner
}

func startPausable(t *testing.T, b *exectest.Box, artifact string, args ...string) *pausable {
	t.Helper()
	theirRequests, ourRequests := pipe(t)
	ourAnswers, theirAnswers := pipe(t)
	o := b.Opts("", append([]string{exectest.Pausable(t), artifact, "--"}, args...)...)
	o.Files = []*os.File{theirRequests, theirAnswers}
	p := &pausable{exectest.Start(t, o), t, ourRequests, bufio.NewScanner(ourAnswers)}
	theirRequests.Close()
	theirAnswers.Close()
	return p
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return r, w
}

// ask sends a request and wants it to be carried out.
func (p *pausable) ask(request string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.requests, request); err != nil {
		p.t.Fatal(err)
	}
	if !p.answers.Scan() || p.answers.Text() != "ok" {
		p.t.Fatalf("%s: %q, want ok", request, p.answers.Text())
	}
}

// state is that of a process, as in proc_pid_stat(5).
func state(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "gone"
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

// wantStays wants a process to be stopped, and to stay so as long as one looks. The kernel may need a moment for the stop.
func wantStays(t *testing.T, pid int) {
	t.Helper()
	exectest.Within(t, 10*time.Second, fmt.Sprintf("process %d stopped", pid), func() bool { return state(pid) == "T" })
	for range 30 {
		if got := state(pid); got != "T" {
			t.Fatalf("process %d is in state %s, want it stopped", pid, got)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// wantGoesOn wants a process to run again.
func wantGoesOn(t *testing.T, pid int) {
	t.Helper()
	exectest.Within(t, 10*time.Second, fmt.Sprintf("process %d running", pid), func() bool {
		got := state(pid)
		return got == "R" || got == "S"
	})
}

func Test_supervisor_8_25_pause_and_resume(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}))
		t.Run("supervisor_8_25_sleep", func(t *testing.T) {
			b := b.In(t)
			os.Remove(b.Work + "/pid")
			p := startPausable(t, b, artifact, "/bin/sh", "-c", "echo $$ > pid; exec sleep 300")
			pid := readPid(t, b.Work+"/pid")
			p.ask("resume") // it is not paused: nothing happens
			p.ask("pause")
			p.ask("pause")
			wantStays(t, pid)
			p.ask("resume")
			wantGoesOn(t, pid)
			p.ask("pause")
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if r := p.Wait(t); r.Code != 137 {
				t.Errorf("exit %d, want 137\n%s", r.Code, r.Stderr)
			}
		})
		t.Run("daemon", func(t *testing.T) {
			b := b.In(t)
			os.Remove(b.Work + "/pid")
			p := startPausable(t, b, artifact, "/bin/sh", "-c", b.Probe+" daemon daemon 60; echo $$ > pid; exec sleep 300")
			// Later, since a process group that is stopped when it loses its session's last parent gets SIGCONT (setpgid(2)).
			command, pid := readPid(t, b.Work+"/pid"), readPid(t, b.Work+"/daemon")
			p.ask("pause")
			wantStays(t, pid)
			p.ask("resume")
			wantGoesOn(t, pid)
			p.ask("pause")
			wantStays(t, command)
			p.Signal(t, syscall.SIGTERM)
			wantStays(t, command) // it gets SIGTERM when it goes on
			p.Signal(t, syscall.SIGTERM)
			if r := p.Wait(t); r.Code != 137 {
				t.Errorf("exit %d, want 137 from the second SIGTERM\n%s", r.Code, r.Stderr)
			}
			wantGone(t, pid)
		})
		t.Run("signals_do_not_resume", func(t *testing.T) {
			b := b.In(t)
			os.Remove(b.Work + "/pid")
			p := startPausable(t, b, artifact, "/bin/sh", "-c", "echo $$ > pid; exec sleep 300")
			pid := readPid(t, b.Work+"/pid")
			p.ask("pause")
			p.Signal(t, syscall.SIGTSTP)
			p.Signal(t, syscall.SIGCONT)
			wantStays(t, pid)
			p.ask("resume")
			wantGoesOn(t, pid)
		})
		t.Run("time_limit", func(t *testing.T) {
			b := b.In(t)
			os.Remove(b.Work + "/pid")
			p := startPausable(t, b, b.Policy(b.Base(exectest.Grants{More: `limits: time: "1s"`})), "/bin/sh", "-c", "echo $$ > pid; exec sleep 300")
			readPid(t, b.Work+"/pid")
			p.ask("pause")
			wantTimeout(t, b, p.Wait(t))
		})
		t.Run("with_a_throttle", func(t *testing.T) {
			b := b.In(t)
			os.Remove(b.Work + "/pid")
			p := startPausable(t, b, b.Policy(b.Base(throttled(50))), "/bin/sh", "-c", "echo $$ > pid; while :; do :; done")
			pid := readPid(t, b.Work+"/pid")
			for range 3 {
				p.ask("pause")
				wantStays(t, pid)
				p.ask("resume")
				wantGoesOn(t, pid)
			}
		})
	})
}

// SIGTSTP and SIGCONT to the executor go to the command, whether or not it is throttled.
func Test_stop_and_continue_are_forwarded(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for name, grants := range map[string]exectest.Grants{"free": {}, "throttled": throttled(20)} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				os.Remove(b.Work + "/pid")
				p := exectest.Start(t, b.Opts(b.Policy(b.Base(grants)), "/bin/sh", "-c", "echo $$ > pid; while :; do :; done"))
				pid := readPid(t, b.Work+"/pid")
				for range 3 {
					p.Signal(t, syscall.SIGTSTP)
					wantStays(t, pid)
					p.Signal(t, syscall.SIGCONT)
					wantGoesOn(t, pid)
				}
			})
		}
	})
}
