package exectest_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Each place must refuse what it is for, to a tool that has nothing to do with us (unshare(1)), and the executor's probe
// must see it as it is. These places are what the tests of refusals believe.
func TestPlaces(t *testing.T) {
	unshare := exectest.Program(t, "/usr/bin/unshare")
	type offer struct {
		Namespaces, UserNamespaces, FreshProc, MappedProc                         bool
		NamespacesReason, UserNSReason, FreshProcReason, MappedProcReason, Kernel string
	}
	probe := func(t *testing.T, b *exectest.Box) (o offer) {
		t.Helper()
		r := exectest.Run(t, b.Opts("", exectest.Executor(t), "check", "--json"))
		if err := json.Unmarshal([]byte(r.Stdout), &o); err != nil {
			t.Fatalf("%v: %q %s", err, r.Stdout, r.Stderr)
		}
		return o
	}
	run := func(t *testing.T, b *exectest.Box, args ...string) (code int, stderr string) {
		t.Helper()
		r := exectest.Run(t, b.Opts("", args...))
		return r.Code, r.Stderr
	}
	has := func(t *testing.T, text string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%q lacks %q", text, w)
			}
		}
	}
	exectest.NoUserNamespaces.In(t, func(t *testing.T, b *exectest.Box) {
		if code, text := run(t, b, unshare, "-Ur", "/bin/true"); code == 0 || !strings.Contains(text, "No space left") {
			t.Errorf("unshare -Ur: exit %d, %q", code, text)
		}
		o := probe(t, b)
		if o.Namespaces || o.UserNamespaces || o.FreshProc {
			t.Errorf("the probe finds namespaces: %+v", o)
		}
		has(t, o.NamespacesReason, "sysctl -w user.max_user_namespaces=")
	})
	exectest.FilteredNamespaces.In(t, func(t *testing.T, b *exectest.Box) {
		if code, text := run(t, b, unshare, "-Ur", "/bin/true"); code == 0 || !strings.Contains(text, "not permitted") {
			t.Errorf("unshare -Ur: exit %d, %q", code, text)
		}
		o := probe(t, b)
		if o.Namespaces || o.UserNamespaces || o.FreshProc {
			t.Errorf("the probe finds namespaces: %+v", o)
		}
		has(t, o.NamespacesReason, "seccomp profile")
	})
	exectest.MaskedProc.In(t, func(t *testing.T, b *exectest.Box) {
		users := []exectest.User{exectest.Ordinary()}
		if exectest.Self().Root() {
			users = append(users, exectest.Self())
		}
		for _, u := range users {
			b := exectest.NewBox(t, u)
			if code, text := run(t, b, unshare, "-Urmpf", "/bin/true"); code != 0 {
				t.Errorf("uid %d: unshare -Urmpf: exit %d, %q", u.UID, code, text)
			}
			if code, text := run(t, b, unshare, "-Urpf", "--mount-proc", "/bin/true"); code == 0 || !strings.Contains(text, "not permitted") {
				t.Errorf("uid %d: unshare -Urpf --mount-proc: exit %d, %q", u.UID, code, text)
			}
			o := probe(t, b)
			if !o.Namespaces || !o.UserNamespaces || o.MappedProc || o.FreshProc != u.Root() {
				t.Errorf("uid %d: the probe finds %+v", u.UID, o)
			}
			has(t, o.MappedProcReason, "covered in part", `"auto"`)
		}
	})
	exectest.UnshareUr.In(t, func(t *testing.T, b *exectest.Box) {
		if uid := os.Getuid(); uid != 0 {
			t.Errorf("uid %d, want 0", uid)
		}
		text, err := os.ReadFile("/proc/self/uid_map")
		if f := strings.Fields(string(text)); err != nil || len(f) != 3 || f[0] != "0" || f[1] == "0" || f[2] != "1" {
			t.Errorf("uid_map %q, %v", text, err)
		}
		if o := probe(t, b); !o.Namespaces || !o.UserNamespaces || !o.FreshProc {
			t.Errorf("the probe finds %+v", o)
		}
		b.File(b.Work+"/file", "written as root of the namespace")
	})
}
