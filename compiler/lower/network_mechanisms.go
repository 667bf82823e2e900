package lower

import (
	"strings"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func networkMechanisms(u *Unit, add adder) {
	destinationMechanisms(u, add)
	if u.Program.Net.Resolver {
		add("network.resolver", "helper", "what is sent to a name server reaches a resolver in a process of its own, which knows the names in rules; the supervisor learns their addresses from it")
	}
	handled, n := u.Program.Landlock.Handled.Net, &u.Program.Net
	switch {
	case len(n.DenyBind) > 0:
		add("network.deny_bind", "notify, on behalf", "Landlock lists what may be bound, and not what may not; the supervisor binds")
	case notifies(u.Program, "listen"):
		add("network.allow_bind", "landlock, notify", "bind is decided by the kernel; listen by the supervisor, since it binds an unbound socket by itself")
	case handled&abi.NetBindTCP == 0:
		add("network.allow_bind", "none", "every TCP port may be bound")
	default:
		add("network.allow_bind", "landlock, seccomp", "no grant: bind and listen are refused")
	}
	if n.PortRemap {
		add("network.port_remap", "notify, on behalf", "the supervisor binds another port where the one that is asked for is taken, and translates")
		if listsSockets(u) {
			add("network.port_remap", "notify, snapshot", "every open is notified; of /proc/net/tcp, tcp6, udp and udp6 programs see the sandbox's own sockets, with virtual ports")
		}
	}
	switch {
	case !n.PinsNames() || !u.readable(HostsFile):
	case u.Program.View.Shows():
		add("network.hosts", "mount", "/etc/hosts is mounted over by a file with the addresses by which the supervisor decides")
	case notifies(u.Program, "openat"):
		add("network.hosts", "notify", "opens of /etc/hosts lead to a file with the addresses by which the supervisor decides")
	}
	switch {
	case n.Unix == ir.UnixNone:
		add("network.unix", "seccomp", "unix sockets cannot be made, so no service of the host is reached by its path; connected pairs work")
	case kernelDecidesUnix(u):
		add("network.unix", "landlock", "the kernel decides by the socket that a path leads to")
	default:
		add("network.unix", "notify, on behalf", "Landlock below ABI 9 does not guard sockets; the supervisor connects and sends to the socket that it has looked at")
	}
}

func destinationMechanisms(u *Unit, add adder) {
	n := &u.Program.Net
	switch n.Destinations {
	case ir.DestinationsDenied:
		add("network.deny", "notify, on behalf", "Landlock knows no addresses; the supervisor decides by a copy of the address and connects to that")
		return
	case ir.DestinationsAllowed:
		reason := "Landlock knows TCP ports only; the supervisor decides by a copy of the address and connects to that"
		if !n.RestrictsDatagrams() && n.Unix == ir.UnixNone {
			reason += "; sends are not looked at"
		}
		add("network.allow", "notify, on behalf", reason)
		return
	}
	reason := "every TCP port may be reached"
	if u.Program.Landlock.Handled.Net&abi.NetConnectTCP != 0 {
		reason = "TCP ports are decided by the kernel"
	}
	for _, p := range []struct {
		made bool
		name string
	}{{u.Filter.UDP, "UDP"}, {u.Filter.ICMP, "ICMP"}} {
		if p.made {
			reason += "; " + p.name + " is not restricted"
		}
	}
	if !u.Filter.UDP || !u.Filter.ICMP {
		reason += "; other protocols cannot have a socket"
	}
	choice := "none"
	if u.Program.Landlock.Handled.Net&abi.NetConnectTCP != 0 {
		choice = "landlock"
	}
	if n.PortRemap {
		choice = "notify, on behalf"
		reason = strings.Replace(reason, "by the kernel", "by the supervisor, which connects", 1)
	}
	add("network.allow", choice, reason)
}
