package main

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestLineDiff(t *testing.T) {
	for _, tc := range []struct{ name, before, after, want string }{
		{"equal", "a\nb\n", "a\nb\n", ""},
		{"changed", "a\nb\nc\n", "a\nx\nc\n", "  a\n- b\n+ x\n  c\n"},
		{"added at the end", "a\n", "a\nb\n", "  a\n+ b\n"},
		{"removed at the start", "a\nb\n", "b\n", "- a\n  b\n"},
		{"from nothing", "", "a\n", "-\n+ a\n"},
		{"far apart", "1\na\nb\nc\nd\n2\n", "x\na\nb\nc\nd\ny\n", "- 1\n+ x\n  a\n…\n  d\n- 2\n+ y\n"},
	} {
		if got := lineDiff(tc.before, tc.after, 1); got != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.name, got, tc.want)
		}
	}
}

// TestDiffLinesIsComplete: kept and removed lines are the first text, kept and added ones the second.
func TestDiffLinesIsComplete(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	text := func() []string {
		lines := make([]string, random.IntN(12))
		for i := range lines {
			lines[i] = string(rune('a' + random.IntN(4)))
		}
		return lines
	}
	for range 2000 {
		a, b := text(), text()
		var before, after []string
		for _, e := range diffLines(a, b) {
			if e.mark != '+' {
				before = append(before, e.line)
			}
			if e.mark != '-' {
				after = append(after, e.line)
			}
		}
		if strings.Join(before, "") != strings.Join(a, "") || strings.Join(after, "") != strings.Join(b, "") {
			t.Fatalf("%v to %v: got %v to %v", a, b, before, after)
		}
	}
}
