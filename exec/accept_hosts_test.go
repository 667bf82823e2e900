package exec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// pinned are two names, and the file that shows them.
const (
	pinned = `network: hosts: {
	"pinned.example": ["192.0.2.7", "2001:db8::7"]
	"other.example": ["192.0.2.8"]
}
`
	pinnedFile = "127.0.0.1 localhost\n::1 localhost\n192.0.2.8 other.example\n192.0.2.7 pinned.example\n2001:db8::7 pinned.example\n"
)

// hostsSpellings opens /etc/hosts under many names, and says which of them show something else than the first argument.
const hostsSpellings = `
import os, sys
def read(path, at=None, flags=0):
    fd = os.open(path, os.O_RDONLY | flags, dir_fd=at)
    with os.fdopen(fd) as f:
        return f.read()
etc, usr = (os.open(d, os.O_RDONLY | os.O_DIRECTORY) for d in ("/etc", "/usr"))
os.chdir("/etc")
names = {
    "/etc/hosts": (), "//etc/hosts": (), "/etc/./hosts": (), "/etc/../etc/hosts": (), "/etc//hosts": (), "hosts": (), "../etc/hosts": (),
    "hosts ": (etc, os.O_NOFOLLOW), "../etc/./hosts": (usr,), "/usr/../etc/hosts": (etc,),
    "/proc/self/root/etc/hosts": (), "/proc/thread-self/root/etc/hosts": (), "/proc/self/cwd/hosts": (),
    os.environ["HOME"] + "/link": (), os.environ["HOME"] + "/chain": (), os.environ["HOME"] + "/dir/hosts": (),
}
if len(sys.argv) == 2: # on behalf neither descriptors that only name a file nor other processes' links are followed
    root, place = (os.open(p, os.O_PATH) for p in ("/", "/etc/hosts"))
    names |= {"/proc/%d/root/etc/hosts" % os.getpid(): (), "etc/hosts": (root,), "/proc/self/fd/%d" % place: (), "/dev/fd/%d" % place: ()}
wrong = [n for n, how in names.items() if read(n.strip(), *how) != sys.argv[1]]
print(len(names) > 15, wrong)
`

func Test_network_6_43_hosts_file(t *testing.T) {
	t.Parallel()
	py := python(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		b.Link("/etc/hosts", b.Work+"/link")
		b.Link("link", b.Work+"/chain")
		b.Link("/etc", b.Work+"/dir")
		host := b.Run("", "/bin/cat", "/etc/hosts").Stdout
		if host == "" || strings.Contains(host, "pinned.example") {
			t.Fatalf("the host's file is %q", host)
		}
		for name, more := range map[string]string{
			"alone":     pinned,
			"random":    pinned + "determinism: random_seed: 1\n",
			"paths":     pinned + `rules: [{on: ["open"], if: path: "/etc/shadow", then: "deny"}]` + "\n",
			"machine":   pinned + "limits: num_cpus: 1\nfilesystem: proc: \"host\"\n",
			"localhost": `network: hosts: localhost: ["127.0.0.1"]` + "\n",
			"named":     `network: {allow: ["udp://other.example:53"], hosts: {"other.example": ["192.0.2.8"], "pinned.example": ["192.0.2.7", "2001:db8::7"]}}` + "\n",
			"nothing":   "",
		} {
			want := map[string]string{"localhost": "127.0.0.1 localhost\n::1 localhost\n", "nothing": host}[name]
			if want == "" {
				want = pinnedFile
			}
			t.Run(name, func(t *testing.T) {
				g := exectest.Grants{Write: []string{"/dev/null"}, More: more}
				args := []string{py, "-c", hostsSpellings, want}
				switch name {
				case "machine":
					g.Read = []string{"/proc"}
				case "paths":
					args = append(args, "on behalf")
				}
				artifact := b.In(t).Policy(b.Base(g))
				wantRun(t, b.In(t).Run(artifact, args...), 0, "True []")
				wantRun(t, b.In(t).Sh(artifact, "cat < /etc/hosts"), 0, strings.TrimSpace(want))
			})
		}
		// Writing is the kernel's to refuse.
		artifact := b.Policy(b.Base(exectest.Grants{More: pinned}))
		for _, mode := range []string{"w", "rw", "t"} {
			if got := b.Attempt(artifact, "openat", "/etc/hosts", mode); got != "errno EACCES" {
				t.Errorf("open with %s: %q, want errno EACCES", mode, got)
			}
		}
	})
}

// Where the file is not granted nothing is shown.
func Test_hosts_file_not_granted(t *testing.T) {
	t.Parallel()
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := fmt.Sprintf(`filesystem: read: ["/usr", "/lib", "/bin", {path: "/lib64", optional: true}, %q]`+"\n", strings.TrimSuffix(b.Probe, "/probe"))
		for _, more := range []string{"", "determinism: random_seed: 1\n"} {
			r, artifact := b.Compile(policy + pinned + more)
			if r.Code != 0 || !strings.Contains(r.Stderr, "[hosts-file]") {
				t.Fatalf("compile: exit %d, %s", r.Code, r.Stderr)
			}
			if got := b.Attempt(artifact, "openat", "/etc/hosts", "r"); got != "errno EACCES" {
				t.Errorf("%q, want errno EACCES", got)
			}
		}
	})
}

// Programs find the names by the C library, and reach them by name.
func Test_pinned_names_are_found(t *testing.T) {
	py := python(t)
	getent := exectest.Program(t, "/usr/bin/getent")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		l := listen(t, "tcp4", "127.0.0.1:0")
		artifact := b.Policy(b.Base(exectest.Grants{Write: []string{"/dev/null"}, More: fmt.Sprintf(`network: {
			allow: ["tcp://pinned.example:%s"]
			hosts: {"pinned.example": ["127.0.0.1"], "far.example": ["192.0.2.8"]}
		}`, port(l))}))
		wantRun(t, b.Sh(artifact, getent+" hosts pinned.example | tr -s ' '"), 0, "127.0.0.1 pinned.example")
		lookUp := `import socket; print(socket.gethostbyname("far.example"), socket.getaddrinfo("PINNED.example", 80, type=socket.SOCK_STREAM)[0][4])`
		wantRun(t, b.Run(artifact, py, "-c", lookUp), 0, "192.0.2.8 ('127.0.0.1', 80)")
		connect := `import socket; print(socket.create_connection(("pinned.example", ` + port(l) + `), 10).getpeername()[0])`
		wantRun(t, b.Run(artifact, py, "-c", connect), 0, "127.0.0.1")
		if got := l.seen(t); got != 1 {
			t.Errorf("the listener saw %d connections, want 1", got)
		}
		if r := b.Run("", getent, "hosts", "pinned.example"); r.Code == 0 {
			t.Errorf("outside the name is found: %s", r.Stdout)
		}
	})
}
