package exec

import (
	"net/netip"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
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

func (p *pins) add(name string, addresses []netip.Addr) {
	if _, known := p.addresses[name]; !known {
		p.names = append(p.names, name)
		p.addresses[name] = addresses
	}
}

// newPins puts the names in rules first, in their order, then those that only network.hosts has.
func newPins(n *ir.Net, found map[string][]netip.Addr) *pins {
	p := &pins{addresses: map[string][]netip.Addr{}}
	for i := range n.Rules {
		if n.Rules[i].Kind != ir.TargetHost {
			continue
		}
		name := n.Rules[i].Target
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
