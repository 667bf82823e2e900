package policy

import "strings"

// checkHost holds for host names as RFC 1123 §2.1 and RFC 1035 §2.3.4 have them, and returns them in lower case
// without a final dot. A name whose last label is a number is refused: resolvers read "127.1" and "0x7f.1" as IPv4
// addresses (inet_aton), so such a rule would not mean what it says.
func checkHost(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if name == "" || len(name) > 253 {
		return "", grammarErrorf("host", "", "host name %q has %d bytes, 1 to 253 are allowed", s, len(name))
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if !validLabel(label) {
			return "", grammarErrorf("host", "", "%q is not a host name", s)
		}
	}
	if last := labels[len(labels)-1]; allDigits(last) || isHex(last) {
		return "", grammarErrorf("host", "write addresses in full, such as 127.0.0.1", "%q would be read as an address", s)
	}
	return name, nil
}

func validLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func isHex(label string) bool {
	digits, ok := strings.CutPrefix(label, "0x")
	return ok && strings.Trim(digits, "0123456789abcdef") == ""
}

// ParseHost checks a host name of network.hosts.
func ParseHost(s string) (string, error) { return checkHost(s) }
