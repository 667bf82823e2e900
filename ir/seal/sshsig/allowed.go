package sshsig

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds on an allowed signers file.
const (
	maxAllowedFile  = 1 << 20
	maxAllowedLines = 10_000
)

// AllowedSigners are the keys whose signatures count.
type AllowedSigners struct {
	name    string
	entries []entry
}

// entry is one line of the file.
type entry struct {
	line       int
	principals string
	key        PublicKey
	namespaces []string // patterns; none means every namespace
	after      time.Time
	before     time.Time
}

// ParseAllowedSigners reads a file as ssh-keygen(1) describes it under ALLOWED SIGNERS; name is for messages. A line
// that it does not understand refuses the whole file: a restriction that was skipped would be a grant.
func ParseAllowedSigners(name string, b []byte) (*AllowedSigners, error) {
	if len(b) > maxAllowedFile {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are allowed", name, len(b), maxAllowedFile)
	}
	l := &AllowedSigners{name: name}
	n := 0
	for raw := range bytes.Lines(b) {
		if n++; n > maxAllowedLines {
			return nil, fmt.Errorf("%s: more than %d lines", name, maxAllowedLines)
		}
		line := strings.Trim(string(raw), " \t\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		e, err := parseEntry(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		e.line = n
		l.entries = append(l.entries, e)
	}
	if len(l.entries) == 0 {
		return nil, fmt.Errorf("%s: no signer in it", name)
	}
	return l, nil
}

// parseEntry reads "principals [options] keytype base64 [comment]".
func parseEntry(line string) (entry, error) {
	if i := strings.IndexFunc(line, func(r rune) bool { return r < 0x20 && r != '\t' || r == 0x7f }); i >= 0 {
		return entry{}, fmt.Errorf("control character %q", line[i])
	}
	principals, rest, err := cutWord(line)
	if err != nil {
		return entry{}, err
	}
	e := entry{principals: strings.Trim(principals, `"`)}
	if e.principals == "" || strings.Contains(e.principals, `"`) {
		return entry{}, fmt.Errorf("principals %s are empty or badly quoted", principals)
	}
	word, rest, err := cutWord(rest)
	if err != nil {
		return entry{}, err
	}
	if !slices.Contains(keyTypes, word) {
		if err := e.parseOptions(word); err != nil {
			return entry{}, err
		}
		if word, rest, err = cutWord(rest); err != nil {
			return entry{}, err
		}
	}
	encoded, _, err := cutWord(rest)
	if err != nil {
		return entry{}, err
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return entry{}, fmt.Errorf("public key: %w", err)
	}
	if e.key, err = ParsePublicKey(blob); err != nil {
		return entry{}, err
	}
	if e.key.Type != word {
		return entry{}, fmt.Errorf("public key: of type %q, the line says %q", e.key.Type, word)
	}
	return e, nil
}

var keyTypes = []string{typeEd25519, typeRSA, typeP256, typeP384, typeP521, typeSKEd25519, typeSKP256}

// cutWord splits line after its first word. A word ends at a blank outside of double quotes; \" inside of them is a
// quote that ends nothing.
func cutWord(line string) (word, rest string, err error) {
	line = strings.TrimLeft(line, " \t")
	quoted, i := false, 0
	for ; i < len(line) && (quoted || line[i] != ' ' && line[i] != '\t'); i++ {
		switch {
		case line[i] == '\\' && i+1 < len(line) && line[i+1] == '"':
			i++
		case line[i] == '"':
			quoted = !quoted
		}
	}
	if quoted {
		return "", "", errors.New("quote is not closed")
	}
	if i == 0 {
		return "", "", errors.New("line ends before the public key")
	}
	return line[:i], line[i:], nil
}

// parseOptions reads options as sshd's authorized_keys has them: separated by commas, values in double quotes, names
// in either case.
func (e *entry) parseOptions(s string) error {
	seen := make(map[string]bool)
	for {
		name, value, rest, err := cutOption(s)
		if err != nil {
			return err
		}
		name = strings.ToLower(name)
		if seen[name] {
			return fmt.Errorf("option %q is given twice", name)
		}
		seen[name] = true
		if err := e.setOption(name, value); err != nil {
			return err
		}
		if rest == "" {
			break
		}
		s = rest[1:] // the comma
	}
	if !e.after.IsZero() && !e.before.IsZero() && !e.after.Before(e.before) {
		return errors.New("valid-after is not before valid-before")
	}
	return nil
}

// cutOption splits the first option, name or name="value", off s. What is left is empty or begins with the comma.
func cutOption(s string) (name, value, rest string, err error) {
	i := strings.IndexAny(s, `=,"`)
	if i < 0 {
		return s, "", "", nil
	}
	name, rest = s[:i], s[i:]
	if rest[0] == ',' {
		return name, "", rest, nil
	}
	after, ok := strings.CutPrefix(rest, `="`)
	if !ok {
		return "", "", "", fmt.Errorf("option %q: its value is not in double quotes", name)
	}
	var b strings.Builder
	for i := 0; i < len(after); i++ {
		switch {
		case after[i] == '\\' && i+1 < len(after) && after[i+1] == '"':
			i++
			b.WriteByte('"')
		case after[i] == '"':
			rest = after[i+1:]
			if rest != "" && rest[0] != ',' {
				return "", "", "", fmt.Errorf("option %q: text after its value", name)
			}
			return name, b.String(), rest, nil
		default:
			b.WriteByte(after[i])
		}
	}
	return "", "", "", fmt.Errorf("option %q: quote is not closed", name)
}

func (e *entry) setOption(name, value string) (err error) {
	switch name {
	case "namespaces":
		if value == "" {
			return errors.New("option namespaces: no value")
		}
		e.namespaces = strings.Split(value, ",")
	case "valid-after":
		e.after, err = parseTime(value)
	case "valid-before":
		e.before, err = parseTime(value)
	case "cert-authority":
		return errors.New("option cert-authority: certificates are not supported, list the signing keys themselves")
	default:
		return fmt.Errorf("key type or option %q is not supported", name)
	}
	if err != nil {
		return fmt.Errorf("option %s: %w", name, err)
	}
	return nil
}

// parseTime reads YYYYMMDD[HHMM[SS]], in local time unless a Z follows.
func parseTime(s string) (time.Time, error) {
	zone := time.Local
	digits, isUTC := strings.CutSuffix(s, "Z")
	if isUTC {
		zone = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) != len(layout) {
			continue
		}
		if t, err := time.ParseInLocation(layout, digits, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time of the form YYYYMMDD[HHMM[SS]][Z]", s)
}

// refuse returns why the entry does not accept a signature of its key for a namespace, now.
func (e *entry) refuse(namespace string, now time.Time) error {
	switch {
	case len(e.namespaces) > 0 && !matchList(e.namespaces, namespace):
		return fmt.Errorf("signer is not allowed for namespace %q", namespace)
	case !e.after.IsZero() && now.Before(e.after):
		return fmt.Errorf("signer is valid only after %s", e.after.Format(time.RFC3339))
	case !e.before.IsZero() && now.After(e.before):
		return fmt.Errorf("signer was valid only before %s", e.before.Format(time.RFC3339))
	}
	return nil
}

// matchList follows ssh_config(5), PATTERNS: one pattern must match, and none that begins with "!".
func matchList(patterns []string, s string) bool {
	matched := false
	for _, p := range patterns {
		p, negated := strings.CutPrefix(p, "!")
		if !match(p, s) {
			continue
		}
		if negated {
			return false
		}
		matched = true
	}
	return matched
}

// match knows "*" for any text and "?" for one byte. On a mismatch it goes back to the last star only, so that its
// time is bounded by the product of the lengths.
func match(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
