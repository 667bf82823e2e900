package lower

import (
	"slices"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// KernelView completes the view by what follows from all grants: which of the kernel's file systems another root needs, what
// of them stays closed, and whether the sandbox needs the host's network at all.
func KernelView(u *Unit) {
	v := &u.Program.View
	if !v.Mount {
		return
	}
	for i := range u.Program.Landlock.Paths {
		r := &u.Program.Landlock.Paths[i]
		within := func(dir string) bool { return r.Path == "/" || query.Beneath(r.Path, dir) }
		if v.Root != "" {
			v.Dev, v.Sys = v.Dev || within("/dev"), v.Sys || within("/sys")
		}
		v.Masks = append(v.Masks, ir.KernelReached(ir.KernelClosed, r.Path)...)
		if r.Writes() {
			v.ReadOnly = append(v.ReadOnly, ir.KernelReached(ir.KernelReadOnly, r.Path)...)
		}
	}
	v.Masks, v.ReadOnly = sortedSet(v.Masks), sortedSet(v.ReadOnly)
	if v.Root != "" && v.Proc == ir.ProcHost { // nothing is mounted there
		inProc := func(p string) bool { return query.Beneath(p, "/proc") }
		v.Masks, v.ReadOnly = slices.DeleteFunc(v.Masks, inProc), slices.DeleteFunc(v.ReadOnly, inProc)
	}
	// Files beneath /proc tell of the network namespace of their process. Nothing else of it is within reach.
	tells := u.readable("/proc/self/net/dev") || u.readable("/proc/net/dev") || u.readable("/proc/1/net/dev")
	v.Net = v.PID && tells && !usesNetwork(u)
}

// usesNetwork reports whether the sandbox may reach or serve anything: if not, it does as well without the host's
// interfaces. Where Landlock does not refuse ports or abstract sockets something could be reached by leave, so the host's
// network stays: who waives a protection asks for that.
func usesNetwork(u *Unit) bool {
	const ports = abi.NetBindTCP | abi.NetConnectTCP
	src, l := &u.Policy.Network, &u.Program.Landlock
	reaches := len(src.Allow.Items)+len(src.Deny.Items) > 0 || u.Policy.HTTP.On() || src.Resolver.V || u.Filter.UDP || u.Filter.ICMP
	serves := len(src.AllowBind.Items)+len(src.DenyBind.Items) > 0 || src.PortRemap.V
	waived := l.Handled.Net&ports != ports || u.Filter.UnixSockets && l.Handled.Scoped&abi.ScopeAbstractUnix == 0
	return reaches || serves || waived || len(l.Ports) > 0
}
