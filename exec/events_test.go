package exec_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Numbers 45, 49 to 51, 53 and 54 of the acceptance list, for a callback in the program.
func TestCmdOnEvent(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		file := b.File(b.Work+"/file", "content\n")
		a := load(t, b, exectest.Grants{More: `rules: [{on: ["process", "file"], then: "audit"}]`})
		run := func(t *testing.T, decide func(exec.Event) exec.Outcome, args ...string) (seen []exec.Event, out string, err error) {
			t.Helper()
			var mu sync.Mutex
			c := a.Command(bounded(t), args[0], args[1:]...)
			if err := c.OnEvent(func(e exec.Event) exec.Outcome {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, e)
				return decide(e)
			}); err != nil {
				t.Fatal(err)
			}
			text, err := c.Output()
			return seen, string(text), err
		}
		agree := func(exec.Event) exec.Outcome { return exec.Outcome{} }

		t.Run("supervisor_8_45_49_sees", func(t *testing.T) {
			seen, out, err := run(t, agree, "/bin/sh", "-c", "/bin/cat "+file+"; echo done")
			if err != nil || out != "content\ndone\n" {
				t.Errorf("%q, %v", out, err)
			}
			calls := map[string]bool{}
			for _, e := range seen {
				calls[e.Syscall] = true
				if e.Syscall == "execve" && e.Parent <= 0 {
					t.Errorf("an execve without parent: %+v", e)
				}
			}
			if !calls["execve"] || !calls["openat"] || !(calls["clone"] || calls["vfork"] || calls["fork"]) {
				t.Errorf("calls seen: %v", calls)
			}
			if !slices.ContainsFunc(seen, func(e exec.Event) bool { return slices.Contains(e.Argv, file) && strings.HasSuffix(e.Program, "/cat") }) {
				t.Errorf("no execve of cat with its argument among %+v", seen)
			}
		})
		t.Run("supervisor_8_51_denies_a_program", func(t *testing.T) {
			_, out, err := run(t, func(e exec.Event) exec.Outcome {
				if slices.Contains(e.Argv, "malicious") {
					return exec.Deny(unix.EACCES)
				}
				return exec.Outcome{}
			}, "/bin/sh", "-c", "/bin/echo fine; /bin/echo malicious || echo refused")
			if err != nil || out != "fine\nrefused\n" {
				t.Errorf("%q, %v", out, err)
			}
		})
		t.Run("denies_a_file", func(t *testing.T) {
			_, out, err := run(t, func(e exec.Event) exec.Outcome {
				if slices.Contains(e.Paths, file) {
					return exec.Deny(unix.EPERM)
				}
				return exec.Outcome{}
			}, b.Probe, "openat", file, "r")
			if err != nil || out != "errno EPERM\n" {
				t.Errorf("%q, %v", out, err)
			}
			if _, out, err := run(t, agree, b.Probe, "openat", file, "r"); err != nil || out != "ok\n" {
				t.Errorf("without objection: %q, %v", out, err)
			}
		})
		t.Run("supervisor_8_46_52_55_denies_a_connection", func(t *testing.T) {
			l := listen(t, "tcp4", "127.0.0.1:0")
			a := load(t, b, exectest.Grants{More: `rules: [{on: ["connect"], then: "audit"}]` + "\nnetwork: allow: [\"tcp://*:" + port(l) + "\"]"})
			for want, errno := range map[string]unix.Errno{"ok\n": 0, "errno EHOSTUNREACH\n": unix.EHOSTUNREACH, "errno EPERM\n": unix.EPERM, "errno EACCES\n": unix.EACCES} {
				c := a.Command(bounded(t), b.Probe, "connect", l.Addr().String(), stream, "0")
				if err := c.OnEvent(func(e exec.Event) exec.Outcome {
					if errno != 0 && e.Syscall == "connect" && e.Address == "tcp "+l.Addr().String() {
						return exec.Deny(errno)
					}
					return exec.Outcome{}
				}); err != nil {
					t.Fatal(err)
				}
				if out, err := c.Output(); err != nil || string(out) != want {
					t.Errorf("%q, %v, want %q", out, err, want)
				}
			}
		})
		t.Run("supervisor_8_63_denies_a_datagram", func(t *testing.T) {
			to := newSink(t, "udp4", "127.0.0.1:0")
			a := load(t, b, exectest.Grants{More: `rules: [{on: ["sendto"], then: "audit"}]` + "\nnetwork: allow: [\"udp://" + to.LocalAddr().String() + "\"]"})
			for _, call := range []string{"send", "sendmsg", "sendmmsg"} {
				for _, want := range []string{"ok\n", "errno EPERM\n"} {
					c := a.Command(bounded(t), b.Probe, call, to.LocalAddr().String(), datagram, "0", "0")
					if err := c.OnEvent(func(e exec.Event) exec.Outcome {
						if want != "ok\n" && e.Syscall == strings.Replace(call, "send", "sendto", len("send")/len(call)) && e.Address == "udp "+to.LocalAddr().String() {
							return exec.Deny(unix.EPERM)
						}
						return exec.Outcome{}
					}); err != nil {
						t.Fatal(err)
					}
					if out, err := c.Output(); err != nil || string(out) != want {
						t.Errorf("%s: %q, %v, want %q", call, out, err, want)
					}
				}
			}
			if n := to.seen(t); n != 3 {
				t.Errorf("%d datagrams have arrived, want 3", n)
			}
		})
		t.Run("kills", func(t *testing.T) {
			_, out, err := run(t, func(e exec.Event) exec.Outcome {
				if slices.Contains(e.Argv, "worst") {
					return exec.KillProcess()
				}
				return exec.Outcome{}
			}, "/bin/sh", "-c", "(exec /bin/echo worst); echo $?")
			if err != nil || out != "137\n" {
				t.Errorf("%q, %v", out, err)
			}
		})
		t.Run("kills for a file", func(t *testing.T) {
			_, out, err := run(t, func(e exec.Event) exec.Outcome {
				if slices.Contains(e.Paths, file) {
					return exec.KillProcess()
				}
				return exec.Outcome{}
			}, "/bin/sh", "-c", "("+b.Probe+" openat "+file+" r); echo $?")
			if err != nil || out != "137\n" {
				t.Errorf("%q, %v", out, err)
			}
		})
		t.Run("panics", func(t *testing.T) {
			_, out, err := run(t, func(e exec.Event) exec.Outcome {
				if slices.Contains(e.Argv, "boom") {
					panic("boom")
				}
				return exec.Outcome{}
			}, "/bin/sh", "-c", "/bin/echo boom || echo refused")
			if err != nil || out != "refused\n" {
				t.Errorf("%q, %v", out, err)
			}
		})
		t.Run("umask", func(t *testing.T) {
			before := unix.Umask(0o27)
			defer unix.Umask(before)
			a := load(t, b, exectest.Grants{More: `rules: [{on: ["open"], if: path: "/no/such/**", then: "deny"}]`})
			c := a.Command(bounded(t), "/bin/sh", "-c", "umask 077; echo x >made; stat -c %a made; umask 0; echo x >open; stat -c %a open")
			c.Dir = b.Work
			wantOutput(t, c, "600\n666\n")
			if now := unix.Umask(0o27); now != 0o27 {
				t.Errorf("the program's own umask is %#o now", now)
			}
		})
		t.Run("no rules", func(t *testing.T) {
			if err := load(t, b, exectest.Grants{}).Command(bounded(t), "true").OnEvent(agree); err == nil {
				t.Error("a policy without rules takes a callback that is never called")
			}
		})
	})
}

// Numbers 56 and 61: file events are seen with their paths, and an audit lets them happen.
func TestCmdFileEvents(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		a := load(t, b, exectest.Grants{More: `rules: [{on: ["file"], then: "audit"}]`})
		var mu sync.Mutex
		seen := map[string][]string{}
		c := a.Command(bounded(t), "/bin/sh", "-c", "mkdir d && mv d e && rmdir e && mkfifo f && read line </etc/passwd; echo done")
		c.Dir = b.Work
		if err := c.OnEvent(func(e exec.Event) exec.Outcome {
			mu.Lock()
			defer mu.Unlock()
			for _, path := range e.Paths {
				seen[strings.TrimPrefix(path, b.Work+"/")] = append(seen[strings.TrimPrefix(path, b.Work+"/")], e.Syscall)
			}
			return exec.Outcome{}
		}); err != nil {
			t.Fatal(err)
		}
		wantOutput(t, c, "done\n")
		for path, calls := range map[string]string{"d": "mkdir", "e": "rename", "f": "mknod", "/etc/passwd": "open"} {
			if !slices.ContainsFunc(seen[path], func(call string) bool { return strings.HasPrefix(call, calls) }) {
				t.Errorf("%s: calls %q, want %s", path, seen[path], calls)
			}
		}
		if !slices.ContainsFunc(seen["e"], func(call string) bool { return call == "rmdir" || call == "unlinkat" }) {
			t.Errorf("e: calls %q, want its removal", seen["e"])
		}
	})
}

// Number 62: a rule about opens holds for openat2, too.
func Test_supervisor_8_62_openat2(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		file := b.File(b.Dir("read-only")+"/file", "x")
		plain := fmt.Sprintf("filesystem: read: [\"/usr\", \"/lib\", \"/bin\", {path: \"/lib64\", optional: true}, %q, %q]\n", filepath.Dir(b.Probe), filepath.Dir(file))
		if got := b.Attempt(b.Policy(plain), "openat2", file, "r", "0"); got != "ok" {
			t.Errorf("without the rule: %q", got)
		}
		denied := b.Policy(plain + fmt.Sprintf("rules: [{on: [\"open\"], if: path: %q, then: \"deny\"}]\n", file))
		for _, call := range [][]string{{"openat2", file, "r", "0"}, {"openat", file, "r"}} {
			if got := b.Attempt(denied, call...); got != "errno EPERM" {
				t.Errorf("%s: %q, want errno EPERM", call[0], got)
			}
		}
	})
}

// Number 58: the limit is lowered by the rule, before the program runs.
func Test_supervisor_8_58_restrict_memory(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := `print("started", flush=True); b = bytearray(128 << 20); print("allocated")`
		restricted := b.Policy(b.Base(exectest.Grants{More: `limits: memory: "256M"
			rules: [{on: ["execve"], do: [{restrict_memory: "64M"}]}]`}))
		r := b.Run(restricted, python(t), "-c", script)
		if r.Code != 137 || strings.TrimSpace(r.Stdout) != "started" {
			t.Errorf("restricted: exit %d, %q, want 137 after the start\n%s", r.Code, r.Stdout, r.Stderr)
		}
		free := b.Policy(b.Base(exectest.Grants{More: `limits: memory: "256M"`}))
		wantRun(t, b.Run(free, python(t), "-c", script), 0, "started\nallocated")
	})
}
