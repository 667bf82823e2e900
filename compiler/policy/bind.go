package policy

import "strings"

const bindHint = `write a port, a range "9000-9005", a list of them, or "*" alone`

// ParseBind parses an element of network.allow_bind or deny_bind: ports, ranges and parameters separated by commas,
// or "*" alone. Port 0 stands for an ephemeral port.
func ParseBind(s string) (PortSet, error) {
	items := strings.Split(s, ",")
	var set PortSet
	for _, item := range items {
		item = strings.TrimSpace(item)
		if item == "" {
			return PortSet{}, grammarErrorf("bind", bindHint, "empty port in %q", s)
		}
		if item == "*" {
			set.All = true
			continue
		}
		if err := set.addBind(item); err != nil {
			return PortSet{}, err
		}
	}
	if set.All && len(set.Ranges)+len(set.Params) > 0 {
		return PortSet{}, grammarErrorf("bind", "", `%q: "*" cannot be combined with ports`, s)
	}
	set.normalise(true)
	return set, nil
}

func (p *PortSet) addBind(item string) error {
	if name, ok, err := portParam(item); err != nil {
		return err
	} else if ok {
		p.Params = append(p.Params, name)
		return nil
	}
	first, last, isRange := strings.Cut(item, "-")
	lo, err := parsePort(strings.TrimSpace(first))
	if err != nil {
		return err
	}
	hi := lo
	if isRange {
		if hi, err = parsePort(strings.TrimSpace(last)); err != nil {
			return err
		}
	}
	if lo > hi {
		return grammarErrorf("bind", "", "port range %q is reversed", item)
	}
	p.Ranges = append(p.Ranges, PortRange{lo, hi})
	return nil
}
