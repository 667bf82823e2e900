package query

import (
	"sort"

	"github.com/sandlock-go/sandlock/ir"
)

// EntryAction is the [Decision.Clause] of a decision that no clause made.
const EntryAction = -1

// Decision is what a table says about one system call.
type Decision struct {
	Action ir.Action
	Reason string
	Origin ir.OriginRef
	Entry  int // index into the table
	Clause int // index into the entry's clauses, or EntryAction
}

// Syscall is the reference decision: the outcome of a decision table for a number and its six register arguments.
// The compiled filter is proven equal to it (compiler/seccomp/seccomptest).
func Syscall(table []ir.SyscallEntry, nr uint32, args [6]uint64) Decision {
	next := sort.Search(len(table), func(i int) bool { return table[i].First > nr })
	if next == 0 {
		return Decision{Action: ir.Kill, Reason: "the table does not cover this number", Entry: -1, Clause: EntryAction}
	}
	at := next - 1
	entry := &table[at]
	for i := range entry.Clauses {
		if c := &entry.Clauses[i]; allHold(c.Conds, args) {
			return Decision{c.Action, c.Reason, c.Origin, at, i}
		}
	}
	return Decision{entry.Action, entry.Reason, entry.Origin, at, EntryAction}
}

func allHold(conds []ir.Cond, args [6]uint64) bool {
	for _, c := range conds {
		if int(c.Arg) >= len(args) || !Holds(c, args[c.Arg]) {
			return false
		}
	}
	return true
}

// Holds evaluates one condition for the value of its argument.
func Holds(c ir.Cond, arg uint64) bool {
	arg &= c.Mask
	switch c.Op {
	case ir.OpEq:
		return arg == c.Value
	case ir.OpNe:
		return arg != c.Value
	case ir.OpLt:
		return arg < c.Value
	case ir.OpLe:
		return arg <= c.Value
	case ir.OpGt:
		return arg > c.Value
	case ir.OpGe:
		return arg >= c.Value
	case ir.OpSet:
		return arg&c.Value != 0
	}
	return false
}
