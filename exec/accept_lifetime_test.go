package exec_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// mentioning lists the living processes whose command line names a path: executor, keeper and command alike.
func mentioning(path string) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if line, err := os.ReadFile("/proc/" + e.Name() + "/cmdline"); err == nil && bytes.Contains(line, []byte(path)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// wantNobody wants all processes whose command line names a path to be gone within a second.
func wantNobody(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		left := mentioning(path)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			var text []string
			for _, pid := range left {
				status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				first, _, _ := strings.Cut(string(status), "Umask")
				text = append(text, fmt.Sprintf("%d %s %q", pid, strings.TrimSpace(first), line))
			}
			t.Fatalf("a second later there are still: %s", strings.Join(text, "; "))
		}
	}
}

// keeperOf returns the process that keeps the namespaces of a run.
func keeperOf(t *testing.T, executor int) (pid int) {
	t.Helper()
	exectest.Within(t, 20*time.Second, "the keeper", func() bool {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", executor, executor))
		for _, c := range strings.Fields(string(children)) {
			if comm, _ := os.ReadFile("/proc/" + c + "/comm"); string(comm) == "sandlock-init\n" {
				pid, _ = strconv.Atoi(c)
				return true
			}
		}
		return false
	})
	return pid
}

func Test_namespaces_supervisor_8_14_19_end_from_outside(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private("")))
		ready := "until [ -s $FILE ]; do sleep 0.01; done; " // until the daemon is there
		for _, tc := range []struct {
			name    string
			script  string
			signals []syscall.Signal // none: by --timeout
			code    int
		}{
			{"timeout", b.Probe + " heartbeat $FILE 60", nil, 124},
			{"timeout_ignores_sigterm", "trap '' TERM; " + b.Probe + " daemon $FILE 60; sleep 60", nil, 124},
			{"timeout_stopped", b.Probe + " daemon $FILE 60; kill -STOP $$", nil, 124},
			{"sigterm", "setsid " + b.Probe + " heartbeat $FILE 60 & " + ready + "exec sleep 60", []syscall.Signal{syscall.SIGTERM}, 143},
			{"sighup", b.Probe + " daemon $FILE 60; exec sleep 60", []syscall.Signal{syscall.SIGHUP}, 129},
			{"sigint", b.Probe + " daemon $FILE 60 subreaper; exec sleep 60", []syscall.Signal{syscall.SIGINT}, 130},
			{"second_sigint", "trap 'echo once >> $FILE.seen' INT; " + b.Probe + " daemon $FILE 60; while :; do sleep 0.05; done", []syscall.Signal{syscall.SIGINT, syscall.SIGINT}, 137},
			{"caught", "trap 'exit 7' TERM; " + b.Probe + " daemon $FILE 60; while :; do sleep 0.05; done", []syscall.Signal{syscall.SIGTERM}, 7},
		} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel() // they wait for the time to run out
				b := b.In(t)
				file := b.Work + "/" + tc.name + "-" // which is in no other's command line
				o := b.Opts(artifact, "/bin/sh", "-c", strings.ReplaceAll(tc.script, "$FILE", file))
				if tc.signals == nil {
					o.Flags = []string{"--timeout", "1s"}
				}
				p := exectest.Start(t, o)
				readInside(t, file)
				for i, s := range tc.signals {
					if i > 0 {
						exectest.Within(t, 20*time.Second, "the first signal to be seen", func() bool { return exists(file + ".seen") })
					}
					p.Signal(t, s)
				}
				if r := p.Wait(t); r.Code != tc.code {
					t.Errorf("exit %d, want %d\n%s", r.Code, tc.code, r.Stderr)
				}
				wantNobody(t, file)
			})
		}
	})
}

// readInside waits until a process has written its pid, which is one of its namespace.
func readInside(t *testing.T, file string) {
	t.Helper()
	exectest.Within(t, 20*time.Second, "a pid in "+file, func() bool {
		text, _ := os.ReadFile(file)
		return bytes.Contains(text, []byte("\n"))
	})
}

// Escape attempt 30: what leaves its session or parent is ended with the command, and reported.
func Test_namespaces_escape_30_survivors(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private("")))
		for name, script := range map[string]string{
			"none":    ":",
			"daemon":  b.Probe + " daemon $FILE 60",
			"two":     b.Probe + " daemon $FILE 60; " + b.Probe + " daemon $FILE.2 60 subreaper",
			"killed":  b.Probe + " daemon $FILE 60; kill -KILL $$",
			"stopped": b.Probe + " daemon $FILE 60; read pid < $FILE; kill -STOP $pid",
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				file := b.Work + "/" + name
				o := b.Opts(artifact, "/bin/sh", "-c", strings.ReplaceAll(script, "$FILE", file))
				audit := b.File(b.Outside+"/audit-"+name, "")
				o.Flags = []string{"--audit", audit}
				exectest.Run(t, o)
				wantNobody(t, file)
				text, err := os.ReadFile(audit)
				if err != nil {
					t.Fatal(err)
				}
				reported := strings.Contains(string(text), `"killed_descendants":`)
				if reported != (name != "none") {
					t.Errorf("the audit says\n%s", text)
				}
			})
		}
	})
}

// Escape attempt 31: an executor that is killed takes its sandbox along, whatever the command did to be left alone.
func Test_namespaces_escape_31_executor_killed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		daemons := b.Probe + " daemon $FILE 60; " + b.Probe + " daemon $FILE.2 60 subreaper; "
		for name, tc := range map[string]struct{ more, script string }{
			"plain":      {"", daemons + "exec sleep 60"},
			"stopped":    {"", daemons + "kill -STOP $$"},
			"ignoring":   {"", "trap '' TERM HUP INT; " + daemons + "while :; do sleep 1; done"},
			"memory":     {`limits: memory: "512M"`, daemons + "exec sleep 60"},
			"processes":  {"limits: processes: 20", daemons + "while :; do (:); done"},
			"cpu":        {"limits: cpu: 50", daemons + "while :; do :; done"},
			"fake_root":  {"program: {uid: 0, gid: 0}", daemons + "exec sleep 60"},
			"pdeathsig":  {"", daemons + "exec setpriv --pdeathsig clear sleep 60"},
			"notified":   {"rules: [{on: [\"open\", \"execve\"], then: \"audit\"}]", daemons + "while :; do /bin/true; done"},
			"strict":     {"program: strict_lifetime: true", daemons + "exec sleep 60"},
			"with_cover": {fmt.Sprintf("filesystem: deny: [%q]", b.Work+"/missing/deep"), daemons + "exec sleep 60"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := b.In(t)
				file := b.Work + "/" + name
				p := exectest.Start(t, b.Opts(b.Policy(b.Base(private(tc.more))), "/bin/sh", "-c", strings.ReplaceAll(tc.script, "$FILE", file)))
				readInside(t, file+".2")
				if len(mentioning(file)) < 3 {
					t.Errorf("too few processes are found: %v", mentioning(file))
				}
				p.Signal(t, syscall.SIGKILL)
				p.Wait(t)
				wantNobody(t, file)
				if name == "with_cover" {
					wantNoLitter(t, b.Work, "missing")
				}
			})
		}
	})
}

// wantNoLitter wants nothing of that name in a folder: placeholders of paths that are denied and missing.
func wantNoLitter(t *testing.T, dir, name string) {
	t.Helper()
	for end := time.Now().Add(time.Second); exists(filepath.Join(dir, name)); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a second later there is still %s/%s", dir, name)
		}
	}
}

// The executor is killed at any moment of its start. Nothing is left: no process, no mount. A placeholder of a path that is
// denied and missing may be, if the moment is between its making and the keeper's learning of it; the next run with it takes
// it away.
func Test_namespaces_escape_31_executor_killed_at_random(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		before := mountsOf(t)
		artifact := b.Policy(b.Base(private(fmt.Sprintf("filesystem: deny: [%q]", b.Work+"/missing"))))
		whole := time.Minute // how long a start takes here
		for range 3 {
			began := time.Now()
			b.Run(artifact, "/bin/true")
			whole = min(whole, time.Since(began))
		}
		marks := b.Work + "/round-"
		for i := range 50 {
			p := exectest.Start(t, b.Opts(artifact, "/bin/sh", "-c", "sleep 60 & exec sleep 60", marks+strconv.Itoa(i)))
			time.Sleep(rand.N(whole))
			if err := p.Cmd.Process.Kill(); err != nil {
				t.Fatalf("round %d: %v: %+v", i, err, p.Wait(t))
			}
			p.Wait(t)
		}
		wantNobody(t, marks)
		if after := mountsOf(t); after != before {
			t.Errorf("mounts were\n%s, and are\n%s", before, after)
		}
		wantRun(t, b.Run(artifact, "/bin/true"), 0, "")
		wantNoLitter(t, b.Work, "missing")
	})
}

func mountsOf(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return !strings.Contains(l, "sandlock") })
	return strings.Join(lines, "\n")
}

// Orphans become the keeper's, which leaves no zombies.
func Test_namespaces_orphans_are_reaped(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for name, more := range map[string]string{"plain": "", "limited": "limits: processes: 40"} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				mark := b.Work + "/" + name
				script := "i=0; while [ $i -lt 1000 ]; do ( : & ); i=$((i+1)); done; echo done > " + mark + "; exec sleep 60"
				p := exectest.Start(t, b.Opts(b.Policy(b.Base(private(more))), "/bin/sh", "-c", script))
				exectest.Within(t, 50*time.Second, "a thousand orphans", func() bool { return exists(mark) })
				keeper := keeperOf(t, p.Cmd.Process.Pid)
				exectest.Within(t, time.Second, "no child of the keeper", func() bool {
					text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", keeper, keeper))
					return err == nil && len(bytes.TrimSpace(text)) == 0
				})
				p.Signal(t, syscall.SIGTERM)
				if r := p.Wait(t); r.Code != 143 {
					t.Errorf("exit %d\n%s", r.Code, r.Stderr)
				}
			})
		}
	})
}

// The keeper does not count, nor do threads.
func Test_namespaces_supervisor_8_15_16_17_process_limit(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		checkAllowed(t, b, b.Policy(b.Base(private("limits: processes: 3"))), []allowed{
			{"ten_children", []string{"fork-many", "10"}, "value forked=2 refused=map[EAGAIN:8]"},
			{"twenty_in_turn", []string{"fork-wait", "20"}, "ok"},
		})
		checkAllowed(t, b, b.Policy(b.Base(private("limits: processes: 2"))), []allowed{
			{"threads", []string{"threads", "10"}, "value threads=10"},
		})
		one := b.Policy(b.Base(private("limits: processes: 1")))
		checkAllowed(t, b, one, []allowed{{"alone", []string{"fork-many", "2"}, "value forked=0 refused=map[EAGAIN:2]"}})
	})
}

func Test_namespaces_supervisor_8_18_memory_limit(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private(`limits: memory: "256M"`)))
		if got := b.Attempt(artifact, "mem-touch", "400"); got != "signal 9" {
			t.Errorf("%q, want it killed", got)
		}
		if got := b.Attempt(artifact, "mem-touch", "20"); got != "ok" {
			t.Errorf("%q, want ok", got)
		}
	})
}

func Test_namespaces_supervisor_8_12_cpu_limit(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		// However busy the machine is: that makes it take longer alone.
		spin := `
import time
began, used = time.monotonic(), time.process_time()
while time.process_time() - used < 0.2: pass
print((time.monotonic() - began) / 0.2 >= 2.5)`
		wantRun(t, b.Run(b.Policy(b.Base(private("limits: cpu: 25"))), py, "-c", spin), 0, "True")
	})
}

func Test_namespaces_supervisor_8_25_pause(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		file := b.Work + "/beat"
		p := startPausable(t, b, b.Policy(b.Base(private(""))), "/bin/sh", "-c", b.Probe+" daemon "+file+" 60; exec sleep 60")
		readInside(t, file)
		size := func() int64 {
			st, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			return st.Size()
		}
		p.ask("pause")
		at := size()
		time.Sleep(100 * time.Millisecond)
		if now := size(); now != at {
			t.Errorf("it wrote %d bytes while it was paused", now-at)
		}
		p.ask("resume")
		exectest.Within(t, 10*time.Second, "more beats", func() bool { return size() > at })
		p.ask("pause")
		p.Signal(t, syscall.SIGKILL)
		p.Wait(t)
		wantNobody(t, file)
	})
}

// The keeper has its socket, and nothing that was inherited; the command has its three streams.
func Test_namespaces_escape_26_descriptors(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private("")))
		secret, err := os.Open(b.File(b.Outside+"/secret", "S"))
		if err != nil {
			t.Fatal(err)
		}
		defer secret.Close()
		dir, err := os.Open("/")
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		o := b.Opts(artifact, b.Probe, "fds")
		o.Files = []*os.File{secret, dir}
		wantRun(t, exectest.Run(t, o), 0, "value 0 1 2")
		o.Policy = ""
		if got := exectest.Run(t, o).Stdout; !strings.HasPrefix(got, "value 0 1 2 3 4") {
			t.Errorf("outside: %q, want 3 and 4 inherited", got)
		}
		if !exectest.Self().Root() {
			t.Skip("needs root, to look at the keeper")
		}
		o = b.Opts(artifact, "/bin/sh", "-c", "echo $$ > here; exec sleep 60")
		o.Files = []*os.File{secret, dir}
		p := exectest.Start(t, o)
		readInside(t, b.Work+"/here")
		keeper := keeperOf(t, p.Cmd.Process.Pid)
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", keeper))
		if err != nil {
			t.Fatal(err)
		}
		var links []string
		for _, e := range entries {
			link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", keeper, e.Name()))
			links = append(links, link)
		}
		if len(links) != 1 || !strings.HasPrefix(links[0], "socket:") {
			t.Errorf("the keeper has %q, want its socket alone", links)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", keeper))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "NSpid:\t" + strconv.Itoa(keeper) + "\t1\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("the keeper's status lacks %q:\n%s", want, status)
			}
		}
		p.Signal(t, syscall.SIGTERM)
		p.Wait(t)
	})
}

// An executor that is started without standard streams does not take its own descriptors for them.
func Test_namespaces_without_standard_streams(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private("")))
		for name, closing := range map[string]string{"all": "<&- >&- 2>&-", "in": "<&-", "out": ">&-", "err": "2>&-"} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				file := b.Work + "/" + name
				o := b.Opts(artifact, "/bin/sh", "-c", "ls -l /proc/self/fd > "+file+" 2>/dev/null; exit 3")
				o.Wrap = []string{"/bin/sh", "-c", `"$@" ` + closing, "sh"}
				r := exectest.Run(t, o)
				text, err := os.ReadFile(file)
				if r.Code != 3 || err != nil || strings.Contains(string(text), ".sbx") || strings.Contains(string(text), "socket:") || strings.Contains(string(text), "mnt:[") {
					t.Errorf("exit %d: %v\n%s\n%s", r.Code, err, text, r.Stderr)
				}
			})
		}
	})
}

// Programs start several sandboxes with namespaces at once, wait for them in any order, and park them.
func Test_namespaces_in_a_program(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		a := load(t, b, private(""))
		t.Run("several", func(t *testing.T) {
			long := a.Command(bounded(t), "/bin/sh", "-c", "(setsid sleep 300 &); echo $$; read line; echo $line")
			in, err := long.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			long.Stdout = &out
			if err := long.Start(); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for range 4 {
						wantOutput(t, a.Command(bounded(t), "/bin/sh", "-c", fmt.Sprintf("(sleep 300 &); echo %d $$ | cat", i)), fmt.Sprintf("%d 2\n", i))
					}
				}()
			}
			wg.Wait()
			if _, err := in.Write([]byte("still here\n")); err != nil {
				t.Errorf("the long one: %v", err)
			}
			if err := long.Wait(); err != nil || out.String() != "2\nstill here\n" {
				t.Errorf("the long one: %v, %q", err, out.String())
			}
			if s, _ := long.Status(); s.Detached != 1 {
				t.Errorf("%d detached processes, want 1", s.Detached)
			}
		})
		t.Run("parked", func(t *testing.T) {
			mark := b.Work + "/mark"
			c := a.Command(bounded(t), "/bin/sh", "-c", "echo ran >> "+mark)
			if err := c.Create(); err != nil {
				t.Fatal(err)
			}
			if exists(mark) {
				t.Error("the command ran before Start")
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
			c = a.Command(bounded(t), "/bin/sh", "-c", "echo ran >> "+mark)
			if err := c.Create(); err != nil {
				t.Fatal(err)
			}
			if err := c.Kill(); err != nil {
				t.Error(err)
			}
			if err := c.Wait(); err == nil {
				t.Error("a command that was killed before it ran succeeded")
			}
			if text, _ := os.ReadFile(mark); string(text) != "ran\n" {
				t.Errorf("mark holds %q", text)
			}
		})
		t.Run("nothing_is_left", func(t *testing.T) {
			var left []string
			for _, pid := range mentioning("sandlock-init") {
				left = append(left, strconv.Itoa(pid))
			}
			children, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range strings.Fields(string(children)) {
				if comm, _ := os.ReadFile("/proc/" + c + "/comm"); string(comm) == "sandlock-init\n" {
					left = append(left, c)
				}
			}
			if len(left) > 0 {
				t.Errorf("keepers are left: %v", left)
			}
		})
	})
}
