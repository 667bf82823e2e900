package exec_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func ids(uid, gid int) string { return fmt.Sprintf("program: {uid: %d, gid: %d}\n", uid, gid) }

// Numbers 76 to 81: the ids that a policy asks for. Groups of the starter are not the sandbox's.
func Test_supervisor_8_76_77_78_79_80_81_ids(t *testing.T) {
	exectest.UserNamespaces(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, tc := range []struct {
			name     string
			uid, gid int
		}{
			{"76_77_fake_root", 0, 0}, {"80_others", 1000, 1000}, {"uid_and_gid_differ", 5, 7}, {"81_own", u.UID, u.GID}, {"large", 4000000000, 3},
		} {
			for kind, g := range map[string]exectest.Grants{"direct": {}, "mounts": private("")} {
				t.Run(tc.name+"/"+kind, func(t *testing.T) {
					b := b.In(t)
					g.More += ids(tc.uid, tc.gid)
					artifact := b.Policy(b.Base(g))
					if got, want := b.Attempt(artifact, "ids"), fmt.Sprintf("value uid=%d euid=%d gid=%d groups=0", tc.uid, tc.uid, tc.gid); got != want {
						t.Errorf("%q, want %q", got, want)
					}
					wantRun(t, b.Sh(artifact, "id -u; id -g; echo 79"), 0, fmt.Sprintf("%d\n%d\n79", tc.uid, tc.gid))
					// What it makes is the starter's outside, and its own inside.
					file := b.Work + "/made-" + kind
					wantRun(t, b.Sh(artifact, "rm -f "+file+"; touch "+file+"; stat -c '%u %g' "+file), 0, fmt.Sprintf("%d %d", tc.uid, tc.gid))
					st, err := os.Stat(file)
					if err != nil {
						t.Fatal(err)
					}
					if sys := st.Sys().(*syscall.Stat_t); int(sys.Uid) != u.UID || int(sys.Gid) != u.GID {
						t.Errorf("outside it belongs to %d:%d", sys.Uid, sys.Gid)
					}
					wantRun(t, b.Sh(artifact, "grep -q root /etc/group && echo ok"), 0, "ok")
				})
			}
		}
		t.Run("78_none", func(t *testing.T) {
			b := b.In(t)
			for _, g := range []exectest.Grants{{}, private("")} {
				wantRun(t, b.Sh(b.Policy(b.Base(g)), "id -u; id -g"), 0, fmt.Sprintf("%d\n%d", u.UID, u.GID))
			}
		})
	})
}

// A root that has supplementary groups has none inside, where ids are others; elsewhere they are its own.
func Test_ids_supplementary_groups(t *testing.T) {
	if !exectest.Self().Root() {
		t.Skip("needs root, to have groups")
	}
	exectest.UserNamespaces(t)
	setpriv := exectest.Program(t, "/usr/bin/setpriv")
	b := exectest.NewBox(t, exectest.User{})
	for more, want := range map[string]string{ids(0, 0): "groups=2", ids(1000, 1000): "groups=0", ids(1, 0): "groups=0", "": "groups=2"} {
		for _, g := range []exectest.Grants{{}, private("")} {
			g.More += more
			o := b.Opts(b.Policy(b.Base(g)), b.Probe, "ids")
			o.Wrap = []string{setpriv, "--groups", "4,27"}
			if r := exectest.Run(t, o); r.Code != 0 || !strings.HasSuffix(strings.TrimSpace(r.Stdout), want) {
				t.Errorf("%q: exit %d, %q, want %s\n%s", more, r.Code, r.Stdout, want, r.Stderr)
			}
		}
	}
	// What the executor opens on behalf it opens without them, too.
	file := b.File(b.Work+"/of-the-group", "x")
	if err := errors.Join(os.Chown(file, 12, 27), os.Chmod(file, 0o640)); err != nil {
		t.Fatal(err)
	}
	for more, want := range map[string]string{ids(1000, 1000): "errno EACCES", ids(0, 0): "ok"} {
		for _, g := range []exectest.Grants{ruled(`{on: ["open"], if: path: "/etc/shadow", then: "deny"}`), {}, private("")} {
			g.More += "\n" + more
			o := b.Opts(b.Policy(b.Base(g)), b.Probe, "openat", file, "r")
			o.Wrap = []string{setpriv, "--groups", "4,27"}
			if got := strings.TrimSpace(exectest.Run(t, o).Stdout); got != want {
				t.Errorf("%s: a file of the group: %q, want %q", g.More, got, want)
			}
		}
	}
	o := b.Opts("", b.Probe, "ids")
	o.Wrap = []string{setpriv, "--groups", "4,27"}
	if got := exectest.Run(t, o).Stdout; !strings.Contains(got, "groups=2") {
		t.Errorf("outside: %q", got)
	}
}

// A root that the policy makes up is one in name: it changes to no other user, makes no device, and owns what its starter
// owns.
func Test_ids_fake_root_has_no_power(t *testing.T) {
	exectest.UserNamespaces(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for kind, g := range map[string]exectest.Grants{"direct": {}, "mounts": private("")} {
			t.Run(kind, func(t *testing.T) {
				b := b.In(t)
				g.More += ids(0, 0) + "syscalls: extra_allow: [\"file_metadata\"]\n"
				artifact := b.Policy(b.Base(g))
				file := b.File(b.Work+"/file-"+kind, "x")
				for _, args := range [][]string{
					{"call", "setuid", "1"}, {"call", "setgid", "1"}, {"call", "setresuid", "1", "1", "1"}, {"call", "setgroups", "0", "0"},
					{"call", "setgroups", "1", "h:01000000"}, {"call", "setfsuid", "1"}, {"call", "chown", "s:" + file, "1", "1"},
					{"call", "mknodat", "-100", "s:" + b.Work + "/device", "0x2180", "0x103"}, {"call", "sethostname", "s:x", "1"},
					{"call", "setpriority", "0", "0", "-5"}, {"call", "capset", "h:2205082000000000", "h:" + strings.Repeat("ff", 24)},
				} {
					got := b.Attempt(artifact, args...)
					if args[1] == "setfsuid" { // answers the old one, always
						continue
					}
					if u.Root() && args[1] == "setpriority" && got == "ok" {
						t.Errorf("%q worked", args)
					}
					if !refusedAs(got, []string{"errno EPERM", "errno EINVAL", "errno EACCES"}) {
						t.Errorf("%q: %q, want it refused", args, got)
					}
				}
				// What needs no power works.
				for _, args := range [][]string{{"call", "setuid", "0"}, {"call", "setgid", "0"}, {"call", "chown", "s:" + file, "0", "0"}, {"call", "chmod", "s:" + file, "0600"}} {
					if got := b.Attempt(artifact, args...); got != "ok" {
						t.Errorf("%q: %q, want ok", args, got)
					}
				}
				// A file of nobody that is mapped, which the group that it is in may not write either.
				if exectest.Self().Root() && !u.Root() { // root's own ids need no namespace
					other := b.Work + "/other-" + kind
					if err := os.WriteFile(other, []byte("x"), 0o600); err != nil {
						t.Fatal(err)
					}
					if err := os.Chown(other, 12, 12); err != nil {
						t.Fatal(err)
					}
					if got := b.Attempt(artifact, "openat", other, "r"); got != "errno EACCES" {
						t.Errorf("a file of another user: %q", got)
					}
					wantRun(t, b.Sh(artifact, "stat -c '%u %g' "+other), 0, "65534 65534")
				}
			})
		}
		if u.Root() {
			if got := b.Control("call", "setuid", "1"); got != "ok" {
				t.Errorf("outside: %q", got)
			}
		}
	})
}

// Number 81: no namespace is needed where the ids are one's own, and where others would need one the host says why not.
func Test_supervisor_8_81_without_namespaces(t *testing.T) {
	exectest.WithoutNamespaces(t, func(t *testing.T, b *exectest.Box) {
		own := b.Policy(b.Base(exectest.Grants{More: ids(b.User.UID, b.User.GID)}))
		wantRun(t, b.Sh(own, "id -u; id -g"), 0, fmt.Sprintf("%d\n%d", b.User.UID, b.User.GID))
		r := b.Sh(b.Policy(b.Base(exectest.Grants{More: ids(0, 0)})), "id -u")
		wantRefusal(t, r, "program.uid")
	})
}

// wantRefusal wants a host without user namespaces to be told of, by what forbids them.
func wantRefusal(t *testing.T, r exectest.Result, field string) {
	t.Helper()
	named := strings.Contains(r.Stderr, "max_user_namespaces") || strings.Contains(r.Stderr, "seccomp profile")
	if r.Code != 125 || r.Stdout != "" || !named || !strings.Contains(r.Stderr, field) {
		t.Errorf("exit %d, %q, stderr %q; want 125, the setting and %s", r.Code, r.Stdout, r.Stderr, field)
	}
}
