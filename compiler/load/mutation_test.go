package load

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/schema/shape"
)

// good holds a valid value for each field that is required within its struct, and for those without which a mutated
// neighbour would be a second mistake.
var good = map[string]string{
	"params.NAME.type":             `"dir"`,
	"filesystem.read[].path":       `"/x"`,
	"filesystem.write[].path":      `"/x"`,
	"filesystem.deny[].path":       `"/x"`,
	"filesystem.rules[].path":      `"/x"`,
	"filesystem.rules[].access":    `["read_file"]`,
	"filesystem.mount[].target":    `"/x"`,
	"filesystem.mount[].source":    `"/y"`,
	"http.credentials.NAME.source": `"env:X"`,
	"http.allow[].rule":            `"GET a.example/x"`,
	"http.deny[].rule":             `"GET a.example/x"`,
	"http.auth[].rule":             `"GET a.example/x"`,
	"http.auth[].credential":       `"x"`,
	"http.auth[].as":               `"bearer"`,
	"syscalls.args[].syscall":      `"ioctl"`,
	"syscalls.args[].arg":          `1`,
	"syscalls.args[].op":           `"=="`,
	"syscalls.args[].value":        `1`,
	"syscalls.args[].then":         `"deny"`,
	"rules[].on":                   `["open"]`,
	"rules[].then.errno":           `"EACCES"`,
	"tests[].name":                 `"x"`,
	"tests[].expect":               `"deny"`,
	"tests[].case":                 `{open: "/x", for: "read"}`,
}

// mutate returns a policy whose only mistake is the value of the field at the end of fields.
func mutate(fields []*shape.Field, bad string) string {
	if len(fields) == 1 {
		return bad
	}
	parent, next := fields[0], fields[1]
	inner := mutate(fields[1:], bad)
	switch {
	case next.Name == "": // an element
		return "[" + inner + "]"
	case next.Name == "NAME":
		return "{x: " + inner + "}"
	}
	var b strings.Builder
	b.WriteString("{\n")
	for _, sibling := range parent.Fields {
		if sibling != next && sibling.Required {
			fmt.Fprintf(&b, "%s: %s\n", sibling.Name, good[sibling.Path])
		}
	}
	switch next.Path {
	case "tests[].case.for":
		b.WriteString("open: \"/x\"\n")
	case "tests[].case.args":
		b.WriteString("syscall: \"mount\"\n")
	}
	fmt.Fprintf(&b, "%s: %s\n}", next.Name, inner)
	return b.String()
}

// TestMutations gives each field of the language a value of a wrong type: exactly one diagnostic, in the policy, at that
// field.
func TestMutations(t *testing.T) {
	language, err := shape.Get()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	count := 0
	var visit func(fields []*shape.Field)
	visit = func(fields []*shape.Field) {
		f := fields[len(fields)-1]
		if len(fields) > 1 {
			count++
			checkMutation(t, dir, fields)
		}
		next := f.Fields
		if f.Elem != nil {
			next = append(next[:len(next):len(next)], f.Elem)
		}
		for _, sub := range next {
			visit(append(fields[:len(fields):len(fields)], sub))
		}
	}
	visit([]*shape.Field{language.Policy})
	if count < 150 {
		t.Errorf("mutated %d fields, want 150 or more", count)
	}
}

func checkMutation(t *testing.T, dir string, fields []*shape.Field) {
	f := fields[len(fields)-1]
	bad := "{zzz: 1}"
	if len(f.Fields) > 0 || f.Elem != nil || f.Key != nil {
		bad = "true"
	}
	text := strings.TrimSuffix(strings.TrimPrefix(mutate(fields, bad), "{\n"), "}")
	if err := os.WriteFile(filepath.Join(dir, "policy.cue"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, diags := Load(Options{Dir: dir, Args: []string{"policy.cue"}})
	path := strings.NewReplacer("[]", "[0]", ".NAME", ".x").Replace(f.Path)
	line := 1 + strings.Count(text[:strings.Index(text, bad)], "\n")
	if len(diags) != 1 || diags[0].Path != path || diags[0].Pos.File != "policy.cue" || diags[0].Pos.Line != line {
		t.Errorf("%s: got\n%swant one diagnostic at policy.cue:%d: %s, for\n%s", f.Path, diags, line, path, text)
	}
}

// TestTreeMatchesSchema compares the names of the Go tree with those of the schema, both ways.
func TestTreeMatchesSchema(t *testing.T) {
	language, err := shape.Get()
	if err != nil {
		t.Fatal(err)
	}
	inSchema := map[string]bool{}
	language.Walk(func(f *shape.Field) { inSchema[f.Path] = true })
	inTree := map[string]bool{}
	treePaths(reflect.TypeFor[policy.Policy](), "", inTree)
	for path := range inTree {
		if !inSchema[path] {
			t.Errorf("%s: in the tree, not in the schema", path)
		}
	}
	for path := range inSchema {
		if !inTree[path] && !strings.HasSuffix(path, "[]") && !strings.HasSuffix(path, ".NAME") {
			t.Errorf("%s: in the schema, not in the tree", path)
		}
	}
}

func treePaths(t reflect.Type, at string, paths map[string]bool) {
	switch {
	case strings.HasPrefix(t.Name(), "Val["):
		v, _ := t.FieldByName("V")
		t = v.Type
	case strings.HasPrefix(t.Name(), "List["):
		items, _ := t.FieldByName("Items")
		v, _ := items.Type.Elem().FieldByName("V")
		if t = v.Type; t.Kind() == reflect.Struct {
			if _, named := t.FieldByName("Name"); named && t.Name() != "Test" {
				at += ".NAME"
			} else {
				at += "[]"
			}
		}
	}
	if t.Kind() != reflect.Struct {
		return
	}
	for i := range t.NumField() {
		name, ok := t.Field(i).Tag.Lookup("policy")
		if !ok {
			continue
		}
		path := at
		if name != "" {
			path = strings.TrimPrefix(at+"."+name, ".")
			paths[path] = true
		}
		treePaths(t.Field(i).Type, path, paths)
	}
}
