package ir

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// Class is the kind of access that a filesystem mask amounts to: the word that a policy uses for it.
type Class string

// Classes of access. ClassExact is everything that neither filesystem.read nor filesystem.write grants.
const (
	ClassRead  Class = "read"
	ClassWrite Class = "write"
	ClassExact Class = "exact"
)

// neverInWrite are the rights that filesystem.write leaves out. Device nodes are a way around the path rules for
// whoever may make them, and no ordinary program needs to. Connecting to unix sockets is granted by network.unix.
const neverInWrite = abi.FSMakeChar | abi.FSMakeBlock | abi.FSResolveUnix

// ReadRights returns what filesystem.read grants in a ruleset that handles the given rights.
func ReadRights(handled uint64) uint64 { return abi.FSRead & handled }

// WriteRights returns what filesystem.write grants in a ruleset that handles the given rights.
func WriteRights(handled uint64) uint64 { return handled &^ neverInWrite }

// ClassOf returns the class of an access mask.
func (l *Landlock) ClassOf(access uint64) Class {
	switch access {
	case WriteRights(l.Handled.FS):
		return ClassWrite
	case ReadRights(l.Handled.FS):
		return ClassRead
	}
	return ClassExact
}

func (d *dumper) filesystemTotals() string {
	l := &d.p.Landlock
	if len(l.Paths) == 0 {
		return "no rules"
	}
	counts := map[Class]int{}
	optional := 0
	for _, r := range l.Paths {
		counts[l.ClassOf(r.Access)]++
		if r.Kind != PathRequired {
			optional++
		}
	}
	var parts []string
	for _, c := range []Class{ClassRead, ClassWrite, ClassExact} {
		if counts[c] > 0 {
			parts = append(parts, strconv.Itoa(counts[c])+" "+string(c))
		}
	}
	text := count(len(l.Paths), "rule") + ": " + strings.Join(parts, ", ")
	if optional > 0 {
		text += "; " + strconv.Itoa(optional) + " optional"
	}
	return text
}

func (d *dumper) filesystem() {
	l := &d.p.Landlock
	d.section("filesystem  %s; the rest is refused", d.filesystemTotals())
	var rows []row
	for _, r := range l.Paths {
		class := l.ClassOf(r.Access)
		path, note := r.Path, ""
		switch r.Kind {
		case PathOptional:
			note = "optional"
		case PathNumbered:
			path += "<number>"
			note = "each that exists"
		}
		rights := ""
		if class == ClassExact {
			rights = strings.Join(abi.FSRightNames(r.Access), ",")
		}
		rows = append(rows, row{cells: []string{string(class), path, note, rights}, origin: r.Origin})
	}
	slices.SortStableFunc(rows, func(a, b row) int { return classRank(a.cells[0]) - classRank(b.cells[0]) })
	d.rows(rows)
}

// classRank puts the widest grants first.
func classRank(class string) int {
	return slices.Index([]string{string(ClassWrite), string(ClassExact), string(ClassRead)}, class)
}

func (d *dumper) portTotals(right uint64, any string) string {
	l := &d.p.Landlock
	_, supported, _ := abi.Supported(int(d.p.Target.LandlockABI))
	switch n := len(l.portRules(right)); {
	case l.Handled.Net&right == 0 && supported&right == 0:
		return "NOT RESTRICTED: Landlock ABI " + strconv.Itoa(int(d.p.Target.LandlockABI)) + " knows no ports"
	case l.Handled.Net&right == 0:
		return "NOT RESTRICTED: " + any
	case n > 0:
		return count(n, "TCP port")
	}
	return "none"
}

func (l *Landlock) portRules(right uint64) []PortRule {
	var rules []PortRule
	for _, r := range l.Ports {
		if r.Access&right != 0 {
			rules = append(rules, r)
		}
	}
	return rules
}

func (d *dumper) network() {
	rest := "the rest is refused"
	if d.p.Net.Destinations == DestinationsDenied {
		rest = "other destinations are NOT RESTRICTED"
	}
	d.section("network  %s", rest)
	var rows []row
	rights := []struct {
		right uint64
		name  string
		any   string
	}{
		{abi.NetConnectTCP, "connect", "any TCP port of any host"},
		{abi.NetConnectSendUDP, "connect", ""},
		{abi.NetBindTCP, "bind", "any TCP port"},
	}
	decided := map[uint64]bool{abi.NetConnectTCP: d.p.Net.DecidesDestinations(), abi.NetBindTCP: len(d.p.Net.DenyBind) > 0}
	for _, r := range rights {
		rules := d.p.Landlock.portRules(r.right)
		if len(rules) == 0 && !decided[r.right] && r.any != "" {
			rows = append(rows, row{cells: []string{r.name, d.portTotals(r.right, r.any)}})
		}
		for _, rule := range rules {
			rows = append(rows, row{cells: []string{r.name, protocolOf(r.right) + " " + rule.target(r.right)}, origin: rule.Origin})
		}
	}
	rows = append(rows, d.netRules()...)
	scoped := d.p.Landlock.Handled.Scoped
	for _, s := range []struct {
		bit        uint64
		name, what string
	}{
		{abi.ScopeAbstractUnix, "abstract", "unix sockets of this sandbox only"},
		{abi.ScopeSignal, "signals", "processes of this sandbox only"},
	} {
		if scoped&s.bit == 0 {
			s.what = "NOT RESTRICTED"
		}
		rows = append(rows, row{cells: []string{s.name, s.what}})
	}
	d.rows(rows)
}

func (r *PortRule) target(right uint64) string {
	switch {
	case r.Param != "":
		return "${" + r.Param + "}"
	case r.Port == 0:
		return "an ephemeral port"
	case right&(abi.NetConnectTCP|abi.NetConnectSendUDP) != 0:
		return "*:" + strconv.Itoa(int(r.Port))
	}
	return strconv.Itoa(int(r.Port))
}

// Describe returns the rule as goldens and explanations name it, for a right that it grants.
func (r *PortRule) Describe(right uint64) string {
	verb := "bind"
	if right&(abi.NetConnectTCP|abi.NetConnectSendUDP) != 0 {
		verb = "connect"
	}
	return fmt.Sprintf("%s %s %s", verb, protocolOf(right), r.target(right))
}

func protocolOf(right uint64) string {
	if right&(abi.NetConnectSendUDP|abi.NetBindUDP) != 0 {
		return "udp"
	}
	return "tcp"
}

// Describe returns the rule as goldens and explanations name it.
func (r *PathRule) Describe(l *Landlock) string {
	class := l.ClassOf(r.Access)
	if class == ClassExact {
		return strings.Join(abi.FSRightNames(r.Access), ",") + " " + r.Path
	}
	return string(class) + " " + r.Path
}
