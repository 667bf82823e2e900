package strict

import (
	"bytes"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// reference says by other means what becomes of a stream, slowly: it has all of it, and no states.
type reference struct {
	limit    int
	answer   upgrade // to whoever asks for an upgrade
	out      []byte  // without the request that answers for a refused one
	requests int     // with the refused one
	refused  bool
	end      string // "EOF", "cut", "body" or "early"
}

var (
	refRequest   = regexp.MustCompile(`^([A-Z0-9_-]{1,32}) ([!-~]+) HTTP/1\.([01])$`)
	refAuthority = `((?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?)`
	refHost      = regexp.MustCompile(`^ ?` + refAuthority + `$`)
	refAbsolute  = regexp.MustCompile(`^(https?)://` + refAuthority + `((?:[/?].*)?)$`)
	refPath      = regexp.MustCompile(`^(?:[^%?]|%[0-9A-Fa-f]{2})*(?:\?.*)?$`)
	refField     = regexp.MustCompile("^([A-Za-z0-9!#$%&'*+.^_`|~-]+):([\\t -~\\x{80}-\\x{10ffff}]*)$")
	refPunct     = regexp.MustCompile("[!#$%&'*+.^_`|~]")
	refLength    = regexp.MustCompile(`^ ?(0|[1-9][0-9]*)$`)
	refCoding    = regexp.MustCompile(`^ ?[cC][hH][uU][nN][kK][eE][dD]$`)
	refExpect    = regexp.MustCompile(`^ ?100-[cC][oO][nN][tT][iI][nN][uU][eE]$`)
	refOption    = regexp.MustCompile(`^(close|keep-alive|upgrade|te|http2-settings)$`)
	refProtocol  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+(/[A-Za-z0-9!#$%&'*+.^_`|~-]+)?$")
	refChunk     = regexp.MustCompile(`^([0-9A-Fa-f]{1,16})(;[\t -~]*)?\r$`)

	refSpecial = strings.Fields(`host content-length transfer-encoding connection upgrade expect trailer te keep-alive proxy-connection
		http2-settings max-forwards via forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-http-method-override
		x-original-url x-rewrite-url authorization proxy-authorization cookie origin referer cache-control pragma range if-match
		if-none-match if-modified-since if-unmodified-since if-range content-type content-encoding content-range content-location`)
)

func (r *reference) read(in []byte) {
	stray := false
	for {
		if stray && bytes.HasPrefix(in, []byte("\r\n")) {
			in = in[2:]
		}
		if len(in) == 0 {
			r.end = "EOF"
			return
		}
		lines, size, whole := section(in, r.limit)
		h := refHead{fields: map[string][]string{}}
		if len(lines) > 0 && !h.check(lines, whole) || !whole && size > r.limit || whole && len(lines) == 0 {
			r.requests++
			r.refused, r.end = true, "EOF"
			return
		}
		if !whole {
			r.end = "cut"
			return
		}
		r.requests++
		r.out = append(r.out, in[:size]...)
		in = in[size:]
		stray = h.length >= 0 || h.chunked
		if h.chunked {
			if in = r.chunks(in); in == nil {
				return
			}
		}
		if h.length > int64(len(in)) {
			r.out = append(r.out, in...)
			r.end = "cut"
			return
		}
		if h.length > 0 {
			r.out = append(r.out, in[:h.length]...)
			in = in[h.length:]
		}
		if !h.upgrade || r.answer == noUpgrade {
			continue
		}
		r.end = "EOF"
		if r.answer == gotUpgrade {
			r.out = append(r.out, in...)
		} else if len(in) > 0 {
			r.end = "early"
		}
		return
	}
}

// section finds the lines up to an empty one, with the size of all. If there is none within the limit, whole is false, and
// the size is that which it would have at least.
func section(in []byte, limit int) (lines []string, size int, whole bool) {
	for {
		i := bytes.IndexByte(in[size:], '\n')
		if i < 0 {
			return lines, max(size, len(in)+1), false
		}
		if size+i+1 > limit {
			return lines, limit + 1, false
		}
		line := string(in[size : size+i+1])
		size += i + 1
		if line == "\r\n" {
			return lines, size, true
		}
		lines = append(lines, line)
	}
}

type refHead struct {
	fields  map[string][]string
	length  int64 // or -1
	chunked bool
	upgrade bool
}

func (h *refHead) check(lines []string, whole bool) bool {
	first, ok := strings.CutSuffix(lines[0], "\r\n")
	m := refRequest.FindStringSubmatch(first)
	if !ok || m == nil || strings.ContainsAny(m[2], "#\\") || m[1] == "CONNECT" || m[1] == "TRACE" {
		return false
	}
	path, scheme, authority, old := m[2], "", "", m[3] == "0"
	if a := refAbsolute.FindStringSubmatch(path); a != nil {
		if !refValid(a[2]) {
			return false
		}
		path, scheme, authority = a[3], a[1], refPort(a[2], a[1])
		if path == "" {
			path = "/"
		}
	}
	if path == "*" {
		if m[1] != "OPTIONS" {
			return false
		}
	} else if path[0] != '/' && (authority == "" || path[0] != '?') || !refPath.MatchString(path) {
		return false
	}
	if len(lines) > maxLines+1 || !refFields(h.fields, lines[1:]) {
		return false
	}
	for name, values := range h.fields {
		if len(values) > 1 && slices.Contains(strings.Fields("host content-length transfer-encoding upgrade expect"), name) {
			return false
		}
	}
	h.length = -1
	for _, v := range h.fields["host"] {
		m := refHost.FindStringSubmatch(v)
		if m == nil || !refValid(m[1]) {
			return false
		}
		if authority != "" && !strings.EqualFold(authority, refPort(m[1], scheme)) {
			return false
		}
	}
	for _, v := range h.fields["content-length"] {
		m := refLength.FindStringSubmatch(v)
		if m == nil {
			return false
		}
		var err error
		if h.length, err = strconv.ParseInt(m[1], 10, 64); err != nil || h.length > 1<<62 {
			return false
		}
	}
	for _, v := range h.fields["transfer-encoding"] {
		if h.chunked = true; old || !refCoding.MatchString(v) {
			return false
		}
	}
	for _, v := range h.fields["expect"] {
		if !refExpect.MatchString(v) {
			return false
		}
	}
	asks := false
	for _, v := range h.fields["connection"] {
		for _, item := range strings.Split(v, ",") {
			item = refLower(strings.Trim(item, " \t"))
			if asks = asks || item == "upgrade"; !refOption.MatchString(item) {
				return false
			}
		}
	}
	for _, v := range h.fields["upgrade"] {
		h.upgrade = true
		for _, item := range strings.Split(v, ",") {
			if !refProtocol.MatchString(strings.Trim(item, " \t")) || old {
				return false
			}
		}
	}
	for _, v := range h.fields["trailer"] {
		for _, item := range strings.Split(v, ",") {
			f := map[string][]string{}
			if strings.Contains(item, ":") || !refFields(f, []string{strings.Trim(item, " \t") + ":\r\n"}) || refHas(f) {
				return false
			}
		}
	}
	if !whole {
		return true
	}
	return (len(h.fields["host"]) == 1 || old && authority != "") && (h.length < 0 || !h.chunked) && (!h.upgrade || asks)
}

func refFields(fields map[string][]string, lines []string) bool {
	for _, line := range lines {
		line, ok := strings.CutSuffix(line, "\r\n")
		m := refField.FindStringSubmatch(line)
		if !ok || m == nil {
			return false
		}
		name := refLower(m[1])
		if plain := refPunct.ReplaceAllString(name, "-"); plain != name && slices.Contains(refSpecial, plain) {
			return false
		}
		fields[name] = append(fields[name], m[2])
	}
	return true
}

func refHas(fields map[string][]string) bool {
	return slices.ContainsFunc(refSpecial, func(name string) bool { return fields[name] != nil })
}

func refLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 32
		}
		return r
	}, s)
}

func refValid(authority string) bool {
	host, port := authority, ""
	if i := strings.LastIndex(authority, ":"); i > strings.LastIndex(authority, "]") {
		host, port = authority[:i], authority[i+1:]
	}
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n > 65535) {
		return false
	}
	if host[0] == '[' {
		ip := net.ParseIP(strings.Trim(host, "[]"))
		return ip != nil && ip.To4() == nil
	}
	return len(host) <= 254
}

func refPort(authority, scheme string) string {
	if strings.LastIndex(authority, ":") > strings.LastIndex(authority, "]") {
		return authority
	}
	return authority + map[string]string{"http": ":80", "https": ":443"}[scheme]
}

// chunks returns what follows them, or nil if that is the end.
func (r *reference) chunks(in []byte) []byte {
	for {
		i := bytes.IndexByte(in, '\n')
		if i < 0 && len(in) < r.limit {
			r.end = "cut"
			return nil
		}
		r.end = "body"
		if i < 0 || i+1 > r.limit {
			return nil
		}
		m := refChunk.FindSubmatch(in[:i])
		if m == nil {
			return nil
		}
		size, err := strconv.ParseUint(string(m[1]), 16, 64)
		if err != nil || size > 1<<62 {
			return nil
		}
		r.out = append(append(r.out, m[1]...), "\r\n"...)
		in = in[i+1:]
		if size == 0 {
			break
		}
		if size > uint64(len(in)) {
			r.out = append(r.out, in...)
			r.end = "cut"
			return nil
		}
		r.out = append(r.out, in[:size]...)
		in = in[size:]
		if len(in) < 2 && strings.HasPrefix("\r\n", string(in)) {
			r.end = "cut"
			return nil
		}
		if !bytes.HasPrefix(in, []byte("\r\n")) {
			return nil
		}
		r.out = append(r.out, in[:2]...)
		in = in[2:]
	}
	limit := min(r.limit, maxTrailer)
	lines, size, whole := section(in, limit)
	fields := map[string][]string{}
	if !refFields(fields, lines) || refHas(fields) || !whole && size > limit {
		return nil
	}
	if !whole {
		r.end = "cut"
		return nil
	}
	r.out = append(r.out, in[:size]...)
	return append(make([]byte, 0, 1), in[size:]...)
}
