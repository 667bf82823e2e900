package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// constrain has an authority's certificate permit names and addresses, and nothing else (RFC 5280 §4.2.1.10).
//
// A constraint on a name permits what is beneath it as well. One on "example.com" stands for "*.example.com" too: the form
// ".example.com", beneath it alone, is not in the RFC, and verifiers differ about it.
func constrain(template *x509.Certificate, names []string, addresses []netip.Addr) error {
	if len(names)+len(addresses) == 0 {
		return errors.New("an authority for no name and no address")
	}
	for _, name := range names {
		if _, err := netip.ParseAddr(name); err == nil || !protocol.IsRule(name) {
			return fmt.Errorf("%.80q is not a host name in lower case", name)
		}
		template.PermittedDNSDomains = append(template.PermittedDNSDomains, strings.TrimPrefix(name, "*."))
	}
	slices.Sort(template.PermittedDNSDomains)
	template.PermittedDNSDomains = slices.Compact(template.PermittedDNSDomains)
	var sorted []netip.Addr
	for _, a := range addresses {
		if !a.IsValid() || a.Zone() != "" {
			return fmt.Errorf("address %v: no certificate can name it", a)
		}
		sorted = append(sorted, a.Unmap())
	}
	slices.SortFunc(sorted, netip.Addr.Compare)
	for _, a := range slices.Compact(sorted) {
		template.PermittedIPRanges = append(template.PermittedIPRanges, network(netip.PrefixFrom(a, a.BitLen())))
	}
	// What no constraint is about is permitted.
	if len(addresses) == 0 {
		for _, all := range []string{"0.0.0.0/0", "::/0"} {
			template.ExcludedIPRanges = append(template.ExcludedIPRanges, network(netip.MustParsePrefix(all)))
		}
	}
	if len(names) == 0 {
		template.ExcludedDNSDomains = []string{""} // every name ends in nothing
	}
	template.PermittedDNSDomainsCritical = true
	return nil
}

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Permits reports whether clients accept a certificate of this authority for a name or an address, as far as the
// constraints in its certificate, and in those that are sent along, say.
func (a *Authority) Permits(name string) bool {
	host, addr, err := parse(name)
	return err == nil && a.permits(host, addr)
}

func (a *Authority) permits(host string, addr netip.Addr) bool {
	return !slices.ContainsFunc(a.chain(), func(c *x509.Certificate) bool {
		if addr.IsValid() {
			within := func(n *net.IPNet) bool { return n.Contains(addr.AsSlice()) }
			return forbidden(c.PermittedIPRanges, c.ExcludedIPRanges, within)
		}
		within := func(domain string) bool { return beneath(host, strings.ToLower(domain)) }
		return forbidden(c.PermittedDNSDomains, c.ExcludedDNSDomains, within)
	})
}

func forbidden[T any](permitted, excluded []T, within func(T) bool) bool {
	return slices.ContainsFunc(excluded, within) || len(permitted) > 0 && !slices.ContainsFunc(permitted, within)
}

// beneath reports whether a constraint is about a name. One with a dot at its front, which others may have made, leaves out
// the domain itself.
func beneath(host, domain string) bool {
	if domain == "" || host == domain {
		return true
	}
	return strings.HasSuffix(host, "."+strings.TrimPrefix(domain, "."))
}

// parse tells names from addresses, and gives each the one form in which it is compared and kept.
func parse(name string) (host string, addr netip.Addr, err error) {
	if addr, err = netip.ParseAddr(name); err == nil {
		if addr.Zone() != "" {
			return "", netip.Addr{}, fmt.Errorf("address %.80q: no certificate can name it", name)
		}
		return "", addr.Unmap(), nil
	}
	if host = lower(name); !protocol.IsName(host) {
		return "", netip.Addr{}, fmt.Errorf("%.80q is not a host name", name)
	}
	return host, netip.Addr{}, nil
}

// lower is for ASCII alone: strings.ToLower makes ASCII letters of some that are none.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
