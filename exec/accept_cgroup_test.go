package exec_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sandlock "github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/cgroup"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

// runner is the group beneath a delegated one that tests start executors in: an ordinary user can start processes in a
// group only from within the part of the hierarchy that is his.
const runner = "/runner"

// delegated makes a control group and gives it to a user, as a service manager does, with a runner. It skips the test where the machine
// has none to give; scripts/vm-test.sh has a machine that does.
func delegated(t *testing.T, u exectest.User) string {
	t.Helper()
	if !exectest.Self().Root() {
		t.Skip("needs root, to delegate a control group")
	}
	points, err := cgroup.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range points {
		enabled, _ := os.ReadFile(filepath.Join(root, "cgroup.subtree_control"))
		if text := fmt.Sprintf(" %s ", strings.TrimSpace(string(enabled))); !strings.Contains(text, " memory ") || !strings.Contains(text, " cpu ") {
			continue
		}
		dir, err := os.MkdirTemp(root, "sandlock-test-")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir+runner, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", runner, runner + "/cgroup.procs"} {
			if err := os.Chown(filepath.Join(dir, name), u.UID, u.GID); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			left, _ := filepath.Glob(dir + "/sandlock-[0-9]*")
			if len(left) > 0 {
				t.Errorf("groups are left: %q", left)
			}
			for _, d := range append(left, dir+"/sandlock-executor", dir+runner, dir) {
				if err := os.Remove(d); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Error(err)
				}
			}
		})
		return dir
	}
	t.Skipf("needs a cgroup v2 hierarchy whose root passes memory and cpu on (mounted: %q)", points)
	return ""
}

func inGroups(limits string) exectest.Grants {
	return exectest.Grants{Write: []string{"/dev/zero"}, More: "limits: {backend: \"cgroup\", " + limits + "}"}
}

func Test_cgroup_memory(t *testing.T) {
	py := python(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		group := delegated(t, u)
		b := exectest.NewBox(t, u)
		limited := b.Policy(b.Base(inGroups(`memory: "64M"`)))
		run := func(t *testing.T, artifact string, flags []string, args ...string) exectest.Result {
			o := b.Opts(artifact, args...)
			o.Cgroup, o.Flags = group+runner, append([]string{"--cgroup", group}, flags...)
			return exectest.Run(t, o)
		}
		script := "data = bytearray(200 << 20); print('allocated')"
		t.Run("killed", func(t *testing.T) {
			log := b.File(b.Work+"/../audit", "")
			wantMemoryKill(t, run(t, limited, []string{"--audit", log}, py, "-c", script), "64M")
			lines, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{`"event":"limit"`, `"rule":"limits.memory"`, `"verdict":"SIGKILL"`, ".cue:"} {
				if !strings.Contains(string(lines), want) {
					t.Errorf("the audit file has no %s:\n%s", want, lines)
				}
			}
		})
		t.Run("enough", func(t *testing.T) {
			wantRun(t, run(t, b.Policy(b.Base(inGroups(`memory: "512M"`))), nil, py, "-c", script), 0, "allocated")
		})
		t.Run("others_go_on", func(t *testing.T) {
			r := run(t, limited, nil, "/bin/sh", "-c", py+" -c 'bytearray(200 << 20)'; echo $?")
			wantRun(t, r, 0, "137")
			if want := "the sandbox reached limits.memory (64M): 1 of its processes were killed"; !strings.Contains(r.Stderr, want) {
				t.Errorf("stderr %q, want %q", r.Stderr, want)
			}
		})
		t.Run("killed_by_hand", func(t *testing.T) {
			r := run(t, limited, nil, "/bin/sh", "-c", "kill -9 $$")
			if r.Code != killedCode || strings.Contains(r.Stderr, "limits.memory") {
				t.Errorf("exit %d, want %d and no word of the limit\n%s", r.Code, killedCode, r.Stderr)
			}
		})
		t.Run("seen", func(t *testing.T) {
			if r := run(t, limited, nil, b.Probe, "mem-sysinfo"); r.Stdout != "value total=67108864 swap=0\n" {
				t.Errorf("%q\n%s", r.Stdout, r.Stderr)
			}
		})
		t.Run("lowered", func(t *testing.T) {
			lowers := b.Policy(b.Base(inGroups(`memory: "512M"`)) + "rules: [{on: [\"execve\"], if: argv_contains: \"narrow\", do: [{restrict_memory: \"64M\"}]}]\n")
			wantRun(t, run(t, lowers, nil, py, "-c", script), 0, "allocated")
			r := run(t, lowers, nil, py, "-c", script, "narrow")
			if r.Code != killedCode || r.Stdout != "" {
				t.Errorf("exit %d, printed %q, want a kill\n%s", r.Code, r.Stdout, r.Stderr)
			}
		})
		t.Run("no_command", func(t *testing.T) {
			if r := run(t, limited, nil, "no-such-command"); r.Code != 127 {
				t.Errorf("exit %d, want 127\n%s", r.Code, r.Stderr)
			}
		})
		for _, args := range [][]string{
			{"mem-touch", "200"}, {"mem-readonly", "20", "10"}, {"mem-memfd", "200", "1", "keep"}, {"mem-memfd", "40", "5", "hide"},
			{"mem-leaderless", "200"},
		} {
			t.Run("escape_34_"+strings.Join(args, "_"), func(t *testing.T) {
				wantMemoryKill(t, run(t, limited, nil, append([]string{b.Probe}, args...)...), "64M")
				if got := b.In(t).Control(args...); got != "ok" {
					t.Errorf("outside: %q, want ok", got)
				}
			})
		}
		t.Run("huge_pages", func(t *testing.T) {
			r := run(t, limited, nil, b.Probe, "call", "mmap", "0", "0x200000", "3", "0x40022", "-1", "0")
			if r.Stdout != "errno EPERM\n" {
				t.Errorf("%q, want EPERM\n%s", r.Stdout, r.Stderr)
			}
		})
	})
}

func Test_cgroup_cpu_share(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		group := delegated(t, u)
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(inGroups("cpu: 10")))
		for _, attempt := range []string{"burn-loop", "burn-pair", "burn-session", "burn-discarded", "burn-continued"} {
			t.Run(attempt, func(t *testing.T) {
				o := b.Opts(artifact, b.Probe, attempt, "1000")
				o.Cgroup, o.Flags = group+runner, []string{"--cgroup", group}
				r := exectest.Run(t, o)
				inside := share(t, r.Stdout)
				if outside := share(t, b.In(t).Control(attempt, "200")); inside > 0.3 || inside > outside {
					t.Errorf("%.0f %% of a core inside and %.0f %% outside, want 10 %%\n%s", inside*100, outside*100, r.Stderr)
				}
			})
		}
	})
}

// Attempt to lift the limits: the files of a group belong to the user that the command runs as.
func Test_escape_cgroup(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		group := delegated(t, u)
		b := exectest.NewBox(t, u)
		run := func(t *testing.T, g exectest.Grants, args ...string) exectest.Result {
			o := b.Opts(b.Policy(b.Base(g)), args...)
			o.Cgroup, o.Flags = group+runner, []string{"--cgroup", group}
			return exectest.Run(t, o)
		}
		readable := inGroups(`memory: "64M"`)
		readable.Read, readable.Write = []string{"/sys", "/proc"}, []string{"/dev/null"}
		readable.More += "\nfilesystem: proc: \"host\""
		script := `cd /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup) && cat memory.max
(echo max >memory.max) 2>/dev/null && echo lifted
(echo $$ >../runner/cgroup.procs) 2>/dev/null && echo moved
mkdir inner 2>/dev/null && echo nested
rmdir ../idle 2>/dev/null && echo removed
cat memory.max`
		wantRun(t, exectest.Run(t, b.Opts("", "/bin/mkdir", group+"/idle")), 0, "")
		wantRun(t, run(t, readable, "/bin/sh", "-c", script), 0, "67108864\n67108864")
		control := b.Opts("", "/bin/sh", "-c", `mkdir "$0/control" && echo 1000000 >"$0/control/memory.max" && echo $$ >"$0/control/cgroup.procs" &&
	echo $$ >"$0/runner/cgroup.procs" && rmdir "$0/control" "$0/idle" && echo changed`, group)
		control.Cgroup = group + runner
		wantRun(t, exectest.Run(t, control), 0, "changed")
		for _, path := range []string{"/sys", filepath.Dir(group), group} {
			writable := inGroups(`memory: "64M"`)
			writable.Write = []string{path}
			r := run(t, writable, "/bin/true")
			if want := "holds control groups, which the policy lets the command write"; r.Code != 125 || !strings.Contains(r.Stderr, want) {
				t.Errorf("write %s: exit %d, want 125 and %q\n%s", path, r.Code, want, r.Stderr)
			}
		}
	})
}

// Without --cgroup it is the group that the executor was started in, which it then leaves for a leaf.
func Test_cgroup_of_the_executor(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		group := delegated(t, u)
		b := exectest.NewBox(t, u)
		g := inGroups(`memory: "64M", cpu: 50`)
		g.Read = []string{"/proc"}
		g.More += "\nfilesystem: proc: \"host\""
		o := b.Opts(b.Policy(b.Base(g)), "/bin/sh", "-c", "cat /proc/self/cgroup; cat /proc/$PPID/cgroup")
		o.Cgroup = group
		r := exectest.Run(t, o)
		if name := filepath.Base(group); r.Code != 0 || !strings.Contains(r.Stdout, name+"/sandlock-") || !strings.Contains(r.Stdout, name+"/sandlock-executor\n") {
			t.Errorf("exit %d, printed %q\n%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}

func Test_cgroup_that_others_are_in(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		group := delegated(t, u)
		b := exectest.NewBox(t, u)
		o := b.Opts("", "/bin/sleep", "60")
		o.Cgroup = group
		other := exectest.Start(t, o)
		o = b.Opts(b.Policy(b.Base(inGroups(`memory: "64M"`))), "/bin/true")
		o.Cgroup = group
		r := exectest.Run(t, o)
		if want := "holds 1 other processes"; r.Code != 125 || !strings.Contains(r.Stderr, want) {
			t.Errorf("exit %d, want 125 and %q\n%s", r.Code, want, r.Stderr)
		}
		_ = other.Cmd.Process.Kill()
		other.Wait(t)
	})
}

// A controller that is taken away while the command runs would lift the limit.
func Test_cgroup_revoked(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		group := delegated(t, u)
		b := exectest.NewBox(t, u)
		o := b.Opts(b.Policy(b.Base(inGroups(`memory: "64M"`))), "/bin/sh", "-c", "echo started >started; exec sleep 60")
		o.Cgroup, o.Flags = group+runner, []string{"--cgroup", group}
		p := exectest.Start(t, o)
		exectest.Within(t, 30*time.Second, "start", func() bool {
			_, err := os.Stat(b.Work + "/started")
			return err == nil
		})
		if err := os.WriteFile(group+"/cgroup.subtree_control", []byte("-memory"), 0); err != nil {
			t.Fatal(err)
		}
		if r, want := p.Wait(t), "the limit of the control group is gone"; r.Code != 125 || !strings.Contains(r.Stderr, want) {
			t.Errorf("exit %d, want 125 and %q\n%s", r.Code, want, r.Stderr)
		}
	})
}

func Test_cgroup_in_a_program(t *testing.T) {
	group := delegated(t, exectest.Self())
	b := exectest.NewBox(t, exectest.Self())
	a, err := sandlock.Load(b.Policy(b.Base(inGroups(`memory: "64M"`))))
	if err != nil {
		t.Fatal(err)
	}
	cmd := a.Command(context.Background(), b.Probe, "mem-touch", "200")
	cmd.Cgroup = group
	var exit *sandlock.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.Error() != "killed: limits.memory (64M)" {
		t.Errorf("%v, want a kill for the limit", err)
	}
}

// Whatever the machine offers: a policy that asks for control groups does not start without.
func Test_cgroup_refused(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		o := b.Opts(b.Policy(b.Base(inGroups(`memory: "64M", cpu: 50`))), "/bin/true")
		o.Flags = []string{"--cgroup", b.Work}
		r := exectest.Run(t, o)
		for _, want := range []string{
			"needs cgroup-memory (for limits.backend, limits.memory): " + b.Work + " is no directory of a cgroup v2 hierarchy",
			"needs cgroup-cpu (for limits.backend, limits.cpu): ",
		} {
			if r.Code != 125 || !strings.Contains(r.Stderr, want) {
				t.Errorf("exit %d, want 125 and %q\n%s", r.Code, want, r.Stderr)
			}
		}
	})
}
