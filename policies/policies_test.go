// Package policies_test holds the example policies to what they promise.
package policies_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/compiler"
	"github.com/sandlock-go/sandlock/compiler/load"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/compiler/seccomp/seccomptest"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/ir/seal"
)

func each(t *testing.T, do func(t *testing.T, file string, p *ir.Program)) {
	t.Helper()
	files, err := filepath.Glob("*.cue")
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies (%v)", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(file, ".cue"), func(t *testing.T) { do(t, file, compile(t, file)) })
	}
}

func compile(t *testing.T, file string) *ir.Program {
	t.Helper()
	p, diags, err := compiler.Compile(compiler.Options{Source: load.Options{Args: []string{file}}})
	if err != nil || p == nil {
		t.Fatalf("compile %s: %v\n%s", file, err, diags)
	}
	if len(diags) > 0 {
		t.Errorf("%s: an example must give no warning:\n%s", file, diags)
	}
	return p
}

// TestPromises runs the tests section of each policy on each architecture.
func TestPromises(t *testing.T) {
	each(t, func(t *testing.T, file string, p *ir.Program) {
		if name := strings.TrimSuffix(file, ".cue"); p.Name != name {
			t.Errorf("name: got %q, want the file's %q", p.Name, name)
		}
		allowed, denied := 0, 0
		for i := range p.Tests {
			test := &p.Tests[i]
			if test.Allow {
				allowed++
			} else {
				denied++
			}
			for _, arch := range p.Target.Arches {
				r, err := query.Event(p, arch, test)
				if err != nil {
					t.Errorf("%s: %v", test.Name, err)
				}
				if r.Allowed != test.Allow {
					t.Errorf("%s: %s on %s: got %+v, want allowed %v", test.Name, test.Event(), arch, r, test.Allow)
				}
			}
		}
		if allowed == 0 || denied == 0 {
			t.Errorf("%d tests expect allow and %d deny: a policy that allows all, or nothing, must not pass", allowed, denied)
		}
	})
}

// TestNeverGranted holds every example to what none of them may grant, but what it is there for.
func TestNeverGranted(t *testing.T) {
	granted := map[string]string{
		"dev: syscall socket 1 1 0":          "unix sockets",
		"public: connect udp 192.0.2.1:53":   "every address that is not private",
		"public: connect tcp example.com:22": "every address that is not private",
		"public: connect tcp 192.0.2.1:22":   "every address that is not private",

		"workspace: open /proc/1/mem for read": "processes of the sandbox alone",
		"tryout: open /proc/1/mem for read":    "processes of the sandbox alone",
	}
	closed := []ir.Test{
		{Kind: ir.TestOpen, Target: "/etc/shadow", For: "read"},
		{Kind: ir.TestOpen, Target: "/etc/passwd", For: "write"},
		{Kind: ir.TestOpen, Target: "/usr/bin/sudo", For: "write"},
		{Kind: ir.TestOpen, Target: "/proc/1/mem", For: "read"},
		{Kind: ir.TestOpen, Target: "/root/.ssh/id_ed25519", For: "read"},
		{Kind: ir.TestOpen, Target: "${home}/.bashrc", For: "write"},
		{Kind: ir.TestOpen, Target: "/dev/mem", For: "read"},
		{Kind: ir.TestOpen, Target: "/run/docker.sock", For: "write"},
		{Kind: ir.TestConnect, Target: "udp 192.0.2.1:53"},
		{Kind: ir.TestConnect, Target: "tcp 192.0.2.1:22"},
		{Kind: ir.TestConnect, Target: "tcp 127.0.0.1:22"},
		{Kind: ir.TestConnect, Target: "udp 127.0.0.53:53"},
		{Kind: ir.TestConnect, Target: "tcp 10.0.0.1:22"},
		{Kind: ir.TestConnect, Target: "tcp 169.254.169.254:80"},
		{Kind: ir.TestConnect, Target: "tcp [fd00:ec2::254]:80"},
		{Kind: ir.TestConnect, Target: "tcp example.com:22"},
		{Kind: ir.TestSyscall, Target: "mount"},
		{Kind: ir.TestSyscall, Target: "unshare"},
		{Kind: ir.TestSyscall, Target: "ptrace"},
		{Kind: ir.TestSyscall, Target: "bpf"},
		{Kind: ir.TestSyscall, Target: "clone3"},
		{Kind: ir.TestSyscall, Target: "socket", Args: []uint64{1, 1, 0}},   // AF_UNIX
		{Kind: ir.TestSyscall, Target: "socket", Args: []uint64{2, 1, 262}}, // MPTCP
		{Kind: ir.TestSyscall, Target: "socket", Args: []uint64{16, 3, 9}},  // NETLINK_AUDIT
		{Kind: ir.TestSyscall, Target: "socket", Args: []uint64{2, 3, 1}},   // raw ICMP
		{Kind: ir.TestSyscall, Target: "ioctl", Args: []uint64{0, 0x5412}},  // TIOCSTI
		{Kind: ir.TestSyscall, Target: "ioctl", Args: []uint64{0, 1<<32 | 0x5412}},
	}
	each(t, func(t *testing.T, _ string, p *ir.Program) {
		for i := range closed {
			for _, arch := range p.Target.Arches {
				r, err := query.Event(p, arch, &closed[i])
				if _, ok := granted[p.Name+": "+closed[i].Event()]; ok {
					if err != nil || !r.Allowed {
						t.Errorf("%s on %s: got %+v (%v), want allowed", closed[i].Event(), arch, r, err)
					}
				} else if err != nil || r.Allowed {
					t.Errorf("%s on %s: got %+v (%v), want denied", closed[i].Event(), arch, r, err)
				}
			}
		}
	})
}

// TestFilters proves every emitted program equal to its table, the observing variants included.
func TestFilters(t *testing.T) {
	each(t, func(t *testing.T, _ string, p *ir.Program) {
		if got, want := p.Target.Arches, abi.Arches; !slices.Equal(got, want) {
			t.Errorf("architectures: got %v, want %v", got, want)
		}
		for _, f := range p.Seccomp.Filters {
			seccomptest.Prove(t, f.Arch, f.Table, f.Program)
			observed, calls := seccomp.ObserveTable(f.Arch, f.Table)
			if !slices.Equal(calls, f.ObserveCalls) {
				t.Errorf("%s: observed calls: got %v, want %v", f.Arch, f.ObserveCalls, calls)
			}
			seccomptest.Prove(t, f.Arch, observed, f.Observe)
		}
	})
}

// TestMinimalTrapsForksOnly: who uses no feature pays for none. (rt_sigaction: handlers of SIGCHLD; prctl: the
// parent-death signal; registers tell.)
func TestMinimalTrapsForksOnly(t *testing.T) {
	p := compile(t, "minimal.cue")
	for _, f := range p.Seccomp.Filters {
		var notified []string
		for _, call := range abi.Syscalls(f.Arch) {
			e := f.Table[query.Syscall(f.Table, call.Nr, [6]uint64{}).Entry]
			asks := e.Action == ir.Notify || slices.ContainsFunc(e.Clauses, func(c ir.Clause) bool { return c.Action == ir.Notify })
			if asks {
				notified = append(notified, call.Name)
			}
		}
		want := map[abi.Arch][]string{abi.AMD64: {"clone", "fork", "prctl", "rt_sigaction", "vfork"}, abi.ARM64: {"clone", "prctl", "rt_sigaction"}}[f.Arch]
		if slices.Sort(notified); !slices.Equal(notified, want) {
			t.Errorf("%s: notified calls: got %v, want %v", f.Arch, notified, want)
		}
	}
}

// TestDefaultArtifactIsFresh: the executor embeds a compiled copy of default.cue.
func TestDefaultArtifactIsFresh(t *testing.T) {
	payload, err := ir.Encode(compile(t, "default.cue"))
	if err != nil {
		t.Fatal(err)
	}
	embedded, err := os.ReadFile("../exec/default.sbx")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(embedded, seal.Seal(payload)) {
		t.Error("exec/default.sbx is stale: run go generate ./exec")
	}
}

// TestCommented: the head of each file says who the policy is for.
func TestCommented(t *testing.T) {
	each(t, func(t *testing.T, file string, p *ir.Program) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(text, []byte("// For ")) {
			t.Errorf("%s does not begin with a comment that says who it is for", file)
		}
		if p.Description == "" {
			t.Errorf("%s has no description", file)
		}
	})
}
