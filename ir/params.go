package ir

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// paramTypeNames are the types as a policy writes them.
var paramTypeNames = [...]string{
	ParamDir: "dir", ParamFile: "file", ParamPath: "path", ParamPort: "port", ParamString: "string", ParamInt: "int",
}

// String returns the type's name in the policy language.
func (t ParamType) String() string {
	if !t.known() {
		return "unknown-type"
	}
	return paramTypeNames[t]
}

func (t ParamType) known() bool  { return t >= ParamDir && t <= ParamInt }
func (t ParamType) isPath() bool { return t == ParamDir || t == ParamFile || t == ParamPath }

// Bind checks value against the declaration p and returns it in the form that templates take: a path without
// doubled or trailing slashes, anything else as it is. It looks at the text alone; that a directory exists and lies
// beneath one of p.Under is for the executor to see, after it resolved symbolic links.
func Bind(p Param, value string) (string, error) {
	bound, err := bind(p, value)
	if err != nil {
		return "", fmt.Errorf("parameter %s (%s): %w", p.Name, p.Type, err)
	}
	return bound, nil
}

func bind(p Param, value string) (string, error) {
	if len(value) > MaxPath {
		return "", fmt.Errorf("value of %d bytes, at most %d are allowed", len(value), MaxPath)
	}
	if err := checkText(value); err != nil {
		return "", err
	}
	value, err := bindType(p.Type, value)
	if err != nil || p.Pattern == "" {
		return value, err
	}
	re, err := compilePattern(p.Pattern)
	if err != nil {
		return "", err
	}
	if loc := re.FindStringIndex(value); loc == nil || loc[0] != 0 || loc[1] != len(value) {
		return "", fmt.Errorf("value %q does not match pattern %q", value, p.Pattern)
	}
	return value, nil
}

func bindType(t ParamType, value string) (string, error) {
	switch t {
	case ParamDir, ParamFile, ParamPath:
		if err := checkAbsolute(value); err != nil {
			return "", err
		}
		return path.Clean(value), nil
	case ParamPort:
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != value {
			return "", fmt.Errorf("value %q is not a port (1 to 65535)", value)
		}
		return value, nil
	case ParamInt:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != value {
			return "", fmt.Errorf("value %q is not a decimal integer of 64 bits", value)
		}
		return value, nil
	case ParamString:
		if strings.Contains(value, "/") {
			return "", fmt.Errorf("value %q contains a slash", value)
		}
		if value == "." || value == ".." {
			return "", fmt.Errorf("value %q is a path element that climbs or stays", value)
		}
		return value, nil
	}
	return "", fmt.Errorf("parameter type %d is unknown", t)
}

// compilePattern compiles for leftmost-longest matching: with it, a pattern matches a whole value exactly when its
// first match spans the value. Wrapping the pattern in anchors instead would let "a)|(b" leave the group.
func compilePattern(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("pattern of %d bytes, at most %d are allowed", len(pattern), maxPattern)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	re.Longest()
	return re, nil
}

// checkText refuses what could forge a line of a golden or a terminal's state: control characters (NUL with them),
// and bytes that are not UTF-8.
func checkText(s string) error {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c < 0x20 || c == 0x7f {
				return fmt.Errorf("control character %q at byte %d", c, i)
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			return fmt.Errorf("byte %d is not valid UTF-8", i)
		}
		if r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return fmt.Errorf("control character %U at byte %d", r, i)
		}
		i += size
	}
	return nil
}

func checkParam(p *Param) error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	if !p.Type.known() {
		return fmt.Errorf("type %d is unknown", p.Type)
	}
	if p.Pattern != "" {
		if _, err := compilePattern(p.Pattern); err != nil {
			return err
		}
	}
	if !p.HasDefault && p.Default != "" {
		return errors.New("default value without a default")
	}
	if p.HasDefault {
		if _, err := Bind(*p, p.Default); err != nil {
			return fmt.Errorf("default: %w", err)
		}
	}
	if len(p.Under) > 0 && !p.Type.isPath() {
		return fmt.Errorf("under is for paths, not for type %s", p.Type)
	}
	return checkDescription(p.Description)
}
