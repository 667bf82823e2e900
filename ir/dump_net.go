package ir

import (
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// destinationTotals is the line about connections at the top of a dump.
func (d *dumper) destinationTotals() string {
	n := &d.p.Net
	switch n.Destinations {
	case DestinationsAllowed:
		return count(len(n.Rules), "rule") + "; the rest is refused"
	case DestinationsDenied:
		return "NOT RESTRICTED but for " + count(len(n.Rules), "rule")
	}
	return d.portTotals(abi.NetConnectTCP, "any TCP port of any host")
}

func (d *dumper) bindTotals() string {
	if n := len(d.p.Net.DenyBind); n > 0 {
		return "NOT RESTRICTED but for " + count(n, "TCP port or range")
	}
	return d.portTotals(abi.NetBindTCP, "any TCP port")
}

// netRules are the rows of what the supervisor decides.
func (d *dumper) netRules() []row {
	n := &d.p.Net
	var rows []row
	verb := map[Destinations]string{DestinationsAllowed: "connect", DestinationsDenied: "no connect"}[n.Destinations]
	for i := range n.Rules {
		r := &n.Rules[i]
		rows = append(rows, row{cells: []string{verb, r.Describe(), joinNotes(n.lookup(r), derivedNote(r))}, origin: r.Origin})
	}
	for i := range n.DenyBind {
		rows = append(rows, row{cells: []string{"no bind", "tcp " + n.DenyBind[i].String()}, origin: n.DenyBindOrigin})
	}
	for i := range n.Hosts {
		h := &n.Hosts[i]
		rows = append(rows, row{cells: []string{"host", h.Name + " = " + strings.Join(h.Addresses, " ")}, origin: h.Origin})
	}
	for i := range n.Named {
		rows = append(rows, row{cells: []string{"name", n.Named[i].Name, "resolved at start; derived: for http"}, origin: n.Named[i].Origin})
	}
	if n.Private {
		rows = append(rows, row{cells: []string{"names", "none may lead to a private address"}})
	}
	if n.Resolver {
		rows = append(rows, row{cells: []string{"dns", "names in rules, by the sandbox's own resolver"}})
	}
	if n.PortRemap {
		rows = append(rows, row{cells: []string{"ports", "virtual"}, origin: n.RemapOrigin})
	}
	return append(rows, d.unixRows()...)
}

// derivedNote marks what a rule about requests implies.
func derivedNote(r *NetRule) string {
	if r.Derived {
		return "derived: for http"
	}
	return ""
}

func joinNotes(notes ...string) string {
	return strings.Join(slices.DeleteFunc(notes, func(s string) bool { return s == "" }), "; ")
}

// lookup says where the addresses of a rule's name come from.
func (n *Net) lookup(r *NetRule) string {
	switch {
	case r.Kind != TargetHost:
		return ""
	case strings.HasPrefix(r.Target, Wildcard):
		return "as they are looked up"
	}
	for i := range n.Hosts {
		if n.Hosts[i].Name == r.Target {
			return "fixed"
		}
	}
	if n.Resolver {
		return "as they are looked up"
	}
	return "resolved at start"
}

func (d *dumper) unixRows() []row {
	n := &d.p.Net
	if n.Unix == UnixNone {
		return nil
	}
	rows := []row{{cells: []string{"unix", "sockets beneath write grants"}, origin: n.UnixOrigin}}
	for _, u := range n.UnixPaths {
		rows = append(rows, row{cells: []string{"unix", u.Path}, origin: u.Origin})
	}
	return rows
}

type netView struct {
	Destinations string        `json:"destinations"`
	Rules        []netRuleView `json:"rules"`
	Hosts        []hostView    `json:"hosts"`
	Private      bool          `json:"private,omitempty"`
	Resolver     bool          `json:"resolver,omitempty"`
	DenyBind     []string      `json:"deny_bind,omitempty"`
	Unix         string        `json:"unix"`
	UnixPaths    []string      `json:"unix_paths,omitempty"`
	PortRemap    bool          `json:"port_remap,omitempty"`
}

type netRuleView struct {
	Rule    string `json:"rule"`
	Derived bool   `json:"derived,omitempty"`
	Origin  string `json:"origin,omitempty"`
}

type hostView struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	Origin    string   `json:"origin,omitempty"`
}

func (p *Program) netView() netView {
	n := &p.Net
	v := netView{
		Destinations: map[Destinations]string{DestinationsLandlock: "landlock", DestinationsAllowed: "allowed", DestinationsDenied: "denied"}[n.Destinations],
		Rules:        []netRuleView{}, Hosts: []hostView{}, Private: n.Private, Resolver: n.Resolver, Unix: "none", PortRemap: n.PortRemap,
	}
	for i := range n.Rules {
		v.Rules = append(v.Rules, netRuleView{n.Rules[i].Describe(), n.Rules[i].Derived, p.at(n.Rules[i].Origin)})
	}
	for _, h := range n.Hosts {
		v.Hosts = append(v.Hosts, hostView{h.Name, h.Addresses, p.at(h.Origin)})
	}
	for i := range n.DenyBind {
		v.DenyBind = append(v.DenyBind, n.DenyBind[i].String())
	}
	if n.Unix == UnixGranted {
		v.Unix = "granted"
	}
	for _, u := range n.UnixPaths {
		v.UnixPaths = append(v.UnixPaths, u.Path)
	}
	return v
}
