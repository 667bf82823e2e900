// Package glob is the grammar of path patterns, as filesystem.protect and rules about files take them.
//
// In: patterns and paths as text, both relative to the same directory. Out: whether a pattern is well formed, and what it
// matches. It imports nothing of the module, so that who writes a policy, who checks an artifact and who walks a directory
// at the start all read a pattern alike. It does not look at files.
//
// A pattern is elements between slashes: "*", "?" and "[…]" match within an element and "\" takes the next character as it
// is, both as in [path.Match]; the element "**" stands for any number of elements, none included.
package glob

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Any is the element that stands for any number of elements.
const Any = "**"

// ErrPattern is wrapped by every error of [Valid].
var ErrPattern = errors.New("malformed pattern")

// Valid checks a pattern. A leading slash is allowed, and ignored.
func Valid(pattern string) error {
	if strings.TrimPrefix(pattern, "/") == "" {
		return fmt.Errorf("%w %q: it is empty", ErrPattern, pattern)
	}
	if strings.ContainsRune(pattern, 0) {
		return fmt.Errorf("%w %q: it contains a NUL byte", ErrPattern, pattern)
	}
	for _, elem := range Split(pattern) {
		switch elem {
		case "":
			return fmt.Errorf("%w %q: it has an empty element", ErrPattern, pattern)
		case ".", "..":
			return fmt.Errorf("%w %q: it has a %q element", ErrPattern, pattern, elem)
		case Any:
			continue
		}
		if strings.Contains(elem, Any) {
			return fmt.Errorf(`%w %q: "**" stands for whole elements`, ErrPattern, pattern)
		}
		if _, err := path.Match(elem, ""); err != nil {
			return fmt.Errorf("%w %q: element %q", ErrPattern, pattern, elem)
		}
	}
	return nil
}

// Split returns the elements of a pattern or a path.
func Split(pattern string) []string {
	return strings.Split(strings.TrimPrefix(pattern, "/"), "/")
}

// Element matches the name of one file against one element. [Any] matches every name.
func Element(elem, name string) bool {
	if elem == Any {
		return true
	}
	ok, err := path.Match(elem, name)
	return ok && err == nil
}

// Match matches a path against a pattern; the empty path is the directory itself.
func Match(pattern, name string) bool {
	have := Split(name)
	if name == "" || name == "/" {
		have = nil
	}
	return MatchElements(Split(pattern), have)
}

// MatchElements is [Match] for what is split already.
func MatchElements(want, have []string) bool {
	w, h := 0, 0
	star, retry := -1, 0 // the last "**" and where its next attempt begins
	for h < len(have) {
		switch {
		case w < len(want) && want[w] == Any:
			star, retry = w, h
			w++
			continue
		case w < len(want) && Element(want[w], have[h]):
			w++
			h++
			continue
		case star < 0:
			return false
		}
		retry++
		w, h = star+1, retry
	}
	for w < len(want) && want[w] == Any {
		w++
	}
	return w == len(want)
}

// Covers reports whether a pattern matches a path or a directory above it, though not the directory that both are
// relative to. What is made unchangeable as a directory is so with everything beneath it.
func Covers(pattern, name string) bool {
	want, have := Split(pattern), Split(name)
	for n := 1; n <= len(have); n++ {
		if MatchElements(want, have[:n]) {
			return true
		}
	}
	return false
}

// Fixed returns the one path that a pattern names where each "**" in it stands for no element; ok is false where something
// else in it can stand for several names. That path can be kept from being made before it is there.
func Fixed(pattern string) (name string, ok bool) {
	var literal []string
	for _, elem := range Split(pattern) {
		if elem == Any {
			continue
		}
		text, ok := Literal(elem)
		if !ok {
			return "", false
		}
		literal = append(literal, text)
	}
	return strings.Join(literal, "/"), len(literal) > 0
}

// Escape returns a pattern that matches a text and nothing else.
func Escape(text string) string { return escaper.Replace(text) }

var escaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// Literal returns the only name that an element matches; ok is false where there are several.
func Literal(elem string) (name string, ok bool) {
	if !strings.ContainsAny(elem, `*?[\`) {
		return elem, true
	}
	var b strings.Builder
	for i := 0; i < len(elem); i++ {
		switch elem[i] {
		case '*', '?', '[':
			return "", false
		case '\\':
			if i++; i == len(elem) {
				return "", false
			}
		}
		b.WriteByte(elem[i])
	}
	return b.String(), true
}
