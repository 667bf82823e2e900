package query

import (
	"net/netip"
	"strconv"
	"strings"
)

// What can be wrong with the host of a request.
const (
	ErrHostName    RequestError = "host is not a name"
	ErrHostAddress RequestError = "host is not an address in canonical form"
	ErrHostPort    RequestError = "port is not a number from 1 to 65535"
)

const (
	maxRequestHost = 253 // RFC 1035 §2.3.4
	maxLabel       = 63
)

// ParseAuthority reads "host" or "host:port", as a request names where it goes. port is 0 if there is none.
func ParseAuthority(s string) (host string, port uint16, err error) {
	if colon := strings.LastIndexByte(s, ':'); colon >= 0 && !strings.HasSuffix(s, "]") {
		n, err := strconv.ParseUint(s[colon+1:], 10, 16)
		if err != nil || s[colon+1] == '0' {
			return "", 0, ErrHostPort
		}
		s, port = s[:colon], uint16(n)
	}
	host, err = CanonicalHost(s)
	if err != nil {
		return "", 0, err
	}
	return host, port, nil
}

// CanonicalHost returns the one spelling of a name or an address that rules use: names in lower case, addresses as
// [Canonical] and without the brackets that IPv6 addresses must come in. What resolvers take for an address although it
// is not written as one (127.1, 0x7f.0.0.1, 2130706433) is refused: a rule about the address would not see it.
func CanonicalHost(s string) (host string, err error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		if !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", ErrHostAddress
		}
		return Canonical(addr).String(), nil
	}
	if s == "" || len(s) > maxRequestHost {
		return "", ErrHostName
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || !isLabel(label) {
			return "", ErrHostName
		}
		last = label
	}
	if !isNumber(last) {
		return strings.ToLower(s), nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return "", ErrHostAddress
	}
	return Canonical(addr).String(), nil
}

func isLabel(s string) bool {
	for i := range len(s) {
		c := s[i]
		if ('0' > c || c > '9') && ('a' > c|0x20 || c|0x20 > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// isNumber holds for the last label of what the URL standard, and inet_aton with it, takes for an IPv4 address.
func isNumber(label string) bool {
	if len(label) >= 2 && label[0] == '0' && label[1]|0x20 == 'x' {
		for i := 2; i < len(label); i++ {
			if !isHex(label[i]) {
				return false
			}
		}
		return true
	}
	return strings.Trim(label, "0123456789") == ""
}
