package load

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/errors"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/schema"
)

// explainer turns CUE's errors into diagnostics: one for each mistake, at the line that the user wrote. CUE reports a
// bad value in a disjunction once for each alternative, and mostly with positions in the schema.
type explainer struct {
	names names
	user  cue.Value // the policy before it met the schema; may not exist
	lang  language
}

// finding is a diagnostic and how sure it is. Of several at one path the lowest rank is reported.
type finding struct {
	diag.Diagnostic
	rank  int
	parts []string
	weak  bool // of an alternative as a whole: drop it when a mistake inside is known
}

// Ranks of findings.
const (
	rankConflict = iota // two places of the policy disagree
	rankSpecific
	rankLiteral // "conflicting values" with a literal of the schema
	rankUnknown // "field not allowed": at the path of another error, it is of the wrong alternative
)

// explain returns a finding for each path that has an error.
func (x explainer) explain(err error) diag.List {
	var out diag.List
	for _, f := range x.findings(err) {
		out = append(out, f.Diagnostic)
	}
	return out
}

func (x explainer) findings(err error) []finding {
	byPath := map[string][]finding{}
	var paths []string
	for _, e := range errors.Errors(err) {
		format, _ := e.Msg()
		if strings.Contains(format, "errors in empty disjunction") {
			continue
		}
		f := x.finding(e, trimPath(e.Path()))
		key := f.Path
		if key == "" { // errors of the loader have no path: each stands for itself
			key = "\x00" + strconv.Itoa(len(paths))
		}
		if byPath[key] == nil {
			paths = append(paths, key)
		}
		byPath[key] = append(byPath[key], f)
	}
	var out []finding
	for _, key := range paths {
		group := byPath[key]
		slices.SortStableFunc(group, func(a, b finding) int { return a.rank - b.rank })
		if inside := x.inside(group[0]); inside != nil {
			out = append(out, inside...)
			continue
		}
		out = append(out, group[0])
	}
	return out
}

// inside looks for mistakes inside a value that matches none of its forms: the user chose one that has parts, so the
// errors of that form say more than those of them all.
func (x explainer) inside(f finding) []finding {
	if !f.weak && f.rank != rankLiteral {
		return nil
	}
	language, field := fieldAt(f.parts)
	v := lookupPath(x.user, f.parts)
	if field == nil || v.IncompleteKind()&(cue.StructKind|cue.ListKind) == 0 {
		return nil
	}
	for _, name := range language.Forms(field) {
		form := x.lang.root.LookupPath(cue.ParsePath(name))
		if form.IncompleteKind() == v.IncompleteKind() {
			return x.findings(v.Unify(form).Validate(cue.Concrete(true), cue.Final())) // paths of v begin at the policy
		}
	}
	return nil
}

// finding explains one error of CUE.
func (x explainer) finding(e errors.Error, parts []string) finding {
	format, args := e.Msg()
	written := x.written(e)
	f := finding{rank: rankSpecific, parts: parts}
	f.Path = pathString(parts)
	f.Msg = x.message(e)
	f.Pos = x.locate(parts, written)
	switch {
	case format == "field not allowed" && isIndex(parts) && !isKnown(parts):
		f.rank = rankLiteral
		f.parts = parts[:len(parts)-1]
		f.Path, f.Rule, f.Msg = pathString(f.parts), "type", "wrong type: got list, want struct"
	case format == "field not allowed":
		f.rank, f.Rule, f.Msg = rankUnknown, "unknown-field", "unknown field"
		if len(written) > 0 {
			f.Pos = written[0].Place
		}
	case strings.HasPrefix(format, "conflicting values") && len(written) >= 2:
		f.rank, f.Rule = rankConflict, "conflict"
		if len(args) >= 2 {
			values := []string{fmt.Sprint(args[0]), fmt.Sprint(args[1])} // in no particular order
			slices.Sort(values)
			f.Msg = "conflicting values " + strings.Join(values, " and ")
		}
		f.Pos = written[0].Place
		for _, w := range written[1:] {
			f.Also = append(f.Also, diag.Note{Pos: w.Place, Text: "also set at"})
		}
	case strings.HasPrefix(format, "conflicting values") && len(args) == 4:
		f.rank, f.Rule = rankLiteral, "type"
		f.Msg = fmt.Sprintf("wrong type: got %v, want %v", args[2], args[3])
		if got, ok := x.kindAt(parts); ok && got == fmt.Sprint(args[3]) {
			f.Msg = fmt.Sprintf("wrong type: got %v, want %v", args[3], args[2])
		}
	case strings.HasPrefix(format, "conflicting values"):
		f.rank, f.Rule = rankLiteral, "enum"
	case format == "field is required but not present":
		f.Rule, f.Msg = "required", "required field is missing"
		x.partner(&f)
	case strings.HasPrefix(format, "incomplete value"):
		f.Rule, f.Msg = "incomplete", "value is not concrete: "+strings.TrimPrefix(f.Msg, "incomplete value ")
	case strings.Contains(format, "out of bound"):
		f.Rule = "range"
	case strings.Contains(format, "does not satisfy"):
		f.Rule = "value"
	case strings.Contains(format, "cycle"):
		f.Rule = "cycle"
	case strings.Contains(format, "not found") && strings.Contains(format, "reference"), strings.HasPrefix(format, "undefined field"):
		f.Rule = "reference"
	case strings.Contains(format, "incompatible list lengths"):
		f.Rule, f.Msg = "list-size", "must not be empty"
	case strings.HasPrefix(f.Msg, "import failed"):
		f.Rule, f.Msg, f.Hint = "import", importText(f.Msg), importHint
	case strings.Contains(f.Msg, "injection tag"), strings.HasPrefix(f.Msg, "no tag for"):
		f.Rule = "tag"
	case len(parts) == 0 && e.Position().IsValid():
		f.Rule = "syntax"
	default:
		f.schemaText(lookupPath(x.user, parts))
	}
	return f
}

// companion says why a field is required that is so only beside others, and which.
type companion struct {
	beside []string
	hint   string
}

var companions = map[string]companion{
	"program.uid":        {[]string{"program.gid"}, "uid and gid go together"},
	"program.gid":        {[]string{"program.uid"}, "uid and gid go together"},
	"filesystem.workdir": {[]string{"filesystem.isolation", "limits.disk"}, "isolation other than auto and none, and limits.disk, need the directory that they are about"},
	"http.ca":            {[]string{"http.key", "http.ca_out"}, "ca and key go together; ca_out needs ca or inject_ca"},
	"http.key":           {[]string{"http.ca"}, "ca and key go together"},
	"http.allow": {[]string{
		"http.inject_ca", "http.auth", "http.credentials", "http.ports", "http.ca", "http.upstream_ca", "http.redact_query",
	}, "the other fields of http need an http.allow or http.deny rule"},
}

// partner moves the place of a missing field to the field that requires it.
func (x explainer) partner(f *finding) {
	c, ok := companions[f.Path]
	if !ok {
		return
	}
	f.Hint = c.hint
	for _, path := range c.beside {
		if place, ok := x.wroteAt(strings.Split(path, ".")); ok {
			f.Pos = place
			return
		}
	}
}

// schemaText reads a text of the schema's error(): it ends in the rule's identifier in brackets.
var ruleSuffix = regexp.MustCompile(` \[([a-z-]+)\]$`)

func (f *finding) schemaText(got cue.Value) {
	m := ruleSuffix.FindStringSubmatch(f.Msg)
	if m == nil {
		f.Rule = "cue"
		return
	}
	f.Rule, f.Msg, f.weak = m[1], strings.TrimSuffix(f.Msg, m[0]), true
	if f.Rule == "exclusive" {
		f.weak = false
		return
	}
	if text, ok := scalarText(got); ok {
		f.Msg += "; got " + text
	}
}

// maxGot bounds a value that is repeated in a message.
const maxGot = 60

func scalarText(v cue.Value) (string, bool) {
	if !v.Exists() || v.Err() != nil || v.IncompleteKind()&(cue.StructKind|cue.ListKind) != 0 || !v.IsConcrete() {
		return "", false
	}
	text := fmt.Sprint(v)
	if len(text) > maxGot {
		text = strings.ToValidUTF8(text[:maxGot], "") + "…"
	}
	return text, true
}

const importHint = "a policy imports packages of its own module, " + schema.ImportPath + " and CUE's library; nothing is downloaded"

var missingPackage = regexp.MustCompile(`cannot find package "[^"]*"`)

func importText(msg string) string {
	if m := missingPackage.FindString(msg); m != "" {
		return m
	}
	return msg
}

// message renders an error without its path, with what a validator of CUE's library adds.
func (x explainer) message(e errors.Error) string {
	format, args := e.Msg()
	msg := fmt.Sprintf(format, args...)
	if cause := errors.Unwrap(e); cause != nil && !strings.Contains(msg, cause.Error()) {
		msg = strings.TrimPrefix(msg+": "+cause.Error(), ": ")
	}
	msg = strings.ReplaceAll(msg, virtualRoot, schema.ImportPath)
	return strings.TrimSpace(strings.ReplaceAll(msg, x.names.root+"/", ""))
}

// written returns the positions of an error that the user wrote, then those in presets.
func (x explainer) written(e errors.Error) []policy.Origin {
	var out []policy.Origin
	for _, pos := range append(errors.Positions(e), e.Position()) {
		if !pos.IsValid() || pos.Filename() == "" {
			continue
		}
		place, kind := x.names.place(pos)
		o := policy.Origin{Place: place, Kind: kind}
		if kind != ir.OriginDefault && !slices.ContainsFunc(out, func(p policy.Origin) bool { return p.Place == place }) {
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(a, b policy.Origin) int { return int(a.Kind) - int(b.Kind) })
	return out
}

// locate finds where the user wrote what is at a path: the value, else what the error itself names, else the nearest
// enclosing value.
func (x explainer) locate(parts []string, written []policy.Origin) policy.Place {
	if place, ok := x.wroteAt(parts); ok && len(parts) > 0 {
		return place
	}
	if len(written) > 0 {
		return written[0].Place
	}
	for n := len(parts) - 1; n >= 0; n-- {
		if place, ok := x.wroteAt(parts[:n]); ok {
			return place
		}
	}
	return policy.Place{}
}

func (x explainer) wroteAt(parts []string) (policy.Place, bool) {
	v := lookupPath(x.user, parts)
	if len(parts) > 0 && !v.Exists() && v.Err() == nil {
		return policy.Place{}, false
	}
	o := x.names.origin(v, "")
	return o.Place, o.Kind != ir.OriginDefault
}

// kindAt returns the kind of what the user wrote at a path.
func (x explainer) kindAt(parts []string) (string, bool) {
	v := lookupPath(x.user, parts)
	return v.IncompleteKind().String(), v.Exists()
}
