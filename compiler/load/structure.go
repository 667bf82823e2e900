package load

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/token"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/schema/shape"
)

// structure finds the fields that the language does not have, and those that it requires and the policy lacks. CUE does
// so too, but reports them only where nothing else is wrong.
func (x explainer) structure() diag.List {
	language, err := shape.Get()
	if err != nil {
		return diag.List{{Rule: "internal", Msg: err.Error()}}
	}
	var out diag.List
	x.structureOf(x.user, language.Policy, "", &out)
	return out
}

// structureOf walks a value that may itself be in error: CUE still lists the fields and elements of such a value, but
// gives it no kind.
func (x explainer) structureOf(v cue.Value, f *shape.Field, path string, out *diag.List) {
	if f.Elem != nil && f.Key == nil && v.IncompleteKind() == cue.ListKind {
		it, err := v.List()
		for i := 0; err == nil && it.Next(); i++ {
			x.structureOf(it.Value(), f.Elem, fmt.Sprintf("%s[%d]", path, i), out)
		}
		return
	}
	if len(f.Fields) == 0 && f.Key == nil || v.IncompleteKind()&^cue.StructKind != 0 {
		return
	}
	it, err := v.Fields()
	present := map[string]bool{}
	for err == nil && it.Next() {
		if it.Selector().LabelType() != cue.StringLabel {
			return
		}
		name := it.Selector().Unquoted()
		present[name] = true
		x.unknownField(name, it.Value(), f, path, out)
	}
	if v.IncompleteKind() != cue.StructKind || err != nil {
		return
	}
	for _, sub := range f.Fields {
		if sub.Required && !present[sub.Name] {
			at := x.names.origin(v, path)
			out.Add(diag.Diagnostic{Pos: at.Place, Path: joinPath(path, sub.Name), Rule: "required", Msg: "required field is missing"})
		}
	}
}

func (x explainer) unknownField(name string, v cue.Value, parent *shape.Field, path string, out *diag.List) {
	path = joinPath(path, name)
	if sub := parent.Lookup(name); sub != nil {
		x.structureOf(v, sub, path, out)
		return
	}
	d := diag.Diagnostic{Pos: x.labelPlace(v), Path: path}
	if parent.Key == nil {
		d.Rule, d.Msg, d.Hint = "unknown-field", "unknown field", suggest(name, parent)
		out.Add(d)
		return
	}
	pattern, doc := parent.KeyPattern()
	if re, err := regexp.Compile(pattern); err == nil && !re.MatchString(name) {
		d.Rule, d.Msg, d.Hint = "name", fmt.Sprintf("name %q is not allowed here", name), doc
		out.Add(d)
		return
	}
	x.structureOf(v, parent.Elem, path, out)
}

// maxSuggestions bounds the names that a hint lists.
const maxSuggestions = 12

// suggest returns a hint that names the field that was probably meant, or those that there are.
func suggest(name string, parent *shape.Field) string {
	if best := nearest(name, parent); best != "" {
		return didYouMean(best)
	}
	var all []string
	for _, f := range parent.Fields {
		all = append(all, f.Name)
	}
	slices.Sort(all)
	if len(all) > maxSuggestions {
		return ""
	}
	return "fields here are " + strings.Join(all, ", ")
}

func didYouMean(name string) string { return fmt.Sprintf("did you mean %q?", name) }

// nearest returns the field whose name is a slip away, or "".
func nearest(name string, parent *shape.Field) string {
	best, distance := "", 0
	for _, f := range parent.Fields {
		if d := editDistance(strings.ToLower(name), f.Name); best == "" || d < distance {
			best, distance = f.Name, d
		}
	}
	if best != "" && distance < len(name) && (distance <= 2 || distance <= 3 && len(name) > 6) {
		return best
	}
	return ""
}

// editDistance counts insertions, deletions, substitutions and swaps of neighbours. Names longer than any of the
// language's are far from all of them.
func editDistance(a, b string) int {
	const longest = 64
	if len(a) > longest {
		return longest
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// combine merges what CUE, the walk over the structure and the grammars found, so that one slip is one diagnostic: at
// the same path the more specific wins, and a complaint about all alternatives of a value gives way to a mistake that is
// known inside it.
func combine(fromCUE []finding, structure, grammar diag.List) diag.List {
	specific := slices.Clone(structure)
	for _, d := range grammar {
		if !slices.ContainsFunc(structure, func(s diag.Diagnostic) bool { return s.Path == d.Path }) {
			specific = append(specific, d)
		}
	}
	known := map[string]bool{}
	meant := map[string]bool{} // fields that are missing since their name has a slip
	for _, d := range specific {
		known[d.Path] = true
		if name, ok := strings.CutPrefix(d.Hint, `did you mean "`); ok && d.Rule == "unknown-field" {
			meant[parentPath(d.Path)+"."+strings.TrimSuffix(name, `"?`)] = true
		}
	}
	misspelt := func(d diag.Diagnostic) bool {
		return d.Rule == "required" && meant[parentPath(d.Path)+"."+lastName(d.Path)]
	}
	out := slices.DeleteFunc(slices.Clone(specific), misspelt)
	for _, f := range fromCUE {
		if misspelt(f.Diagnostic) {
			continue
		}
		if known[f.Path] && (f.weak || f.rank == rankUnknown || f.rank == rankLiteral) {
			continue
		}
		if f.rank == rankUnknown && isKnown(f.parts) {
			continue // of an alternative that the user did not choose
		}
		if f.rank == rankUnknown && slices.ContainsFunc(specific, func(d diag.Diagnostic) bool { return beneath(f.Path, d.Path) }) {
			continue // a field of a map entry whose name is not allowed
		}
		inside := func(path string) bool { return beneath(path, f.Path) }
		if (f.weak || f.rank == rankLiteral) && (slices.ContainsFunc(specific, func(d diag.Diagnostic) bool { return inside(d.Path) }) ||
			slices.ContainsFunc(fromCUE, func(g finding) bool { return inside(g.Path) })) {
			continue
		}
		out = append(out, f.Diagnostic)
	}
	return out
}

// fieldAt returns the field of the language at a path of CUE, or nil.
func fieldAt(parts []string) (*shape.Language, *shape.Field) {
	language, err := shape.Get()
	if err != nil {
		return nil, nil
	}
	path := make([]string, len(parts))
	for i, part := range parts {
		path[i] = unquoteLabel(part)
	}
	return language, language.Find(path)
}

func isKnown(parts []string) bool {
	_, f := fieldAt(parts)
	return f != nil
}

func beneath(path, parent string) bool {
	return len(path) > len(parent) && strings.HasPrefix(path, parent) && (path[len(parent)] == '.' || path[len(parent)] == '[')
}

// parentPath returns the path of the value that holds the field at the end of path.
func parentPath(path string) string {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return ""
	}
	return path[:i]
}

func lastName(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// labelPlace returns where a field's name is written.
func (x explainer) labelPlace(v cue.Value) policy.Place {
	if field, ok := v.Source().(*ast.Field); ok {
		place, _ := x.names.place(field.Label.Pos())
		return place
	}
	for _, pos := range positions(v) {
		if place, kind := x.names.place(pos); kind != ir.OriginDefault {
			return place
		}
	}
	place, _ := x.names.place(token.NoPos)
	return place
}
