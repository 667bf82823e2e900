// Package protocol is what the executor and its helper program have to agree on: the jobs, their limits, and the messages
// between the executor and a resolver.
//
// It is the only package of proxy/ that the executor links, so it does nothing but encode and decode. Both sides treat what
// they decode as hostile: each decoder takes exactly what the encoder makes, and no more than the limits here.
//
// Read next: message.go.
package protocol

import (
	"strings"
	"time"
)

// Jobs of the helper program.
const (
	JobLookup   = "resolve"  // names on 0, hosts(5) on 1, complaints on 2
	JobResolver = "resolver" // messages on 3
	JobProxy    = "proxy"    // messages on 3
)

const (
	// LookupTime bounds a lookup of all names.
	LookupTime = 10 * time.Second
	// MaxAddresses bounds the addresses of one name.
	MaxAddresses = 256
	// MaxName bounds a name, in bytes (RFC 1035 §2.3.4, without final dot).
	MaxName = 253
)

// IsName reports whether s is a host name in the form in which names are compared here: lower case, without final dot,
// labels of letters, digits, "-" and "_", which services are named with.
func IsName(s string) bool {
	if s == "" || len(s) > MaxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// IsRule reports whether s is such a name, or "*." and such a name.
func IsRule(s string) bool { return IsName(strings.TrimPrefix(s, "*.")) }
