package ir

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// maxExpanded bounds an expanded template: the kernel's limit for one argument (MAX_ARG_STRLEN, linux/binfmts.h).
const maxExpanded = 128 << 10

// Builtins are the names that every template may use without a declaration, sorted.
var Builtins = []string{"cwd", "home", "tmp", "uid"}

// Lookup returns the value that a name is bound to.
type Lookup func(name string) (value string, ok bool)

// Names returns the names that t uses, each once, sorted.
func Names(t Template) ([]string, error) {
	var names []string
	for rest := t; ; {
		_, name, after, err := cutName(rest)
		if err != nil {
			return nil, fmt.Errorf("template %q: %w", t, err)
		}
		if name == "" {
			slices.Sort(names)
			return slices.Compact(names), nil
		}
		names = append(names, name)
		rest = after
	}
}

// Expand replaces each name of t by its value. Values are not expanded again, so a bound value never reaches
// another parameter.
func Expand(t Template, lookup Lookup) (string, error) {
	s, err := expand(t, lookup, func(string) error { return nil })
	if err != nil {
		return "", fmt.Errorf("expand template %q: %w", t, err)
	}
	return s, nil
}

// ExpandPath expands t to a clean absolute path. Text that is harmless alone may climb once it is put together
// ("/srv/.${x}" with x = "."), and an empty value turns "/srv/${tenant}" into the directory of all tenants: both
// are refused.
func ExpandPath(t Template, lookup Lookup) (string, error) {
	s, err := expand(t, lookup, func(value string) error {
		if value == "" {
			return errors.New("empty value in a path")
		}
		return nil
	})
	if err == nil {
		err = checkAbsolute(s)
	}
	if err != nil {
		return "", fmt.Errorf("expand path %q: %w", t, err)
	}
	return path.Clean(s), nil
}

func expand(t Template, lookup Lookup, check func(value string) error) (string, error) {
	var b strings.Builder
	for rest := t; ; {
		literal, name, after, err := cutName(rest)
		if err != nil {
			return "", err
		}
		if b.WriteString(literal); b.Len() > maxExpanded {
			return "", fmt.Errorf("longer than %d bytes", maxExpanded)
		}
		if name == "" {
			return b.String(), nil
		}
		value, ok := lookup(name)
		if !ok {
			return "", fmt.Errorf("%q has no value", name)
		}
		if err := check(value); err != nil {
			return "", fmt.Errorf("%q: %w", name, err)
		}
		if b.Len()+len(value) > maxExpanded {
			return "", fmt.Errorf("longer than %d bytes", maxExpanded)
		}
		b.WriteString(value)
		rest = after
	}
}

// cutName splits t around its first ${name}. Without one, literal is all of t and name is "".
func cutName(t string) (literal, name, after string, err error) {
	literal, rest, found := strings.Cut(t, "${")
	if !found {
		return t, "", "", nil
	}
	name, after, found = strings.Cut(rest, "}")
	if !found {
		return "", "", "", errors.New(`"${" without "}"`)
	}
	if err := checkName(name); err != nil {
		return "", "", "", err
	}
	return literal, name, after, nil
}

// checkName holds for names of parameters: letters, digits and "_", and "-" inside, not starting with a digit.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("parameter name of %d bytes, 1 to %d are allowed", len(name), maxName)
	}
	for i := range len(name) {
		c := name[i]
		letter := c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return fmt.Errorf("parameter name %q: byte %q at %d is not allowed", name, c, i)
		}
	}
	return nil
}

// checkAbsolute holds for paths that start at the root and have no "." or ".." element.
func checkAbsolute(p string) error {
	if !strings.HasPrefix(p, "/") {
		return fmt.Errorf("path %q is not absolute", p)
	}
	if len(p) > MaxPath {
		return fmt.Errorf("path of %d bytes, at most %d are allowed", len(p), MaxPath)
	}
	for elem := range strings.SplitSeq(p, "/") {
		if elem == "." || elem == ".." {
			return fmt.Errorf("path %q has a %q element", p, elem)
		}
	}
	return checkText(p)
}
