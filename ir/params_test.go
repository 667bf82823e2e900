package ir

import (
	"path"
	"regexp"
	"strings"
	"testing"
)

func TestBindValues(t *testing.T) {
	for _, tc := range []struct {
		typ            ParamType
		pattern, value string
		want, err      string
	}{
		{ParamDir, "", "/work", "/work", ""},
		{ParamDir, "", "/work/", "/work", ""},
		{ParamDir, "", "/", "/", ""},
		{ParamFile, "", "/a//b", "/a/b", ""},
		{ParamPath, "", "/a/..b/...", "/a/..b/...", ""},
		{ParamPath, "", "/a b/ü", "/a b/ü", ""},
		{ParamPath, "", "", "", "not absolute"},
		{ParamPath, "", "a", "", "not absolute"},
		{ParamPath, "", "/a/../b", "", `".." element`},
		{ParamPath, "", "/a/..", "", `".." element`},
		{ParamPath, "", "/./a", "", `"." element`},
		{ParamPath, "", "/a\x00b", "", "control character"},
		{ParamPath, "", "/a\nb", "", "control character"},
		{ParamPath, "", "/a\x7f", "", "control character"},
		{ParamPath, "", "/a\u009b", "", "control character"},
		{ParamPath, "", "/a\u2028", "", "control character"},
		{ParamPath, "", "/a\xff", "", "not valid UTF-8"},
		{ParamPath, "", "/" + strings.Repeat("a", MaxPath), "", "at most 4096"},
		{ParamPath, "/tmp/.*", "/tmp//x", "/tmp/x", ""},
		{ParamPath, "/tmp", "/tmpx", "", "does not match"},

		{ParamPort, "", "1", "1", ""},
		{ParamPort, "", "65535", "65535", ""},
		{ParamPort, "", "0", "", "not a port"},
		{ParamPort, "", "65536", "", "not a port"},
		{ParamPort, "", "080", "", "not a port"},
		{ParamPort, "", "+80", "", "not a port"},
		{ParamPort, "", "0x50", "", "not a port"},
		{ParamPort, "", "", "", "not a port"},

		{ParamInt, "", "-9223372036854775808", "-9223372036854775808", ""},
		{ParamInt, "", "9223372036854775808", "", "not a decimal integer"},
		{ParamInt, "", "-0", "", "not a decimal integer"},
		{ParamInt, "", "1_000", "", "not a decimal integer"},
		{ParamInt, "", " 1", "", "not a decimal integer"},
		{ParamInt, "[0-5]", "5", "5", ""},
		{ParamInt, "[0-5]", "55", "", "does not match"},

		{ParamString, "", "", "", ""},
		{ParamString, "", "${home}", "${home}", ""},
		{ParamString, "", "a/b", "", "slash"},
		{ParamString, "", "..", "", "climbs"},
		{ParamString, "", ".", "", "climbs"},
		{ParamString, "", "a\x00", "", "control character"},
		{ParamString, "a|ab", "ab", "ab", ""}, // the longer alternative counts, not the first
		{ParamString, "a", "ba", "", "does not match"},
		{ParamString, "(?m)^a$", "a", "a", ""},
		{ParamString, `\Qa.b`, "a.b", "a.b", ""},
		{ParamString, `\Qa.b`, "axb", "", "does not match"},
		{ParamString, "a)|(b", "b", "", "unexpected )"},
		{ParamString, "x*", "", "", ""},

		{0, "", "a", "", "type 0 is unknown"},
		{7, "", "a", "", "type 7 is unknown"},
	} {
		got, err := Bind(Param{Name: "p", Type: tc.typ, Pattern: tc.pattern}, tc.value)
		checkResult(t, tc.value, got, err, tc.want, tc.err)
	}
}

func FuzzBind(f *testing.F) {
	f.Add(uint8(1), "", "/work/")
	f.Add(uint8(4), "[0-9]+", "8080")
	f.Add(uint8(5), "a|ab", "ab")
	f.Add(uint8(6), "", "-1")
	f.Fuzz(func(t *testing.T, typ uint8, pattern, value string) {
		p := Param{Name: "p", Type: ParamType(typ), Pattern: pattern}
		got, err := Bind(p, value)
		if err != nil {
			return
		}
		if again, err := Bind(p, got); err != nil || again != got {
			t.Fatalf("bind %q again: got %q, %v", got, again, err)
		}
		if strings.ContainsAny(got, "\x00\n\r\x1b") {
			t.Fatalf("bind %q: got control characters in %q", value, got)
		}
		if p.Type.isPath() && (!path.IsAbs(got) || path.Clean(got) != got) || !p.Type.isPath() && strings.Contains(got, "/") {
			t.Fatalf("bind %q as %s: got %q", value, p.Type, got)
		}
		// A second way to ask for a whole match, for patterns that can be wrapped.
		if re, err := regexp.Compile(`\A(?:` + pattern + `)\z`); pattern != "" && err == nil && !re.MatchString(got) {
			t.Fatalf("bind %q: %q does not match %q", value, got, pattern)
		}
	})
}
