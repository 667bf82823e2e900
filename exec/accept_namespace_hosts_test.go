package exec_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// A host that makes no user namespaces refuses, and says what forbids them; what needs none works there.
func Test_namespaces_refused_by_the_host(t *testing.T) {
	exectest.WithoutNamespaces(t, func(t *testing.T, b *exectest.Box) {
		for field, g := range map[string]exectest.Grants{
			"filesystem.proc":         private(""),
			"filesystem.tmp":          {More: "filesystem: tmp: \"private\"\n"},
			"program.strict_lifetime": {More: "program: strict_lifetime: true\n"},
			"filesystem.deny":         {More: fmt.Sprintf("filesystem: deny: [%q]\n", b.Work+"/x")},
		} {
			wantRefusal(t, b.Sh(b.Policy(b.Base(g)), "echo ran"), field)
			if exists(b.Work + "/x") {
				t.Error("a placeholder is left")
			}
		}
		// What "auto" decides is decided when it is compiled: this needs an own /proc, and must not run without.
		wantRefusal(t, b.Sh(b.Policy(b.Base(exectest.Grants{Read: []string{"/proc"}})), "echo ran"), "filesystem.proc")
		wantRun(t, b.Sh(b.Policy(b.Base(exectest.Grants{})), "echo ran"), 0, "ran")
	})
}

// Where parts of /proc are covered, no user namespace gets a new one (mount_too_revealing): "auto" takes the host's and says
// so, "private" does not start.
func Test_namespaces_with_a_masked_proc(t *testing.T) {
	exectest.MaskedProc.In(t, func(t *testing.T, b *exectest.Box) {
		auto := b.Policy(b.Base(exectest.Grants{Read: []string{"/proc"}}))
		strict := b.Policy(b.Base(private("")))
		show := "echo /proc/[0-9]*; echo $$"
		r, s := b.Sh(auto, show), b.Sh(strict, show)
		if b.User.Root() {
			wantRun(t, r, 0, "/proc/2\n2")
			wantRun(t, s, 0, "/proc/2\n2")
			fake := b.Policy(b.Base(private(ids(0, 0))))
			wantRun(t, b.Sh(fake, show), 0, "/proc/2\n2") // the ids are its own
			r, s = b.Sh(b.Policy(b.Base(exectest.Grants{Read: []string{"/proc"}, More: ids(1000, 1000)})), show), b.Sh(b.Policy(b.Base(private(ids(1000, 1000)))), show)
		}
		if r.Code != 0 || !strings.Contains(r.Stderr, "filesystem.proc: this host refuses an own /proc") || !strings.HasSuffix(r.Stdout, "\n2\n") || strings.HasPrefix(r.Stdout, "/proc/2\n") {
			t.Errorf("auto: exit %d, %q, %q; want the host's /proc, and to be told", r.Code, r.Stdout, r.Stderr)
		}
		if s.Code != 125 || s.Stdout != "" || !strings.Contains(s.Stderr, "/proc") {
			t.Errorf("private: exit %d, %q, %q", s.Code, s.Stdout, s.Stderr)
		}
		// The rest is as it is elsewhere, and the host's processes are out of reach although they are to be seen.
		if got := b.Attempt(auto, "caps"); got != "value effective=0 permitted=0 inheritable=0 bounding=0 ambient=0" {
			t.Errorf("capabilities: %q", got)
		}
		for _, file := range []string{"environ", "mem", "maps", "fd", "root", "cwd", "exe"} {
			if got := b.Attempt(auto, "openat", "/proc/1/"+file, "r"); !refusedAs(got, hiddenProc) {
				t.Errorf("/proc/1/%s: %q", file, got)
			}
		}
		wantRun(t, b.Sh(auto, "for f in kcore keys kallsyms; do cat /proc/$f; done 2>/dev/null; echo end"), 0, "end")
	})
}

// Beneath another's user namespace all works: ids, an own /proc, limits.
func Test_namespaces_in_unshare_Ur(t *testing.T) {
	exectest.UnshareUr.In(t, func(t *testing.T, b *exectest.Box) {
		artifact := b.Policy(b.Base(private("limits: processes: 5")))
		wantRun(t, b.Sh(artifact, "echo /proc/[0-9]*; id -u; (sleep 60 &)"), 0, "/proc/2\n0")
		if got := b.Attempt(artifact, "caps"); got != "value effective=0 permitted=0 inheritable=0 bounding=0 ambient=0" {
			t.Errorf("capabilities: %q", got)
		}
		if got := b.Control("caps"); strings.Contains(got, "effective=0 ") {
			t.Errorf("outside: %q, want some", got)
		}
		for _, g := range []exectest.Grants{private(ids(1000, 1000)), {More: ids(1000, 1000)}} {
			wantRun(t, b.Sh(b.Policy(b.Base(g)), "id -u"), 0, "1000")
		}
		if got := b.Attempt(artifact, "openat", "/proc/1/environ", "r"); !refusedAs(got, hiddenProc) {
			t.Errorf("the keeper: %q", got)
		}
		if got := b.Attempt(artifact, "call", "mount", "s:none", "s:"+b.Work, "s:tmpfs", "0", "0"); got != "errno EPERM" {
			t.Errorf("mount: %q", got)
		}
	})
}

// A sandbox of our own holds none with namespaces, even where it has no supervisor: Landlock lets nobody mount whose files it
// guards. A direct start works there.
func Test_namespaces_nested(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		reach := []string{filepath.Dir(exectest.Executor(t)), filepath.Dir(b.Work), "/proc"}
		for name, tc := range map[string]struct{ outer, direct string }{
			"in_place": {"filesystem: proc: \"host\"\nprogram: no_supervisor: true\n", "ran"}, "namespaced": {"filesystem: proc: \"private\"\n", ""},
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				outer := b.Policy(b.Base(exectest.Grants{Read: reach, Write: []string{"/dev/null"}, More: tc.outer}))
				inner := func(g exectest.Grants) exectest.Result {
					return b.Run(outer, exectest.Executor(t), "-q", b.Policy(b.Base(g)), "--", "/bin/echo", "ran")
				}
				r := inner(private(""))
				if r.Code != 125 || r.Stdout != "" || !strings.Contains(r.Stderr, "sandbox") && !strings.Contains(r.Stderr, "Landlock") && !strings.Contains(r.Stderr, "supervisor") {
					t.Errorf("exit %d, %q, %q; want 125, and why", r.Code, r.Stdout, r.Stderr)
				}
				r = inner(exectest.Grants{More: "filesystem: proc: \"host\"\n"})
				if tc.direct != "" {
					wantRun(t, r, 0, tc.direct)
				} else if r.Code != 125 || !strings.Contains(r.Stderr, "--no-supervisor") {
					t.Errorf("exit %d, %q; want 125 and how to nest", r.Code, r.Stderr)
				}
			})
		}
	})
}
