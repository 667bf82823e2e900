// Package shape reads the embedded schema as data: which fields the language has, how they are documented and what
// applies when they are absent.
//
// In: the files of package schema, parsed but not evaluated. Out: a tree of fields, for the field reference, the JSON
// Schema and "did you mean". It never judges a policy: cross-field rules (the `if` clauses of the schema) and
// the grammars of texts are not part of it. Read next: ../gendoc.
package shape

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/literal"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"

	"github.com/sandlock-go/sandlock/schema"
)

// Language is the whole schema.
type Language struct {
	Policy      *Field                       // #Policy
	Definitions map[string]*Field            // by name, such as "#Path"
	Names       []string                     // of Definitions, in the order of files and declarations
	defaults    map[string]ast.Expr          // by path
	elements    map[string][]*elementDefault // by definition
}

type elementDefault struct {
	name  string
	value ast.Expr
}

// Field is one field of the language, or a definition.
type Field struct {
	Name     string // "" for the element of a list
	Path     string // such as "filesystem.read[].path"; of a definition its name
	Doc      string // one line per paragraph
	Required bool
	Expr     ast.Expr // its constraint; refers to definitions by name
	Default  ast.Expr // nil = none
	Fields   []*Field // of a struct: of all its alternatives, in the order of declaration
	Elem     *Field   // of a list its element, of a map its value
	Key      ast.Expr // of a map: the constraint on its keys
}

// Get returns the language of the embedded schema. It is parsed once; do not modify it.
var Get = sync.OnceValues(parse)

func parse() (*Language, error) {
	l := &Language{Definitions: map[string]*Field{}, defaults: map[string]ast.Expr{}, elements: map[string][]*elementDefault{}}
	files, err := fs.Glob(schema.FS, "*.cue")
	if err != nil {
		return nil, fmt.Errorf("list schema: %w", err)
	}
	decls := map[string]*ast.Field{}
	for _, name := range files {
		data, err := fs.ReadFile(schema.FS, name)
		if err != nil {
			return nil, fmt.Errorf("read schema: %w", err)
		}
		file, err := parser.ParseFile(path.Join(schema.ImportPath, name), data, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("parse schema: %w", err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.Field)
			if !ok {
				continue
			}
			name := labelName(f.Label)
			decls[name] = f
			if name != "#Defaults" && name != "#ElementDefaults" {
				l.Names = append(l.Names, name)
			}
		}
	}
	l.addDefaults("", decls["#Defaults"].Value)
	for _, f := range structFields(decls["#ElementDefaults"].Value) {
		for _, g := range structFields(f.Value) {
			l.elements["#"+labelName(f.Label)] = append(l.elements["#"+labelName(f.Label)], &elementDefault{labelName(g.Label), g.Value})
		}
	}
	for _, name := range l.Names {
		l.Definitions[name] = l.field(decls, decls[name], name)
	}
	l.Policy = l.field(decls, decls["#Policy"], "")
	l.Walk(l.shareDefaults)
	return l, nil
}

// shareDefaults gives the fields of a definition the defaults that they have where f refers to it.
func (l *Language) shareDefaults(f *Field) {
	ref, ok := f.Expr.(*ast.Ident)
	if !ok || l.Definitions[ref.Name] == nil {
		return
	}
	for _, sub := range f.Fields {
		if shared := l.Definitions[ref.Name].Lookup(sub.Name); shared != nil && sub.Default != nil {
			shared.Default = sub.Default
		}
	}
}

func (l *Language) addDefaults(at string, value ast.Expr) {
	if _, ok := value.(*ast.StructLit); !ok {
		l.defaults[at] = value
		return
	}
	for _, f := range structFields(value) {
		l.addDefaults(join(at, labelName(f.Label)), f.Value)
	}
}

// field builds the tree beneath a declaration.
func (l *Language) field(decls map[string]*ast.Field, decl *ast.Field, at string) *Field {
	f := &Field{Name: labelName(decl.Label), Path: at, Doc: docOf(decl), Required: decl.Constraint.String() == "!", Expr: decl.Value, Default: l.defaults[at]}
	l.expand(decls, f, decl.Value)
	return f
}

// expand adds to f the fields, element or value that its constraint allows, looking through references, alternatives
// and conjunctions.
func (l *Language) expand(decls map[string]*ast.Field, f *Field, expr ast.Expr) {
	switch x := expr.(type) {
	case *ast.ParenExpr:
		l.expand(decls, f, x.X)
	case *ast.BinaryExpr:
		l.expand(decls, f, x.X)
		l.expand(decls, f, x.Y)
	case *ast.Ident:
		decl, ok := decls[x.Name]
		if !ok {
			return
		}
		l.expand(decls, f, decl.Value)
		for _, d := range l.elements[x.Name] {
			for _, sub := range f.Fields {
				if sub.Name == d.name {
					sub.Default = d.value
				}
			}
		}
	case *ast.ListLit:
		for _, e := range x.Elts {
			if ellipsis, ok := e.(*ast.Ellipsis); ok && ellipsis.Type != nil {
				f.Elem = &Field{Path: f.Path + "[]", Expr: ellipsis.Type}
				l.expand(decls, f.Elem, ellipsis.Type)
			}
		}
	case *ast.StructLit:
		l.expandStruct(decls, f, x)
	}
}

func (l *Language) expandStruct(decls map[string]*ast.Field, f *Field, x *ast.StructLit) {
	for _, sub := range structFields(x) {
		if key, ok := sub.Label.(*ast.ListLit); ok && len(key.Elts) == 1 {
			f.Key = key.Elts[0]
			f.Elem = l.field(decls, sub, f.Path+".NAME")
			f.Elem.Name = "NAME"
			continue
		}
		f.Fields = append(f.Fields, l.field(decls, sub, join(f.Path, labelName(sub.Label))))
	}
}

// Lookup returns the field of a name, or nil.
func (f *Field) Lookup(name string) *Field {
	for _, sub := range f.Fields {
		if sub.Name == name {
			return sub
		}
	}
	return nil
}

// Find returns the field at a path of CUE, whose indices are numbers, or nil.
func (l *Language) Find(path []string) *Field {
	f := l.Policy
	for _, name := range path {
		switch sub := f.Lookup(name); {
		case sub != nil:
			f = sub
		case f.Elem != nil:
			f = f.Elem
		default:
			return nil
		}
	}
	return f
}

// Forms returns the definitions among which a field's constraint lets choose.
func (l *Language) Forms(f *Field) []string {
	var names []string
	var collect func(expr ast.Expr, chosen bool)
	collect = func(expr ast.Expr, chosen bool) {
		switch x := expr.(type) {
		case *ast.ParenExpr:
			collect(x.X, chosen)
		case *ast.BinaryExpr:
			if x.Op == token.OR {
				collect(x.X, true)
				collect(x.Y, true)
			}
		case *ast.Ident:
			if definition := l.Definitions[x.Name]; chosen && definition != nil {
				names = append(names, x.Name)
			} else if definition != nil {
				collect(definition.Expr, false)
			}
		}
	}
	collect(f.Expr, false)
	return names
}

// Walk calls visit for every field of the language in the order of declaration, elements after their lists.
func (l *Language) Walk(visit func(*Field)) { walk(l.Policy, visit) }

func walk(f *Field, visit func(*Field)) {
	if f.Path != "" {
		visit(f)
	}
	for _, sub := range f.Fields {
		walk(sub, visit)
	}
	if f.Elem != nil {
		walk(f.Elem, visit)
	}
}

func structFields(expr ast.Expr) (fields []*ast.Field) {
	x, ok := expr.(*ast.StructLit)
	if !ok {
		return nil
	}
	for _, e := range x.Elts {
		if f, ok := e.(*ast.Field); ok {
			fields = append(fields, f)
		}
	}
	return fields
}

func labelName(l ast.Label) string {
	name, _, err := ast.LabelName(l)
	if err != nil {
		return ""
	}
	return name
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// docOf returns a declaration's comment with its lines joined to paragraphs.
func docOf(decl *ast.Field) string {
	var lines []string
	for _, group := range ast.Comments(decl) {
		if !group.Doc {
			continue
		}
		for _, c := range group.List {
			lines = append(lines, strings.TrimSpace(strings.TrimPrefix(c.Text, "//")))
		}
	}
	return strings.Join(lines, " ")
}

// KeyPattern returns the regular expression that keys of a map match, and what it means in words.
func (f *Field) KeyPattern() (pattern, doc string) {
	expr := f.Key
	if ref, ok := expr.(*ast.Ident); ok {
		language, err := Get()
		if err != nil || language.Definitions[ref.Name] == nil {
			return "", ""
		}
		definition := language.Definitions[ref.Name]
		expr, doc = definition.Expr, definition.Doc
	}
	if match, ok := expr.(*ast.UnaryExpr); ok && match.Op == token.MAT {
		if lit, ok := match.X.(*ast.BasicLit); ok {
			pattern, _ = literal.Unquote(lit.Value)
		}
	}
	return pattern, doc
}
