package load

import (
	"fmt"
	"net/netip"
	"strconv"

	"cuelang.org/go/cue"

	"github.com/sandlock-go/sandlock/compiler/policy"
)

func network(n node) policy.Network {
	return policy.Network{
		Allow:     list(n.at("allow"), netRule),
		Deny:      list(n.at("deny"), func(n node) policy.Val[policy.NetRule] { return text(n, policy.ParseNetDeny) }),
		AllowBind: allowBind(n.at("allow_bind")),
		DenyBind:  denyBind(n.at("deny_bind")),
		Unix:      unixSockets(n.at("unix")),
		PortRemap: boolean(n.at("port_remap")),
		Hosts:     hosts(n.at("hosts")),
		Resolve:   word(n.at("resolve")),
		Private:   boolean(n.at("private")),
		Resolver:  boolean(n.at("resolver")),
	}
}

func netRule(n node) policy.Val[policy.NetRule] { return text(n, policy.ParseNetRule) }

// ports reads an element of a bind list: a number or a text.
func ports(n node) policy.Val[policy.PortSet] {
	return scalar(n, "a port or a text", func(v cue.Value) (policy.PortSet, error) {
		if v.Kind() == cue.StringKind {
			s, err := v.String()
			if err != nil {
				return policy.PortSet{}, err
			}
			return policy.ParseBind(s)
		}
		port, err := v.Uint64()
		if err != nil {
			return policy.PortSet{}, err
		}
		return policy.ParseBind(strconv.FormatUint(port, 10))
	})
}

// allowBind reads a list in which "*" excludes everything else, also in other elements.
func allowBind(n node) policy.List[policy.PortSet] {
	l := list(n, ports)
	var all, some bool
	for _, it := range l.Items {
		all = all || it.V.All
		some = some || len(it.V.Ranges)+len(it.V.Params) > 0
	}
	for _, it := range l.Items {
		if all && some && it.V.All {
			n.d.fail(it.Origin, &policy.GrammarError{Rule: "bind", Msg: `"*" cannot be combined with ports`})
		}
	}
	return l
}

func denyBind(n node) policy.List[policy.PortSet] {
	l := list(n, ports)
	for _, it := range l.Items {
		if it.V.All {
			n.d.fail(it.Origin, &policy.GrammarError{Rule: "bind", Msg: `"*" cannot be denied`,
				Hint: "leave allow_bind and deny_bind out to refuse every port"})
		}
	}
	return l
}

func unixSockets(n node) policy.UnixSockets {
	if n.kind() == cue.ListKind {
		return policy.UnixSockets{Mode: fixed(n, "paths"), Paths: list(n, path)}
	}
	return policy.UnixSockets{Mode: word(n), Paths: policy.List[string]{Origin: absent(n.path)}}
}

func hosts(n node) policy.List[policy.PinnedHost] {
	seen := map[string]string{}
	l := entries(n, anyName, func(n node, name string) policy.PinnedHost {
		return policy.PinnedHost{Name: name, Addresses: list(n, address)}
	})
	for i := range l.Items {
		it := &l.Items[i]
		name, err := policy.ParseHost(it.V.Name)
		if err == nil && seen[name] != "" {
			err = &policy.GrammarError{Rule: "duplicate", Msg: fmt.Sprintf("%q and %q are the same name", seen[name], it.V.Name)}
		}
		if err != nil {
			n.d.fail(it.Origin, err)
			continue
		}
		seen[name] = it.V.Name
		it.V.Name = name
	}
	return l
}

func address(n node) policy.Val[netip.Addr] {
	return text(n, func(s string) (netip.Addr, error) {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Addr{}, &policy.GrammarError{Rule: "net-address", Msg: fmt.Sprintf("%q is not an IP address", s)}
		}
		return addr.Unmap(), nil
	})
}

func http(n node) policy.HTTP {
	return policy.HTTP{
		Allow:       list(n.at("allow"), httpAllow),
		Deny:        list(n.at("deny"), httpEntry),
		Ports:       list(n.at("ports"), number[uint16]),
		CA:          path(n.at("ca")),
		Key:         path(n.at("key")),
		InjectCA:    list(n.at("inject_ca"), path),
		CAOut:       path(n.at("ca_out")),
		UpstreamCA:  path(n.at("upstream_ca")),
		Credentials: entries(n.at("credentials"), anyName, credential),
		Auth:        list(n.at("auth"), elements("HTTPAuth", httpAuth)),
		RedactQuery: boolean(n.at("redact_query")),
		Limits:      structOf(n.at("limits"), httpLimits),
	}
}

// httpAllow and httpEntry read both forms: a rule, or a struct. The origin is the rule's.
func httpAllow(n node) policy.Val[policy.HTTPAllow] {
	e := httpEntry(n)
	a := policy.HTTPAllow{HTTPEntry: e.V}
	if n.kind() == cue.StructKind {
		a.TLS = word(n.at("tls"))
	} else {
		a.TLS.Origin = absent(n.path + ".tls")
	}
	return policy.Val[policy.HTTPAllow]{V: a, Set: e.Set, Origin: e.Origin}
}

func httpEntry(n node) policy.Val[policy.HTTPEntry] {
	var e policy.HTTPEntry
	if n.kind() == cue.StructKind {
		e = policy.HTTPEntry{Rule: httpRule(n.at("rule")), Reason: text(n.at("reason"), policy.ParseLine)}
	} else {
		e = policy.HTTPEntry{Rule: httpRule(n)}
		e.Reason.Origin = absent(n.path + ".reason")
	}
	val := policy.Val[policy.HTTPEntry]{V: e, Set: e.Rule.Set, Origin: e.Rule.Origin}
	val.Origin.Path = n.path
	return val
}

func httpRule(n node) policy.Val[policy.HTTPRule] { return text(n, policy.ParseHTTPRule) }

func credential(n node, name string) policy.Credential {
	return policy.Credential{Name: name, Source: text(n.at("source"), policy.ParseCredentialSource)}
}

func httpAuth(n node) policy.HTTPAuth {
	return policy.HTTPAuth{
		Rule:       httpRule(n.at("rule")),
		Credential: word(n.at("credential")),
		As:         text(n.at("as"), policy.ParseAuthScheme),
		Mode:       word(n.at("mode")),
		Plain:      boolean(n.at("plain")),
	}
}

func httpLimits(n node) policy.HTTPLimits {
	return policy.HTTPLimits{
		HeaderBytes: positive(n.at("header_bytes")),
		BodyBytes:   size(n.at("body_bytes")),
		Connections: number[uint32](n.at("connections")),
		HeaderTime:  text(n.at("header_time"), policy.ParseDuration),
		Idle:        text(n.at("idle"), policy.ParseDuration),
	}
}
