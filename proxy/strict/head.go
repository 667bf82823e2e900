package strict

import (
	"bytes"
	"strings"
)

const (
	maxLines  = 256 // header lines
	maxMethod = 32
)

var (
	tooLarge = &Refusal{431, "too many bytes in header lines"}
	tooMany  = &Refusal{431, "too many header lines"}
	bareLF   = bad("line does not end in CRLF")
)

func bad(reason string) *Refusal { return &Refusal{400, reason} }

// head is what the lines of a head have said so far.
type head struct {
	lines     int
	old       bool   // HTTP/1.0
	scheme    string // of a request-target in absolute form, with its authority
	authority string

	seen       [fields]bool // fields that are allowed once
	hasLength  bool
	length     uint64
	chunked    bool
	canUpgrade bool // Connection says that Upgrade is meant
	upgrade    bool
}

// add checks the next line of a head.
func (h *head) add(line []byte) *Refusal {
	if h.lines++; h.lines == 1 {
		return h.requestLine(line)
	}
	if h.lines > maxLines+1 {
		return tooMany
	}
	f, value, bad := fieldLine(line)
	if bad != nil || f == ordinary || f == noTrailer {
		return bad
	}
	return h.field(f, value)
}

// end checks what is not in one line alone.
func (h *head) end() *Refusal {
	switch {
	case !h.seen[host] && (!h.old || h.authority == ""):
		return bad("no Host")
	case h.hasLength && h.chunked:
		return bad("Content-Length and Transfer-Encoding")
	case h.upgrade && !h.canUpgrade:
		return bad("Upgrade without Connection: upgrade")
	}
	return nil
}

func (h *head) requestLine(line []byte) *Refusal {
	method, rest, ok := bytes.Cut(line, []byte{' '})
	target, version, ok2 := bytes.Cut(rest, []byte{' '})
	if !ok || !ok2 || !isMethod(method) {
		return bad("malformed request line")
	}
	switch {
	case string(version) == "HTTP/1.1":
	case string(version) == "HTTP/1.0":
		h.old = true
	case len(version) == len("HTTP/d.d") && bytes.HasPrefix(version, []byte("HTTP/")) &&
		isDigit(version[5]) && version[6] == '.' && isDigit(version[7]):
		return &Refusal{505, "HTTP version is not supported"}
	default:
		return bad("malformed request line")
	}
	switch string(method) {
	case "CONNECT", "TRACE":
		return &Refusal{405, "method is not supported"}
	}
	return h.target(method, target)
}

// IsMethod reports whether a method may be sent on, for who reads requests in another form than that of HTTP/1.
func IsMethod(s string) bool { return isMethod([]byte(s)) }

// isMethod is stricter than the grammar, which knows lower case as well: a reader that ignores case would see another
// method than one that does not.
func isMethod(b []byte) bool {
	for _, c := range b {
		if (c < 'A' || c > 'Z') && !isDigit(c) && c != '-' && c != '_' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= maxMethod
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// target checks a request-target (RFC 9112 §3.2). Of the authority form only CONNECT makes use.
func (h *head) target(method, target []byte) *Refusal {
	for _, c := range target {
		if bytesOf[c]&targetByte == 0 {
			return bad("byte in the request-target")
		}
	}
	path := target
	switch {
	case string(target) == "*":
		if string(method) != "OPTIONS" {
			return bad("request-target * without OPTIONS")
		}
	case len(target) > 0 && target[0] == '/':
	case h.absolute(target, "http"), h.absolute(target, "https"):
		path = target[len(h.scheme)+len("://")+len(h.authority):]
	default:
		return bad("malformed request-target")
	}
	path, _, _ = bytes.Cut(path, []byte{'?'})
	for i, c := range path {
		if c == '%' && (i+2 >= len(path) || hexDigit[path[i+1]] == 0 || hexDigit[path[i+2]] == 0) {
			return bad("malformed percent-encoding in the path")
		}
	}
	return nil
}

// absolute reports whether the target begins with the scheme and an authority.
func (h *head) absolute(target []byte, scheme string) bool {
	rest, ok := bytes.CutPrefix(target, []byte(scheme+"://"))
	if !ok {
		return false
	}
	if i := bytes.IndexAny(rest, "/?"); i >= 0 {
		rest = rest[:i]
	}
	h.scheme, h.authority = scheme, string(rest)
	return isAuthority(rest)
}

// sameAuthority compares Host with the authority in the target: net/http shows the handler the latter alone, and whoever
// reads the other one would send the request elsewhere.
func (h *head) sameAuthority(host []byte) bool {
	port := ":80"
	if h.scheme == "https" {
		port = ":443"
	}
	return h.authority == "" ||
		strings.EqualFold(strings.TrimSuffix(h.authority, port), strings.TrimSuffix(string(host), port))
}
