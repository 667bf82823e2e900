package check

import (
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lock"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

// maxPorts bounds the ports of one policy: each becomes a rule in the kernel.
const maxPorts = 16384

func checkPorts(c *checker) {
	n := &c.Network
	total := 0
	for _, it := range n.AllowBind.Items {
		for _, r := range it.V.Ranges {
			total += int(r.Hi) - int(r.Lo) + 1
		}
	}
	if total > maxPorts {
		d := diag.At(n.AllowBind.Origin, "too-many-ports", "%d ports, at most %d can be listed", total, maxPorts)
		c.add(d.WithHint(`write "*" for every port`))
	}
	for _, l := range []struct {
		set    bool
		origin policy.Origin
	}{
		{len(n.Allow.Items) > 0 && !lower.SupervisesDestinations(c.Policy), n.Allow.Origin},
		{len(n.AllowBind.Items) > 0, n.AllowBind.Origin},
	} {
		if l.set {
			checkPortsEnforced(c, l.origin)
		}
	}
	denies := func(it policy.Val[policy.PortSet]) bool {
		return len(it.V.Params) > 0 || slices.ContainsFunc(it.V.Ranges, func(r policy.PortRange) bool { return r.Hi > 0 })
	}
	if deny := n.DenyBind; len(deny.Items) > 0 && !slices.ContainsFunc(deny.Items, denies) {
		d := diag.At(deny.Origin, "no-effect", "port 0 is never denied, so every port may be bound").AsWarning()
		c.add(d.WithHint("leave deny_bind out to have every port refused"))
	}
	checkNames(c)
	checkHostsFile(c)
	repeated(n.Allow, policy.NetRule.String, func(again, first policy.Val[policy.NetRule]) {
		c.add(diag.At(again.Origin, "duplicate", "%q is listed twice", again.V.String()).AsWarning().WithNote(first.Origin.Place, "first at"))
	})
}

// checkNames: a name stands for addresses that somebody must look up.
func checkNames(c *checker) {
	n := &c.Network
	names := false
	for _, it := range n.Allow.Items {
		if it.V.Kind != policy.TargetHost {
			continue
		}
		names = true
		if strings.HasPrefix(it.V.Host, ir.Wildcard) && !n.Resolver.V {
			d := diag.At(it.Origin, "wildcard", "%q stands for names that are known only when they are looked up", it.V.Host)
			c.add(d.WithHint("write network.resolver: true"))
		}
	}
	for _, it := range c.HTTP.Reached() {
		names = names || it.V.NamesHost()
	}
	// With a lock file names in dynamic rules have addresses, too.
	if n.Private.V && !names && (n.Resolve.V != "compile" || len(lock.Names(c.Policy)) == 0) {
		c.warnf(n.Private.Origin, "no-effect", "no rule names a host")
	}
	if n.Resolver.V && !names {
		d := diag.At(n.Resolver.Origin, "requires", "the resolver answers for names in network.allow and http, and there is none")
		c.add(d.WithHint(`name a host, as in allow: ["tcp://example.com:443"], or leave resolver out`))
	}
}

// checkHostsFile warns where programs cannot read the file in which they find the addresses that they may connect to.
func checkHostsFile(c *checker) {
	n := &c.Network
	pinned := n.Hosts.Origin
	if len(n.Hosts.Items) == 0 {
		named := func(it policy.Val[policy.NetRule]) bool {
			return it.V.Kind == policy.TargetHost && !strings.HasPrefix(it.V.Host, ir.Wildcard)
		}
		i := slices.IndexFunc(n.Allow.Items, named)
		j := slices.IndexFunc(c.HTTP.Reached(), func(it policy.Val[policy.HTTPRule]) bool { return it.V.NamesHost() })
		switch {
		case n.Resolver.V || i < 0 && j < 0:
			return
		case i >= 0:
			pinned = n.Allow.Items[i].Origin
		default:
			pinned = c.HTTP.Reached()[j].Origin
		}
	}
	fs := &c.Filesystem
	for _, l := range []policy.List[policy.PathRule]{fs.Read, fs.Write} {
		if slices.ContainsFunc(l.Items, func(it policy.Val[policy.PathRule]) bool { return beneath(lower.HostsFile, it.V.Path.V) }) {
			return
		}
	}
	for _, it := range fs.Rules.Items {
		if beneath(lower.HostsFile, it.V.Path.V) && slices.Contains(it.V.Access.Values(), "read_file") {
			return
		}
	}
	d := diag.At(pinned, "hosts-file", "programs will not find the pinned addresses: %s cannot be read", lower.HostsFile)
	c.add(d.AsWarning().WithHint("write filesystem: read: [%q]", lower.HostsFile))
}

// checkPortsEnforced refuses port rules that nothing would enforce.
func checkPortsEnforced(c *checker, o policy.Origin) {
	const sinceTCP = 4
	if tcp := c.Protections.NetTCP; tcp.V == "off" {
		d := diag.At(o, "net-tcp-off", "lists TCP ports, and protections.net_tcp is off: nothing would enforce it")
		c.add(d.WithNote(tcp.Origin.Place, "set at"))
		return
	}
	if floor := c.Target.Landlock; floor.V < sinceTCP {
		d := diag.At(o, "target-landlock", "lists TCP ports, which need target.landlock %d, the policy has %d", sinceTCP, floor.V)
		c.add(d.WithNote(floor.Origin.Place, "set at"))
	}
}
