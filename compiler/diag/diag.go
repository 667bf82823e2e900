// Package diag holds messages about a policy, each with the place in the policy that it is about.
//
// In: compiler/load, compiler/check and the lowering passes add a [Diagnostic] for each mistake. Out: text for people,
// one mistake a line with its position first so that editors can jump to it, or JSON for programs. It never reads files
// and never decides whether something is a mistake.
//
// Read next: compiler/load/explain.go, which turns CUE's errors into diagnostics.
package diag

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/policy"
)

// Diagnostic is one mistake.
type Diagnostic struct {
	Pos  policy.Place // in a file that the user wrote, wherever there is one
	Path string       // policy path, such as "network.allow[2]"; "" = the whole policy
	Msg  string
	Rule string // stable identifier, which tests and suppressions may pin; the wording may improve
	Also []Note
	Hint string // what to do about it; "" = none

	Warning bool // worth a look, but no mistake: it does not stop the compilation
}

// Note is a further place that a diagnostic is about.
type Note struct {
	Pos  policy.Place
	Text string // what is there, such as "also set at"
}

// At returns a diagnostic about a value.
func At(o policy.Origin, rule, format string, args ...any) Diagnostic {
	d := Diagnostic{Pos: o.Place, Path: o.Path, Rule: rule, Msg: fmt.Sprintf(format, args...)}
	for _, p := range o.Also {
		d.Also = append(d.Also, Note{Pos: p, Text: "from"})
	}
	return d
}

// WithHint returns d with a hint.
func (d Diagnostic) WithHint(format string, args ...any) Diagnostic {
	d.Hint = fmt.Sprintf(format, args...)
	return d
}

// AsWarning returns d as a warning.
func (d Diagnostic) AsWarning() Diagnostic {
	d.Warning = true
	return d
}

// WithNote returns d with a further place.
func (d Diagnostic) WithNote(pos policy.Place, text string) Diagnostic {
	d.Also = append(slices.Clip(d.Also), Note{Pos: pos, Text: text})
	return d
}

// String returns the diagnostic as text, without a final newline.
func (d Diagnostic) String() string {
	var b strings.Builder
	if d.Pos.File != "" {
		fmt.Fprintf(&b, "%s: ", d.Pos)
	}
	if d.Path != "" {
		fmt.Fprintf(&b, "%s: ", d.Path)
	}
	if d.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(printable(d.Msg))
	if d.Rule != "" {
		fmt.Fprintf(&b, " [%s]", d.Rule)
	}
	for _, n := range d.Also {
		fmt.Fprintf(&b, "\n\t%s %s", n.Text, n.Pos)
	}
	if d.Hint != "" {
		fmt.Fprintf(&b, "\n\thint: %s", printable(d.Hint))
	}
	return b.String()
}

// printable keeps a message on its line: text of a policy must not forge further diagnostics.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || 0x7f <= r && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return '\ufffd'
		}
		return r
	}, strings.ReplaceAll(s, "\n", " "))
}

// List is a set of diagnostics.
type List []Diagnostic

// Add appends d.
func (l *List) Add(d Diagnostic) { *l = append(*l, d) }

// Sorted returns the diagnostics by position, then path, each once.
func (l List) Sorted() List {
	out := slices.Clone(l)
	slices.SortStableFunc(out, func(a, b Diagnostic) int {
		return cmp.Or(a.Pos.Compare(b.Pos), strings.Compare(a.Path, b.Path), strings.Compare(a.Rule, b.Rule), strings.Compare(a.Msg, b.Msg))
	})
	return slices.CompactFunc(out, func(a, b Diagnostic) bool {
		return a.Pos == b.Pos && a.Path == b.Path && a.Rule == b.Rule && a.Msg == b.Msg
	})
}

// String returns all diagnostics as text, sorted, one after the other.
func (l List) String() string {
	var b strings.Builder
	for _, d := range l.Sorted() {
		b.WriteString(d.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// HasErrors tells whether the list holds more than warnings.
func (l List) HasErrors() bool {
	return slices.ContainsFunc(l, func(d Diagnostic) bool { return !d.Warning })
}

// Err returns the list as an error, or nil when it holds no more than warnings.
func (l List) Err() error {
	if !l.HasErrors() {
		return nil
	}
	return &Error{l.Sorted()}
}

// Error is a list that is not empty.
type Error struct{ List List }

func (e *Error) Error() string { return strings.TrimSuffix(e.List.String(), "\n") }

// jsonDiagnostic is the JSON form. Its fields are an interface to other programs: they are added to, never changed.
type jsonDiagnostic struct {
	File string     `json:"file,omitempty"`
	Line int        `json:"line,omitempty"`
	Col  int        `json:"column,omitempty"`
	Path string     `json:"path,omitempty"`
	Msg  string     `json:"message"`
	Rule string     `json:"rule,omitempty"`
	Also []jsonNote `json:"also,omitempty"`
	Hint string     `json:"hint,omitempty"`

	Severity string `json:"severity"` // "error" or "warning"
}

type jsonNote struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"column,omitempty"`
	Text string `json:"text"`
}

// WriteJSON writes the list as a JSON array, sorted. An empty list is an empty array.
func (l List) WriteJSON(w io.Writer) error {
	out := []jsonDiagnostic{}
	for _, d := range l.Sorted() {
		j := jsonDiagnostic{File: d.Pos.File, Line: d.Pos.Line, Col: d.Pos.Col, Path: d.Path, Msg: d.Msg, Rule: d.Rule, Hint: d.Hint, Severity: "error"}
		if d.Warning {
			j.Severity = "warning"
		}
		for _, n := range d.Also {
			j.Also = append(j.Also, jsonNote{File: n.Pos.File, Line: n.Pos.Line, Col: n.Pos.Col, Text: n.Text})
		}
		out = append(out, j)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	if err := enc.Encode(out); err != nil {
		return fmt.Errorf("write diagnostics: %w", err)
	}
	return nil
}
