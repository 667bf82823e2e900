package lower

import (
	"math"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
)

var syscallsFields = []string{"syscalls"}

// Syscalls lowers the policy's own rules about system calls to what the filter is asked.
func Syscalls(u *Unit) {
	s := &u.Policy.Syscalls
	for _, it := range s.ExtraAllow.Items {
		u.Filter.AllowGroups = append(u.Filter.AllowGroups, seccomp.Named{Name: it.V, Origin: u.ref(it.Origin)})
	}
	for _, it := range s.ExtraDeny.Items {
		u.Filter.Deny = append(u.Filter.Deny, seccomp.Named{Name: it.V, Origin: u.ref(it.Origin)})
	}
	for _, it := range s.Args.Items {
		u.Filter.Args = append(u.Filter.Args, argRule(it.V, u.ref(it.Origin)))
	}
	switch s.OnDeny.V {
	case "kill":
		u.Filter.OnDeny = seccomp.OnDenyKill
	case "log":
		u.Program.Seccomp.LogDenied = true
	}
}

var argOps = map[string]ir.Op{
	"==": ir.OpEq, "!=": ir.OpNe, "<": ir.OpLt, "<=": ir.OpLe, ">": ir.OpGt, ">=": ir.OpGe, "&": ir.OpSet,
}

func argRule(a policy.SyscallArg, origin ir.OriginRef) seccomp.ArgRule {
	r := seccomp.ArgRule{
		Syscall: a.Syscall.V, Arg: uint8(a.Arg.V), Op: argOps[a.Op.V], Value: a.Value.V, Mask: math.MaxUint64,
		Then: seccomp.ThenDeny, Origin: origin,
	}
	if a.Then.V == "allow" {
		r.Then = seccomp.ThenAllow
	}
	if lowHalf(r) {
		r.Mask = math.MaxUint32
	}
	return r
}

// lowHalf tells whether a rule must look at the low 32 bits only. Many calls take an int and ignore the upper half of
// the register, so a rule that denies small values could be passed with a dirty upper half (CVE-2019-7303). Comparing
// the low half can only make such a rule stricter: it denies, or fails to allow, more.
func lowHalf(r seccomp.ArgRule) bool {
	if r.Value > math.MaxUint32 {
		return false
	}
	if r.Then == seccomp.ThenDeny {
		return r.Op == ir.OpEq || r.Op == ir.OpLt || r.Op == ir.OpLe
	}
	return r.Op == ir.OpNe || r.Op == ir.OpGt || r.Op == ir.OpGe
}
