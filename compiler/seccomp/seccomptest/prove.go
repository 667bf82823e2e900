// Package seccomptest proves that a seccomp filter decides what its table says.
//
// In: a decision table and the program that was compiled from it. It runs the program on the interpreter of ir/bpf
// and compares with the reference decision of ir/query: for every number from 0 to 1023, at each boundary of the
// table, in the x32 range and at the ends, for arguments at the corners of every condition, and for foreign
// architectures. The corners are derived from the table, so a new rule is tested without a new test. It also demands
// that the runs together execute every instruction: what no call reaches is a mistake, or hides one.
//
// It is a package of its own because the tests of this compiler, of the policies and of the executor all use it.
package seccomptest

import (
	"slices"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
	"github.com/sandlock-go/sandlock/ir/query"
)

// TB is the part of testing.TB that a proof needs.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
}

// maxFailures bounds the output: one wrong jump fails thousands of calls.
const maxFailures = 10

// Prove reports every way in which prog, a program for arch, differs from table, and every instruction that no call
// reaches.
func Prove(t TB, arch abi.Arch, table []ir.SyscallEntry, prog []byte) {
	t.Helper()
	if p := newProof(t, arch, table, prog); p != nil {
		p.bound = thorough
		p.decisions()
		p.foreign()
		p.coverage()
	}
}

// ProveDecisions is a quicker [Prove] that does not demand that every instruction is reached. It is for random tables,
// where a clause can contradict itself or the ones before it.
func ProveDecisions(t TB, arch abi.Arch, table []ir.SyscallEntry, prog []byte) {
	t.Helper()
	if p := newProof(t, arch, table, prog); p != nil {
		p.bound = brief
		p.decisions()
		p.foreign()
	}
}

type proof struct {
	t        TB
	arch     abi.Arch
	table    []ir.SyscallEntry
	insns    []bpf.Insn
	machine  *bpf.Machine
	bound    int // argument tuples for one number
	failures int
}

func newProof(t TB, arch abi.Arch, table []ir.SyscallEntry, prog []byte) *proof {
	t.Helper()
	if err := bpf.Verify(prog, arch); err != nil {
		t.Errorf("%v", err)
		return nil
	}
	insns, err := bpf.Decode(prog)
	if err != nil {
		t.Errorf("%v", err)
		return nil
	}
	return &proof{t: t, arch: arch, table: table, insns: insns, machine: bpf.NewMachine(insns)}
}

func (p *proof) failf(format string, args ...any) {
	p.t.Helper()
	p.failures++
	if p.failures <= maxFailures {
		p.t.Errorf(format, args...)
	}
}

// decisions compares every interesting call with the table.
func (p *proof) decisions() {
	seen := make([]bool, len(p.table))
	for _, nr := range numbers(p.table) {
		if p.failures > maxFailures {
			return
		}
		at := query.Syscall(p.table, nr, [6]uint64{}).Entry
		entry := p.table[at]
		bound := p.bound
		if seen[at] {
			bound = 0 // one number of an entry is enough; the others only show that they arrive there as well
		}
		forArguments(entry.Clauses, bound, func(args [6]uint64) { p.call(nr, args) })
		seen[at] = true
		// Plainly allowed calls must be decided by the kernel's allow cache, without running the program.
		plain := len(entry.Clauses) == 0 && entry.Action == ir.Allow
		if plain && !bpf.ConstAllow(p.insns, p.arch.Audit(), nr) {
			p.failf("%s: number %d is allowed, but not by number alone", p.arch, nr)
		}
	}
}

func (p *proof) call(nr uint32, args [6]uint64) {
	d := bpf.Data{Nr: nr, Arch: p.arch.Audit(), IP: 0x7fff_0000_dead_beef, Args: args}
	got, err := p.machine.Run(&d)
	want := query.Syscall(p.table, nr, args)
	if err != nil || got != returnOf(want.Action) {
		name, _ := abi.SyscallName(p.arch, nr)
		p.failf("%s: number %d (%s), arguments %#x: program returns %v (%v), table entry %d clause %d says %v",
			p.arch, nr, name, args, got, err, want.Entry, want.Clause, returnOf(want.Action))
	}
}

// foreign wants calls of every other architecture to be killed.
func (p *proof) foreign() {
	const i386, arm = 0x40000003, 0x40000028
	own := p.arch.Audit()
	arches := []uint32{0, 1, i386, arm, own ^ 1, own ^ 0x80000000, own + 1, own - 1, 0xffffffff}
	for _, a := range abi.Arches {
		if a != p.arch {
			arches = append(arches, a.Audit())
		}
	}
	for _, audit := range arches {
		for _, nr := range []uint32{0, 1, 2, 57, 59, 220, 221, 435, 1023, abi.X32Bit, 0xffffffff} {
			got, err := p.machine.Run(&bpf.Data{Nr: nr, Arch: audit})
			if err != nil || got != bpf.RetKillProcess {
				p.failf("%s: number %d of architecture %#x: got %v (%v), want kill", p.arch, nr, audit, got, err)
			}
		}
	}
}

func (p *proof) coverage() {
	if missed := p.machine.Uncovered(); len(missed) > 0 {
		p.failf("%s: no call reaches instructions %v of %d:\n%s",
			p.arch, missed, len(p.insns), bpf.Disassemble(p.insns, p.arch))
	}
}

// numbers returns the system call numbers to try, sorted.
func numbers(table []ir.SyscallEntry) []uint32 {
	var all []uint32
	for nr := range uint32(1024) {
		all = append(all, nr, nr|abi.X32Bit)
	}
	for _, e := range table {
		all = append(all, e.First-1, e.First, e.First+1)
	}
	all = append(all, abi.X32Bit-1, 0x7fffffff, 0x80000000, 0xc0000000, 0xfffffffe, 0xffffffff)
	slices.Sort(all)
	return slices.Compact(all)
}

// returnOf maps an action to what a filter returns. It stands beside the compiler's own mapping on purpose: a proof
// must not share the code that it checks.
func returnOf(a ir.Action) bpf.Return {
	switch a.Kind {
	case ir.ActAllow:
		return 0x7fff0000
	case ir.ActErrno:
		return 0x00050000 | bpf.Return(a.Errno)
	case ir.ActNotify:
		return 0x7fc00000
	case ir.ActKill:
		return 0x80000000
	}
	return 0
}
