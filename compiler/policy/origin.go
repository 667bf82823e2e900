package policy

import (
	"strconv"

	"github.com/sandlock-go/sandlock/ir"
)

// Place is a position in a policy's source. File is relative to the module root, or to the policy's directory where
// there is no module; "-" is standard input. Files of the embedded module begin with its path.
type Place struct {
	File string
	Line int
	Col  int
}

// String returns file:line:col, the form that editors jump to.
func (p Place) String() string {
	if p.File == "" {
		return "-"
	}
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Col)
}

// Compare orders places by file, line and column.
func (p Place) Compare(q Place) int {
	switch {
	case p.File < q.File:
		return -1
	case p.File > q.File:
		return 1
	case p.Line != q.Line:
		return p.Line - q.Line
	}
	return p.Col - q.Col
}

// Origin says who wrote a value, and where.
type Origin struct {
	Place
	Path string        // policy path, such as "filesystem.read[2]"
	Kind ir.OriginKind // user, preset or default; never derived (lowering makes those)
	Also []Place       // further places that wrote the same value, or the expression through which it was taken
}

// Val is one value and who wrote it. Set is false for a value of the schema's default layer and for an absent
// optional field; an absent one holds the zero value, and its Origin has only a Path and OriginDefault.
type Val[T any] struct {
	V      T
	Set    bool
	Origin Origin
}

// List is a list and who wrote it. Set tells a written empty list from an absent one. Elements of a map section
// (params, env, hosts, credentials) are a List sorted by name.
type List[T any] struct {
	Items  []Val[T]
	Set    bool
	Origin Origin
}

// Values returns the plain elements.
func (l List[T]) Values() []T {
	if len(l.Items) == 0 {
		return nil
	}
	vs := make([]T, len(l.Items))
	for i, it := range l.Items {
		vs[i] = it.V
	}
	return vs
}
