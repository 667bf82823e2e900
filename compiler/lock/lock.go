// Package lock reads and writes the lock file of a policy: the addresses of the names in its rules, in the form of
// hosts(5), for network.resolve: "compile".
//
// In: the file's bytes, and the policy tree. Out: entries with their places, or diagnostics. The file lies next to the
// policy and is reviewed like it, so that a change of DNS is a change that somebody has seen. The package looks nothing
// up: sandlock-compile lock does, and compiling reads what it wrote.
package lock

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Entry is one address of a name.
type Entry struct {
	Name    string // lower case, without final dot
	Address netip.Addr
	Place   policy.Place // of the line
}

const (
	maxEntries   = 4096
	maxAddresses = 256 // of one name: as many as the IR holds
)

// Parse reads a lock file. It takes what hosts(5) describes, an address and then one name or several on each line and "#"
// before a comment, and nothing else: an address that cannot be read, a name that is none, or the same line twice are
// mistakes.
func Parse(file string, data []byte) ([]Entry, diag.List) {
	var (
		entries []Entry
		diags   diag.List
	)
	seen := map[Entry]int{} // without place
	addresses := map[string]int{}
	for i, line := range strings.Split(string(data), "\n") {
		place := policy.Place{File: file, Line: i + 1, Col: 1}
		fail := func(format string, args ...any) {
			diags.Add(diag.Diagnostic{Pos: place, Rule: "lock", Msg: fmt.Sprintf(format, args...)})
		}
		if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			fail("holds bytes that no text has")
			continue
		}
		line, _, _ = strings.Cut(line, "#")
		fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
		if len(fields) == 0 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		switch {
		case err != nil || addr.Zone() != "":
			fail("%q is not an IP address", fields[0])
			continue
		case addr.Is4In6():
			fail("%q is an IPv4 address: write %s", fields[0], addr.Unmap())
			continue
		case len(fields) == 1:
			fail("%s has no name", addr)
			continue
		}
		for _, text := range fields[1:] {
			name, err := policy.ParseHost(text)
			if err != nil {
				fail("%v", err)
				continue
			}
			e := Entry{Name: name, Address: addr}
			if first, again := seen[e]; again {
				fail("%s %s stands in line %d already", addr, name, first)
				continue
			}
			seen[e] = i + 1
			if addresses[name]++; addresses[name] == maxAddresses+1 {
				fail("%s has more than %d addresses", name, maxAddresses)
			}
			e.Place = place
			entries = append(entries, e)
		}
		if len(entries) > maxEntries {
			fail("the file has more than %d entries", maxEntries)
			break
		}
	}
	if diags.HasErrors() {
		return nil, diags
	}
	return entries, nil
}

// Format writes a lock file: one address a line, sorted by name and then by address. about names the policy.
func Format(about string, entries []Entry) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Addresses of the names in %s, which sets network.resolve: \"compile\".\n", about)
	b.WriteString("# Written by sandlock-compile lock. Review a change of this file like one of the policy.\n")
	for _, e := range Sorted(entries) {
		fmt.Fprintf(&b, "%s %s\n", e.Address, e.Name)
	}
	return b.Bytes()
}

// Sorted returns the entries by name and then by address.
func Sorted(entries []Entry) []Entry {
	return slices.SortedFunc(slices.Values(entries), func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Address.Compare(b.Address))
	})
}

// Wanted is a name that a rule uses, and the first place where one does.
type Wanted struct {
	Name   string
	Origin policy.Origin
}

// Names lists the names that a lock file must have, sorted: those in rules but for wildcards, which are looked up while the
// sandbox runs, and names that network.hosts gives addresses.
func Names(p *policy.Policy) []Wanted {
	var names []Wanted
	add := func(name string, o policy.Origin) {
		has := func(w Wanted) bool { return w.Name == name }
		given := func(h policy.Val[policy.PinnedHost]) bool { return h.V.Name == name }
		if strings.HasPrefix(name, ir.Wildcard) || slices.ContainsFunc(names, has) || slices.ContainsFunc(p.Network.Hosts.Items, given) {
			return
		}
		names = append(names, Wanted{name, o})
	}
	rules := func(list policy.List[policy.NetRule]) {
		for _, it := range list.Items {
			if it.V.Kind == policy.TargetHost {
				add(it.V.Host, it.Origin)
			}
		}
	}
	rules(p.Network.Allow)
	for _, it := range p.HTTP.Reached() {
		if it.V.NamesHost() {
			add(it.V.Host, it.Origin)
		}
	}
	for _, it := range p.Rules.Items {
		if host := it.V.If.Host; host.Set {
			if r, err := policy.ParseNetRule(host.V); err == nil && r.Kind == policy.TargetHost {
				add(r.Host, host.Origin)
			}
		}
		for _, do := range it.V.Do.Items {
			rules(do.V.RestrictNetwork)
		}
	}
	slices.SortFunc(names, func(a, b Wanted) int { return cmp.Compare(a.Name, b.Name) })
	return names
}

// Check holds a lock file against the policy: each name must have an address, and under network.private no private one.
// again is the command that writes the file. It returns the entries that rules use, sorted.
func Check(p *policy.Policy, file string, entries []Entry, again string) ([]Entry, diag.List) {
	var (
		used  []Entry
		diags diag.List
	)
	names := Names(p)
	private := p.Network.Private
	of := func(name string) (list []Entry) {
		for _, e := range entries {
			if e.Name == name {
				list = append(list, e)
			}
		}
		return list
	}
	for _, w := range names {
		list := of(w.Name)
		if len(list) == 0 {
			diags.Add(diag.At(w.Origin, "lock", "%s has no address in %s", w.Name, file).WithHint("run %s", again))
		}
		for _, e := range list {
			if private.V && query.IsPrivate(e.Address) {
				d := diag.Diagnostic{Pos: e.Place, Rule: "private", Msg: fmt.Sprintf("%s leads to %s, a private address", e.Name, e.Address)}
				diags.Add(d.WithNote(private.Origin.Place, "network.private is set at"))
			}
		}
		used = append(used, list...)
	}
	for _, e := range entries {
		if !slices.ContainsFunc(names, func(w Wanted) bool { return w.Name == e.Name }) {
			diags.Add(diag.Diagnostic{Pos: e.Place, Rule: "lock", Msg: fmt.Sprintf("no rule uses the address of %s", e.Name), Warning: true})
		}
	}
	if len(names) == 0 {
		diags.Add(diag.At(p.Network.Resolve.Origin, "no-effect", "no rule names a host whose address is not in network.hosts").AsWarning())
	}
	return Sorted(used), diags
}
