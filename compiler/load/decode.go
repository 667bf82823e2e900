package load

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

// maxItems bounds every list and map. CUE's time grows with the square of a list's length; this many take it a second.
const maxItems = 16384

// decoder walks a CUE value and builds the policy tree. The sections are in decode_*.go.
type decoder struct {
	names names
	lang  language
	// partial is set when the value did not validate: it is then walked for the mistakes that only the grammars of
	// package policy see, and what cannot be read is left to CUE's own errors.
	partial bool
	diags   diag.List
	fields  map[cue.Value]map[string]cue.Value // what fieldsOf has listed
}

// node is a place in the tree: the policy's value, which may not exist, and the default layer's.
type node struct {
	d    *decoder
	path string
	v    cue.Value
	def  cue.Value
	user cue.Value    // as v, before the policy met the schema; may not exist although v does
	elem bool         // whether this is an element of a list
	via  policy.Place // the user's expression that took a list from a preset; empty otherwise
}

// at returns a field of n.
func (n node) at(name string) node {
	return node{d: n.d, path: joinPath(n.path, name), v: n.d.lookup(n.v, name), def: n.d.lookup(n.def, name), user: n.d.lookup(n.user, name), via: n.via}
}

// withDefaults gives n, an element of a list, the defaults of its definition.
func (n node) withDefaults(definition string) node {
	n.def = n.d.lookup(n.d.lang.elements, definition)
	return n
}

// withoutDefaults is for an element that is a scalar, where its definition's defaults are fields.
func (n node) withoutDefaults() node {
	n.def = cue.Value{}
	return n
}

// lookup returns a field of v, or the zero Value. It lists the fields of each struct once: most fields of a policy are
// absent, and CUE's LookupPath makes an error with its positions for each of those.
func (d *decoder) lookup(v cue.Value, name string) cue.Value {
	if v == (cue.Value{}) {
		return v
	}
	fields, ok := d.fields[v]
	if !ok {
		fields = fieldsOf(v)
		if d.fields == nil {
			d.fields = map[cue.Value]map[string]cue.Value{}
		}
		d.fields[v] = fields
	}
	return fields[name]
}

func fieldsOf(v cue.Value) map[string]cue.Value {
	it, err := v.Fields()
	fields := map[string]cue.Value{}
	for err == nil && it.Next() {
		if it.Selector().LabelType() == cue.StringLabel {
			fields[it.Selector().Unquoted()] = it.Value()
		}
	}
	return fields
}

// joinPath appends a field to a path; names that are not identifiers are quoted.
func joinPath(path, name string) string {
	if !ast.IsValidIdent(name) {
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// present tells whether the policy, not the default layer, has a value here.
func (n node) present() bool { return n.v != (cue.Value{}) && n.v.Exists() }

// read returns the value that holds here and who wrote it. ok is false where there is none, or none that can be read.
func (n node) read() (v cue.Value, o policy.Origin, set, ok bool) {
	v = n.def
	if n.present() {
		v = n.v
	}
	if v == (cue.Value{}) || !v.Exists() {
		return v, policy.Origin{Path: n.path, Kind: ir.OriginDefault}, false, false
	}
	o = n.origin(v)
	v, _ = v.Default() // a user may write "*10 | int"
	set = n.present() && o.Kind != ir.OriginDefault
	if v.Err() != nil || !v.IsConcrete() {
		if !n.d.partial {
			n.d.fail(o, &policy.GrammarError{Rule: "incomplete", Msg: "value is not concrete"})
		}
		return v, o, set, false
	}
	return v, o, set, true
}

// origin says who wrote v. An element that a list expression took from a preset knows only the preset's line, so the
// user's is added.
func (n node) origin(v cue.Value) policy.Origin {
	if !n.present() { // of the default layer, which nobody else contributes to
		place, _ := n.d.names.place(v.Pos())
		return policy.Origin{Place: place, Path: n.path, Kind: ir.OriginDefault}
	}
	where, ok := positionsBeside(v, n.user, n.elem)
	if !ok {
		where = positions(v)
	}
	o := n.d.names.originOf(where, n.path)
	if o.Kind == ir.OriginPreset && n.via.File != "" && !containsPlace(o.Also, n.via) {
		o.Also = append(o.Also, n.via)
	}
	return o
}

// fail records a mistake at an origin.
func (d *decoder) fail(o policy.Origin, err error) {
	x := diag.At(o, "internal", "%v", err)
	var g *policy.GrammarError
	if errors.As(err, &g) {
		x.Msg, x.Rule, x.Hint = g.Msg, g.Rule, g.Hint
	}
	d.diags.Add(x)
}

// wrongType records that a value has a type that the decoder does not read. CUE found it before where the schema
// restricts the type; a regular expression in the schema, for one, accepts bytes as well as strings.
func (n node) wrongType(v cue.Value, o policy.Origin, want string) {
	if !n.d.partial {
		n.d.fail(o, &policy.GrammarError{Rule: "type", Msg: fmt.Sprintf("wrong type: got %v, want %s", v.IncompleteKind(), want)})
	}
}

// scalar reads a value with get, which returns an error if its type is another.
func scalar[T any](n node, want string, get func(cue.Value) (T, error)) policy.Val[T] {
	v, o, set, ok := n.read()
	val := policy.Val[T]{Set: set, Origin: o}
	if !ok {
		return val
	}
	x, err := get(v)
	var g *policy.GrammarError
	switch {
	case err == nil:
		val.V = x
	case errors.As(err, &g):
		n.d.fail(o, g)
	default:
		n.wrongType(v, o, want)
	}
	return val
}

// text reads a string with a grammar.
func text[T any](n node, parse func(string) (T, error)) policy.Val[T] {
	return scalar(n, "a string", func(v cue.Value) (x T, err error) {
		s, err := v.String()
		if err != nil {
			return x, err
		}
		return parse(s)
	})
}

func anyText(s string) (string, error) { return s, nil }

func word(n node) policy.Val[string]     { return text(n, anyText) }
func path(n node) policy.Val[string]     { return text(n, policy.ParsePath) }
func template(n node) policy.Val[string] { return text(n, policy.ParseTemplate) }
func boolean(n node) policy.Val[bool]    { return scalar(n, "a bool", cue.Value.Bool) }

// switched reads a bool or a word, as text.
func switched(n node) policy.Val[string] {
	return scalar(n, "a bool or a string", func(v cue.Value) (string, error) {
		if v.Kind() == cue.StringKind {
			return v.String()
		}
		b, err := v.Bool()
		return strconv.FormatBool(b), err
	})
}

// number reads an integer, whose range the schema has checked; one that does not fit T is refused all the same.
func number[T ~int | ~uint16 | ~uint32 | ~uint64](n node) policy.Val[T] {
	return scalar(n, "an integer", func(v cue.Value) (T, error) {
		x, err := v.Uint64()
		if err == nil && uint64(T(x)) != x {
			err = &policy.GrammarError{Rule: "range", Msg: fmt.Sprintf("%d is out of range", x)}
		}
		return T(x), err
	})
}

// size reads bytes, as a number or as a text.
func size(n node) policy.Val[uint64] {
	return scalar(n, "bytes", func(v cue.Value) (uint64, error) {
		if v.Kind() == cue.StringKind {
			s, err := v.String()
			if err != nil {
				return 0, err
			}
			return policy.ParseSize(s)
		}
		return v.Uint64()
	})
}

// list reads a list with elem for each element.
func list[T any](n node, elem func(node) policy.Val[T]) policy.List[T] {
	v, o, set, ok := n.readContainer()
	l := policy.List[T]{Set: set, Origin: o}
	if !ok {
		return l
	}
	it, err := v.List()
	if err != nil {
		n.wrongType(v, o, "a list")
		return l
	}
	if length, err := v.Len().Int64(); err == nil && length > maxItems {
		n.d.fail(o, &policy.GrammarError{Rule: "list-size", Msg: fmt.Sprintf("has %d elements, at most %d are allowed", length, maxItems)})
		return l
	}
	userIt, userErr := n.user.List()
	for i := 0; it.Next(); i++ {
		e := node{d: n.d, path: n.path + "[" + strconv.Itoa(i) + "]", elem: true, via: n.via}
		if userErr == nil && userIt.Next() {
			e.user = userIt.Value()
		}
		if o.Kind == ir.OriginUser {
			e.via = o.Place
		}
		if set {
			e.v = it.Value()
		} else {
			e.def = it.Value()
		}
		l.Items = append(l.Items, elem(e))
	}
	return l
}

// readContainer is [node.read] for lists and structs, whose elements may be in error on their own.
func (n node) readContainer() (v cue.Value, o policy.Origin, set, ok bool) {
	v = n.def
	if n.present() {
		v, set = n.v, true
	}
	if v == (cue.Value{}) || !v.Exists() {
		return v, policy.Origin{Path: n.path, Kind: ir.OriginDefault}, false, false
	}
	o = n.origin(v)
	v, _ = v.Default()
	return v, o, set, true
}

// structOf reads a section. CUE lets a scalar pass where the schema's struct has nothing but optional fields and
// conditions, so that the kind is checked here.
func structOf[T any](n node, decode func(node) T) T {
	if kind := n.kind(); kind != cue.StructKind && kind != cue.BottomKind {
		n.d.fail(n.origin(n.v), &policy.GrammarError{Rule: "type", Msg: fmt.Sprintf("wrong type: got %v, want struct", kind)})
	}
	return decode(n)
}

// section reads an element of a list that is a struct.
func section[T any](n node, decode func(node) T) policy.Val[T] {
	_, o, set, _ := n.readContainer()
	return policy.Val[T]{V: structOf(n, decode), Set: set, Origin: o}
}

// entries reads a map as a list sorted by name.
func entries[T any](n node, checkName func(string) error, entry func(n node, name string) T) policy.List[T] {
	v, o, set, ok := n.readContainer()
	l := policy.List[T]{Set: set, Origin: o}
	if !ok {
		return l
	}
	if kind := v.IncompleteKind(); kind != cue.StructKind && !n.d.partial {
		n.wrongType(v, o, "a struct")
		return l
	}
	fields := fieldsOf(v)
	if len(fields) > maxItems {
		n.d.fail(o, &policy.GrammarError{Rule: "list-size", Msg: fmt.Sprintf("has %d entries, at most %d are allowed", len(fields), maxItems)})
		return l
	}
	for _, name := range sortedKeys(fields) {
		e := node{d: n.d, path: joinPath(n.path, name), v: fields[name], user: n.d.lookup(n.user, name)}
		_, o, set, _ := e.readContainer()
		val := policy.Val[T]{V: entry(e, name), Set: set, Origin: o}
		if err := checkName(name); err != nil {
			n.d.fail(val.Origin, err)
		}
		l.Items = append(l.Items, val)
	}
	return l
}

func sortedKeys(m map[string]cue.Value) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}

func anyName(string) error { return nil }

// kind returns the kind of the policy's value, or of the default.
func (n node) kind() cue.Kind {
	v := n.def
	if n.present() {
		v = n.v
	}
	if v == (cue.Value{}) || !v.Exists() {
		return cue.BottomKind
	}
	v, _ = v.Default()
	return v.IncompleteKind()
}

// fixed returns a value that the decoder derives from a field of another form, at that field's origin.
func fixed[T any](n node, x T) policy.Val[T] {
	_, o, set, _ := n.readContainer()
	return policy.Val[T]{V: x, Set: set, Origin: o}
}
