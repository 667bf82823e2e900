package glob_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir/glob"
)

func TestValid(t *testing.T) {
	for _, good := range []string{
		"a", "/a", "**", "/**", "a/**", "**/a", "**/.git/hooks/**", "*.key", "[a-c]?/x", `a\*b`, "${cwd}/x", "..a", "a..", "[^a]", `[\]]`,
	} {
		if err := glob.Valid(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "/", "//", "a//b", "a/", "./a", "a/..", "..", "a/./b", "a**", "**a/b", "***", "[a", "[]", "[a/b]", `a\`, "a\x00b", "[b-a",
	} {
		if err := glob.Valid(bad); !errors.Is(err, glob.ErrPattern) {
			t.Errorf("%q: got %v, want ErrPattern", bad, err)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, name  string
		match, covered bool
	}{
		{"a", "a", true, true},
		{"a", "a/b", false, true},
		{"a", "b/a", false, false},
		{"a", "ab", false, false},
		{"*", "a", true, true},
		{"*", "a/b", false, true},
		{"a/*", "a", false, false},
		{"a/*/c", "a/b/c", true, true},
		{"a/*/c", "a/b/d/c", false, false},
		{"**/a", "a", true, true},
		{"**/a", "x/y/a", true, true},
		{"**/a", "x/y/a/z", false, true},
		{"**/a", "x/ab", false, false},
		{"a/**", "a", true, true},
		{"a/**", "a/b/c", true, true},
		{"**/.git/hooks/**", ".git/hooks", true, true},
		{"**/.git/hooks/**", "x/.git/hooks/pre-commit", true, true},
		{"**/.git/hooks/**", "x/.git/config", false, false},
		{"**/.git/hooks/**", "x/.git", false, false},
		{"**/a/**/b", "a/x/a/y/b", true, true},
		{"**/a/b", "a/a/b", true, true},
		{"**/a/**/b/c", "a/b/b/c", true, true},
		{"*.key", "x.key", true, true},
		{"*.key", ".key", true, true},
		{"*.key", "d/x.key", false, false},
		{"[a-c]?", "bx", true, true},
		{"[a-c]?", "dx", false, false},
		{`a\*`, "a*", true, true},
		{`a\*`, "ab", false, false},
		{"**", "a/b", true, true},
		{"/srv/*", "/srv/a", true, true},
		{"a/**/z", "a/b/z/z", true, true},
		{"**/a/**/a/**/a/**/b", "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a", false, false},
	} {
		if got := glob.Match(tc.pattern, tc.name); got != tc.match {
			t.Errorf("Match(%s, %s): got %v, want %v", tc.pattern, tc.name, got, tc.match)
		}
		if got := glob.Covers(tc.pattern, tc.name); got != tc.covered {
			t.Errorf("Covers(%s, %s): got %v, want %v", tc.pattern, tc.name, got, tc.covered)
		}
	}
	if !glob.Match("**", "") || !glob.Match("**", "/") || glob.Match("*", "") {
		t.Error(`the directory itself: want "**" to match it and "*" not`)
	}
}

func TestFixed(t *testing.T) {
	for pattern, want := range map[string]string{
		"a/b": "a/b", "/a/b": "a/b", "**/a": "a", "**/.git/hooks/**": ".git/hooks", "**/**/a/**/**": "a", `a\*`: "a*", `\\`: `\`,
		"a/**/b": "a/b", "*.key": "", "**": "", "**/**": "", "**/x/?": "", "[a]": "",
	} {
		if got, ok := glob.Fixed(pattern); got != want || ok != (want != "") {
			t.Errorf("%s: got %q %v, want %q", pattern, got, ok, want)
		}
	}
}

// FuzzMatch: what is well formed matches at most as much as it covers; an escaped name matches itself; and of a fixed path
// pattern and path agree.
func FuzzMatch(f *testing.F) {
	for _, seed := range [][2]string{{"**/.git/hooks/**", "x/.git/hooks/a"}, {"a/*/c", "a/b/c"}, {`[a-c]\*`, "b*"}, {"**/a/**/b", "a/a/b/b"}, {"**", ""}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 256 || len(name) > 256 || strings.HasPrefix(name, "/") {
			return
		}
		if glob.Valid(pattern) != nil {
			return
		}
		match := glob.Match(pattern, name)
		if match && name != "" && !glob.Covers(pattern, name) {
			t.Errorf("%q matches %q and does not cover it", pattern, name)
		}
		if match && !glob.MatchElements(append([]string{glob.Any, glob.Any}, glob.Split(pattern)...), glob.Split(name)) {
			t.Errorf("%q matches %q, and with ** before it does not", pattern, name)
		}
		if fixed, ok := glob.Fixed(pattern); ok && !glob.Match(pattern, fixed) {
			t.Errorf("%q does not match its fixed path %q", pattern, fixed)
		}
		escaped := glob.Escape(name)
		if glob.Valid(escaped) == nil && !glob.Match(escaped, name) {
			t.Errorf("%q escaped is %q, which does not match it", name, escaped)
		}
	})
}
