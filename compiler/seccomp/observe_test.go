package seccomp_test

import (
	"slices"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

func TestObserveTable(t *testing.T) {
	for name, req := range requests() {
		for _, a := range abi.Arches {
			table := mustTable(t, a, req)
			observed, calls := seccomp.ObserveTable(a, table)
			if !slices.IsSorted(calls) || len(calls) < 14 {
				t.Errorf("%s: got observed calls %v, want at least 14, sorted", a, calls)
			}
			for nr := range uint32(1024) {
				for _, args := range [][6]uint64{{}, {2, 1, 0}, {1, 2, 6}, {17, 0x5412}, {0x10000, 5}, {0x10000000, 3}, {4, 12, 12}} {
					checkObserved(t, name, a, nr, args, slices.Contains(calls, nr), table, observed)
				}
			}
			for _, nr := range []uint32{abi.X32Bit, abi.X32Bit | 2, 0xffffffff} {
				plain, seen := query.Syscall(table, nr, [6]uint64{}), query.Syscall(observed, nr, [6]uint64{})
				if plain.Action != seen.Action {
					t.Errorf("%s, %s: number %#x: got %+v, want %+v", name, a, nr, seen.Action, plain.Action)
				}
			}
		}
	}
}

func checkObserved(t *testing.T, name string, a abi.Arch, nr uint32, args [6]uint64, watched bool, table, observed []ir.SyscallEntry) {
	t.Helper()
	plain, seen := query.Syscall(table, nr, args).Action, query.Syscall(observed, nr, args).Action
	want := plain
	switch {
	case plain == ir.Allow && watched, plain == eperm, plain == eacces, plain == kill:
		want = ir.Notify
	}
	if seen != want {
		t.Errorf("%s, %s: number %d, arguments %v: got %+v, want %+v (the filter itself says %+v)", name, a, nr, args, seen, want, plain)
	}
}

func TestObserveTableLeavesItsInputAlone(t *testing.T) {
	table := mustTable(t, abi.AMD64, seccomp.Request{ProcessLimit: true})
	again := mustTable(t, abi.AMD64, seccomp.Request{ProcessLimit: true})
	seccomp.ObserveTable(abi.AMD64, table)
	if !slices.EqualFunc(table, again, func(x, y ir.SyscallEntry) bool {
		return x.First == y.First && x.Action == y.Action && slices.EqualFunc(x.Clauses, y.Clauses, func(x, y ir.Clause) bool {
			return x.Action == y.Action && x.Reason == y.Reason
		})
	}) {
		t.Error("ObserveTable changed the table that it was given")
	}
}
