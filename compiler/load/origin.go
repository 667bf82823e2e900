package load

import (
	"path/filepath"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/token"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/schema"
)

// maxAlso bounds the further places of an origin: a value taken through references has one for each.
const maxAlso = 2

// names turns CUE's absolute file names into those of messages and origins.
type names struct{ root string }

// place returns a position and who wrote there.
func (n names) place(pos token.Pos) (policy.Place, ir.OriginKind) {
	p := pos.Position()
	place := policy.Place{Line: p.Line, Col: p.Column}
	if rest, ok := strings.CutPrefix(p.Filename, virtualRoot); ok {
		place.File = schema.ImportPath + rest
		if strings.HasPrefix(rest, "/preset/") {
			return place, ir.OriginPreset
		}
		return place, ir.OriginDefault
	}
	place.File = n.file(p.Filename).File
	return place, ir.OriginUser
}

// file returns the place of a file as a whole.
func (n names) file(name string) policy.Place {
	if rel, err := filepath.Rel(n.root, name); err == nil && filepath.IsAbs(name) {
		name = filepath.ToSlash(rel)
	}
	return policy.Place{File: name}
}

// origin says who wrote v. A literal comes first, then the fields and references through which it was taken; positions
// in the schema are never an origin, except for values of the default layer, which have no other.
func (n names) origin(v cue.Value, path string) policy.Origin { return n.originOf(positions(v), path) }

func (n names) originOf(positions []token.Pos, path string) policy.Origin {
	o := policy.Origin{Path: path}
	var first token.Pos
	for _, pos := range positions {
		place, kind := n.place(pos)
		switch {
		case kind == ir.OriginDefault:
			if !first.IsValid() {
				first = pos
			}
		case o.Kind == 0:
			o.Place, o.Kind = place, kind
		case place != o.Place && len(o.Also) < maxAlso && !containsPlace(o.Also, place):
			o.Also = append(o.Also, place)
		}
	}
	if o.Kind == 0 {
		o.Kind = ir.OriginDefault
		if first.IsValid() {
			o.Place, _ = n.place(first)
		}
	}
	return o
}

func containsPlace(places []policy.Place, p policy.Place) bool {
	for _, q := range places {
		if p == q {
			return true
		}
	}
	return false
}

// positions returns every position that contributed to v, the literal first. The position of a struct or list after
// unification is the schema's; its conjuncts, which Expr returns, know the fields that users wrote.
func positions(v cue.Value) []token.Pos {
	var out []token.Pos
	add := func(p token.Pos) {
		if p.IsValid() && p.Filename() != "" {
			out = append(out, p)
		}
	}
	if _, ok := v.Source().(*ast.Field); !ok && v.Source() != nil {
		add(v.Pos())
	}
	var conjuncts func(v cue.Value, depth int)
	conjuncts = func(v cue.Value, depth int) {
		if field, ok := v.Source().(*ast.Field); ok {
			add(field.Value.Pos()) // of the field itself, Pos is its name
		} else {
			add(v.Pos())
		}
		if depth == 0 {
			return
		}
		if op, args := v.Expr(); op == cue.AndOp {
			for _, arg := range args {
				conjuncts(arg, depth-1)
			}
		}
	}
	conjuncts(v, 8)
	return out
}

// positionsBeside is [positions] for a value that is written in one place of the policy, which user, the policy before
// it met the schema, tells: the conjuncts of the schema need not be asked then, which takes most of the time. ok is
// false where there are several places, or user says nothing.
func positionsBeside(v, user cue.Value, element bool) (out []token.Pos, ok bool) {
	switch source := user.Source().(type) {
	case nil:
		return nil, false
	case *ast.Field:
		out = append(out, source.Value.Pos())
	default:
		// A field written several times has no *ast.Field, an element of a list never has one.
		if !element {
			return nil, false
		}
		out = append(out, source.Pos())
	}
	if literal := v.Source(); literal != nil {
		if _, isField := literal.(*ast.Field); !isField {
			out = append([]token.Pos{v.Pos()}, out...)
		}
	}
	return out, true
}
