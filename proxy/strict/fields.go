package strict

import (
	"bytes"
	"slices"
)

// field is a header field that has rules of its own.
type field uint8

const (
	ordinary  field = iota
	noTrailer       // means something in a head, so it may not come behind the body
	host
	contentLength
	transferEncoding
	connection
	upgradeTo
	expect
	trailer
	fields
)

const longestName = 32 // of those in known

// known maps names, in lower case, to their rules. To add a rule for a field: a constant above, a line here, a case in
// head.field, and one in reference_test.go.
func known(name []byte) field {
	switch string(name) {
	case "host":
		return host
	case "content-length":
		return contentLength
	case "transfer-encoding":
		return transferEncoding
	case "connection":
		return connection
	case "upgrade":
		return upgradeTo
	case "expect":
		return expect
	case "trailer":
		return trailer
	// RFC 9110 §6.5.1: framing, routing, modifiers of the request, authentication, the content's form.
	case "te", "keep-alive", "proxy-connection", "http2-settings", "max-forwards", "via", "forwarded", "x-forwarded-for",
		"x-forwarded-host", "x-forwarded-proto", "x-http-method-override", "x-original-url", "x-rewrite-url",
		"authorization", "proxy-authorization", "cookie", "origin", "referer",
		"cache-control", "pragma", "range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range",
		"content-type", "content-encoding", "content-range", "content-location":
		return noTrailer
	}
	return ordinary
}

// options are what Connection may say. A proxy removes the fields that it names, so a name of any other field is refused.
var options = []string{"close", "keep-alive", "upgrade", "te", "http2-settings"}

// fieldLine splits a line of a head or trailer section.
func fieldLine(line []byte) (f field, value []byte, r *Refusal) {
	if line[0] == ' ' || line[0] == '\t' {
		return 0, nil, bad("folded header line")
	}
	name, value, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return 0, nil, bad("header line without colon")
	}
	if f, r = fieldName(name); r != nil {
		return 0, nil, r
	}
	for _, c := range value {
		if bytesOf[c]&valueByte == 0 {
			return 0, nil, bad("control character in a header value")
		}
	}
	return f, value, nil
}

// fieldName checks a name. Gateways that turn names into variables (CGI and its heirs) have one spelling for all
// punctuation, so Content_Length or Content.Length would be a second Content-Length to them.
func fieldName(name []byte) (f field, r *Refusal) {
	var folded [longestName]byte
	alias := false
	for i, c := range name {
		low := tokenByte[c]
		if low == 0 {
			return 0, bad("malformed header name")
		}
		if i < len(folded) {
			folded[i] = low
		}
		alias = alias || low == '-' && c != '-'
	}
	if len(name) == 0 {
		return 0, bad("malformed header name")
	}
	if len(name) <= len(folded) {
		f = known(folded[:len(name)])
	}
	if alias && f != ordinary {
		return 0, bad("header name that imitates another")
	}
	return f, nil
}

// trailerLine checks a line of a trailer section.
func trailerLine(line []byte) *Refusal {
	f, _, r := fieldLine(line)
	if r == nil && f != ordinary {
		r = bad("field is not allowed in a trailer")
	}
	return r
}

// field checks a header field that has rules of its own.
func (h *head) field(f field, value []byte) *Refusal {
	if h.seen[f] && f != connection && f != trailer {
		return bad("header field is there twice")
	}
	h.seen[f] = true
	switch f {
	case host:
		if value = bare(value); !isAuthority(value) {
			return bad("malformed Host")
		}
		if !h.sameAuthority(value) {
			return bad("Host differs from the request-target")
		}
	case contentLength:
		var ok bool
		if h.length, ok = length(bare(value)); !ok {
			return bad("malformed Content-Length")
		}
		h.hasLength = true
	case transferEncoding:
		if h.old {
			return bad("Transfer-Encoding in HTTP/1.0")
		}
		if !equalFold(bare(value), "chunked") {
			return &Refusal{501, "transfer coding other than chunked"}
		}
		h.chunked = true
	case connection:
		return h.connection(value)
	case upgradeTo:
		if h.old {
			return bad("Upgrade in HTTP/1.0")
		}
		for item := range bytes.SplitSeq(value, []byte{','}) {
			name, version, ok := bytes.Cut(trim(item), []byte{'/'})
			if !isToken(name) || ok && !isToken(version) {
				return bad("malformed Upgrade")
			}
		}
		h.upgrade = true
	case expect:
		if !equalFold(bare(value), "100-continue") {
			return &Refusal{417, "expectation other than 100-continue"}
		}
	case trailer:
		for item := range bytes.SplitSeq(value, []byte{','}) {
			f, r := fieldName(trim(item))
			if r != nil {
				return bad("malformed Trailer")
			}
			if f != ordinary {
				return bad("field is not allowed in a trailer")
			}
		}
	}
	return nil
}

func (h *head) connection(value []byte) *Refusal {
	for item := range bytes.SplitSeq(value, []byte{','}) {
		item = trim(item)
		if !slices.ContainsFunc(options, func(option string) bool { return equalFold(item, option) }) {
			return bad("Connection names what is not an option")
		}
		h.canUpgrade = h.canUpgrade || equalFold(item, "upgrade")
	}
	return nil
}
