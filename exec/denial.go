package exec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sandlock-go/sandlock/exec/handler/explain"
)

// Denial is one thing that the policy refused, with the rule that decided or comes closest to allowing it.
type Denial struct {
	What    string // "openat /etc/shadow", "connect tcp 192.0.2.1:443", "mount"
	PID     int    // thread id of the first process that asked, 0 if there is none
	Command string // its first argument
	Verdict string // name of the errno
	Why     string
	Rule    string // policy path of the rule, "" for a built-in one
	Origin  string // its file:line:col
	Closest bool   // the rule comes closest, and Why does not say so
	Count   int
}

// String is the denial in a line: what, who, and the rule with its place. What a terminal would not print is escaped.
func (d Denial) String() string {
	var b strings.Builder
	b.WriteString("denied " + d.What)
	if d.PID > 0 {
		fmt.Fprintf(&b, " (pid %s)", strings.TrimSpace(fmt.Sprintf("%d %s", d.PID, d.Command)))
	}
	b.WriteString(": " + d.Verdict)
	if d.Why != "" {
		b.WriteString(": " + d.Why)
	}
	switch {
	case d.Rule == "":
		if d.Origin != "" {
			b.WriteString(" at " + d.Origin)
		}
	case d.Closest:
		b.WriteString("; closest is " + d.Rule)
		if d.Origin != "" {
			b.WriteString(" at " + d.Origin)
		}
	case d.Origin != "":
		fmt.Fprintf(&b, " at %s (%s)", d.Origin, d.Rule)
	default:
		fmt.Fprintf(&b, " (%s)", d.Rule)
	}
	if d.Count > 1 {
		fmt.Fprintf(&b, " (%d times)", d.Count)
	}
	return printable(b.String())
}

// printable escapes control characters and what is not UTF-8, which could forge a line or drive the terminal.
func printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsGraphic(r) }) {
		return s
	}
	quoted := strconv.QuoteToGraphic(s)
	return quoted[1 : len(quoted)-1]
}

// denials is the report as callers read it.
func denials(r *explain.Report) []Denial {
	var list []Denial
	for _, d := range r.Denials() {
		what := strings.Join(slices.DeleteFunc([]string{d.Syscall, d.Path, d.Path2, d.Address}, func(s string) bool { return s == "" }), " ")
		if d.HTTP != nil {
			what = d.HTTP.String()
		}
		list = append(list, Denial{
			What: what,
			PID:  d.PID, Command: d.Command, Verdict: d.Verdict, Why: d.Reason, Rule: d.Rule, Origin: d.Origin, Closest: d.Closest, Count: d.Count,
		})
	}
	return list
}
