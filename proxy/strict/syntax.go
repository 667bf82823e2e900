package strict

import (
	"bytes"
	"net/netip"
)

// maxLength bounds bodies and chunks: sizes are added up in 64 bits here and elsewhere, so none comes near to what overflows.
const maxLength = 1 << 62

// bare is a value that decides on framing or routing: readers differ in what white space they remove there, so one space
// at the front is all there may be.
func bare(value []byte) []byte {
	value, _ = bytes.CutPrefix(value, []byte{' '})
	return value
}

// equalFold is bytes.EqualFold for ASCII: that one takes the Kelvin sign for a k.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func trim(item []byte) []byte { return bytes.Trim(item, " \t") }

// length reads a Content-Length. A zero in front would be the mark of an octal number to some.
func length(b []byte) (n uint64, ok bool) {
	for _, c := range b {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, 0 < len(b) && len(b) <= 19 && n <= maxLength && (b[0] != '0' || len(b) == 1)
}

// isAuthority takes a host and a port, both in their plain form: letters, digits and "-", "_", "." between labels, or an
// IPv6 address in brackets.
func isAuthority(b []byte) bool {
	if len(b) > 0 && b[0] == '[' {
		address, port, ok := bytes.Cut(b[1:], []byte{']'})
		if !ok || len(address) > len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") {
			return false
		}
		a, err := netip.ParseAddr(string(address))
		return err == nil && a.Is6() && !a.Is4In6() && a.Zone() == "" && (len(port) == 0 || port[0] == ':' && isPort(port[1:]))
	}
	name, port, ok := bytes.Cut(b, []byte{':'})
	if ok && !isPort(port) {
		return false
	}
	last := byte('.')
	for _, c := range name {
		if bytesOf[c]&nameByte == 0 || c == '.' && last == '.' {
			return false
		}
		last = c
	}
	return 0 < len(name) && len(name) <= 254
}

func isPort(b []byte) bool {
	n, ok := length(b)
	return ok && 0 < n && n <= 65535
}

func isToken(b []byte) bool {
	for _, c := range b {
		if tokenByte[c] == 0 {
			return false
		}
	}
	return len(b) > 0
}

// Classes of bytes, in bytesOf.
const (
	valueByte  = 1 << iota // of a header value (RFC 9110 §5.5)
	targetByte             // of a request-target; readers differ in what they make of # and \
	nameByte               // of a host's name
)

var (
	bytesOf   [256]uint8
	hexDigit  [256]uint8 // its value and 1
	tokenByte [256]byte  // 0 if it is none: letters in lower case, "-" for punctuation
)

func init() {
	for i := range 256 {
		c := byte(i)
		if c == '\t' || c == ' ' || 0x21 <= c && c <= 0x7e || c >= 0x80 {
			bytesOf[c] |= valueByte
		}
		if 0x21 <= c && c <= 0x7e && c != '#' && c != '\\' {
			bytesOf[c] |= targetByte
		}
	}
	for i, c := range []byte("0123456789abcdef") {
		hexDigit[c], hexDigit[bytes.ToUpper([]byte{c})[0]] = uint8(i+1), uint8(i+1)
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		tokenByte[c] = '-'
	}
	for _, c := range []byte("0123456789abcdefghijklmnopqrstuvwxyz") {
		tokenByte[c], tokenByte[bytes.ToUpper([]byte{c})[0]] = c, c
	}
	for i, low := range tokenByte {
		if low != 0 && low != '-' || i == '-' || i == '_' || i == '.' {
			bytesOf[i] |= nameByte
		}
	}
}
