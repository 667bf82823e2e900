package exec

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/exec/helper"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// pins are the names whose addresses do not change while the sandbox runs. What the sandbox finds in /etc/hosts and what it
// may connect to is the same for it.
type pins struct {
	names     []string // in order of first appearance
	addresses map[string][]netip.Addr
}

// Addresses returns the addresses of a name, none if it is not pinned.
func (p *pins) Addresses(name string) []netip.Addr { return p.addresses[name] }

// HostsFile returns the content of /etc/hosts (hosts(5)) in the sandbox.
func (p *pins) HostsFile() []byte {
	lines := []string{"127.0.0.1 localhost\n", "::1 localhost\n"}
	seen := map[string]bool{lines[0]: true, lines[1]: true}
	for _, name := range p.names {
		for _, a := range p.addresses[name] {
			if line := a.String() + " " + name + "\n"; !seen[line] {
				seen[line] = true
				lines = append(lines, line)
			}
		}
	}
	return []byte(strings.Join(lines, ""))
}

// leadTo returns the names that lead to an address.
func (p *pins) leadTo(a netip.Addr) (names []string) {
	for _, name := range p.names {
		if slices.ContainsFunc(p.addresses[name], func(b netip.Addr) bool { return query.Canonical(b) == a }) {
			names = append(names, name)
		}
	}
	return names
}

func (p *pins) add(name string, addresses []netip.Addr) {
	if _, known := p.addresses[name]; !known {
		p.names = append(p.names, name)
		p.addresses[name] = addresses
	}
}

// unresolved lists the names that have to be looked up, with the first rule of each. Where the sandbox has a resolver of
// its own there are none: they are looked up when they are asked for.
func unresolved(n *ir.Net) (names []string, rules map[string]ir.OriginRef) {
	rules = map[string]ir.OriginRef{}
	if n.Resolver {
		return nil, rules
	}
	for i := range n.Rules {
		r := &n.Rules[i]
		if r.Kind != ir.TargetHost || strings.HasPrefix(r.Target, ir.Wildcard) || n.Fixed(r.Target) != nil {
			continue
		}
		if _, seen := rules[r.Target]; !seen {
			names = append(names, r.Target)
			rules[r.Target] = r.Origin
		}
	}
	for _, named := range n.Named {
		if _, seen := rules[named.Name]; !seen && n.Fixed(named.Name) == nil {
			names = append(names, named.Name)
			rules[named.Name] = named.Origin
		}
	}
	return names, rules
}

// needsHelper returns the field of the policy for which a run needs the helper program, "" if there is none.
func needsHelper(p *ir.Program) string {
	names, _ := unresolved(&p.Net)
	switch {
	case p.HTTP.On():
		return "http"
	case p.Net.Resolver:
		return "network.resolver"
	case len(names) > 0:
		return "names in network.allow"
	}
	return ""
}

// pinNames looks the names in rules up, each once. It must be called before this thread is confined, which a helper would
// inherit.
func (s *sandbox) pinNames() (problems []string) {
	names, rules := unresolved(&s.net)
	var found map[string][]netip.Addr
	if len(names) > 0 {
		program, err := s.helper()
		if err != nil {
			return []string{s.ruleError(rules[names[0]], fmt.Errorf("resolve %s: %w", names[0], err)).Error()}
		}
		var failed map[string]string
		found, failed, err = program.Lookup(names)
		program.Close()
		if err != nil {
			return []string{s.ruleError(rules[names[0]], fmt.Errorf("resolve %s: %w", names[0], err)).Error()}
		}
		for _, name := range names {
			if reason := failed[name]; reason != "" {
				problems = append(problems, s.ruleError(rules[name], fmt.Errorf("resolve %s: %s", name, reason)).Error())
				continue
			}
			if i := slices.IndexFunc(found[name], query.IsPrivate); s.net.Private && i >= 0 {
				problems = append(problems, s.ruleError(rules[name],
					fmt.Errorf("resolve %s: %s is a private address, which network.private refuses", name, found[name][i])).Error())
			}
		}
	}
	s.pins = newPins(&s.net, found)
	return problems
}

// newPins puts the names in rules first, in their order, then those that only network.hosts has.
func newPins(n *ir.Net, found map[string][]netip.Addr) *pins {
	p := &pins{addresses: map[string][]netip.Addr{}}
	var names []string
	for i := range n.Rules {
		if n.Rules[i].Kind == ir.TargetHost {
			names = append(names, n.Rules[i].Target)
		}
	}
	for _, named := range n.Named {
		names = append(names, named.Name)
	}
	for _, name := range names {
		if fixed := n.Fixed(name); fixed != nil {
			p.add(name, fixed)
		} else if list := found[name]; list != nil {
			p.add(name, list)
		}
	}
	for i := range n.Hosts {
		p.add(n.Hosts[i].Name, n.Fixed(n.Hosts[i].Name))
	}
	return p
}

// helper finds the helper program. What the command can write must not be what helps to confine the next.
func (s *sandbox) helper() (*helper.Program, error) {
	p, err := helper.Find(s.options.Helper)
	if err != nil {
		return nil, err
	}
	for _, o := range s.opened {
		if o.access&abi.FSWriteFile != 0 && beneath(p.Path, o.real) {
			p.Close()
			return nil, fmt.Errorf("the helper program %s lies beneath %s, which the policy lets the command write: it could rewrite it", p.Path, o.real)
		}
	}
	return p, nil
}
