package lower

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// policyWith returns a policy of defaults at a Landlock ABI, with all protections in one mode.
func policyWith(landlock int, mode string) *policy.Policy {
	val := policy.Val[string]{V: mode}
	p := &policy.Policy{Protections: policy.Protections{
		FSRefer: val, FSTruncate: val, FSIoctlDev: val, NetTCP: val, SignalScope: val, AbstractUnixScope: val,
		UnixPath: val, NetUDP: val,
	}}
	p.Target.Landlock.V = landlock
	return p
}

// TestProtectionMatrix: for every ABI and mode, what is handled, what may degrade, and what the host must have.
func TestProtectionMatrix(t *testing.T) {
	for v := 1; v <= abi.LatestLandlock; v++ {
		fs, net, scoped := abi.Supported(v)
		for _, mode := range []string{"strict", "degrade", "off"} {
			u := New(policyWith(v, mode))
			Target(u)
			l := &u.Program.Landlock
			want := ir.Rights{FS: fs, Net: net, Scoped: scoped}
			base, _, _ := abi.Supported(1)
			var degrade ir.Rights
			floor := uint32(v)
			switch mode {
			case "degrade":
				degrade, floor = ir.Rights{FS: fs &^ base, Net: net, Scoped: scoped}, 1
			case "off":
				want, floor = ir.Rights{FS: base}, 1
			}
			if l.Handled != want || l.Degrade != degrade {
				t.Errorf("ABI %d, %s: got handled %+v degrade %+v, want %+v and %+v", v, mode, l.Handled, l.Degrade, want, degrade)
			}
			// ABIs 7, 8 and 11 brought no right that a ruleset handles: an older kernel does as well.
			got := landlockFloor(l)
			hostFS, hostNet, hostScoped := abi.Supported(int(got))
			if got > floor || mode == "strict" && (hostFS != fs || hostNet != net || hostScoped != scoped) {
				t.Errorf("ABI %d, %s: got floor %d, want at most %d with the same rights", v, mode, got, floor)
			}
		}
	}
}

// TestEachProtection: exactly its rights go, and only where the target knows them.
func TestEachProtection(t *testing.T) {
	for i, p := range Protections(&policyWith(abi.LatestLandlock, "strict").Protections) {
		for v := 1; v <= abi.LatestLandlock; v++ {
			tree := policyWith(v, "strict")
			fields := []*policy.Val[string]{
				&tree.Protections.FSRefer, &tree.Protections.FSTruncate, &tree.Protections.NetTCP, &tree.Protections.FSIoctlDev,
				&tree.Protections.SignalScope, &tree.Protections.AbstractUnixScope, &tree.Protections.UnixPath, &tree.Protections.NetUDP,
			}
			fields[i].V = "off"
			u := New(tree)
			Target(u)
			fs, net, scoped := abi.Supported(v)
			got := u.Program.Landlock.Handled
			if want := (ir.Rights{FS: fs &^ p.Rights.FS, Net: net &^ p.Rights.Net, Scoped: scoped &^ p.Rights.Scoped}); got != want {
				t.Errorf("%s off at ABI %d: got %+v, want %+v", p.Name, v, got, want)
			}
			known := fs&p.Rights.FS | net&p.Rights.Net | scoped&p.Rights.Scoped
			if (known != 0) != (v >= p.Since) {
				t.Errorf("%s: known at ABI %d: %v, but it is said to be there since %d", p.Name, v, known != 0, p.Since)
			}
		}
	}
}

// TestArgRulesAreNeverLooser: a rule that looks at the low 32 bits must deny whatever the same rule on all bits denies,
// and must not be passed by a dirty upper half where the kernel takes an int.
func TestArgRulesAreNeverLooser(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	values := []uint64{0, 1, 2, 3, 14, 100, math.MaxInt32, math.MaxUint32 - 1, math.MaxUint32, math.MaxUint32 + 1, 1 << 40, math.MaxUint64}
	for op := range argOps {
		for _, then := range []string{"deny", "allow"} {
			for _, value := range values {
				r := argRule(policy.SyscallArg{
					Op: policy.Val[string]{V: op}, Then: policy.Val[string]{V: then}, Value: policy.Val[uint64]{V: value},
				}, 0)
				denies := func(mask, arg uint64) bool {
					holds := query.Holds(ir.Cond{Op: r.Op, Mask: mask, Value: r.Value}, arg)
					return holds == (r.Then == seccomp.ThenDeny)
				}
				for range 200 {
					arg := values[random.IntN(len(values))] + uint64(random.IntN(3)) - 1
					if denies(math.MaxUint64, arg) && !denies(r.Mask, arg) {
						t.Fatalf("%s %s %#x: %#x is let through, a comparison of 64 bits denies it", then, op, value, arg)
					}
					dirty := arg&math.MaxUint32 | uint64(random.Uint32()|1)<<32
					if value <= math.MaxUint32 && denies(math.MaxUint64, arg&math.MaxUint32) && !denies(r.Mask, dirty) {
						t.Fatalf("%s %s %#x: %#x passes with a dirty upper half as %#x", then, op, value, arg&math.MaxUint32, dirty)
					}
				}
			}
		}
	}
}

func TestOnDeny(t *testing.T) {
	for _, tc := range []struct {
		text string
		want seccomp.OnDeny
		log  bool
	}{{"errno", seccomp.OnDenyErrno, false}, {"kill", seccomp.OnDenyKill, false}, {"log", seccomp.OnDenyErrno, true}} {
		u := New(&policy.Policy{})
		u.Policy.Syscalls.OnDeny.V = tc.text
		Syscalls(u)
		if u.Filter.OnDeny != tc.want || u.Program.Seccomp.LogDenied != tc.log {
			t.Errorf("%s: got %v, log %v", tc.text, u.Filter.OnDeny, u.Program.Seccomp.LogDenied)
		}
	}
}

// TestAddPath: the order in which rules come does not matter, and no path has two lines.
func TestAddPath(t *testing.T) {
	rules := []ir.PathRule{
		{Path: "/a", Access: 1, Kind: ir.PathOptional}, {Path: "/a", Access: 2, Kind: ir.PathRequired},
		{Path: "/a/b", Access: 1, Kind: ir.PathOptional}, {Path: "/a", Access: 4, Kind: ir.PathNumbered},
		{Path: "/", Access: 8, Kind: ir.PathRequired}, {Path: "/a", Access: 8, Kind: ir.PathNumbered},
	}
	want := []ir.PathRule{
		{Path: "/", Access: 8, Kind: ir.PathRequired}, {Path: "/a", Access: 3, Kind: ir.PathRequired},
		{Path: "/a", Access: 12, Kind: ir.PathNumbered}, {Path: "/a/b", Access: 1, Kind: ir.PathOptional},
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		random.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
		u := New(&policy.Policy{})
		for _, r := range rules {
			addPath(u, r)
		}
		if got := u.Program.Landlock.Paths; !slices.Equal(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
}

func TestOriginsAreShared(t *testing.T) {
	u := New(&policy.Policy{})
	at := policy.Origin{Place: policy.Place{File: "p.cue", Line: 3, Col: 4}, Path: "limits.gpu_devices", Kind: ir.OriginUser}
	first, again, derived := u.ref(at), u.ref(at), u.derived(at)
	if first != 1 || again != first || derived != 2 {
		t.Errorf("got %d, %d and %d, want 1, 1 and 2", first, again, derived)
	}
	if ref := u.ref(policy.Origin{Path: "limits.time"}); ref != 0 {
		t.Errorf("a value that nobody wrote: got reference %d, want 0", ref)
	}
	if got := u.At(first); got.Place != at.Place || got.Path != at.Path {
		t.Errorf("got %+v, want %+v", got, at)
	}
	if got := u.At(99); got.File != "" {
		t.Errorf("a reference beyond the table: got %+v", got)
	}
}
