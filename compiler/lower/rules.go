package lower

import (
	"math"
	"net/netip"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

var rulesFields = []string{"rules"}

// RuleEvents maps what a rule looks at to events; compiler/check asks too.
var RuleEvents = map[string]ir.Events{
	"execve": ir.EventExec, "clone": ir.EventClone, "open": ir.EventOpen, "unlink": ir.EventUnlink, "rename": ir.EventRename,
	"connect": ir.EventConnect, "bind": ir.EventBind, "sendto": ir.EventSend,
	"process": ir.EventExec | ir.EventClone, "file": ir.EventFile, "network": ir.EventNetwork,
}

// heldCalls are the calls behind each event, but for the fork family, which has a gate of its own.
var heldCalls = []struct {
	event ir.Events
	calls []string
}{
	{ir.EventExec, []string{"execve", "execveat"}},
	{ir.EventOpen, []string{"open", "openat", "openat2", "creat"}},
	{ir.EventUnlink, []string{"unlink", "unlinkat", "rmdir"}},
	{ir.EventRename, []string{"rename", "renameat", "renameat2"}},
	{ir.EventLink, []string{"link", "linkat"}},
	{ir.EventMake, []string{"mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat"}},
	{ir.EventTruncate, []string{"truncate"}},
	{ir.EventConnect, []string{"connect"}},
	{ir.EventBind, []string{"bind"}},
}

// Rules lowers the dynamic rules, and has exactly the calls held that they look at.
func Rules(u *Unit) {
	p := u.Program
	for _, it := range u.Policy.Rules.Items {
		p.Rules = append(p.Rules, dynamicRule(u, it))
	}
	held := p.HeldEvents()
	if held == 0 {
		return
	}
	origin := u.ref(u.Policy.Rules.Origin)
	if origin == 0 {
		origin = p.Rules[0].Origin
	}
	u.Filter.HoldForks, u.Filter.HoldCalls, u.Filter.HoldOrigin = held&ir.EventClone != 0, held&^ir.EventClone != 0, origin
	for _, h := range heldCalls {
		if held&h.event != 0 {
			u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{Names: h.calls, Reason: "rules", Origin: origin})
		}
	}
	if held&ir.EventSend != 0 && (u.Filter.UDP || u.Filter.ICMP) { // no other socket sends where a call says
		trapSends(u, "rules", origin)
	}
	keepLineage(u, origin)
	keepTags(u, origin)
}

// keepTags refuses to change what processes of a scope are known by: a resource limit that the kernel gives to children and
// otherwise ignores (see exec/handler/processes/scope.go). Reading it is allowed, programs list all limits.
func keepTags(u *Unit, origin ir.OriginRef) {
	if !u.Program.LimitsScopes() {
		return
	}
	const rlimitLocks = 10
	const reason = "rules: descendants must be known by their limit of file locks"
	given := ir.Cond{Arg: 2, Op: ir.OpNe, Mask: math.MaxUint64, Value: 0}
	u.Filter.Args = append(u.Filter.Args,
		seccomp.ArgRule{Syscall: "setrlimit", Arg: 0, Op: ir.OpEq, Value: rlimitLocks, Mask: math.MaxUint32, Then: seccomp.ThenDeny, Origin: origin, Reason: reason},
		seccomp.ArgRule{Syscall: "prlimit64", Arg: 1, Op: ir.OpEq, Value: rlimitLocks, Mask: math.MaxUint32, And: []ir.Cond{given}, Then: seccomp.ThenDeny, Origin: origin, Reason: reason})
}

// keepLineage refuses the two ways for a process to have another parent than the one that made it, as long as that is
// alive: rules for a process and its descendants go by parents.
func keepLineage(u *Unit, origin ir.OriginRef) {
	const cloneParent, prSetChildSubreaper = 0x8000, 36
	for i := range u.Program.Rules {
		if u.Program.Rules[i].Scope != ir.ScopeProcess {
			continue
		}
		reason := "rules: descendants must be known by their parents"
		u.Filter.Args = append(u.Filter.Args,
			seccomp.ArgRule{Syscall: "clone", Arg: 0, Op: ir.OpSet, Value: cloneParent, Mask: math.MaxUint32, Then: seccomp.ThenDeny, Origin: origin, Reason: reason},
			seccomp.ArgRule{Syscall: "prctl", Arg: 0, Op: ir.OpEq, Value: prSetChildSubreaper, Mask: math.MaxUint32, Then: seccomp.ThenDeny, Origin: origin, Reason: reason})
		return
	}
}

func dynamicRule(u *Unit, it policy.Val[policy.DynamicRule]) ir.DynamicRule {
	src := &it.V
	r := ir.DynamicRule{
		Argv: src.If.ArgvContains.V, Exe: src.If.Exe.V, Path: src.If.Path.V, AfterExec: src.If.After.V == "exec", Count: src.If.Count.V,
		Host: ruleHost(src.If.Host.V), Port: src.If.Port.V, Protocol: protocols[src.If.Protocol.V],
		Then: outcome(&src.Then), Scope: ir.ScopeSandbox, Reason: src.Reason.V, Origin: u.ref(it.Origin),
	}
	for _, on := range src.On.Items {
		r.On |= RuleEvents[on.V]
	}
	if src.Scope.V == "process" {
		r.Scope = ir.ScopeProcess
	}
	for _, do := range src.Do.Items {
		switch {
		case do.V.RestrictProcesses.Set:
			r.Do = append(r.Do, ir.Change{Kind: ir.ChangeProcesses, Value: uint64(do.V.RestrictProcesses.V)})
		case do.V.RestrictMemory.Set:
			r.Do = append(r.Do, ir.Change{Kind: ir.ChangeMemory, Value: do.V.RestrictMemory.V})
		case do.V.DenyPath.Set:
			r.Do = append(r.Do, ir.Change{Kind: ir.ChangeDenyPath, Path: do.V.DenyPath.V})
		case do.V.RestrictNetwork.Set:
			r.Do = append(r.Do, ir.Change{Kind: ir.ChangeNetwork, Net: netRules(u, do.V.RestrictNetwork)})
		}
	}
	return r
}

var protocols = map[string]ir.Protocols{"tcp": ir.TCP, "udp": ir.UDP, "icmp": ir.ICMP}

// ruleHost writes an address as a block.
func ruleHost(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()).String()
	}
	return host
}

func outcome(o *policy.RuleOutcome) ir.Outcome {
	switch o.Action.V {
	case "allow":
		return ir.Outcome{Kind: ir.OutcomeAllow}
	case "audit":
		return ir.Outcome{Kind: ir.OutcomeAudit}
	case "deny":
		return ir.Outcome{Kind: ir.OutcomeErrno, Errno: uint16(abi.EPERM)}
	case "kill":
		return ir.Outcome{Kind: ir.OutcomeKill}
	case "errno":
		n, _ := abi.ErrnoByName(o.Errno.V)
		return ir.Outcome{Kind: ir.OutcomeErrno, Errno: uint16(n)}
	}
	return ir.Outcome{}
}

func ruleMechanisms(u *Unit, add adder) {
	p := u.Program
	if len(p.Rules) == 0 {
		return
	}
	held := p.HeldEvents()
	if p.VerifiesExec() {
		add("rules", "notify, ptrace", "a program is looked at before its execve, and once more before its first instruction, when nobody can change its arguments")
	} else if held&(ir.EventExec|ir.EventClone) != 0 {
		add("rules", "notify", "the supervisor decides by the call alone")
	}
	if p.LimitsScopes() {
		add("rules", "rlimit", "processes of a scope are known by a resource limit that children inherit and the kernel does not use (RLIMIT_LOCKS)")
	}
	if held&ir.EventFile != 0 {
		add("rules", "notify, on behalf", "where a path matters the supervisor pins the file, decides, and carries the call out itself: swapping the path is of no use")
	}
	if held&ir.EventNetwork != 0 {
		add("rules", "notify, on behalf", "the supervisor decides by a copy of the address, and connects, sends and binds itself")
	}
}
