package lower

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

var httpFields = []string{"http"}

// HTTP lowers what the proxy lets through. That its ports are intercepted, and which hosts are reached for it, is lowered
// with the network.
func HTTP(u *Unit) {
	src, h := &u.Policy.HTTP, &u.Program.HTTP
	if !src.On() {
		return
	}
	for _, it := range src.Allow.Items {
		r := httpRule(&it.V.Rule.V)
		r.Opaque, r.Reason, r.Origin = it.V.Opaque(), it.V.Reason.V, u.ref(it.Origin)
		h.Allow = append(h.Allow, r)
	}
	for _, it := range src.Deny.Items {
		r := httpRule(&it.V.Rule.V)
		r.Reason, r.Origin = it.V.Reason.V, u.ref(it.Origin)
		h.Deny = append(h.Deny, r)
	}
	h.Origin = u.ref(src.Origin())
	switch {
	case src.CA.Set:
		h.Authority, h.CA, h.Key, h.CAOrigin = ir.AuthorityOwn, src.CA.V, src.Key.V, u.ref(src.CA.Origin)
	case len(src.InjectCA.Items) > 0:
		h.Authority, h.CAOrigin = ir.AuthorityEphemeral, u.ref(src.InjectCA.Origin)
	}
	for _, it := range src.InjectCA.Items {
		h.InjectCA = append(h.InjectCA, ir.HTTPFile{Path: it.V, Origin: u.ref(it.Origin)})
	}
	if src.CAOut.Set {
		h.CAOut, h.OutOrigin = src.CAOut.V, u.ref(src.CAOut.Origin)
	}
	h.UpstreamCA, h.RedactQuery = src.UpstreamCA.V, src.RedactQuery.V
	h.Credentials = credentials(u)
	for _, it := range src.Auth.Items {
		h.Auth = append(h.Auth, httpAuth(u, &it.V, it.Origin))
	}
	l := &src.Limits
	h.Limits = ir.HTTPLimits{
		HeaderBytes: l.HeaderBytes.V, BodyBytes: l.BodyBytes.V, Connections: l.Connections.V,
		HeaderMS: uint64(max(l.HeaderTime.V.Milliseconds(), 1)), IdleMS: uint64(max(l.Idle.V.Milliseconds(), 1)),
	}
	if !u.Program.Net.PortRemap { // which has it notified
		reason := "http: the peer is the one that a connection is meant for"
		u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{Names: []string{"getpeername"}, Reason: reason, Origin: h.Origin})
	}
	if len(h.InjectCA) > 0 && !u.Program.View.Shows() { // else the files are mounted over
		trapOpens(u, "http.inject_ca: a file with the certificate may be opened", h.InjectCA[0].Origin, true)
		trapStats(u, "http.inject_ca: the size of a file with the certificate may be asked for", h.InjectCA[0].Origin)
	}
}

func httpRule(r *policy.HTTPRule) ir.HTTPRule {
	return ir.HTTPRule{Method: r.Method, Host: r.Host, Path: r.Path, Prefix: r.Prefix}
}

func credentials(u *Unit) []ir.Credential {
	var list []ir.Credential
	for _, it := range u.Policy.HTTP.Credentials.Items {
		kind, source, _ := strings.Cut(it.V.Source.V, ":")
		c := ir.Credential{Name: it.V.Name, Source: source, Origin: u.ref(it.V.Source.Origin)}
		c.Kind = map[string]ir.CredentialKind{"env": ir.CredentialEnv, "file": ir.CredentialFile, "fd": ir.CredentialFD}[kind]
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b ir.Credential) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func httpAuth(u *Unit, src *policy.HTTPAuth, at policy.Origin) ir.HTTPAuth {
	a := ir.HTTPAuth{
		Rule: httpRule(&src.Rule.V), Credential: src.Credential.V, AddOnly: src.Mode.V == "add-only", Plain: src.Plain.V, Origin: u.ref(at),
	}
	scheme, name, _ := strings.Cut(src.As.V, ":")
	a.Name = name
	a.Scheme = map[string]ir.AuthScheme{"bearer": ir.AuthBearer, "basic": ir.AuthBasic, "header": ir.AuthHeader, "query": ir.AuthQuery}[scheme]
	return a
}

// HTTPPorts returns the TCP ports whose connections lead to the proxy, in ascending order; none without rules about requests.
func HTTPPorts(p *policy.Policy) []uint16 {
	src := &p.HTTP
	if !src.On() {
		return nil
	}
	if len(src.Ports.Items) == 0 {
		if SeesTLS(src) {
			return []uint16{80, 443}
		}
		return []uint16{80}
	}
	ports := src.Ports.Values()
	slices.Sort(ports)
	return slices.Compact(ports)
}

// SeesTLS reports whether the proxy does anything with TLS but to refuse it.
func SeesTLS(src *policy.HTTP) bool {
	opaque := func(it policy.Val[policy.HTTPAllow]) bool { return it.V.Opaque() }
	return src.CA.Set || len(src.InjectCA.Items) > 0 || slices.ContainsFunc(src.Allow.Items, opaque)
}

// httpReach are the destinations that rules about requests imply: each host that must be reached on each intercepted port,
// every host where one names none.
func httpReach(u *Unit) []ir.NetRule {
	var rules []ir.NetRule
	var ports []ir.NetPort
	for _, port := range HTTPPorts(u.Policy) {
		ports = append(ports, ir.NetPort{Lo: port, Hi: port})
	}
	seen := map[string]bool{}
	for _, it := range u.Policy.HTTP.Reached() {
		host := it.V.Host
		if seen[host] {
			continue
		}
		seen[host] = true
		r := ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetHost, Target: host, Ports: ports, Derived: true, Origin: u.derived(it.Origin)}
		if addr, err := netip.ParseAddr(host); err == nil {
			r.Kind, r.Target = ir.TargetPrefix, netip.PrefixFrom(addr, addr.BitLen()).String()
		} else if host == "*" {
			r.Kind, r.Target = ir.TargetAny, ""
		}
		rules = append(rules, r)
	}
	return rules
}

// trapStats has the calls notified that tell of a file by its path. Of an open file the kernel tells what is so.
func trapStats(u *Unit, reason string, origin ir.OriginRef) {
	const emptyPath = 0x1000 // AT_EMPTY_PATH
	byDescriptor := func(flags uint8) []ir.Clause {
		return []ir.Clause{settled("of a descriptor", cond(flags, ir.OpSet, low, emptyPath))}
	}
	u.Filter.Traps = append(u.Filter.Traps,
		seccomp.Trap{Names: []string{"newfstatat"}, Reason: reason, Origin: origin, Clauses: byDescriptor(3)},
		seccomp.Trap{Names: []string{"statx"}, Reason: reason, Origin: origin, Clauses: byDescriptor(2)},
		seccomp.Trap{Arch: abi.AMD64, Names: []string{"stat", "lstat"}, Reason: reason, Origin: origin})
}

// httpNames are the names in rules about requests: a request for one of them must go to where the name leads.
func httpNames(u *Unit) []ir.NetName {
	var names []ir.NetName
	for _, it := range u.Policy.HTTP.Reached() {
		known := slices.ContainsFunc(names, func(n ir.NetName) bool { return n.Name == it.V.Host })
		if it.V.NamesHost() && !known {
			names = append(names, ir.NetName{Name: it.V.Host, Origin: u.derived(it.Origin)})
		}
	}
	return names
}

func httpMechanisms(u *Unit, add adder) {
	h := &u.Program.HTTP
	if !h.On() {
		return
	}
	add("http", "helper", "the supervisor connects to a proxy in a process of its own, which reads each request; what it may connect to, the supervisor decides")
	injects, how := "notify", "opens of the listed files show"
	if u.Program.View.Shows() {
		injects, how = "mount", "what is mounted over the listed files shows"
	}
	switch h.Authority {
	case ir.AuthorityOwn:
		add("http.ca", "helper", "TLS ends in the proxy, with certificates of the policy's own authority")
	case ir.AuthorityEphemeral:
		add("http.inject_ca", "helper, "+injects, "TLS ends in the proxy, with certificates of an authority that is made for the run; "+how+" its certificate added")
	}
	if h.Authority == ir.AuthorityOwn && len(h.InjectCA) > 0 {
		add("http.inject_ca", injects, how+" the authority's certificate added")
	}
	if len(h.Auth) > 0 {
		add("http.auth", "helper", "only the proxy holds the secrets, and adds them to requests that have passed")
	}
}
