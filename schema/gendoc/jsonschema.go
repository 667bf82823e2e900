package gendoc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/literal"
	"cuelang.org/go/cue/token"

	"github.com/sandlock-go/sandlock/schema"
	"github.com/sandlock-go/sandlock/schema/shape"
)

const schemaComment = "Field names, types, ranges and enumerations of the policy language. Not expressed here: rules across fields " +
	"(which exclude or need one another), and the grammars of network rules, HTTP rules, paths, patterns, sizes and durations. " +
	"sandlock-compile checks all of it."

// object is a JSON object; encoding/json sorts its keys.
type object = map[string]any

// JSONSchema returns a JSON Schema (draft 2020-12) for policies that are written as data. Whatever the compiler
// accepts, it accepts; not the reverse.
func JSONSchema() ([]byte, error) {
	language, err := shape.Get()
	if err != nil {
		return nil, err
	}
	defs := object{}
	for _, name := range language.Names {
		f := language.Definitions[name]
		s, err := constraint(f)
		if err != nil {
			return nil, fmt.Errorf("definition %s: %w", name, err)
		}
		describe(s, f)
		defs[strings.TrimPrefix(name, "#")] = s
	}
	root := object{
		"$schema":  "https://json-schema.org/draft/2020-12/schema",
		"$id":      "https://" + schema.ImportPath + "/" + schema.Version + "/policy.schema.json",
		"title":    "Sandlock policy",
		"$comment": schemaComment,
		"$ref":     "#/$defs/Policy",
		"$defs":    defs,
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		return nil, fmt.Errorf("encode JSON Schema: %w", err)
	}
	return b.Bytes(), nil
}

func describe(s object, f *shape.Field) {
	if f.Doc != "" {
		s["description"] = f.Doc
	}
	if f.Default != nil {
		if v, ok := value(f.Default); ok {
			s["default"] = v
		}
	}
}

// constraint converts the constraint of a field, whose struct form has been expanded to fields.
func constraint(f *shape.Field) (object, error) {
	if x, ok := f.Expr.(*ast.StructLit); ok && len(x.Elts) > 0 {
		return structure(f)
	}
	return convert(f.Expr)
}

func structure(f *shape.Field) (object, error) {
	s := object{"type": "object"}
	if f.Key != nil {
		value, err := constraint(f.Elem)
		if err != nil {
			return nil, err
		}
		s["additionalProperties"] = value
		if pattern, _ := f.KeyPattern(); pattern != "" {
			s["propertyNames"] = object{"pattern": pattern}
		}
		return s, nil
	}
	properties := object{}
	required := []string{}
	for _, sub := range f.Fields {
		p, err := constraint(sub)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sub.Name, err)
		}
		describe(p, sub)
		properties[sub.Name] = p
		if sub.Required {
			required = append(required, sub.Name)
		}
	}
	s["properties"], s["additionalProperties"] = properties, false
	if len(required) > 0 {
		s["required"] = required
	}
	return s, nil
}

// convert converts a constraint that is not a struct.
func convert(expr ast.Expr) (object, error) {
	switch x := withoutErrors(expr).(type) {
	case *ast.ParenExpr:
		return convert(x.X)
	case *ast.Ident:
		return named(x.Name)
	case *ast.BasicLit:
		if v, ok := value(x); ok {
			return object{"const": v}, nil
		}
	case *ast.UnaryExpr:
		return unary(x)
	case *ast.ListLit:
		return array(x)
	case *ast.CallExpr:
		return validator(x)
	case *ast.SelectorExpr:
		if name := selector(x); name == "net.IP" {
			return object{"anyOf": []object{{"format": "ipv4"}, {"format": "ipv6"}}}, nil
		}
	case *ast.BinaryExpr:
		return binary(x)
	}
	return nil, fmt.Errorf("constraint of type %T has no JSON Schema", expr)
}

func named(name string) (object, error) {
	switch name {
	case "string":
		return object{"type": "string"}, nil
	case "bool":
		return object{"type": "boolean"}, nil
	case "int":
		return object{"type": "integer"}, nil
	case "uint64":
		return object{"type": "integer", "minimum": 0, "maximum": json.Number("18446744073709551615")}, nil
	}
	if def, ok := strings.CutPrefix(name, "#"); ok {
		return object{"$ref": "#/$defs/" + def}, nil
	}
	return nil, fmt.Errorf("type %s has no JSON Schema", name)
}

func unary(x *ast.UnaryExpr) (object, error) {
	v, ok := value(x.X)
	if !ok {
		return nil, fmt.Errorf("bound %v is not a literal", x.Op)
	}
	switch x.Op {
	case token.GEQ:
		return object{"minimum": v}, nil
	case token.LEQ:
		return object{"maximum": v}, nil
	case token.NEQ:
		return object{"not": object{"const": v}}, nil
	case token.MAT:
		return object{"type": "string", "pattern": v}, nil
	}
	return nil, fmt.Errorf("operator %v has no JSON Schema", x.Op)
}

func array(x *ast.ListLit) (object, error) {
	s := object{"type": "array"}
	for _, e := range x.Elts {
		ellipsis, ok := e.(*ast.Ellipsis)
		if !ok {
			s["minItems"] = 1
			continue
		}
		items, err := convert(ellipsis.Type)
		if err != nil {
			return nil, err
		}
		s["items"] = items
	}
	return s, nil
}

func validator(x *ast.CallExpr) (object, error) {
	sel, ok := x.Fun.(*ast.SelectorExpr)
	if ok && selector(sel) == "strings.MaxRunes" && len(x.Args) == 1 {
		if v, ok := value(x.Args[0]); ok {
			return object{"type": "string", "maxLength": v}, nil
		}
	}
	return nil, fmt.Errorf("validator %v has no JSON Schema", x.Fun)
}

func selector(x *ast.SelectorExpr) string {
	pkg, _ := x.X.(*ast.Ident)
	if pkg == nil {
		return ""
	}
	name, _, err := ast.LabelName(x.Sel)
	if err != nil {
		return ""
	}
	return pkg.Name + "." + name
}

func binary(x *ast.BinaryExpr) (object, error) {
	left, err := convert(x.X)
	if err != nil {
		return nil, err
	}
	right, err := convert(x.Y)
	if err != nil {
		return nil, err
	}
	if x.Op == token.OR {
		return either(left, right), nil
	}
	for key, v := range right {
		if old, ok := left[key]; ok && !(key == "type" && old == v) {
			return object{"allOf": []object{left, right}}, nil
		}
	}
	for key, v := range right {
		left[key] = v
	}
	return left, nil
}

// either joins alternatives: constants to an enumeration, anything else to anyOf.
func either(left, right object) object {
	if values, ok := constants(left); ok {
		if more, ok := constants(right); ok {
			return object{"enum": append(values, more...)}
		}
	}
	alternatives, ok := left["anyOf"].([]object)
	if !ok || len(left) > 1 {
		alternatives = []object{left}
	}
	return object{"anyOf": append(alternatives, right)}
}

func constants(s object) ([]any, bool) {
	if len(s) != 1 {
		return nil, false
	}
	if v, ok := s["const"]; ok {
		return []any{v}, true
	}
	values, ok := s["enum"].([]any)
	return values, ok
}

// value returns the value of a literal.
func value(expr ast.Expr) (any, bool) {
	switch x := expr.(type) {
	case *ast.BasicLit:
		switch x.Kind {
		case token.STRING:
			s, err := literal.Unquote(x.Value)
			return s, err == nil
		case token.INT:
			_, err := strconv.ParseUint(x.Value, 10, 64)
			return json.Number(x.Value), err == nil
		case token.TRUE, token.FALSE:
			return x.Kind == token.TRUE, true
		}
	case *ast.ListLit:
		values := []any{}
		for _, e := range x.Elts {
			v, ok := value(e)
			if !ok {
				return nil, false
			}
			values = append(values, v)
		}
		return values, true
	}
	return nil, false
}
