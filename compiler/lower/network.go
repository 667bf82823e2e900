package lower

import (
	"cmp"
	"slices"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

var networkFields = []string{"network.allow", "network.allow_bind", "network.unix"}

// Network lowers TCP ports to Landlock rules. A right for which every port is granted is not handled at all: a ruleset
// cannot say "any port". Unix sockets stay closed (the filter refuses to make them), because no rule of Landlock's
// common ABIs can say which paths they may reach.
func Network(u *Unit) {
	n := &u.Policy.Network
	for _, it := range n.Allow.Items {
		grantPorts(u, it.V.Ports, abi.NetConnectTCP, it.Origin)
	}
	for _, it := range n.AllowBind.Items {
		grantPorts(u, it.V, abi.NetBindTCP, it.Origin)
	}
	l := &u.Program.Landlock
	l.Ports = slices.DeleteFunc(l.Ports, func(r ir.PortRule) bool { return r.Access&l.Handled.Net == 0 })
	u.Filter.BindPorts, u.Filter.BindOrigin = bindPorts(u)
}

// bindPorts says what the filter does about listen, which can bind a port by itself.
func bindPorts(u *Unit) (seccomp.BindPorts, ir.OriginRef) {
	bind := &u.Policy.Network.AllowBind
	switch {
	case u.Program.Landlock.Handled.Net&abi.NetBindTCP == 0:
		return seccomp.BindAny, 0
	case len(bind.Items) > 0:
		return seccomp.BindListed, u.ref(bind.Items[0].Origin)
	}
	return seccomp.BindNone, 0
}

func grantPorts(u *Unit, set policy.PortSet, right uint64, o policy.Origin) {
	l := &u.Program.Landlock
	if set.All {
		l.Handled.Net &^= right
		l.Degrade.Net &^= right
		return
	}
	ref := u.ref(o)
	for _, r := range set.Ranges {
		for port := int(r.Lo); port <= int(r.Hi); port++ {
			addPort(u, ir.PortRule{Access: right, Port: uint16(port), Origin: ref})
		}
	}
	for _, name := range set.Params {
		addPort(u, ir.PortRule{Access: right, Param: name, Origin: ref})
	}
}

// addPort adds a rule. Rules are sorted by right, then by port, parameters last; each is there once.
func addPort(u *Unit, r ir.PortRule) {
	ports := &u.Program.Landlock.Ports
	i, found := slices.BinarySearchFunc(*ports, r, func(a, b ir.PortRule) int {
		return cmp.Or(cmp.Compare(b.Access, a.Access), cmp.Compare(a.Param, b.Param), cmp.Compare(a.Port, b.Port))
	})
	if !found {
		*ports = slices.Insert(*ports, i, r)
	}
}
