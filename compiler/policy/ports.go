package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
)

// PortSet is a set of ports, sorted.
type PortSet struct {
	All    bool
	Ranges []PortRange // without overlap; of a network rule each is one port
	Params []string    // parameters of type port whose values belong to the set
}

// PortRange is an inclusive range.
type PortRange struct{ Lo, Hi uint16 }

const portHint = "a port is 1–65535; leave it out to mean every port"

// parsePort parses a decimal port, refusing signs and what does not fit.
func parsePort(s string) (uint16, error) {
	if !allDigits(s) {
		return 0, grammarErrorf("port", portHint, "%q is not a port", s)
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, grammarErrorf("port-range", portHint, "port %s is above 65535", s)
	}
	return uint16(n), nil
}

// portParam returns the name of a port written as "${name}".
func portParam(s string) (name string, ok bool, err error) {
	if !strings.HasPrefix(s, "${") {
		return "", false, nil
	}
	names, err := ir.Names(s)
	if err != nil {
		return "", false, grammarErrorf("template", `a parameter is written "${name}"`, "%v", err)
	}
	if len(names) != 1 || s != "${"+names[0]+"}" {
		return "", false, grammarErrorf("port", "", "%q: a parameter must be the whole port", s)
	}
	return names[0], true, nil
}

// Contains tells whether port is in the set, given no parameters.
func (p PortSet) Contains(port uint16) bool {
	return p.All || slices.ContainsFunc(p.Ranges, func(r PortRange) bool { return r.Lo <= port && port <= r.Hi })
}

// String returns the set as policies write it.
func (p PortSet) String() string {
	if p.All {
		return "*"
	}
	var items []string
	for _, r := range p.Ranges {
		item := strconv.Itoa(int(r.Lo))
		if r.Hi != r.Lo {
			item += "-" + strconv.Itoa(int(r.Hi))
		}
		items = append(items, item)
	}
	for _, name := range p.Params {
		items = append(items, "${"+name+"}")
	}
	return strings.Join(items, ",")
}

// normalise sorts the set and removes duplicates; merge also joins ranges that touch.
func (p *PortSet) normalise(merge bool) {
	slices.Sort(p.Params)
	p.Params = slices.Compact(p.Params)
	slices.SortFunc(p.Ranges, func(a, b PortRange) int { return cmp.Or(cmp.Compare(a.Lo, b.Lo), cmp.Compare(a.Hi, b.Hi)) })
	p.Ranges = slices.Compact(p.Ranges)
	if !merge {
		return
	}
	var out []PortRange
	for _, r := range p.Ranges {
		if n := len(out); n > 0 && int(r.Lo) <= int(out[n-1].Hi)+1 {
			out[n-1].Hi = max(out[n-1].Hi, r.Hi)
			continue
		}
		out = append(out, r)
	}
	p.Ranges = out
}
