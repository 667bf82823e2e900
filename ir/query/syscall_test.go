package query_test

import (
	"math"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

func TestHolds(t *testing.T) {
	const low = math.MaxUint32
	for _, tc := range []struct {
		op          ir.Op
		mask, value uint64
		arg         uint64
		want        bool
	}{
		{ir.OpEq, math.MaxUint64, 5, 5, true},
		{ir.OpEq, math.MaxUint64, 5, 1<<32 | 5, false},
		{ir.OpEq, low, 5, 1<<32 | 5, true},
		{ir.OpEq, 0, 0, 77, true},
		{ir.OpEq, 0, 1, 1, false},
		{ir.OpNe, low, 5, 1<<32 | 5, false},
		{ir.OpNe, math.MaxUint64, 5, 1<<32 | 5, true},
		{ir.OpLt, math.MaxUint64, 1 << 32, low, true},
		{ir.OpLt, math.MaxUint64, 1 << 32, 1 << 32, false},
		{ir.OpLt, math.MaxUint64, 0, 0, false},
		{ir.OpLe, math.MaxUint64, 1 << 32, 1 << 32, true},
		{ir.OpLe, math.MaxUint64, 1 << 32, 1<<32 + 1, false},
		{ir.OpGt, math.MaxUint64, low, 1 << 32, true},
		{ir.OpGt, low, 5, 1<<32 | 5, false},
		{ir.OpGt, math.MaxUint64, 1, 1 << 63, true}, // unsigned
		{ir.OpGe, math.MaxUint64, 1 << 63, 1 << 63, true},
		{ir.OpGe, math.MaxUint64, 1 << 63, 1<<63 - 1, false},
		{ir.OpSet, math.MaxUint64, 6, 2, true},
		{ir.OpSet, math.MaxUint64, 6, 9, false},
		{ir.OpSet, 4, 6, 2, false},
		{ir.OpSet, math.MaxUint64, 0, math.MaxUint64, false},
		{ir.OpSet, math.MaxUint64, 1 << 40, 1 << 40, true},
		{ir.Op(0), math.MaxUint64, 5, 5, false},
	} {
		got := query.Holds(ir.Cond{Op: tc.op, Mask: tc.mask, Value: tc.value}, tc.arg)
		if got != tc.want {
			t.Errorf("(%#x & %#x) op %d %#x: got %v, want %v", tc.arg, tc.mask, tc.op, tc.value, got, tc.want)
		}
	}
}

func TestSyscall(t *testing.T) {
	eq := func(arg uint8, v uint64) ir.Cond {
		return ir.Cond{Arg: arg, Op: ir.OpEq, Mask: math.MaxUint64, Value: v}
	}
	table := []ir.SyscallEntry{
		{First: 0, Action: ir.Allow},
		{First: 10, Action: ir.Errno(abi.EPERM), Reason: "denied", Origin: 3, Clauses: []ir.Clause{
			{Conds: []ir.Cond{eq(0, 1), eq(1, 2)}, Action: ir.Allow, Reason: "both", Origin: 4},
			{Conds: []ir.Cond{eq(0, 1)}, Action: ir.Notify, Reason: "first"},
			{Conds: []ir.Cond{eq(6, 0)}, Action: ir.Allow, Reason: "no such argument"},
		}},
		{First: 11, Action: ir.Errno(abi.ENOSYS), Reason: "unknown"},
	}
	for _, tc := range []struct {
		nr   uint32
		args [6]uint64
		want query.Decision
	}{
		{0, [6]uint64{}, query.Decision{Action: ir.Allow, Entry: 0, Clause: query.EntryAction}},
		{9, [6]uint64{1, 2}, query.Decision{Action: ir.Allow, Entry: 0, Clause: query.EntryAction}},
		{10, [6]uint64{1, 2}, query.Decision{Action: ir.Allow, Reason: "both", Origin: 4, Entry: 1, Clause: 0}},
		{10, [6]uint64{1, 3}, query.Decision{Action: ir.Notify, Reason: "first", Entry: 1, Clause: 1}},
		{10, [6]uint64{2, 2}, query.Decision{Action: ir.Errno(abi.EPERM), Reason: "denied", Origin: 3, Entry: 1, Clause: query.EntryAction}},
		{11, [6]uint64{}, query.Decision{Action: ir.Errno(abi.ENOSYS), Reason: "unknown", Entry: 2, Clause: query.EntryAction}},
		{math.MaxUint32, [6]uint64{}, query.Decision{Action: ir.Errno(abi.ENOSYS), Reason: "unknown", Entry: 2, Clause: query.EntryAction}},
	} {
		if got := query.Syscall(table, tc.nr, tc.args); got != tc.want {
			t.Errorf("number %d, arguments %v: got %+v, want %+v", tc.nr, tc.args, got, tc.want)
		}
	}
	for _, bad := range [][]ir.SyscallEntry{nil, {{First: 1, Action: ir.Allow}}} {
		if got := query.Syscall(bad, 0, [6]uint64{}); got.Action != ir.Kill {
			t.Errorf("a table that does not cover number 0: got %+v, want kill", got)
		}
	}
}
