package exec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// compiles tells whether policy text is right. Text that is right but asks for what this build does not enforce is:
// then every complaint says so, and none is about the text.
func compiles(t *testing.T, b *exectest.Box, policy string) (ok bool, stderr string) {
	t.Helper()
	r, _ := b.In(t).Compile(policy)
	if r.Code != 0 && r.Code != 2 {
		t.Fatalf("%s: exit %d, want 0 or 2\n%s", policy, r.Code, r.Stderr)
	}
	if r.Code == 0 {
		return true, r.Stderr
	}
	for line := range strings.Lines(r.Stderr) {
		isComplaint := strings.HasPrefix(line, "policy") && strings.Contains(line, ".cue:") && !strings.Contains(line, ": warning: ")
		if isComplaint && !strings.Contains(line, "not supported by this build") {
			return false, r.Stderr
		}
	}
	if !strings.Contains(r.Stderr, "not supported by this build") {
		t.Fatalf("%s: exit 2 without a complaint\n%s", policy, r.Stderr)
	}
	return true, r.Stderr
}

// acceptsAndRejects checks a field's grammar. format has one %s for the value.
func acceptsAndRejects(t *testing.T, format string, accept, reject []string) {
	t.Helper()
	b := exectest.NewBox(t, exectest.Self())
	for _, value := range accept {
		t.Run("accepts_"+value, func(t *testing.T) {
			if ok, stderr := compiles(t, b, fmt.Sprintf(format, value)); !ok {
				t.Errorf("refused:\n%s", stderr)
			}
		})
	}
	for _, value := range reject {
		t.Run("rejects_"+value, func(t *testing.T) {
			if ok, stderr := compiles(t, b, fmt.Sprintf(format, value)); ok {
				t.Errorf("accepted\n%s", stderr)
			}
		})
	}
}

func quoted(values ...string) []string {
	out := make([]string, len(values))
	for i, value := range values {
		out[i] = fmt.Sprintf("%q", value)
	}
	return out
}

func Test_supervisor_8_102_network_6_69_names(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 65)
	acceptsAndRejects(t, "name: %s",
		quoted("worker", "a.b", "...", long[:64], "with space"),
		append(quoted("", "/", ".", "..", "a/b", "../etc", long), `"a\u0000b"`))
}

func Test_network_6_64_net_rules(t *testing.T) {
	t.Parallel()
	t.Run("allow", func(t *testing.T) {
		acceptsAndRejects(t, "network: allow: [%s]",
			quoted("tcp://:8080", "foo.com:443", "foo.com:22,443", ":8080", "*:8080", "foo.com", "*", "10.0.0.0/8:80", "::1", "[::1]:443", "fc00::/7",
				"udp://*:*", "icmp://*"),
			quoted("", "tcp://", "foo.com:abc", "foo.com:0", "foo.com:", "h:80,*", "icmp://", "icmp://h:80", "ftp://h", "10.0.0.0/33", "h:70000"))
	})
	t.Run("deny", func(t *testing.T) {
		acceptsAndRejects(t, "network: deny: [%s]",
			quoted("10.0.0.0/8", "169.254.169.254", "fc00::/7", ":25"), quoted("foo.com", "foo.com:80"))
	})
}

func Test_network_6_65_bind_specs(t *testing.T) {
	t.Parallel()
	t.Run("allow", func(t *testing.T) {
		acceptsAndRejects(t, "network: allow_bind: [%s]",
			[]string{"443", "0", `"9000-9002"`, `"8080,9000-9002", 443, "9001,443"`, `"*"`},
			[]string{`"9000-8000"`, `"80,abc"`, `"70000"`, "70000", "-1", `"8080,"`, `"*,8080"`, `""`})
	})
	t.Run("deny", func(t *testing.T) {
		acceptsAndRejects(t, "network: deny_bind: [%s]", []string{"25"}, []string{`"*"`})
	})
}

// The bind specs of number 65 must come to exactly the five ports that they name.
func Test_network_6_65_bind_specs_enforced(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{More: `network: allow_bind: ["28080,29000-29002", 28443, "29001,28443"]`}))
		table := []allowed{}
		for port, want := range map[int]string{
			28080: "ok", 28443: "ok", 29000: "ok", 29001: "ok", 29002: "ok",
			28079: refusedByNet, 28081: refusedByNet, 28999: refusedByNet, 29003: refusedByNet,
		} {
			table = append(table, allowed{fmt.Sprintf("port_%d", port), []string{"bind", fmt.Sprintf("127.0.0.1:%d", port), stream, "0"}, want})
		}
		checkAllowed(t, b, artifact, table)
	})
}

func Test_network_6_66_limits(t *testing.T) {
	t.Parallel()
	t.Run("cpu", func(t *testing.T) {
		acceptsAndRejects(t, "limits: cpu: %s", []string{"1", "100"}, []string{"0", "101", `"50"`})
	})
	t.Run("memory", func(t *testing.T) {
		acceptsAndRejects(t, "limits: memory: %s", append(quoted("512M", "1G", "100K", "1024", "512m", "1g"), "1048576"),
			append(quoted("", "M", "not_a_size", "17179869184G", "-1"), "-1"))
		b := exectest.NewBox(t, exectest.Self())
		if _, stderr := compiles(t, b, `limits: memory: "17179869184G"`); !strings.Contains(stderr, "range") {
			t.Errorf("%q, want the range named", stderr)
		}
	})
	t.Run("open_files", func(t *testing.T) {
		acceptsAndRejects(t, "limits: open_files: %s", []string{"1", "64"}, []string{"0", "-1"})
	})
	t.Run("processes", func(t *testing.T) {
		acceptsAndRejects(t, "limits: processes: %s", []string{"1", "64"}, []string{"0"})
	})
}

func Test_network_6_67_protections(t *testing.T) {
	t.Parallel()
	t.Run("values", func(t *testing.T) {
		acceptsAndRejects(t, "protections: %s",
			[]string{`fs_refer: "strict"`, `fs_refer: "degrade"`, `fs_truncate: "off"`, `net_tcp: "degrade"`},
			[]string{`fs_refer: "off"`, `fs_refer: "maybe"`, `fs_reefer: "strict"`})
	})
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		secret := b.File(b.Outside+"/secret", "S")
		for _, off := range []string{"fs_truncate", "fs_ioctl_dev", "net_tcp", "signal_scope", "abstract_unix_scope"} {
			t.Run("off_"+off, func(t *testing.T) {
				b := b.In(t)
				artifact := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf("protections: %s: %q", off, "off")}))
				wantRun(t, b.Sh(artifact, "echo x > f && cat f && rm f"), 0, "x")
				if got := b.Attempt(artifact, "openat", secret, "r"); got != "errno EACCES" {
					t.Errorf("read the secret: %q, want errno EACCES", got)
				}
			})
		}
		// What is off is off, or the tests of the protections would pass for another reason.
		t.Run("off_signal_scope_shows", func(t *testing.T) {
			b := b.In(t)
			_, pid, _, _ := victimOf(t, b)
			artifact := b.Policy(b.Base(exectest.Grants{More: `protections: signal_scope: "off"`}))
			if got := b.Attempt(artifact, "call", "kill", pid, "0"); got != "ok" {
				t.Errorf("kill(outside, 0): %q, want ok", got)
			}
		})
		t.Run("off_net_tcp_shows", func(t *testing.T) {
			b := b.In(t)
			l := listen(t, "tcp4", "127.0.0.1:0")
			artifact := b.Policy(b.Base(exectest.Grants{More: `protections: net_tcp: "off"`}))
			if got := b.Attempt(artifact, "connect", l.Addr().String(), stream, "0"); got != "ok" {
				t.Errorf("connect: %q, want ok", got)
			}
		})
	})
}

func Test_network_6_71_exclusive_fields(t *testing.T) {
	t.Parallel()
	b := exectest.NewBox(t, exectest.Self())
	for _, policy := range []string{
		"network: {allow: [\":80\"], deny: [\"10.0.0.0/8\"]}",
		"network: {allow_bind: [80], deny_bind: [81]}",
		"program: uid: 1000",
		"filesystem: reed: [\"/usr\"]",
		"program: no_supervisor: true\nlimits: time: \"1s\"",
	} {
		if ok, stderr := compiles(t, b, policy); ok {
			t.Errorf("%s: accepted\n%s", policy, stderr)
		}
	}
}
