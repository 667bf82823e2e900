package compiler

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
)

// TestEveryFieldIsLoweredOrRefused walks the types of the policy tree: a field that neither the lowering passes nor the
// table of gaps know would be accepted and ignored.
func TestEveryFieldIsLoweredOrRefused(t *testing.T) {
	var known []string
	for _, g := range gaps {
		known = append(known, g.path)
	}
	known = append(known, lower.Fields()...)
	fields := leaves(reflect.TypeFor[policy.Policy](), "")
	if len(fields) < 80 {
		t.Fatalf("found %d fields only: does the walk still understand the tree?", len(fields))
	}
	for _, field := range fields {
		covered := slices.ContainsFunc(known, func(k string) bool { return field == k || strings.HasPrefix(field, k+".") })
		if !covered {
			t.Errorf("%s is neither lowered nor refused", field)
		}
	}
	for _, k := range known {
		exists := slices.ContainsFunc(fields, func(f string) bool { return f == k || strings.HasPrefix(f, k+".") })
		if !exists {
			t.Errorf("%s is lowered or refused, but the language has no such field", k)
		}
	}
}

// leaves returns the paths of all fields beneath a section; lists and maps are looked into.
func leaves(typ reflect.Type, at string) []string {
	var out []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		tag, ok := f.Tag.Lookup("policy")
		if !ok {
			continue
		}
		path := at
		if tag != "" {
			path = strings.TrimPrefix(at+"."+tag, ".")
		}
		inner := element(f.Type)
		if inner.Kind() == reflect.Struct && hasSections(inner) {
			out = append(out, leaves(inner, path)...)
			continue
		}
		out = append(out, path)
	}
	return out
}

// element looks through List[T] and Val[T].
func element(typ reflect.Type) reflect.Type {
	for typ.Kind() == reflect.Struct {
		if items, ok := typ.FieldByName("Items"); ok && strings.HasPrefix(typ.Name(), "List[") {
			typ = items.Type.Elem()
			continue
		}
		if v, ok := typ.FieldByName("V"); ok && strings.HasPrefix(typ.Name(), "Val[") {
			typ = v.Type
			continue
		}
		break
	}
	return typ
}

func hasSections(typ reflect.Type) bool {
	for i := range typ.NumField() {
		if _, ok := typ.Field(i).Tag.Lookup("policy"); ok {
			return true
		}
	}
	return false
}

// TestGapsAreReached: each line of the table must refuse something; the corpus holds a policy that uses all of them.
func TestGapsAreReached(t *testing.T) {
	for _, g := range gaps {
		if g.path == "" || g.uses == nil {
			t.Errorf("gap %+v is incomplete", g)
		}
		if uses := g.uses(&policy.Policy{}); len(uses) > 0 {
			t.Errorf("gap %s: an empty policy uses it at %v", g.path, uses)
		}
	}
}
