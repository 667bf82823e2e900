package credential

import "strings"

// Queries are taken apart by "&" alone, and "+" stands for itself: so do servers that follow RFC 3986. What is no escape
// ("%zz") stands for itself too.

// hasParameter reports whether a query has a parameter, with a value or without.
func hasParameter(query, name string) bool {
	for part := range strings.SplitSeq(query, "&") {
		if isParameter(part, name) {
			return true
		}
	}
	return false
}

// setParameter removes a parameter wherever it is and appends it. All other bytes of the query stay what they are.
func setParameter(query, name, value string) string {
	var kept []string
	if query != "" {
		for part := range strings.SplitSeq(query, "&") {
			if !isParameter(part, name) {
				kept = append(kept, part)
			}
		}
	}
	return strings.Join(append(kept, escape(name)+"="+escape(value)), "&")
}

func isParameter(part, name string) bool {
	key, _, _ := strings.Cut(part, "=")
	return unescape(key) == name
}

const upperHex = "0123456789ABCDEF"

// escape escapes all but what is unreserved (RFC 3986 §2.3).
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
		}
	}
	return b.String()
}

// unescape decodes what is escaped.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if high, low := hexDigit(s[i+1]), hexDigit(s[i+2]); high >= 0 && low >= 0 {
				b = append(b, byte(high<<4|low))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
