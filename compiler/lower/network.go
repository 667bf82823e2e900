package lower

import (
	"cmp"
	"slices"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

var networkFields = []string{
	"network.allow", "network.deny", "network.allow_bind", "network.deny_bind", "network.unix", "network.hosts", "network.private",
	"network.resolver", "network.resolve", "network.port_remap",
}

// Network lowers destinations and ports. Rules that speak of TCP ports alone are Landlock's, and trap nothing; where one
// speaks of an address or of UDP ports the supervisor connects and sends in place of the sandbox, which itself then may
// not connect anywhere.
func Network(u *Unit) {
	src, n := &u.Policy.Network, &u.Program.Net
	switch {
	case len(src.Deny.Items) > 0:
		n.Destinations, n.Origin = ir.DestinationsDenied, u.ref(src.Deny.Origin)
		n.Rules = netRules(u, src.Deny)
		u.Filter.UDP, u.Filter.ICMP = true, true
	case SupervisesDestinations(u.Policy):
		n.Destinations, n.Origin = ir.DestinationsAllowed, u.ref(src.Allow.Origin)
		if u.Policy.HTTP.On() && len(src.Allow.Items) == 0 {
			n.Origin = u.derived(u.Policy.HTTP.Origin())
		}
		n.Rules = netRules(u, src.Allow)
		allowSockets(u)
	default:
		for _, it := range src.Allow.Items {
			if it.V.TCP {
				grantPorts(u, it.V.Ports, abi.NetConnectTCP, it.Origin)
			}
			if it.V.UDP {
				grantPorts(u, it.V.Ports, abi.NetConnectSendUDP, it.Origin)
			}
		}
		allowSockets(u)
	}
	if u.Filter.UDP { // what may be served are TCP ports
		grantPorts(u, policy.PortSet{All: true}, abi.NetBindUDP, src.Allow.Origin)
	}
	if n.Destinations == ir.DestinationsAllowed {
		n.Rules = append(n.Rules, httpReach(u)...)
	}
	if n.Destinations == ir.DestinationsDenied {
		n.Named = httpNames(u)
	}
	n.Intercepted = HTTPPorts(u.Policy)
	if n.DecidesDestinations() {
		n.Private, n.Resolver = src.Private.V, src.Resolver.V
	}
	u.Filter.Destinations = n.DecidesDestinations()
	n.Hosts = hosts(u)
	binds(u)
	unixSockets(u)
	l := &u.Program.Landlock
	l.Ports = slices.DeleteFunc(l.Ports, func(r ir.PortRule) bool { return r.Access&l.Handled.Net == 0 })
	u.Filter.UsesNetwork = n.DecidesDestinations() || n.Unix != ir.UnixNone || len(src.Allow.Items)+len(src.AllowBind.Items)+len(src.DenyBind.Items) > 0
	u.Filter.BindPorts, u.Filter.BindOrigin = bindPorts(u)
	trapSockets(u)
	hostsFile(u)
	socketFiles(u)
}

// socketFiles has opens notified where ports are virtual and files can be read that list sockets: those in the network directory of
// a process, for which there are too many names to mount over. A path that holds a parameter cannot lead into /proc.
func socketFiles(u *Unit) {
	n := &u.Program.Net
	if n.PortRemap && listsSockets(u) {
		trapOpens(u, "network.port_remap: a file that lists sockets may be opened", n.RemapOrigin, true)
	}
}

// listsSockets reports whether the policy grants to read a file that lists sockets.
func listsSockets(u *Unit) bool {
	return slices.ContainsFunc(u.Program.Landlock.Paths, func(r ir.PathRule) bool {
		return r.Access&abi.FSReadFile != 0 && (showsProcesses(r.Path) || query.Beneath(r.Path, "/proc/net"))
	})
}

// HostsFile is where programs look names up (hosts(5)).
const HostsFile = "/etc/hosts"

// hostsFile has opens notified where names have fixed addresses and the file can be read in which programs look for them.
// Where the sandbox has mounts of its own the file is mounted over instead.
func hostsFile(u *Unit) {
	n := &u.Program.Net
	if u.Policy.Program.NoSupervisor.V || u.Program.View.Shows() || !n.PinsNames() || !u.readable(HostsFile) {
		return
	}
	origin := n.Origin
	if len(n.Hosts) > 0 {
		origin = n.Hosts[0].Origin
	}
	trapOpens(u, "network.hosts: /etc/hosts may be opened", origin, true)
}

// SupervisesDestinations reports whether Landlock cannot tell what a list of rules allows: it knows ports only, those of UDP
// since ABI 10, and whether there are UDP and ICMP sockets at all is the filter's.
func SupervisesDestinations(p *policy.Policy) bool {
	const sinceUDP = 10
	n, knowsUDP := &p.Network, p.Target.Landlock.V >= sinceUDP && p.Protections.NetUDP.V == "strict"
	return n.Resolver.V || p.HTTP.On() || slices.ContainsFunc(n.Allow.Items, func(it policy.Val[policy.NetRule]) bool {
		r := &it.V
		return r.Kind != policy.TargetAny || r.UDP && !r.Ports.All && !knowsUDP
	})
}

// allowSockets has datagram sockets made where a rule is about their protocol.
func allowSockets(u *Unit) {
	u.Filter.UDP = u.Filter.UDP || u.Policy.Network.Resolver.V // to ask it by
	for _, it := range u.Policy.Network.Allow.Items {
		u.Filter.UDP = u.Filter.UDP || it.V.UDP
		u.Filter.ICMP = u.Filter.ICMP || it.V.ICMP
	}
}

func netRules(u *Unit, list policy.List[policy.NetRule]) []ir.NetRule {
	var rules []ir.NetRule
	for _, it := range list.Items {
		src := &it.V
		r := ir.NetRule{Kind: ir.TargetAny, Ports: netPorts(src.Ports), Origin: u.ref(it.Origin)}
		for _, p := range []struct {
			named    bool
			protocol ir.Protocols
		}{{src.TCP, ir.TCP}, {src.UDP, ir.UDP}, {src.ICMP, ir.ICMP}} {
			if p.named {
				r.Protocols |= p.protocol
			}
		}
		switch src.Kind {
		case policy.TargetPrefix:
			r.Kind, r.Target = ir.TargetPrefix, src.Prefix.String()
		case policy.TargetHost:
			r.Kind, r.Target = ir.TargetHost, src.Host
		}
		rules = append(rules, r)
	}
	return rules
}

// netPorts returns no ports for all of them.
func netPorts(set policy.PortSet) []ir.NetPort {
	if set.All {
		return nil
	}
	var ports []ir.NetPort
	for _, r := range set.Ranges {
		ports = append(ports, ir.NetPort{Lo: r.Lo, Hi: r.Hi})
	}
	for _, name := range set.Params {
		ports = append(ports, ir.NetPort{Param: name})
	}
	return ports
}

// hosts are the names with fixed addresses: those that the policy gives, and those of the lock file.
func hosts(u *Unit) []ir.NetHost {
	var list []ir.NetHost
	for _, it := range u.Policy.Network.Hosts.Items {
		h := ir.NetHost{Name: it.V.Name, Origin: u.ref(it.Origin)}
		for _, a := range it.V.Addresses.Items {
			h.Addresses = append(h.Addresses, a.V.String())
		}
		list = append(list, h)
	}
	for i, e := range u.Lock {
		if i == 0 || u.Lock[i-1].Name != e.Name {
			list = append(list, ir.NetHost{Name: e.Name, Origin: u.ref(policy.Origin{Place: e.Place, Path: "network.resolve", Kind: ir.OriginUser})})
		}
		h := &list[len(list)-1]
		h.Addresses = append(h.Addresses, e.Address.String())
	}
	slices.SortFunc(list, func(a, b ir.NetHost) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// binds lowers what may be served. Landlock can list ports that may be bound, and not those that may not.
func binds(u *Unit) {
	src, n := &u.Policy.Network, &u.Program.Net
	for _, it := range src.AllowBind.Items {
		grantPorts(u, it.V, abi.NetBindTCP, it.Origin)
	}
	if len(src.DenyBind.Items) > 0 {
		grantPorts(u, policy.PortSet{All: true}, abi.NetBindTCP, src.DenyBind.Origin)
		n.DenyBindOrigin = u.ref(src.DenyBind.Origin)
		for _, it := range src.DenyBind.Items {
			n.DenyBind = append(n.DenyBind, denied(it.V)...)
		}
	}
	if src.PortRemap.V {
		n.PortRemap, n.RemapOrigin = true, u.ref(src.PortRemap.Origin)
	}
}

// denied leaves port 0 out: to ask for an ephemeral port is to name none.
func denied(set policy.PortSet) []ir.NetPort {
	ports := slices.DeleteFunc(netPorts(set), func(p ir.NetPort) bool { return p.Param == "" && p.Hi == 0 })
	for i := range ports {
		if p := &ports[i]; p.Param == "" {
			p.Lo = max(p.Lo, 1)
		}
	}
	return ports
}

// unixSockets lowers the reach of pathname sockets. Where the target's Landlock has a right for it the kernel decides;
// else the supervisor connects and sends.
func unixSockets(u *Unit) {
	src, n := &u.Policy.Network.Unix, &u.Program.Net
	if src.Mode.V == "none" || src.Mode.V == "" {
		return
	}
	u.Filter.UnixSockets = true
	n.Unix, n.UnixOrigin = ir.UnixGranted, u.ref(src.Mode.Origin)
	for _, it := range src.Paths.Items {
		n.UnixPaths = append(n.UnixPaths, ir.UnixPath{Path: it.V, Origin: u.ref(it.Origin)})
	}
	if !kernelDecidesUnix(u) {
		return
	}
	for _, it := range u.Policy.Filesystem.Write.Items {
		grantPath(u, it, abi.FSResolveUnix)
	}
	grantMounts(u, 0, abi.FSResolveUnix)
	for _, it := range src.Paths.Items {
		addPath(u, ir.PathRule{Path: it.V, Access: abi.FSResolveUnix, Kind: ir.PathOptional, Origin: u.ref(it.Origin)})
	}
}

// kernelDecidesUnix reports whether every host that may run the program has Landlock's right for pathname sockets.
func kernelDecidesUnix(u *Unit) bool {
	l := &u.Program.Landlock
	return l.Handled.FS&^l.Degrade.FS&abi.FSResolveUnix != 0
}

// trapSockets has the calls notified that name a destination or a port which registers do not show. Sends that name none
// are never notified where the call says so in a register.
func trapSockets(u *Unit) {
	n := &u.Program.Net
	unixGate := n.Unix != ir.UnixNone && !kernelDecidesUnix(u)
	trap := func(reason string, origin ir.OriginRef, clauses []ir.Clause, names ...string) {
		u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{Names: names, Reason: reason, Origin: origin, Clauses: clauses})
	}
	field, origin := destinationField(n), n.Origin
	switch {
	case n.DecidesDestinations():
	case unixGate:
		field, origin = "network.unix", n.UnixOrigin
	case n.PortRemap:
		field, origin = "network.port_remap", n.RemapOrigin
	}
	if n.DecidesDestinations() || unixGate || n.PortRemap {
		trap(field+": the supervisor connects", origin, nil, "connect")
	}
	if unixGate || n.RestrictsDatagrams() || n.PortRemap && u.Filter.UDP {
		trapSends(u, field+": the supervisor sends", origin)
	}
	switch {
	case n.PortRemap:
		ports := "network.port_remap: ports are virtual"
		trap(ports, n.RemapOrigin, nil, "bind", "getsockname", "getpeername")
	case len(n.DenyBind) > 0:
		trap("network.deny_bind: the supervisor binds", n.DenyBindOrigin, nil, "bind")
	}
}

// trapSends has the calls notified that send to a destination which they may name.
func trapSends(u *Unit, reason string, origin ir.OriginRef) {
	unaddressed := settled("no destination is named", cond(4, ir.OpEq, all, 0))
	u.Filter.Traps = append(u.Filter.Traps,
		seccomp.Trap{Names: []string{"sendto"}, Reason: reason, Origin: origin, Clauses: []ir.Clause{unaddressed}},
		seccomp.Trap{Names: []string{"sendmsg", "sendmmsg"}, Reason: reason, Origin: origin})
}

func destinationField(n *ir.Net) string {
	if n.Destinations == ir.DestinationsDenied {
		return "network.deny"
	}
	return "network.allow"
}

// bindPorts says what the filter does about listen, which can bind a port by itself.
func bindPorts(u *Unit) (seccomp.BindPorts, ir.OriginRef) {
	bind := &u.Policy.Network.AllowBind
	switch {
	case len(u.Program.Net.DenyBind) > 0:
		return seccomp.BindListed, u.Program.Net.DenyBindOrigin
	case u.Program.Landlock.Handled.Net&abi.NetBindTCP == 0:
		return seccomp.BindAny, 0
	case len(bind.Items) > 0:
		return seccomp.BindListed, u.ref(bind.Items[0].Origin)
	case u.Filter.UnixSockets: // which are listened on, too
		return seccomp.BindListed, u.Program.Net.UnixOrigin
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
