package query

import (
	"strings"
	"unicode/utf8"
)

// RequestError says why a request is refused before any rule is asked. The texts are stable.
type RequestError string

func (e RequestError) Error() string { return string(e) }

// What can be wrong with a path.
const (
	ErrPathRelative   RequestError = "path does not begin with a slash"
	ErrPathLong       RequestError = "path is too long"
	ErrPathBytes      RequestError = "path has a byte that must be percent-encoded"
	ErrPathEscape     RequestError = "path has a malformed percent-encoding"
	ErrPathControl    RequestError = "path has a control character"
	ErrPathUTF8       RequestError = "path is not valid UTF-8"
	ErrPathDouble     RequestError = "path is ambiguous: double encoding"
	ErrPathBackslash  RequestError = "path is ambiguous: backslash"
	ErrPathSlash      RequestError = "path is ambiguous: encoded slash at a dot or empty segment"
	ErrPathParameters RequestError = "path is ambiguous: segment of parameters alone, or of dots and parameters"
	ErrPathSemicolons RequestError = "path is ambiguous: semicolons both plain and encoded"
	ErrPathCut        RequestError = "path is ambiguous: encoded query or fragment after a dot or empty segment"
)

const maxRequestPath = 8192

// HTTPPath is the path of a request. Servers disagree on what some paths mean, so that it may have several readings; who
// decides about the request must decide about all of them.
type HTTPPath struct {
	// Forward is the canonical spelling. It alone is sent on: a server never sees what the client wrote.
	Forward string

	readings []reading // the first is the literal one
}

// reading is what a server may take a path for.
type reading struct {
	how  readAs
	text string // decoded, lexically clean
}

// readAs is a set of liberties that a server takes.
type readAs uint8

const (
	slashes    readAs = 1 << iota // %2F separates segments
	parameters                    // of each segment, ";" and what follows is not part of its name
	cut                           // an encoded "?" or "#" ends the path
	allReadings
)

const encodedSlash = "%2F"

// ParsePath reads the path of a request's target, without its query. "*" is the target of OPTIONS for a whole server.
func ParsePath(raw string) (HTTPPath, error) {
	switch {
	case raw == "*":
		return HTTPPath{"*", []reading{{0, "*"}}}, nil
	case !strings.HasPrefix(raw, "/"):
		return HTTPPath{}, ErrPathRelative
	case len(raw) > maxRequestPath:
		return HTTPPath{}, ErrPathLong
	}
	b := pathBuilder{forward: make([]byte, 0, len(raw)), text: make([]byte, 0, len(raw))}
	for segment := range strings.SplitSeq(raw[1:], "/") {
		if err := b.add(segment); err != nil {
			return HTTPPath{}, err
		}
	}
	if b.open || len(b.text) == 0 {
		b.forward, b.text = append(b.forward, '/'), append(b.text, '/')
	}
	if len(b.forward) > maxRequestPath {
		return HTTPPath{}, ErrPathLong // by what was encoded: a canonical path must itself be a path
	}
	if b.plain && b.encoded {
		return HTTPPath{}, ErrPathSemicolons // some servers take both for the begin of parameters, some the plain one alone
	}
	text := strings.ReplaceAll(string(b.text), slashMark, encodedSlash)
	readings, err := read(text)
	if err != nil {
		return HTTPPath{}, err
	}
	return HTTPPath{string(b.forward), readings}, nil
}

// Text returns the path as rules hold it: decoded, but for %2F. To read the path of a rule that ends in "*", parse it
// with the "*" and take it off the text: "/@types%2F*" is a good prefix, "/@types%2F" is a bad path.
func (p *HTTPPath) Text() string {
	if len(p.readings) == 0 {
		return ""
	}
	return p.readings[0].text
}

// slashMark stands for an encoded slash among decoded bytes; no path has it.
const slashMark = "\x00"

// pathBuilder writes the canonical spelling and the decoded text of a path side by side.
type pathBuilder struct {
	forward, text  []byte
	starts         [][2]int // of each segment, in both
	open           bool     // the path ends in a slash so far
	plain, encoded bool     // semicolons
}

func (b *pathBuilder) add(segment string) error {
	start := [2]int{len(b.forward), len(b.text)}
	b.forward, b.text = append(b.forward, '/'), append(b.text, '/')
	for i := 0; i < len(segment); i++ {
		c, escaped := segment[i], false
		if c <= 0x20 || c >= 0x7f || c == '?' || c == '#' {
			return ErrPathBytes
		}
		if c == '%' {
			if len(segment)-i < 3 || !isHex(segment[i+1]) || !isHex(segment[i+2]) {
				return ErrPathEscape
			}
			c, escaped = unhex(segment[i+1])<<4|unhex(segment[i+2]), true
			i += 2
		}
		if err := b.addByte(c, escaped); err != nil {
			return err
		}
	}
	name := b.text[start[1]+1:]
	if !utf8.Valid(name) {
		return ErrPathUTF8 // overlong forms of "/" and "." among them
	}
	if hasEscape(name) {
		return ErrPathDouble
	}
	b.open = false
	switch string(name) {
	case "..":
		if n := len(b.starts); n > 0 {
			start, b.starts = b.starts[n-1], b.starts[:n-1]
		}
		fallthrough
	case "", ".":
		b.forward, b.text, b.open = b.forward[:start[0]], b.text[:start[1]], true
	default:
		b.starts = append(b.starts, start)
	}
	return nil
}

func (b *pathBuilder) addByte(c byte, escaped bool) error {
	switch {
	case c < 0x20 || c == 0x7f:
		return ErrPathControl
	case c == '\\':
		return ErrPathBackslash
	case c == '/':
		b.forward, b.text = append(b.forward, encodedSlash...), append(b.text, slashMark...)
		return nil
	case c == ';':
		b.plain, b.encoded = b.plain || !escaped, b.encoded || escaped
	}
	b.text = append(b.text, c)
	// An encoded delimiter is not the same as a plain one (RFC 3986 §2.2), so it stays as it came.
	if isUnreserved(c) || !escaped && strings.IndexByte("!$&'()*+,;=:@", c) >= 0 {
		b.forward = append(b.forward, c)
		return nil
	}
	const digits = "0123456789ABCDEF"
	b.forward = append(b.forward, '%', digits[c>>4], digits[c&15])
	return nil
}

// hasEscape reports whether decoding once more would change something: a server behind a server may do so.
func hasEscape(text []byte) bool {
	for i, c := range text {
		if c != '%' {
			continue
		}
		digits := text[i+1:]
		if len(digits) > 0 && digits[0]|0x20 == 'u' { // %u and four digits, a habit of IIS
			digits = digits[1:]
		}
		if len(digits) >= 2 && isHex(digits[0]) && isHex(digits[1]) {
			return true
		}
	}
	return false
}

// read lists the readings of a decoded path. A path that is not clean in one of them is refused: canonical for one server
// would be a way out for another.
func read(text string) ([]reading, error) {
	list := []reading{{0, text}}
	var liberties readAs
	if strings.Contains(text, encodedSlash) {
		liberties |= slashes
	}
	if strings.Contains(text, ";") {
		liberties |= parameters
	}
	if strings.ContainsAny(text, "?#") {
		liberties |= cut
	}
	for how := readAs(1); how < allReadings && liberties != 0; how++ {
		if how&^liberties != 0 {
			continue
		}
		read := how.of(text)
		if !isClean(read) || strings.HasSuffix(read, "/") && !strings.HasSuffix(text, "/") {
			switch {
			case how&cut != 0:
				return nil, ErrPathCut
			case how&parameters != 0:
				return nil, ErrPathParameters
			}
			return nil, ErrPathSlash
		}
		list = append(list, reading{how, read})
	}
	return list, nil
}

// of reads a decoded path. What it makes of a prefix is a prefix of what it makes of the whole, which rules rely on.
func (how readAs) of(text string) string {
	if how&slashes != 0 {
		text = strings.ReplaceAll(text, encodedSlash, "/")
	}
	if how&cut != 0 {
		if i := strings.IndexAny(text, "?#"); i >= 0 {
			text = text[:i]
		}
	}
	if how&parameters == 0 || !strings.Contains(text, ";") {
		return text
	}
	var b strings.Builder
	skip := false
	for i := range len(text) {
		switch text[i] {
		case ';':
			skip = true
		case '/':
			skip = false
		}
		if !skip {
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

// isClean holds for paths without dot segments and empty ones, but for the last.
func isClean(text string) bool {
	rest, ok := strings.CutPrefix(text, "/")
	for ok {
		var segment string
		segment, rest, ok = strings.Cut(rest, "/")
		if segment == "." || segment == ".." || segment == "" && ok {
			return false
		}
	}
	return true
}

func isUnreserved(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || strings.IndexByte("-._~", c) >= 0
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
