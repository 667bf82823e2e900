package credential

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Servers echo what they are sent: in a redirect, in a header for debugging, in the name of a header that they complain about.
// An Echo takes that out of an answer's headers. It knows the secret as it was sent, and percent-encoded in whatever way; it
// cannot know one that the server has hashed, reversed or cut in two, and nobody looks at bodies.

const (
	redacted = "[redacted]"
	// short is the length from which bytes are looked for anywhere. Fewer are found in every other header, by chance: there
	// they have to stand alone, no letter or digit beside them, and the whole value goes.
	short = 4
)

// Echo is what an answer must not hold. It prints as "[secret]".
type Echo struct {
	opaque
	held *memory // all forms, one after the other
	ends []int   // where each ends; the first is the secret itself
}

// Echo prepares for answers to requests with a secret that were made in some way. It ends with the store.
func (s *Store) Echo(way Way, name string) (*Echo, error) {
	if err := way.Check(); err != nil {
		return nil, err
	}
	secret, ok := s.Get(name)
	if !ok {
		return nil, fmt.Errorf("credential %.80q: %w", name, errClosed)
	}
	e := &Echo{}
	var all []byte
	err := secret.use(func(b []byte) error {
		for _, form := range forms(way, b) {
			all = append(all, form...)
			e.ends = append(e.ends, len(all))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer clear(all)
	s.mu.Lock()
	defer s.mu.Unlock()
	e.held, err = s.keep(all)
	return e, err
}

// forms are what a secret looks like, itself first. Those that hold others come before them.
func forms(way Way, secret []byte) [][]byte {
	list := [][]byte{secret}
	add := func(form string) {
		if !slices.ContainsFunc(list, func(f []byte) bool { return string(f) == form }) {
			list = append(list, []byte(form))
		}
	}
	if way.Kind == Basic {
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
			add(encoding.EncodeToString([]byte(way.Name + ":" + string(secret))))
		}
	}
	add(escape(string(secret)))
	add(url.QueryEscape(string(secret)))
	return list
}

// Redact takes the secret out of a header, or a trailer: out of values, and with the names that it is in (where case does not
// count) their fields, since no name may have brackets. Content-Length is left alone if it is a number. It reports whether
// it has found something.
func (e *Echo) Redact(h http.Header) (changed bool) {
	if e == nil {
		return false
	}
	err := e.held.use(func(b []byte) error {
		s := e.sought(b)
		for name, values := range h {
			if s.inName(name) {
				delete(h, name)
				changed = true
				continue
			}
			for i, v := range values {
				if strings.EqualFold(name, "Content-Length") && strings.Trim(v, "0123456789") == "" {
					continue
				}
				if clean, found := s.redact(v); found {
					values[i] = clean
					changed = true
				}
			}
		}
		return nil
	})
	if err != nil { // what is not known any more may be anywhere
		clear(h)
		return true
	}
	return changed
}

// Text is s without the secret, for the reason in a status line and whatever else is not a header.
func (e *Echo) Text(s string) string {
	if e == nil {
		return s
	}
	clean := ""
	_ = e.held.use(func(b []byte) error {
		clean, _ = e.sought(b).redact(s)
		return nil
	})
	return clean
}

// sought is what is looked for. Its bytes are not to be kept.
type sought struct {
	forms [][]byte
	mark  string // what stands where something was found
}

func (e *Echo) sought(b []byte) sought {
	s := sought{mark: redacted}
	start := 0
	for _, end := range e.ends {
		s.forms = append(s.forms, b[start:end])
		start = end
	}
	if s.in([]byte(redacted)) { // the secret is "redacted", or "act"
		s.mark = ""
	}
	return s
}

// redact returns a value without what is sought.
func (s sought) redact(value string) (clean string, found bool) {
	v := []byte(value)
	for _, form := range s.forms {
		if len(form) >= short && bytes.Contains(v, form) {
			v = bytes.ReplaceAll(v, form, []byte(s.mark))
			found = true
		}
	}
	// What is left stands alone, or is encoded in a way of its own, or has come from the two sides of what was taken out.
	if s.in(v) || s.encoded(string(v)) {
		return s.mark, true
	}
	return string(v), found
}

// in reports whether something that is sought is in v.
func (s sought) in(v []byte) bool {
	return slices.ContainsFunc(s.forms, func(form []byte) bool { return contains(v, form) })
}

// encoded reports whether the secret is there once v is decoded.
func (s sought) encoded(v string) bool {
	if !strings.ContainsAny(v, "%+") {
		return false
	}
	return contains([]byte(unescape(v)), s.forms[0]) || contains([]byte(unescape(strings.ReplaceAll(v, "+", " "))), s.forms[0])
}

// inName is for names of headers, in which case is lost.
func (s sought) inName(name string) bool {
	folded := fold([]byte(name))
	return slices.ContainsFunc(s.forms, func(form []byte) bool { return contains(folded, fold(form)) })
}

// fold is for ASCII alone, byte by byte: a part of a name folds like the name.
func fold(b []byte) []byte {
	folded := bytes.Clone(b)
	for i, c := range folded {
		if 'A' <= c && c <= 'Z' {
			folded[i] = c + 'a' - 'A'
		}
	}
	return folded
}

// contains reports whether v contains a form. A short one has to stand alone.
func contains(v, form []byte) bool {
	if len(form) >= short {
		return bytes.Contains(v, form)
	}
	for start := 0; ; start++ {
		i := bytes.Index(v[start:], form)
		if i < 0 {
			return false
		}
		start += i
		end := start + len(form)
		if (start == 0 || !isWord(v[start-1])) && (end == len(v) || !isWord(v[end])) {
			return true
		}
	}
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c >= 0x80
}
