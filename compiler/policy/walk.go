package policy

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/sandlock-go/sandlock/ir"
)

// Item is what [Walk] visits: a value, a list (before its elements), or an absent optional field.
type Item struct {
	Value  any // of the Val; nil for a list
	Set    bool
	Origin Origin // Path is always filled in
}

// leaf is implemented by every Val, list by every List.
type leaf interface {
	item() Item
}

type list interface {
	header() Item
}

func (v Val[T]) item() Item    { return Item{Value: v.V, Set: v.Set, Origin: v.Origin} }
func (l List[T]) header() Item { return Item{Set: l.Set, Origin: l.Origin} }
func isSection(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for i := range t.NumField() {
		if _, ok := t.Field(i).Tag.Lookup("policy"); ok {
			return true
		}
	}
	return false
}

// Walk visits every field of the tree in the order of the types, whether it is set or not. Lists are visited
// before their elements.
func Walk(p *Policy, visit func(Item)) { walkSection(reflect.ValueOf(p).Elem(), visit) }

func walkSection(v reflect.Value, visit func(Item)) {
	for i := range v.NumField() {
		if _, ok := v.Type().Field(i).Tag.Lookup("policy"); ok {
			walkValue(v.Field(i), visit)
		}
	}
}

func walkValue(v reflect.Value, visit func(Item)) {
	switch x := v.Interface().(type) {
	case list:
		visit(x.header())
		items := v.FieldByName("Items")
		for i := range items.Len() {
			walkValue(items.Index(i), visit)
		}
	case leaf:
		if inner := v.FieldByName("V"); isSection(inner.Type()) {
			walkSection(inner, visit)
			return
		}
		visit(x.item())
	default:
		walkSection(v, visit)
	}
}

// Dump prints every value of the tree, one a line: path, value, place. Absent fields are left out, values of the
// default layer are marked. It is the text of tests and of debugging, not of goldens.
func Dump(p *Policy) string {
	var b strings.Builder
	Walk(p, func(it Item) {
		absent := !it.Set && it.Origin.File == ""
		if it.Value == nil || absent {
			return
		}
		fmt.Fprintf(&b, "%s = %s", it.Origin.Path, Text(it.Value))
		switch it.Origin.Kind {
		case ir.OriginDefault:
			b.WriteString(" (default)")
		case ir.OriginPreset:
			fmt.Fprintf(&b, "  %s (preset)", it.Origin.Place)
		default:
			fmt.Fprintf(&b, "  %s", it.Origin.Place)
		}
		for _, also := range it.Origin.Also {
			fmt.Fprintf(&b, ", %s", also)
		}
		b.WriteByte('\n')
	})
	return b.String()
}

// Text returns a value as policies write it: strings quoted, sizes in bytes, durations and times in their notation.
func Text(v any) string {
	switch x := v.(type) {
	case string:
		return strconv.Quote(x)
	case time.Time:
		return strconv.Quote(x.Format(time.RFC3339Nano))
	case fmt.Stringer:
		return strconv.Quote(x.String())
	}
	return fmt.Sprint(v)
}
