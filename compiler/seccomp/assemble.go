package seccomp

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	netbpf "golang.org/x/net/bpf"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

// Assemble compiles a decision table. The numbers in hot are decided first where the table plainly allows them. The
// program has passed [bpf.Verify].
//
// Its parts, in order: another architecture is killed; on amd64, x32 numbers are split off; the hot numbers; a
// balanced search tree over the ranges of numbers, whose leaves are the entries' clauses.
func Assemble(arch abi.Arch, table []ir.SyscallEntry, hot []uint32) ([]byte, error) {
	insns, err := assemble(arch, table, hot)
	if err == nil && len(insns) > bpf.MaxInsns {
		err = fmt.Errorf("%d instructions, the kernel takes %d: use fewer rules on arguments", len(insns), bpf.MaxInsns)
	}
	if err != nil {
		return nil, fmt.Errorf("assemble seccomp filter for %s: %w", arch, err)
	}
	prog := bpf.Encode(insns)
	if err := bpf.Verify(prog, arch); err != nil {
		return nil, fmt.Errorf("assemble seccomp filter for %s: %w", arch, err)
	}
	return prog, nil
}

func assemble(arch abi.Arch, table []ir.SyscallEntry, hot []uint32) ([]bpf.Insn, error) {
	leaves, err := leavesOf(table)
	if err != nil {
		return nil, err
	}
	a := newAssembler()
	native, foreign := a.newLabel(), a.newLabel()
	a.load(bpf.OffArch, math.MaxUint32)
	a.branch(netbpf.JumpEqual, arch.Audit(), native, foreign)
	a.mark(foreign)
	a.ret(bpf.RetKillProcess)
	a.mark(native)
	a.load(bpf.OffNr, math.MaxUint32)
	if arch == abi.AMD64 {
		var x32 []ir.SyscallEntry
		leaves, x32 = cut(leaves, abi.X32Bit)
		foreignABI, rest := a.newLabel(), a.newLabel()
		a.branch(netbpf.JumpGreaterOrEqual, abi.X32Bit, foreignABI, rest)
		a.mark(foreignABI)
		if err := a.tree(x32); err != nil {
			return nil, err
		}
		a.mark(rest)
	}
	hot = plainlyAllowed(leaves, hot)
	a.hot(hot)
	if err := a.tree(withoutDecided(leaves, hot)); err != nil {
		return nil, err
	}
	return a.assemble()
}

// leavesOf checks a table and merges neighbours that decide alike: the filter needs no reasons.
func leavesOf(table []ir.SyscallEntry) ([]ir.SyscallEntry, error) {
	if len(table) == 0 || table[0].First != 0 {
		return nil, errors.New("the table does not begin at number 0")
	}
	var leaves []ir.SyscallEntry
	for i, e := range table {
		if i > 0 && e.First <= table[i-1].First {
			return nil, fmt.Errorf("table entry %d for number %d follows number %d", i, e.First, table[i-1].First)
		}
		e.Reason, e.Origin = "", 0
		leaves = appendEntry(leaves, e.First, e)
	}
	return leaves, nil
}

// cut splits leaves at a number.
func cut(leaves []ir.SyscallEntry, at uint32) (below, from []ir.SyscallEntry) {
	for _, e := range leaves {
		if e.First < at {
			below = append(below, e)
			from = []ir.SyscallEntry{e}
			from[0].First = at
			continue
		}
		if e.First == at {
			from = nil
		}
		from = append(from, e)
	}
	return below, from
}

// hot emits one comparison for each number, and one return that they share.
func (a *assembler) hot(numbers []uint32) {
	if len(numbers) == 0 {
		return
	}
	allow, rest := a.newLabel(), a.newLabel()
	last := len(numbers) - 1
	for _, nr := range numbers[:last] {
		next := a.newLabel()
		a.branch(netbpf.JumpEqual, nr, allow, next)
		a.mark(next)
	}
	a.branch(netbpf.JumpEqual, numbers[last], allow, rest)
	a.mark(allow)
	a.ret(bpf.RetAllow)
	a.mark(rest)
}

// plainlyAllowed returns the numbers, each once, that leaves allow whatever the arguments are.
func plainlyAllowed(leaves []ir.SyscallEntry, numbers []uint32) []uint32 {
	var allowed []uint32
	for _, nr := range numbers {
		at := sort.Search(len(leaves), func(i int) bool { return leaves[i].First > nr }) - 1
		plain := len(leaves[at].Clauses) == 0 && leaves[at].Action == ir.Allow
		if plain && !slices.Contains(allowed, nr) {
			allowed = append(allowed, nr)
		}
	}
	return allowed
}

// withoutDecided drops the leaves that decide nothing but hot numbers: no call would reach them.
func withoutDecided(leaves []ir.SyscallEntry, hot []uint32) []ir.SyscallEntry {
	var rest []ir.SyscallEntry
	first := uint32(0)
	for i, e := range leaves {
		decided := 0
		for _, nr := range hot {
			if nr >= e.First && i+1 < len(leaves) && nr < leaves[i+1].First {
				decided++
			}
		}
		if i+1 < len(leaves) && uint32(decided) == leaves[i+1].First-e.First {
			continue
		}
		if len(rest) > 0 {
			first = e.First
		}
		rest = appendEntry(rest, first, e)
	}
	return rest
}

// tree emits a binary search over leaves for the number in A.
func (a *assembler) tree(leaves []ir.SyscallEntry) error {
	if len(leaves) == 1 {
		return a.leaf(leaves[0])
	}
	middle := len(leaves) / 2
	left, right := a.newLabel(), a.newLabel()
	a.load(bpf.OffNr, math.MaxUint32)
	a.branch(netbpf.JumpGreaterOrEqual, leaves[middle].First, right, left)
	a.mark(left)
	if err := a.tree(leaves[:middle]); err != nil {
		return err
	}
	a.mark(right)
	return a.tree(leaves[middle:])
}

func (a *assembler) leaf(e ir.SyscallEntry) error {
	for i, c := range e.Clauses {
		if err := a.clause(c); err != nil {
			return fmt.Errorf("number %d: clause %d: %w", e.First, i, err)
		}
	}
	r, err := returnOf(e.Action)
	if err != nil {
		return fmt.Errorf("number %d: %w", e.First, err)
	}
	a.ret(r)
	return nil
}

// returnOf returns what a filter returns for an action.
func returnOf(action ir.Action) (bpf.Return, error) {
	switch {
	case action == ir.Allow:
		return bpf.RetAllow, nil
	case action == ir.Notify:
		return bpf.RetUserNotif, nil
	case action == ir.Kill:
		return bpf.RetKillProcess, nil
	case action.Kind == ir.ActErrno:
		if r := bpf.RetErrno | bpf.Return(action.Errno); r.Known() {
			return r, nil
		}
	}
	return 0, fmt.Errorf("no such action: kind %d, errno %d", action.Kind, action.Errno)
}
