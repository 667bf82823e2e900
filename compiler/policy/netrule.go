package policy

import "net/netip"

// NetRule is one rule of network.allow or network.deny.
type NetRule struct {
	TCP, UDP, ICMP bool // which protocols; a rule without scheme means TCP and UDP
	Kind           TargetKind
	Prefix         netip.Prefix // for TargetPrefix: masked; a single address is a full-length prefix
	Host           string       // for TargetHost: lower case, without trailing dot; may begin with "*."
	Ports          PortSet      // All for ICMP
}

// TargetKind is the kind of a rule's target.
type TargetKind uint8

// Kinds of target.
const (
	TargetAny    TargetKind = 1
	TargetPrefix TargetKind = 2
	TargetHost   TargetKind = 3
)

// PortSet is a set of ports. Ranges are in the order written for network rules, sorted and merged for bind specs.
type PortSet struct {
	All    bool
	Ranges []PortRange // inclusive
	Params []string    // names of parameters of type port whose values belong to the set
}

// PortRange is an inclusive range.
type PortRange struct{ Lo, Hi uint16 }
