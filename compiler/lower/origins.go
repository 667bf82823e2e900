package lower

import (
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

// origins collects the places that a program refers to, each once, in the order of first use.
type origins struct {
	index map[ir.Origin]ir.OriginRef
}

// ref returns the reference to a place of the policy.
func (u *Unit) ref(o policy.Origin) ir.OriginRef {
	return u.intern(o, o.Kind)
}

// derived returns the reference for something that the policy implies at a place.
func (u *Unit) derived(o policy.Origin) ir.OriginRef {
	return u.intern(o, ir.OriginDerived)
}

func (u *Unit) intern(o policy.Origin, kind ir.OriginKind) ir.OriginRef {
	if kind == 0 {
		return 0 // a value that no layer wrote
	}
	entry := ir.Origin{File: o.File, Line: uint32(max(o.Line, 0)), Col: uint32(max(o.Col, 0)), Path: o.Path, Kind: kind}
	if ref, ok := u.origins.index[entry]; ok {
		return ref
	}
	if u.origins.index == nil {
		u.origins.index = map[ir.Origin]ir.OriginRef{}
	}
	u.Program.Origins = append(u.Program.Origins, entry)
	ref := ir.OriginRef(len(u.Program.Origins))
	u.origins.index[entry] = ref
	return ref
}

// At turns a reference back into the place, for messages about what was lowered.
func (u *Unit) At(ref ir.OriginRef) policy.Origin {
	o, ok := u.Program.Origin(ref)
	if !ok {
		return policy.Origin{}
	}
	return policy.Origin{Place: policy.Place{File: o.File, Line: int(o.Line), Col: int(o.Col)}, Path: o.Path, Kind: o.Kind}
}
