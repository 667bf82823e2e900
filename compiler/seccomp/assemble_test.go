package seccomp_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/compiler/seccomp/seccomptest"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

// oneCall is a table that decides number 5 by clauses and allows the rest.
func oneCall(clauses ...ir.Clause) []ir.SyscallEntry {
	return []ir.SyscallEntry{
		{First: 0, Action: ir.Allow},
		{First: 5, Clauses: clauses, Action: ir.Errno(abi.EACCES)},
		{First: 6, Action: ir.Allow},
		{First: 1000, Action: ir.Errno(abi.ENOSYS)},
	}
}

// Every comparison, with masks and values whose halves are zero, equal to the mask, or neither.
func TestConditions(t *testing.T) {
	const low = math.MaxUint32
	masks := []uint64{0, 1, low, 0xf, 1 << 32, low << 32, 0xf << 36, math.MaxUint64, 0xff00000000ff, 1<<63 | 1}
	values := []uint64{0, 1, 5, low, 1 << 32, 5<<32 | 5, low << 32, 1<<63 | 1, 1 << 36, 0xff00000000ff, math.MaxUint64}
	for op := ir.OpEq; op <= ir.OpSet; op++ {
		for _, mask := range masks {
			for _, value := range values {
				table := oneCall(ir.Clause{
					Conds:  []ir.Cond{{Arg: 3, Op: op, Mask: mask, Value: value}},
					Action: ir.Notify,
				})
				prog, err := seccomp.Assemble(abi.ARM64, table, nil)
				if err != nil {
					t.Fatalf("op %d, mask %#x, value %#x: %v", op, mask, value, err)
				}
				var r recorder
				seccomptest.Prove(&r, abi.ARM64, table, prog)
				if r > 0 {
					insns, _ := bpf.Decode(prog)
					t.Errorf("op %d, mask %#x, value %#x: %d failures:\n%s", op, mask, value, r, bpf.Disassemble(insns, abi.ARM64))
				}
			}
		}
	}
}

// Only the half that a mask selects is loaded.
func TestUnmaskedHalvesAreNotLoaded(t *testing.T) {
	for _, tc := range []struct {
		mask  uint64
		wants []string
		not   []string
	}{
		{math.MaxUint32, []string{"arg2.lo"}, []string{"arg2.hi", "and"}},
		{math.MaxUint32 << 32, []string{"arg2.hi"}, []string{"arg2.lo", "and"}},
		{math.MaxUint64, []string{"arg2.lo", "arg2.hi"}, []string{"and"}},
		{0xf, []string{"arg2.lo", "and  0xf"}, []string{"arg2.hi"}},
	} {
		table := oneCall(ir.Clause{Conds: []ir.Cond{{Arg: 2, Op: ir.OpEq, Mask: tc.mask, Value: tc.mask}}, Action: ir.Allow})
		prog, err := seccomp.Assemble(abi.ARM64, table, nil)
		if err != nil {
			t.Fatal(err)
		}
		insns, _ := bpf.Decode(prog)
		text := bpf.Disassemble(insns, abi.ARM64)
		for _, want := range tc.wants {
			if !strings.Contains(text, want) {
				t.Errorf("mask %#x: got:\n%s\nwant %q in it", tc.mask, text, want)
			}
		}
		for _, not := range tc.not {
			if strings.Contains(text, not) {
				t.Errorf("mask %#x: got:\n%s\nwant no %q in it", tc.mask, text, not)
			}
		}
	}
}

// Jumps beyond the 255 instructions that a conditional jump reaches: over many clauses, over the conditions of one
// clause, and both at once, at each length around the limit.
func TestLongJumps(t *testing.T) {
	clause := func(n, base int) ir.Clause {
		c := ir.Clause{Action: ir.Notify}
		for i := range n {
			c.Conds = append(c.Conds, ir.Cond{Arg: uint8(i % 6), Op: ir.OpNe, Mask: math.MaxUint32, Value: uint64(base + i)})
		}
		return c
	}
	var equals []ir.Clause
	for i := range 130 {
		equals = append(equals, ir.Clause{
			Conds:  []ir.Cond{{Arg: uint8(i % 6), Op: ir.OpEq, Mask: math.MaxUint64, Value: uint64(i) << 32}},
			Action: ir.Errno(abi.Errno(i + 1)),
		})
	}
	tables := map[string][]ir.SyscallEntry{
		"clauses": oneCall(equals...),
		"both":    oneCall(clause(130, 1), clause(140, 1000)),
	}
	for n := 122; n < 130; n++ { // two instructions a condition
		tables[fmt.Sprint(n, " conditions")] = oneCall(clause(n, 1))
	}
	for name, table := range tables {
		prog, err := seccomp.Assemble(abi.AMD64, table, []uint32{0, 1, 7})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var r recorder
		seccomptest.ProveDecisions(&r, abi.AMD64, table, prog)
		if r > 0 {
			insns, _ := bpf.Decode(prog)
			t.Errorf("%s: %d failures:\n%s", name, r, bpf.Disassemble(insns, abi.AMD64))
		}
	}
}

// Rules on arguments by the hundred still compile; beyond the kernel's limit there is an error, not a filter.
func TestProgramLength(t *testing.T) {
	rules := func(n int) seccomp.Request {
		var req seccomp.Request
		for i := range n {
			req.Args = append(req.Args, seccomp.ArgRule{
				Syscall: "mmap", Arg: 2, Op: ir.OpEq, Value: uint64(i) << 32, Then: seccomp.Then(1 + i%2),
			})
		}
		return req
	}
	for _, a := range abi.Arches {
		table := mustTable(t, a, rules(600))
		prog := mustAssemble(t, a, table)
		t.Logf("%s: 600 rules: %d instructions", a, len(prog)/bpf.InsnSize)
		seccomptest.ProveDecisions(t, a, table, prog)

		_, err := seccomp.Assemble(a, mustTable(t, a, rules(3000)), nil)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint(bpf.MaxInsns)) {
			t.Errorf("%s: 3000 rules: got error %v, want one that names the limit %d", a, err, bpf.MaxInsns)
		}
	}
}

func TestHotNumbersComeFirst(t *testing.T) {
	table := mustTable(t, abi.AMD64, seccomp.Request{ProcessLimit: true})
	clone, _ := abi.SyscallNumber(abi.AMD64, "clone")
	mount, _ := abi.SyscallNumber(abi.AMD64, "mount")
	// Only what the table plainly allows may be hot; asking for more changes nothing.
	hot := append(seccomp.Hot(abi.AMD64), clone, mount, abi.X32Bit, 5000, seccomp.Hot(abi.AMD64)[0])
	prog, err := seccomp.Assemble(abi.AMD64, table, hot)
	if err != nil {
		t.Fatal(err)
	}
	seccomptest.Prove(t, abi.AMD64, table, prog)
	insns, err := bpf.Decode(prog)
	if err != nil {
		t.Fatal(err)
	}
	for i, nr := range seccomp.Hot(abi.AMD64) {
		if got := insns[6+i]; got.Code != bpf.Jeq || got.K != nr {
			t.Errorf("instruction %d: got %+v, want a comparison with %d", 6+i, got, nr)
		}
	}
}

func TestAssembleRefuses(t *testing.T) {
	good := ir.SyscallEntry{Action: ir.Allow}
	clause := func(c ir.Cond) []ir.SyscallEntry { return oneCall(ir.Clause{Conds: []ir.Cond{c}, Action: ir.Allow}) }
	for name, tc := range map[string]struct {
		arch  abi.Arch
		table []ir.SyscallEntry
		want  string
	}{
		"empty table":          {abi.ARM64, nil, "number 0"},
		"gap at the start":     {abi.ARM64, []ir.SyscallEntry{{First: 1, Action: ir.Allow}}, "number 0"},
		"unsorted":             {abi.ARM64, []ir.SyscallEntry{good, {First: 9, Action: ir.Kill}, {First: 8, Action: ir.Allow}}, "follows"},
		"doubled":              {abi.ARM64, []ir.SyscallEntry{good, good}, "follows"},
		"no action":            {abi.ARM64, []ir.SyscallEntry{{}}, "no such action"},
		"success as an error":  {abi.ARM64, []ir.SyscallEntry{{Action: ir.Action{Kind: ir.ActErrno}}}, "no such action"},
		"errno 4096":           {abi.ARM64, []ir.SyscallEntry{{Action: ir.Errno(4096)}}, "no such action"},
		"allow with errno":     {abi.ARM64, []ir.SyscallEntry{{Action: ir.Action{Kind: ir.ActAllow, Errno: 1}}}, "no such action"},
		"bad clause action":    {abi.ARM64, oneCall(ir.Clause{}), "clause 0"},
		"seventh argument":     {abi.ARM64, clause(ir.Cond{Arg: 6, Op: ir.OpEq}), "argument 6"},
		"no comparison":        {abi.ARM64, clause(ir.Cond{}), "comparison 0"},
		"unknown comparison":   {abi.ARM64, clause(ir.Cond{Op: 8}), "comparison 8"},
		"unknown architecture": {abi.Arch(7), []ir.SyscallEntry{good}, "unknown architecture"},
		"x32 allowed":          {abi.AMD64, []ir.SyscallEntry{good}, "x32"},
		"x32 notified":         {abi.AMD64, []ir.SyscallEntry{good, {First: abi.X32Bit, Action: ir.Kill}, {First: abi.X32Bit + 9, Action: ir.Notify}}, "x32"},
		"x32 by arguments": {abi.AMD64, []ir.SyscallEntry{good, {First: abi.X32Bit, Action: ir.Kill, Clauses: []ir.Clause{
			{Conds: []ir.Cond{{Op: ir.OpEq, Mask: 1}}, Action: ir.Allow}}}}, "x32"},
	} {
		if _, err := seccomp.Assemble(tc.arch, tc.table, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, tc.want)
		}
	}
}

// The same request gives the same bytes.
func TestDeterministic(t *testing.T) {
	for name, req := range requests() {
		for _, a := range abi.Arches {
			first, second := mustAssemble(t, a, mustTable(t, a, req)), mustAssemble(t, a, mustTable(t, a, req))
			if string(first) != string(second) {
				t.Errorf("%s, %s: two compilations differ", name, a)
			}
		}
	}
}
