package exec

import (
	"slices"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// The protection matrix: what a policy asked for, on hosts of every ABI.
func TestHandledHere(t *testing.T) {
	full := func(v int) ir.Rights {
		fs, net, scoped := abi.Supported(v)
		return ir.Rights{FS: fs, Net: net, Scoped: scoped}
	}
	tests := []struct {
		name    string
		l       ir.Landlock
		host    int
		want    ir.Rights
		problem string
	}{
		{"all there", ir.Landlock{Handled: full(6)}, 6, full(6), ""},
		{"newer host enforces what was asked, no more", ir.Landlock{Handled: full(6)}, 7, full(6), ""},
		{"strict scopes on ABI 5", ir.Landlock{Handled: full(6)}, 5, full(5), "abstract_unix, signal: needs ABI 6, this kernel has ABI 5"},
		{"degradable scopes on ABI 5", ir.Landlock{Handled: full(6), Degrade: ir.Rights{Scoped: 3}}, 5, full(5), ""},
		{"everything degradable on ABI 1", ir.Landlock{Handled: full(6), Degrade: full(6)}, 1, full(1), ""},
		{"newer rights than the host", ir.Landlock{Handled: full(10)}, 7, full(7), "resolve_unix, bind_udp, connect_send_udp: needs ABI 10"},
		{"no Landlock at all", ir.Landlock{Handled: full(6), Degrade: full(6)}, 0, ir.Rights{}, "no Landlock"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, problems := handledHere(&tc.l, tc.host)
			if got != tc.want {
				t.Errorf("handled = %+v, want %+v", got, tc.want)
			}
			text := strings.Join(problems, "\n")
			if (text == "") != (tc.problem == "") || !strings.Contains(text, tc.problem) {
				t.Errorf("problems %q, want %q", text, tc.problem)
			}
		})
	}
}

func TestMissingNamesThePolicyFields(t *testing.T) {
	p := &ir.Program{Requires: []ir.Requirement{
		{Feature: ir.FeatureLandlock, Min: 6, Fields: []string{"filesystem"}},
		{Feature: ir.FeatureSeccompNotify, Fields: []string{"filesystem.write", "limits.processes"}},
		{Feature: ir.FeaturePtrace, Fields: []string{"rules"}},
	}}
	got := strings.Join(Missing(p, kernel.Host{LandlockABI: 5, SeccompFilter: true, PtraceReason: "sysctl kernel.yama.ptrace_scope 2, 1 is needed"}), "\n")
	for _, want := range []string{"landlock ABI 6, this host has ABI 5 (for filesystem)", "seccomp-notify (for filesystem.write, limits.processes)", "needs ptrace, this host has sysctl kernel.yama.ptrace_scope 2, 1 is needed (for rules)"} {
		if !strings.Contains(got, want) {
			t.Errorf("missing lacks %q:\n%s", want, got)
		}
	}
	if got := Missing(p, kernel.Host{LandlockABI: 6, SeccompFilter: true, SeccompNotify: true, Ptrace: true}); len(got) != 0 {
		t.Errorf("a host with everything misses %q", got)
	}
}

// A namespaced start is refused before it begins where a probe has shown why; the policy's insistence on an own /proc is
// a matter apart.
func TestMissingNamespaces(t *testing.T) {
	all := kernel.Host{Namespaces: true, UserNamespaces: true, FreshProc: true, MappedProc: true}
	with := func(change func(h *kernel.Host)) kernel.Host { h := all; change(&h); return h }
	noProc := with(func(h *kernel.Host) { h.FreshProc, h.FreshProcReason = false, "/proc is covered" })
	noMapped := with(func(h *kernel.Host) { h.MappedProc, h.MappedProcReason = false, "/proc is covered" })
	none := kernel.Host{NamespacesReason: "sysctl A is 0", UserNSReason: "sysctl B is 0", FreshProcReason: "C", MappedProcReason: "D"}
	plain := ir.Requirement{Feature: ir.FeatureNamespaces, Fields: []string{"filesystem.tmp"}}
	mapped := ir.Requirement{Feature: ir.FeatureUserNamespace, Fields: []string{"program.uid"}}
	for _, tc := range []struct {
		name     string
		requires []ir.Requirement
		view     ir.View
		host     kernel.Host
		want     []string
	}{
		{"everything there", []ir.Requirement{plain, mapped}, ir.View{Proc: ir.ProcPrivate, MapIDs: true}, all, nil},
		{"none", []ir.Requirement{plain}, ir.View{}, none, []string{"needs namespaces (for filesystem.tmp): sysctl A is 0"}},
		{"none, and ids mapped", []ir.Requirement{plain, mapped}, ir.View{MapIDs: true, Proc: ir.ProcPrivate}, none,
			[]string{"needs namespaces (for filesystem.tmp): sysctl A is 0", "needs user-namespace (for program.uid): sysctl B is 0"}},
		{"no new /proc", []ir.Requirement{plain}, ir.View{Proc: ir.ProcPrivate}, noProc, []string{"needs a new /proc (for filesystem.proc): /proc is covered"}},
		{"no new /proc, and none insisted on", []ir.Requirement{plain}, ir.View{Proc: ir.ProcAuto}, noProc, nil},
		{"no new /proc with ids mapped, but they are not", []ir.Requirement{plain}, ir.View{Proc: ir.ProcPrivate}, noMapped, nil},
		{"no new /proc with ids mapped", []ir.Requirement{mapped}, ir.View{Proc: ir.ProcPrivate, MapIDs: true}, noMapped, []string{"needs a new /proc (for filesystem.proc): /proc is covered"}},
	} {
		p := &ir.Program{Requires: tc.requires, View: tc.view, Process: ir.Process{Start: ir.StartNamespaced}}
		if got := unmet(p, tc.host); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	// A start asks nothing beforehand that would cost it a child.
	if got := unmet(&ir.Program{Requires: []ir.Requirement{plain, mapped}}, kernel.ProbeForStart()); len(got) != 0 {
		t.Errorf("a start would be refused beforehand: %q", got)
	}
}
