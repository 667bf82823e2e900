package exec_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Numbers supervisor 104 and network 70: a sandbox without a supervisor can hold one with, and the inner one narrows.
func Test_supervisor_8_104_nesting(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		reach := exectest.Grants{
			Read: []string{filepath.Dir(exectest.Executor(t)), filepath.Dir(b.Work), "/proc"},
			More: "filesystem: proc: \"host\"\n",
		}
		outer := reach
		outer.More += "program: no_supervisor: true\n"
		inPlace := b.Policy(b.Base(outer))
		supervised := b.Policy(b.Base(reach))
		plain := fmt.Sprintf("filesystem: read: [\"/usr\", \"/lib\", \"/bin\", {path: \"/lib64\", optional: true}%s]\n", "%s")
		withoutEtc := b.Policy(fmt.Sprintf(plain, ""))
		withEtc := b.Policy(fmt.Sprintf(plain, ", \"/etc\""))

		inner := func(artifact string, args ...string) []string {
			return append([]string{exectest.Executor(t), "-q", artifact, "--"}, args...)
		}
		t.Run("inner narrows", func(t *testing.T) {
			b := b.In(t)
			wantFailure(t, b.Run(inPlace, inner(withoutEtc, "/bin/cat", "/etc/group")...), "Permission denied")
			if r := b.Run(inPlace, "/bin/cat", "/etc/group"); r.Code != 0 {
				t.Errorf("the outer one alone: exit %d, %s", r.Code, r.Stderr)
			}
		})
		t.Run("inner allows", func(t *testing.T) {
			b := b.In(t)
			wantRun(t, b.Run(inPlace, inner(withEtc, "/bin/sh", "-c", "grep -q root /etc/group && echo nested-ok")...), 0, "nested-ok")
		})
		t.Run("outer stays in force", func(t *testing.T) {
			b := b.In(t)
			secret := b.File(filepath.Join(b.Dir("hidden"), "secret"), "x")
			all := b.Policy("filesystem: {read: [\"/\"], proc: \"host\"}\n")
			if r := b.Run(all, "/bin/cat", secret); r.Code != 0 {
				t.Fatalf("the inner one alone: exit %d, %s", r.Code, r.Stderr)
			}
			narrow := b.Policy(b.Base(exectest.Grants{
				Read: []string{filepath.Dir(exectest.Executor(t)), filepath.Dir(all) + "/" + filepath.Base(all), "/proc"},
				More: "filesystem: proc: \"host\"\nprogram: no_supervisor: true\n",
			}))
			r := b.Run(narrow, inner(all, "/bin/cat", secret)...)
			if r.Code == 0 || strings.Contains(r.Stdout, "x") {
				t.Errorf("a nested policy widened the outer one: exit %d, %q", r.Code, r.Stdout)
			}
		})
		t.Run("two supervisors", func(t *testing.T) {
			b := b.In(t)
			r := b.Run(supervised, inner(withEtc, "/bin/true")...)
			if r.Code != 125 || !strings.Contains(r.Stderr, "--no-supervisor") {
				t.Errorf("exit %d, %q; want 125 and how to nest", r.Code, r.Stderr)
			}
		})
	})
}

// Number 104b: two sandboxes of one starter do not know of each other.
func Test_supervisor_8_104b_one_after_the_other(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		with := b.Policy(b.Base(exectest.Grants{}))
		without := b.Policy("filesystem: read: [\"/usr\", \"/lib\", \"/bin\", {path: \"/lib64\", optional: true}]\n")
		script := fmt.Sprintf("%[1]s -q %[2]s -- cat /etc/group >/dev/null; echo $?; %[1]s -q %[3]s -- cat /etc/group >/dev/null; echo $?",
			exectest.Executor(t), with, without)
		r := exectest.Run(t, exectest.Opts{User: u, Args: []string{"/bin/sh", "-c", script}})
		if got := strings.Fields(r.Stdout); len(got) != 2 || got[0] != "0" || got[1] != "1" {
			t.Errorf("exit codes %q, want 0 and 1\n%s", got, r.Stderr)
		}
	})
}

// Number network 71: without a supervisor nothing that needs one is quietly dropped, and what does not is enforced.
func Test_network_6_71_in_place(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		r, _ := b.Compile(b.Base(exectest.Grants{More: "program: no_supervisor: true\nlimits: {processes: 5, time: \"1s\"}\n"}))
		for _, field := range []string{"limits.processes", "limits.time"} {
			if r.Code != 2 || !strings.Contains(r.Stderr, field) {
				t.Errorf("compile: exit %d, %q; want 2 and %s named", r.Code, r.Stderr, field)
			}
		}
		artifact := b.Policy(b.Base(exectest.Grants{More: "program: no_supervisor: true\n"}))
		wantRun(t, b.Run(artifact, "/bin/echo", "ran"), 0, "ran")
		for _, args := range [][]string{
			{"openat", b.File(b.Outside+"/secret", "S"), "r"}, {"call", "chmod", "s:" + b.Outside + "/secret", "0600"},
		} {
			if got := b.Attempt(artifact, args...); !refusedAs(got, refused) {
				t.Errorf("%q: %q, want it refused", args, got)
			}
			if got := b.Control(args...); got != "ok" {
				t.Errorf("%q outside: %q, want ok", args, got)
			}
		}
	})
}

// Number network 68: a policy that may lose every protection still runs.
func Test_network_6_68_everything_degradable(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{More: `protections: {
	fs_refer: "degrade", fs_truncate: "degrade", fs_ioctl_dev: "degrade"
	net_tcp: "degrade", signal_scope: "degrade", abstract_unix_scope: "degrade"
}
`}))
		wantRun(t, b.Run(artifact, "/bin/echo", "ok"), 0, "ok")
	})
}

// A policy for a newer Landlock than this kernel's refuses to start and says what is missing, unless it may degrade.
func Test_newer_landlock_than_the_kernel(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		r := b.Run(b.Policy(b.Base(exectest.Grants{More: "target: landlock: 11\n"})), "/bin/true")
		if r.Code == 0 {
			t.Skip("this kernel has Landlock ABI 11")
		}
		if r.Code != 125 || !strings.Contains(r.Stderr, "landlock") || !strings.Contains(r.Stderr, "ABI") {
			t.Errorf("exit %d, %q; want 125 and the missing ABI", r.Code, r.Stderr)
		}
		degrade := b.Policy(b.Base(exectest.Grants{More: "target: landlock: 11\nprotections: {unix_path: \"degrade\", net_udp: \"degrade\"}\n"}))
		wantRun(t, b.Run(degrade, "/bin/echo", "ok"), 0, "ok")
	})
}
