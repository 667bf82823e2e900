package exec_test

import (
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

func handle(t *testing.T, c *exec.Cmd, nr int, h exec.HandlerFunc) {
	t.Helper()
	if err := c.Handle(nr, h); err != nil {
		t.Fatal(err)
	}
}

// Numbers 64 to 75 of the acceptance list.
func TestCmdHandlers(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		a := load(t, b, exectest.Grants{More: `syscalls: extra_deny: ["mremap"]`})
		pwd := func() *exec.Cmd {
			c := a.Command(bounded(t), "/bin/sh", "-c", "/bin/pwd && /bin/pwd || echo failed")
			c.Dir = "/usr"
			return c
		}
		var calls atomic.Int32
		answer := func(v func() exec.Verdict) exec.HandlerFunc {
			return func(*exec.Call) exec.Verdict { calls.Add(1); return v() }
		}
		refuse := func() exec.Verdict { return supervise.Errno(unix.EACCES) }
		proceed := func() exec.Verdict { return supervise.Continue(supervise.DecidedOnRegisters) }

		t.Run("supervisor_8_64_refuses", func(t *testing.T) {
			c := pwd()
			handle(t, c, unix.SYS_GETCWD, answer(refuse))
			wantOutput(t, c, "failed\n")
			if calls.Load() < 1 {
				t.Error("the handler was not called")
			}
		})
		t.Run("supervisor_8_65_73_continues", func(t *testing.T) {
			calls.Store(0)
			c := pwd()
			handle(t, c, unix.SYS_GETCWD, answer(proceed))
			wantOutput(t, c, "/usr\n/usr\n")
			if calls.Load() < 2 {
				t.Errorf("%d calls seen, want both", calls.Load())
			}
		})
		t.Run("supervisor_8_66_none", func(t *testing.T) { wantOutput(t, pwd(), "/usr\n/usr\n") })
		t.Run("supervisor_8_69_order", func(t *testing.T) {
			var order []string
			c := pwd()
			handle(t, c, unix.SYS_GETCWD, func(*exec.Call) exec.Verdict { order = append(order, "1"); return proceed() })
			handle(t, c, unix.SYS_GETCWD, func(*exec.Call) exec.Verdict { order = append(order, "2"); return refuse() })
			wantOutput(t, c, "failed\n")
			if got := strings.Join(order, " "); !strings.HasPrefix(got, "1 2") || strings.Contains(got, "1 1") || strings.HasSuffix(got, "1") {
				t.Errorf("handlers ran %s, want 1 2 for each call", got)
			}
		})
		t.Run("supervisor_8_67_75_content", func(t *testing.T) {
			var paths []string
			c := a.Command(bounded(t), "/bin/sh", "-c", "cat /nowhere/file /etc/group | head -n 1")
			handle(t, c, unix.SYS_OPENAT, func(c *exec.Call) exec.Verdict {
				path, err := c.Path(1)
				if err != nil {
					return supervise.FromError(err)
				}
				paths = append(paths, path)
				if path == "/nowhere/file" {
					return exec.Content([]byte("made up\n"))
				}
				return supervise.Continue(supervise.KernelDecides)
			})
			wantOutput(t, c, "made up\n")
			if !strings.Contains(strings.Join(paths, " "), "/etc/group") {
				t.Errorf("paths %q, want /etc/group among them", paths)
			}
		})
		t.Run("supervisor_8_68_not_asked_about_refused_calls", func(t *testing.T) {
			a := load(t, b, exectest.Grants{Write: []string{"/dev/null"}, More: `rules: [{on: ["execve"], if: exe: "/usr/bin/cat", then: "deny"}]`})
			c := a.Command(bounded(t), "/bin/sh", "-c", "/bin/cat /dev/null 2>/dev/null || /bin/echo done")
			var paths []string
			handle(t, c, unix.SYS_EXECVE, func(c *exec.Call) exec.Verdict {
				path, _ := c.Path(0)
				paths = append(paths, path)
				return supervise.Next()
			})
			wantOutput(t, c, "done\n")
			if slices.Contains(paths, "/bin/cat") || !slices.Contains(paths, "/bin/echo") {
				t.Errorf("paths %q, want /bin/echo and no /bin/cat", paths)
			}
		})
		t.Run("memory then continue on registers is refused", func(t *testing.T) {
			c := a.Command(bounded(t), "/bin/sh", "-c", "read line < /etc/group && echo read || echo refused")
			handle(t, c, unix.SYS_OPENAT, func(c *exec.Call) exec.Verdict {
				if path, err := c.Path(1); err != nil || path != "/etc/group" {
					return supervise.Next()
				}
				return supervise.Continue(supervise.DecidedOnRegisters)
			})
			// What a handler of the program continues is only ever left to the kernel, which decides.
			wantOutput(t, c, "read\n")
		})
		t.Run("panic", func(t *testing.T) {
			c := pwd()
			handle(t, c, unix.SYS_GETCWD, func(*exec.Call) exec.Verdict { panic("boom") })
			wantOutput(t, c, "failed\n")
		})
		t.Run("threads are no processes", func(t *testing.T) {
			c := a.Command(bounded(t), b.Probe, "threads", "100")
			handle(t, c, unix.SYS_CLONE, func(*exec.Call) exec.Verdict { return supervise.Next() })
			wantOutput(t, c, "value threads=100\n")
		})
		t.Run("supervisor_8_70_71_72_refused", func(t *testing.T) {
			for _, tc := range []struct {
				nr   int
				want string
			}{
				{unix.SYS_MOUNT, "refuses mount"},
				{unix.SYS_MREMAP, "refuses mremap (number 25: syscalls.extra_deny)"},
				{-5, "negative"},
				{99999, "unknown"},
			} {
				err := pwd().Handle(tc.nr, answer(proceed))
				if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "number 216", "number 25"), tc.want) {
					t.Errorf("handler on %d: %v, want an error with %q", tc.nr, err, tc.want)
				}
			}
		})
		t.Run("denials stay denied", func(t *testing.T) {
			// A namespace flag is refused by the filter although clone has a handler that lets everything through.
			c := a.Command(bounded(t), b.Probe, "clone", "0x10000000")
			handle(t, c, unix.SYS_CLONE, answer(proceed))
			wantOutput(t, c, "errno EPERM\n")
		})
		t.Run("what the start needs", func(t *testing.T) {
			c := a.Command(bounded(t), "true")
			handle(t, c, unix.SYS_CLOSE_RANGE, answer(proceed))
			if err := c.Run(); err == nil || !strings.Contains(err.Error(), "the start itself needs") {
				t.Errorf("a handler of close_range: %v, want an error", err)
			}
		})
	})
}

func TestConfine(t *testing.T) {
	if os.Getenv("SANDLOCK_CONFINE") != "" {
		confined(t)
		return
	}
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		supervised := load(t, b, exectest.Grants{})
		if err := exec.Confine(supervised, exec.ConfineOptions{}); err == nil || !strings.Contains(err.Error(), "limits.processes") {
			t.Errorf("a policy with a supervisor: %v, want an error that names limits.processes", err)
		}
		env := b.In(t).Policy(b.Base(exectest.Grants{More: `program: {no_supervisor: true, env: A: "b", cwd: "/"}`}))
		a, err := exec.Load(env)
		if err != nil {
			t.Fatal(err)
		}
		if err := exec.Confine(a, exec.ConfineOptions{}); err == nil || !strings.Contains(err.Error(), "program.env, program.cwd") {
			t.Errorf("a policy with an environment: %v, want an error that names it", err)
		}
		secret := b.File(b.Outside+"/secret", "S")
		// The test program may hold C code, whose threads are found in /proc.
		artifact := b.In(t).Policy(b.Base(exectest.Grants{Read: []string{"/proc"}, More: `program: no_supervisor: true
			filesystem: proc: "host"
			limits: open_files: 50`}))
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		r := exectest.Run(t, exectest.Opts{
			User: exectest.Self(), Args: []string{self, "-test.run", "^TestConfine$", "-test.v"}, Dir: b.Work,
			Wrap: []string{"/usr/bin/env", "SANDLOCK_CONFINE=" + artifact, "SANDLOCK_SECRET=" + secret},
		})
		if !strings.Contains(r.Stdout, "--- PASS: TestConfine") {
			t.Errorf("confined: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}

// confined runs in a process of its own.
func confined(t *testing.T) {
	secret := os.Getenv("SANDLOCK_SECRET")
	open := func(path string) error {
		f, err := os.Open(path)
		if err == nil {
			f.Close()
		}
		return err
	}
	// A thread that exists before must be confined, too.
	ask, answer := make(chan string), make(chan error)
	go func() {
		for path := range ask {
			answer <- open(path)
		}
	}()
	ask <- secret
	if err := <-answer; err != nil {
		t.Fatalf("before: %v", err)
	}
	a, err := exec.Load(os.Getenv("SANDLOCK_CONFINE"))
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Confine(a, exec.ConfineOptions{}); err != nil {
		t.Fatal(err)
	}
	ask <- secret
	if err := <-answer; err == nil {
		t.Error("another thread still reads what is not granted")
	}
	if err := open(secret); err == nil {
		t.Error("this thread still reads what is not granted")
	}
	if err := open("/etc/passwd"); err != nil {
		t.Errorf("what is granted: %v", err)
	}
	if _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); err != unix.EPERM {
		t.Errorf("a raw socket: %v, want EPERM", err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max != 50 {
		t.Errorf("open files %+v (%v), want 50", limit, err)
	}
	status, _ := os.ReadFile("/proc/self/status")
	if strings.Contains(string(status), "CapEff:") && !strings.Contains(string(status), "CapEff:\t0000000000000000") {
		t.Errorf("capabilities are left:\n%s", status)
	}
}
