package exec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// hostile has links in a directory that may be written to, which lead to a secret by every way, each to be opened beneath
// /work: one is on the host only, one in the root but not granted, and one in a mount that is read-only.
func hostile(t *testing.T, r *rooted) (names []string) {
	t.Helper()
	secret := r.File(r.Outside+"/secret", "of the host\n")
	for name, target := range map[string]string{
		"absolute": secret, "up": "../../../../../../../../.." + secret, "by-root": "/proc/self/root" + secret, "by-cwd": "/proc/self/cwd/../../.." + secret,
		"from-root": "../.." + strings.TrimPrefix(r.Outside, filepath.Dir(r.root)) + "/secret", // where it lies, seen from the root on the host
		"home":      "/home/secret", "home-up": "../home/secret", "home-up-far": "../../../../home/secret", "home-by-root": "/proc/self/root/home/secret",
		"chain": "absolute", "chain-home": "/work/home", "beside": "/ro/file",
	} {
		r.Link(target, r.at("/work/"+name))
		names = append(names, "/work/"+name)
	}
	r.Link(r.Outside, r.at("/work/outside"))
	r.Link("../outside", r.at("/work/outside-up"))
	r.Link("/home", r.at("/work/home-dir"))
	return append(names, "/work/outside/secret", "/work/outside-up/secret", "/work/home-dir/secret", "/work/../home/secret", "/home/secret", "/ro/file", secret)
}

// What the executor does on behalf of the command stays in the command's view, and there in what is granted.
func Test_chroot_on_behalf(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		ro := r.Dir("readonly")
		names := hostile(t, r)
		r.File(ro+"/file", "read-only\n")
		r.File(r.at("/work/file"), "granted\n")
		more := mounts("/ro", ro+":ro") + `read: ["/"], write: ["/work"]`
		uid, gid := strconv.Itoa(u.UID), strconv.Itoa(u.GID)
		calls := [][]string{
			{"chmod", "call", "chmod", "s:$P", "0o600"},
			{"fchmodat", "call", "fchmodat", "-100", "s:$P", "0o600"},
			{"fchmodat2", "call", "fchmodat2", "-100", "s:$P", "0o600", "0"},
			{"chown", "call", "chown", "s:$P", uid, gid},
			{"fchownat", "call", "fchownat", "-100", "s:$P", uid, gid, "0"},
			{"utimensat", "call", "utimensat", "-100", "s:$P", "0", "0"},
			{"utime", "call", "utime", "s:$P", "0"},
			{"utimes", "call", "utimes", "s:$P", "0"},
			{"futimesat", "call", "futimesat", "-100", "s:$P", "0"},
			{"setxattr", "call", "setxattr", "s:$P", "s:user.a", "s:b", "1", "0"},
			{"removexattr", "call", "removexattr", "s:$P", "s:user.a"},
			{"truncate", "call", "truncate", "s:$P", "0"},
			{"write", "openat", "$P", "w"},
		}
		for kind, text := range map[string]string{
			"plain": "", "seeded": "determinism: random_seed: 7\n", "rules": "rules: [{on: [\"open\"], if: path: \"/no/**\", then: \"deny\"}]\n",
		} {
			artifact := r.Policy(r.filesystem(more) + text)
			before := treeState(t, r.Outside, r.at("/home"), ro, r.at("/etc"))
			var script strings.Builder
			for _, call := range calls {
				if kind != "plain" && call[0] != "write" && call[0] != "chmod" { // the others are the same code
					continue
				}
				for _, name := range append([]string{"/work/file"}, names...) {
					fmt.Fprintf(&script, "echo %s %s $(probe %s)\n", call[0], name, strings.Join(replaceAll(call[1:], []string{"$P", name}), " "))
				}
			}
			got := r.Sh(artifact, script.String())
			if got.Code != 0 {
				t.Fatalf("%s: exit %d\n%s", kind, got.Code, got.Stderr)
			}
			for line := range strings.Lines(got.Stdout) {
				words := strings.SplitN(strings.TrimSpace(line), " ", 3)
				switch outcome := words[2]; {
				case outcome == "absent" || outcome == "errno ENOSYS":
				case words[1] == "/work/file" && outcome != "ok", words[1] != "/work/file" && !refusedAs(outcome, []string{"errno EACCES", "errno EPERM", "errno ENOENT", "errno EROFS"}):
					t.Errorf("%s: %s", kind, line)
				}
			}
			if after := treeState(t, r.Outside, r.at("/home"), ro, r.at("/etc")); after != before {
				t.Errorf("%s: before:\n%s\nafter:\n%s", kind, before, after)
			}
		}
		// Without the sandbox's root the same links lead there.
		if got := r.Control("call", "chmod", "s:"+r.at("/work/absolute"), "0o644"); got != "ok" {
			t.Errorf("outside: %s", got)
		}
		// A link itself can be given away as far as the caller may, and its target stays.
		wantRun(t, r.Sh(r.Policy(r.filesystem(more)), "touch -h /work/absolute && stat -c %F /work/absolute"), 0, "symbolic link")
	})
}

// The sockets that the command reaches by a path are those of its own view.
func Test_chroot_unix_sockets(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		host := r.Dir("mounted")
		for _, path := range []string{r.at("/work/s"), r.at("/home/s"), r.Outside + "/s", host + "/s"} {
			listen(t, "unix", path)
			if err := os.Chmod(path, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		r.Link(r.Outside+"/s", r.at("/work/absolute"))
		r.Link("../../../../../../.."+r.Outside+"/s", r.at("/work/up"))
		r.Link("../../outside/s", r.at("/work/from-root"))
		r.Link("/home/s", r.at("/work/home"))
		r.Link("/work/s", r.at("/work/itself"))
		r.Link("/m/s", r.at("/work/mounted"))
		r.Link(r.Outside, r.at("/work/outside"))
		r.Link("/home", r.at("/work/home-dir"))
		artifact := r.Policy(r.filesystem(mounts("/m", host)+`read: ["/"], write: ["/work"]`) + `network: {unix: "granted"}`)
		const stream = "1"
		for _, tc := range []struct {
			name string
			want []string
		}{
			{"/work/s", []string{"ok"}}, {"/work/itself", []string{"ok"}}, {"/work/mounted", []string{"ok"}}, {"/m/s", []string{"ok"}},
			{"/home/s", eacces}, {"/work/home", eacces}, {"/work/home-dir/s", eacces}, {"/work/../home/s", eacces}, {"/proc/self/root/home/s", eacces},
			{"/work/absolute", nothingThere}, {"/work/up", nothingThere}, {"/work/from-root", nothingThere}, {"/work/outside/s", nothingThere}, {r.Outside + "/s", nothingThere},
		} {
			if got := r.Attempt(artifact, "unix-connect", stream, tc.name); !refusedAs(got, tc.want) {
				t.Errorf("connect %s: %s, want one of %q", tc.name, got, tc.want)
			}
			if got := r.Attempt(artifact, "unix-send", tc.name); got == "ok" {
				t.Errorf("send %s: %s", tc.name, got)
			}
		}
		for _, name := range []string{r.Outside + "/s", r.at("/work/absolute"), r.at("/home/s"), host + "/s"} {
			if got := r.Control("unix-connect", stream, name); got != "ok" {
				t.Errorf("outside: connect %s: %s", name, got)
			}
		}
		before := treeState(t, r.Outside, r.at("/home"))
		for path, want := range map[string][]string{
			"/work/new": {"ok"}, "/m/new": {"ok"}, "/home/new": refused, "/work/home-dir/new": refused, "/work/../home/new": refused, "/work/outside/new": nothingThere, r.Outside + "/new": nothingThere,
			"/work/absolute": {"errno EADDRINUSE"}, "/missing/new": nothingThere,
		} {
			if got := r.Attempt(artifact, "unix-bind", stream, path); !refusedAs(got, want) {
				t.Errorf("bind %s: %s, want one of %q", path, got, want)
			}
		}
		if after := treeState(t, r.Outside, r.at("/home")); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		for _, path := range []string{r.at("/work/new"), host + "/new"} {
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != u.UID {
				t.Errorf("%s: mode %o of %d, %v", path, st.Mode, st.Uid, err)
			}
		}
	})
}

var nothingThere = []string{"errno ENOENT", "errno EACCES"}

// A seed holds for the devices that the command sees, by whatever name.
func Test_chroot_random_seed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		hostile(t, r)
		r.File(r.at("/dev/urandom"), "of the image")
		r.Link("/dev/urandom", r.at("/work/link"))
		r.Link("../../../dev/urandom", r.at("/work/up-link"))
		more := `read: ["/bin", "/usr", "/dev", "/proc", "/work", "/etc"], write: ["/work"]`
		policies := map[string]string{
			"one": r.Policy(r.filesystem(more) + "determinism: random_seed: 1"), "999": r.Policy(r.filesystem(more) + "determinism: random_seed: 999"),
			"fixed": r.Policy(r.filesystem(more) + "determinism: {random_seed: 1, no_randomize_memory: true}"), "none": r.Policy(r.filesystem(more)),
		}
		for _, path := range []string{"/dev/urandom", "/dev/random", "/work/link", "/work/up-link", "/work/../dev/urandom"} {
			checkRepeats(t, policies, func(policy string) string {
				got := r.Run(policy, "head", "-c", "16", path)
				if got.Code != 0 || len(got.Stdout) != 16 {
					t.Fatalf("%s: exit %d, printed %q\n%s", path, got.Code, got.Stdout, got.Stderr)
				}
				return got.Stdout
			})
		}
		checkRepeats(t, policies, func(policy string) string { return r.Attempt(policy, "random") })
		// What leads there by way of another process's root is refused rather than unseeded.
		wantFailure(t, r.Run(policies["one"], "head", "-c", "16", "/proc/self/root/dev/urandom"), "Permission denied")
		ungranted := r.Policy(r.filesystem(`read: ["/bin", "/usr", "/dev/null"]`) + "determinism: random_seed: 1")
		wantFailure(t, r.Run(ungranted, "head", "-c", "16", "/dev/urandom"), "Permission denied")
		for _, name := range []string{"absolute", "up", "home", "home-by-root", "from-root"} {
			wantFailure(t, r.Run(policies["one"], "cat", "/work/"+name), "an't open")
		}
		wantRun(t, r.Run(policies["one"], "cat", "/etc/sentinel"), 0, "inside")
	})
}

// A bundle of certificates in the image gets the proxy's, for the command alone. The path is the command's.
func Test_chroot_inject_ca(t *testing.T) {
	exectest.Helper(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		r := newRooted(t, u)
		r.File(r.at("/etc/ca.pem"), "of the image\n")
		secret := r.File(r.Outside+"/secret", "of the host\n")
		r.Link(secret, r.at("/etc/link.pem"))
		inject := func(path string) string {
			return r.Policy(r.filesystem("") + fmt.Sprintf(`http: {allow: ["GET 127.0.0.1/*"], inject_ca: [%q]}`, path))
		}
		artifact := inject("/etc/ca.pem")
		got := r.Run(artifact, "cat", "/etc/ca.pem")
		if got.Code != 0 || !strings.HasPrefix(got.Stdout, "of the image\n-----BEGIN CERTIFICATE-----\n") {
			t.Errorf("exit %d, printed %q\n%s", got.Code, got.Stdout, got.Stderr)
		}
		for _, path := range []string{"/etc/link.pem", secret} {
			if got := r.Run(inject(path), "cat", path); got.Code != 125 || got.Stdout != "" || !strings.Contains(got.Stderr, "http.inject_ca[0]") {
				t.Errorf("%s: exit %d, printed %q, want 125\n%s", path, got.Code, got.Stdout, got.Stderr)
			}
		}
		wantContent(t, r.at("/etc/ca.pem"), "of the image\n", u)
	})
}
