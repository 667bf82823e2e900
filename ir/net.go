package ir

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Net is what the network policy decides beyond the TCP ports of [Landlock.Ports]. Its zero value leaves every
// decision to Landlock and the filter: no call on a socket is notified.
type Net struct {
	Destinations Destinations `cbor:"1,keyasint,omitempty"`
	Rules        []NetRule    `cbor:"2,keyasint,omitempty"` // what may be reached, or what may not, by Destinations
	// Hosts are addresses that were fixed when the policy was written or compiled; sorted by name. They win over DNS.
	// Names in Rules that are not here are looked up once, when the sandbox starts; names with "*." while it runs.
	Hosts    []NetHost `cbor:"3,keyasint,omitempty"`
	Private  bool      `cbor:"4,keyasint,omitempty"` // names must not lead to private addresses
	Resolver bool      `cbor:"5,keyasint,omitempty"` // the sandbox asks the helper's resolver, and no other
	// DenyBind are TCP ports that may not be bound, where all others may.
	DenyBind  []NetPort  `cbor:"6,keyasint,omitempty"`
	Unix      UnixReach  `cbor:"7,keyasint,omitempty"`
	UnixPaths []UnixPath `cbor:"8,keyasint,omitempty"` // sockets beneath these may be reached besides those that Unix names
	PortRemap bool       `cbor:"9,keyasint,omitempty"` // bound TCP and UDP ports are virtual

	Origin         OriginRef `cbor:"10,keyasint,omitempty"` // of the list that Rules comes from
	DenyBindOrigin OriginRef `cbor:"11,keyasint,omitempty"`
	UnixOrigin     OriginRef `cbor:"12,keyasint,omitempty"`
	RemapOrigin    OriginRef `cbor:"13,keyasint,omitempty"`

	// Intercepted are the TCP ports, of any host, whose connections lead to the HTTP proxy once the destination is allowed;
	// ascending. Nothing is sent to the same UDP ports: it would be QUIC, which the proxy does not see.
	Intercepted []uint16 `cbor:"14,keyasint,omitempty"`
	// Named are names that are looked up although no rule is about them: those that rules about requests name where Rules
	// lists what may not be reached.
	Named []NetName `cbor:"15,keyasint,omitempty"`
}

// Destinations says who decides where the sandbox may connect and send to.
type Destinations uint8

// Kinds of decision.
const (
	DestinationsLandlock Destinations = 0 // Landlock's TCP ports; UDP and ICMP as far as the filter makes sockets
	DestinationsAllowed  Destinations = 1 // the supervisor: what a rule names, nothing else
	DestinationsDenied   Destinations = 2 // the supervisor: everything but what a rule names
)

// Protocols is a set of transport protocols.
type Protocols uint8

// Transport protocols.
const (
	TCP  Protocols = 1 << 0
	UDP  Protocols = 1 << 1
	ICMP Protocols = 1 << 2 // echo sockets: SOCK_DGRAM with IPPROTO_ICMP or IPPROTO_ICMPV6
)

var protocolNames = []struct {
	bit  Protocols
	name string
}{{TCP, "tcp"}, {UDP, "udp"}, {ICMP, "icmp"}}

// String returns the protocols' names, as rules write them.
func (p Protocols) String() string {
	var names []string
	for _, n := range protocolNames {
		if p&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ",")
}

// NetRule is one set of destinations.
type NetRule struct {
	_         struct{} `cbor:",toarray"`
	Protocols Protocols
	Kind      TargetKind
	Target    string    // for TargetPrefix a CIDR block, masked and not IPv4-mapped; for TargetHost a name, "*." before it included
	Ports     []NetPort // empty: every port
	Derived   bool      // from a rule about requests, not from one about the network
	Origin    OriginRef
}

// TargetKind is the kind of a rule's target.
type TargetKind uint8

// Kinds of target.
const (
	TargetAny    TargetKind = 1
	TargetPrefix TargetKind = 2
	TargetHost   TargetKind = 3
)

// Wildcard is what the name of a rule for all names beneath a domain begins with.
const Wildcard = "*."

// NetPort is an inclusive range of ports, or the value of a parameter of type port.
type NetPort struct {
	_      struct{} `cbor:",toarray"`
	Lo, Hi uint16
	Param  string // when not empty: name of the parameter, and Lo and Hi are 0
}

// NetHost is a name with fixed addresses.
type NetHost struct {
	_         struct{} `cbor:",toarray"`
	Name      string   // lower case, without final dot
	Addresses []string
	Origin    OriginRef
}

// NetName is a name.
type NetName struct {
	_      struct{} `cbor:",toarray"`
	Name   string   // lower case, without final dot
	Origin OriginRef
}

// UnixReach says which pathname UNIX sockets may be reached.
type UnixReach uint8

// Kinds of reach.
const (
	UnixNone    UnixReach = 0 // none: sockets of the family cannot be made, only connected pairs
	UnixGranted UnixReach = 1 // those beneath write grants
)

// UnixPath is a path beneath which sockets may be reached.
type UnixPath struct {
	_      struct{} `cbor:",toarray"`
	Path   Template
	Origin OriginRef
}

// DecidesDestinations reports whether the supervisor decides about connections and datagrams.
func (n *Net) DecidesDestinations() bool { return n.Destinations != DestinationsLandlock }

// Intercepts reports whether TCP connections to a port lead to the HTTP proxy.
func (n *Net) Intercepts(port uint16) bool {
	_, found := slices.BinarySearch(n.Intercepted, port)
	return found
}

// RestrictsDatagrams reports whether the supervisor decides about some datagram: rules do not leave all UDP, and all ICMP,
// alike.
func (n *Net) RestrictsDatagrams() bool {
	if n.Destinations == DestinationsLandlock {
		return false
	}
	var named, every Protocols
	for i := range n.Rules {
		r := &n.Rules[i]
		named |= r.Protocols
		if r.Kind == TargetAny && len(r.Ports) == 0 {
			every |= r.Protocols
		}
	}
	if n.Destinations == DestinationsDenied {
		return named&(UDP|ICMP) != 0 || len(n.Intercepted) > 0
	}
	return n.Resolver || len(n.Intercepted) > 0 && named&UDP != 0 || named&^every&(UDP|ICMP) != 0
}

// PinsNames reports whether names have fixed addresses, which the sandbox is to find in /etc/hosts. Names that its own resolver
// answers for have none.
func (n *Net) PinsNames() bool {
	return len(n.Hosts)+len(n.Named) > 0 || !n.Resolver && slices.ContainsFunc(n.Rules, func(r NetRule) bool {
		return r.Kind == TargetHost && !strings.HasPrefix(r.Target, Wildcard)
	})
}

// Fixed returns the addresses that the policy gives a name, in lower case without final dot; nil if it gives none.
func (n *Net) Fixed(name string) []netip.Addr {
	i, found := slices.BinarySearchFunc(n.Hosts, name, func(h NetHost, name string) int { return strings.Compare(h.Name, name) })
	if !found {
		return nil
	}
	var list []netip.Addr
	for _, a := range n.Hosts[i].Addresses {
		if addr, err := netip.ParseAddr(a); err == nil {
			list = append(list, addr)
		}
	}
	return list
}

// HasWildcards reports whether a rule speaks of all names beneath a domain.
func (n *Net) HasWildcards() bool {
	return slices.ContainsFunc(n.Rules, func(r NetRule) bool { return strings.HasPrefix(r.Target, Wildcard) })
}

const (
	maxHostName  = 253 // RFC 1035 §2.3.4, without the final dot
	maxAddresses = 256 // of one name
)

func (p *Program) checkNet() error {
	n := &p.Net
	if n.Destinations > DestinationsDenied {
		return fmt.Errorf("destinations %d are unknown", n.Destinations)
	}
	if !n.DecidesDestinations() && (len(n.Rules) > 0 || n.Private || n.Resolver) {
		return errors.New("rules that nobody decides by")
	}
	if len(n.Rules) > maxList || len(n.Hosts) > maxList || len(n.DenyBind) > maxList || len(n.UnixPaths) > maxList {
		return fmt.Errorf("more than %d rules", maxList)
	}
	for i := range n.Rules {
		r := &n.Rules[i]
		if err := p.checkNetRule(r); err != nil {
			return fmt.Errorf("rules[%d]: %w", i, err)
		}
		if r.Kind == TargetHost && n.Destinations == DestinationsDenied {
			return fmt.Errorf("rules[%d]: name %q in a list of what may not be reached", i, r.Target)
		}
	}
	if n.HasWildcards() && !n.Resolver {
		return errors.New("names with a wildcard need the resolver")
	}
	for i := range n.Hosts {
		if i > 0 && n.Hosts[i].Name <= n.Hosts[i-1].Name {
			return fmt.Errorf("hosts: %q after %q: not ascending", n.Hosts[i].Name, n.Hosts[i-1].Name)
		}
		if err := p.checkNetHost(&n.Hosts[i]); err != nil {
			return fmt.Errorf("hosts[%d]: %w", i, err)
		}
	}
	for i := range n.DenyBind {
		if err := p.checkNetPort(&n.DenyBind[i]); err != nil {
			return fmt.Errorf("deny_bind[%d]: %w", i, err)
		}
	}
	if n.Unix > UnixGranted || n.Unix == UnixNone && len(n.UnixPaths) > 0 {
		return fmt.Errorf("unix sockets: reach %d with %d paths", n.Unix, len(n.UnixPaths))
	}
	for i := range n.UnixPaths {
		if err := p.checkPath(n.UnixPaths[i].Path); err != nil {
			return fmt.Errorf("unix_paths[%d]: %w", i, err)
		}
		if err := p.checkOrigin(n.UnixPaths[i].Origin); err != nil {
			return err
		}
	}
	if err := n.checkIntercepted(); err != nil {
		return err
	}
	if len(n.Named) > maxList || len(n.Named) > 0 && n.Destinations != DestinationsDenied {
		return fmt.Errorf("%d names without a rule", len(n.Named))
	}
	for i := range n.Named {
		if err := checkHostName(n.Named[i].Name); err != nil {
			return fmt.Errorf("named[%d]: %w", i, err)
		}
		if err := p.checkOrigin(n.Named[i].Origin); err != nil {
			return err
		}
	}
	return p.checkRefs(map[string]OriginRef{
		"rules": n.Origin, "deny_bind": n.DenyBindOrigin, "unix": n.UnixOrigin, "port_remap": n.RemapOrigin,
	})
}

func (n *Net) checkIntercepted() error {
	if len(n.Intercepted) > 0 && !n.DecidesDestinations() {
		return errors.New("connections are intercepted that nobody decides about")
	}
	for i, port := range n.Intercepted {
		if port == 0 || i > 0 && port <= n.Intercepted[i-1] {
			return fmt.Errorf("intercepted: port %d: not ascending", port)
		}
	}
	return nil
}

func (p *Program) checkNetRule(r *NetRule) error {
	if r.Protocols == 0 || r.Protocols > TCP|UDP|ICMP {
		return fmt.Errorf("protocols %#x", uint8(r.Protocols))
	}
	if r.Protocols&ICMP != 0 && (r.Protocols != ICMP || len(r.Ports) > 0) {
		return errors.New("ICMP has no ports and stands alone")
	}
	switch r.Kind {
	case TargetAny:
		if r.Target != "" {
			return fmt.Errorf("any destination, and %q", r.Target)
		}
	case TargetPrefix:
		if err := checkNetPrefix(r.Target); err != nil {
			return err
		}
	case TargetHost:
		if err := checkHostName(strings.TrimPrefix(r.Target, Wildcard)); err != nil {
			return err
		}
	default:
		return fmt.Errorf("kind of target %d is unknown", r.Kind)
	}
	if len(r.Ports) > maxList {
		return tooMany(len(r.Ports), maxList)
	}
	for i := range r.Ports {
		if err := p.checkNetPort(&r.Ports[i]); err != nil {
			return err
		}
	}
	return p.checkOrigin(r.Origin)
}

func checkNetPrefix(s string) error {
	prefix, err := netip.ParsePrefix(s)
	if err != nil || prefix != prefix.Masked() || prefix.String() != s || prefix.Addr().Is4In6() {
		return fmt.Errorf("%q is not a CIDR block in canonical form", s)
	}
	return nil
}

func (p *Program) checkNetPort(r *NetPort) error {
	if r.Param != "" {
		i := p.paramIndex(r.Param)
		if i < 0 || p.Params[i].Type != ParamPort || r.Lo != 0 || r.Hi != 0 {
			return fmt.Errorf("%q is not a parameter of type port that stands alone", r.Param)
		}
		return nil
	}
	if r.Lo == 0 || r.Hi < r.Lo {
		return fmt.Errorf("ports %d to %d", r.Lo, r.Hi)
	}
	return nil
}

func (p *Program) checkNetHost(h *NetHost) error {
	if err := checkHostName(h.Name); err != nil {
		return err
	}
	if len(h.Addresses) == 0 || len(h.Addresses) > maxAddresses {
		return fmt.Errorf("%q has %d addresses, 1 to %d are allowed", h.Name, len(h.Addresses), maxAddresses)
	}
	for _, a := range h.Addresses {
		addr, err := netip.ParseAddr(a)
		if err != nil || addr.Zone() != "" || addr.Is4In6() || addr.String() != a {
			return fmt.Errorf("%q is not an address in canonical form", a)
		}
	}
	return p.checkOrigin(h.Origin)
}

// checkHostName: the name is written to /etc/hosts and compared byte by byte.
func checkHostName(s string) error {
	if s == "" || len(s) > maxHostName {
		return fmt.Errorf("host name of %d bytes, 1 to %d are allowed", len(s), maxHostName)
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return fmt.Errorf("%q is not a host name in lower case", s)
		}
	}
	return nil
}

// Describe returns the rule as goldens and explanations name it.
func (r *NetRule) Describe() string {
	target := "*"
	switch r.Kind {
	case TargetHost:
		target = r.Target
	case TargetPrefix:
		target = r.Target
		if prefix, err := netip.ParsePrefix(r.Target); err == nil {
			if prefix.IsSingleIP() {
				target = prefix.Addr().String()
			}
			if prefix.Addr().Is6() && len(r.Ports) > 0 {
				target = "[" + target + "]"
			}
		}
	}
	if len(r.Ports) > 0 {
		target += ":" + portsText(r.Ports)
	}
	return r.Protocols.String() + " " + target
}

func portsText(ports []NetPort) string {
	var items []string
	for i := range ports {
		items = append(items, ports[i].String())
	}
	return strings.Join(items, ",")
}

// String returns the ports as policies write them.
func (r *NetPort) String() string {
	switch {
	case r.Param != "":
		return "${" + r.Param + "}"
	case r.Lo == r.Hi:
		return strconv.Itoa(int(r.Lo))
	}
	return strconv.Itoa(int(r.Lo)) + "-" + strconv.Itoa(int(r.Hi))
}
