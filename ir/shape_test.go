package ir

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

var update = flag.Bool("update", false, "write the payload's shape into docs/artifact.md")

// TestShape holds the description of the format in docs/artifact.md to the types. A difference there is a change of
// the format: see "Changing it" in that file.
func TestShape(t *testing.T) {
	const doc, begin, end = "../docs/artifact.md", "```cddl\n", "```\n"
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no block of CDDL", doc)
	}
	want := shape(reflect.TypeFor[Program]())
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s: got\n%s\nwant\n%s", doc, got, want)
	}
	if err := os.WriteFile(doc, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// shape describes a type and the types that it uses, each after its first user.
func shape(root reflect.Type) string {
	var b strings.Builder
	queue, seen := []reflect.Type{root}, map[reflect.Type]bool{root: true}
	use := func(t reflect.Type) string {
		name, isStruct := cddl(t)
		for t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if isStruct && !seen[t] {
			seen[t] = true
			queue = append(queue, t)
		}
		return name
	}
	for ; len(queue) > 0; queue = queue[1:] {
		t := queue[0]
		b.WriteString(snake(t.Name()) + " = ")
		var fields []string
		open, closing := "{", "}"
		for i := range t.NumField() {
			f := t.Field(i)
			tag := strings.Split(f.Tag.Get("cbor"), ",")
			if f.Name == "_" {
				open, closing = "[", "]"
				continue
			}
			field := snake(f.Name) + ": " + use(f.Type)
			if tag[0] != "" {
				// A struct is never empty to a CBOR library: it is always written.
				optional := len(tag) > 2 && tag[2] == "omitempty" && f.Type.Kind() != reflect.Struct
				field = fmt.Sprintf("%s => %s  ; %s", tag[0], use(f.Type), snake(f.Name))
				if optional {
					field = "? " + field
				}
			}
			fields = append(fields, field)
		}
		if open == "[" {
			fmt.Fprintf(&b, "[%s]\n", strings.Join(fields, ", "))
			continue
		}
		b.WriteString(open + "\n")
		for _, f := range fields {
			b.WriteString("  " + f + "\n")
		}
		b.WriteString(closing + "\n")
	}
	return b.String()
}

func cddl(t reflect.Type) (name string, isStruct bool) {
	switch t.Kind() {
	case reflect.String:
		return "tstr", false
	case reflect.Bool:
		return "bool", false
	case reflect.Struct:
		return snake(t.Name()), true
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bstr", false
		}
		name, isStruct = cddl(t.Elem())
		return "[* " + name + "]", isStruct
	}
	return fmt.Sprintf("uint .size %d", t.Bits()/8), false
}

// snake writes a Go name as the rest of the project writes fields: TimeMS is time_ms.
func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		startsWord := i > 0 && unicode.IsUpper(r) && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
		if startsWord {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
