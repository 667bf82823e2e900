package gendoc

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"cuelang.org/go/cue/cuecontext"

	"github.com/sandlock-go/sandlock/schema/shape"
)

func TestReferenceIsFresh(t *testing.T) {
	want, err := Markdown()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("docs/policy.md is stale: run go generate ./schema")
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	language, err := shape.Get()
	if err != nil {
		t.Fatal(err)
	}
	reference, err := Markdown()
	if err != nil {
		t.Fatal(err)
	}
	fields := 0
	language.Walk(func(f *shape.Field) {
		if f.Name == "" || f.Name == "NAME" {
			return
		}
		fields++
		if f.Doc == "" || !strings.HasSuffix(f.Doc, ".") {
			t.Errorf("%s: comment is %q, want a sentence", f.Path, f.Doc)
		}
		if !strings.Contains(string(reference), "`"+f.Path+"`") {
			t.Errorf("%s: not in the reference", f.Path)
		}
	})
	if fields < 120 {
		t.Errorf("walked %d fields, want 120 or more", fields)
	}
	for _, name := range language.Names {
		if language.Definitions[name].Doc == "" {
			t.Errorf("%s: no comment", name)
		}
	}
}

func TestJSONSchema(t *testing.T) {
	text, err := JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	var root struct {
		Defs map[string]map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	limits, _ := root.Defs["Limits"]["properties"].(map[string]any)
	cpu, _ := limits["cpu"].(map[string]any)
	if cpu["minimum"] != 1.0 || cpu["maximum"] != 100.0 || cpu["type"] != "integer" {
		t.Errorf("limits.cpu: got %v", cpu)
	}
	processes, _ := limits["processes"].(map[string]any)
	if processes["default"] != 64.0 {
		t.Errorf("limits.processes: got %v, want the default 64", processes)
	}
	if root.Defs["Policy"]["additionalProperties"] != false {
		t.Error("Policy allows additional properties")
	}
	for _, ref := range references(text) {
		if root.Defs[ref] == nil {
			t.Errorf("reference to %s, which is not defined", ref)
		}
	}
}

func references(text []byte) (names []string) {
	for _, part := range strings.Split(string(text), `"#/$defs/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		names = append(names, name)
	}
	return names
}

func TestCUEIsOneValidFile(t *testing.T) {
	text, err := CUE()
	if err != nil {
		t.Fatal(err)
	}
	ctx := cuecontext.New()
	if err := ctx.CompileBytes(text).Err(); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
}
