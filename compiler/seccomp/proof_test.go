package seccomp_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/compiler/seccomp/seccomptest"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
	"github.com/sandlock-go/sandlock/ir/query"
)

// requests returns the combinations of options that meet in one gate or one rule.
func requests() map[string]seccomp.Request {
	all := map[string]seccomp.Request{
		"everything named": {
			ProcessLimit: true, WriteGrants: true, UDP: true, ICMP: true, UnixSockets: true, Destinations: true, BranchFS: true,
			BindPorts:   seccomp.BindListed,
			AllowGroups: []seccomp.Named{{Name: "sysv_ipc", Origin: 1}, {Name: "posix_mq"}, {Name: "file_metadata"}},
			Deny:        []seccomp.Named{{Name: "openat", Origin: 2}, {Name: "clone"}, {Name: "read"}, {Name: "sysv_ipc"}},
			Args:        argRules,
			Traps:       traps,
		},
		"argument rules": {Args: argRules},
		"traps":          {Traps: traps, UDP: true, UnixSockets: true},
	}
	for i := range 24 {
		all[fmt.Sprintf("sockets %d", i)] = seccomp.Request{
			UDP: i&1 != 0, ICMP: i&2 != 0, UnixSockets: i&4 != 0, Destinations: i&1 != 0, BindPorts: seccomp.BindPorts(i / 8),
		}
	}
	for i := range 16 {
		all[fmt.Sprintf("processes %d", i)] = seccomp.Request{
			NoSupervisor: i&1 != 0, ProcessLimit: i&2 != 0, WriteGrants: i&4 != 0, OnDeny: seccomp.OnDeny(i >> 3),
			BindPorts: seccomp.BindListed,
		}
	}
	return all
}

var argRules = []seccomp.ArgRule{
	{Syscall: "personality", Arg: 0, Op: ir.OpNe, Value: math.MaxUint32, Then: seccomp.ThenDeny, Origin: 3},
	{Syscall: "madvise", Arg: 2, Op: ir.OpEq, Value: 12, Then: seccomp.ThenDeny},
	{Syscall: "socket", Arg: 1, Op: ir.OpSet, Value: 0x80000, Then: seccomp.ThenAllow, Origin: 4},
	{Syscall: "socket", Arg: 2, Op: ir.OpEq, Value: 77, Mask: math.MaxUint32, Then: seccomp.ThenAllow, Origin: 5},
	{Syscall: "mprotect", Arg: 2, Op: ir.OpSet, Value: 4, Then: seccomp.ThenDeny},
	{Syscall: "mmap", Arg: 1, Op: ir.OpLe, Value: 1<<32 + 7, Then: seccomp.ThenAllow},
	{Syscall: "pread64", Arg: 3, Op: ir.OpGe, Value: 5 << 32, Then: seccomp.ThenDeny},
	{Syscall: "pwrite64", Arg: 3, Op: ir.OpLt, Value: 5<<32 + 1, Then: seccomp.ThenDeny},
	{Syscall: "lseek", Arg: 1, Op: ir.OpGt, Value: 5, Then: seccomp.ThenDeny},
	{Syscall: "open", Arg: 1, Op: ir.OpSet, Value: 3, Then: seccomp.ThenDeny},
	{Syscall: "fcntl", Arg: 5, Op: ir.OpGt, Value: 1 << 40, Mask: 0xffffff0000000000, Then: seccomp.ThenDeny},
	{Syscall: "dup3", Arg: 2, Op: ir.OpGe, Value: 1<<40 + 1, Mask: 0xffffffff00000000, Then: seccomp.ThenDeny},
	{Syscall: "tee", Arg: 2, Op: ir.OpSet, Value: 1<<40 | 1, Then: seccomp.ThenDeny},
	{Syscall: "tee", Arg: 3, Op: ir.OpEq, Value: 1 << 40, Mask: 0xff0000000000, Then: seccomp.ThenAllow},
}

var traps = []seccomp.Trap{
	{Names: []string{"openat", "open", "mount", "socket", "clone"}, Reason: "feature one", Origin: 6},
	{
		Names: []string{"sendto", "openat"}, Reason: "feature two",
		Clauses: []ir.Clause{{
			Conds:  []ir.Cond{{Arg: 4, Op: ir.OpEq, Mask: math.MaxUint64, Value: 0}},
			Action: ir.Allow, Reason: "no address",
		}},
	},
}

// mustTable fails the test on an error.
func mustTable(t *testing.T, a abi.Arch, req seccomp.Request) []ir.SyscallEntry {
	t.Helper()
	table, err := seccomp.Table(a, req)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func mustAssemble(t *testing.T, a abi.Arch, table []ir.SyscallEntry) []byte {
	t.Helper()
	prog, err := seccomp.Assemble(a, table, seccomp.Hot(a))
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

// Every filter decides what its table says, and every instruction of it is needed.
func TestProgramsEqualTables(t *testing.T) {
	longest := 0
	for name, req := range requests() {
		for _, a := range abi.Arches {
			t.Run(name+" "+a.String(), func(t *testing.T) {
				table := mustTable(t, a, req)
				prog := mustAssemble(t, a, table)
				longest = max(longest, len(prog)/bpf.InsnSize)
				seccomptest.Prove(t, a, table, prog)

				observed, _ := seccomp.ObserveTable(a, table)
				prog = mustAssemble(t, a, observed)
				longest = max(longest, len(prog)/bpf.InsnSize)
				seccomptest.Prove(t, a, observed, prog)
			})
		}
	}
	t.Logf("longest program: %d instructions", longest)
	if longest > 1000 {
		t.Errorf("longest program: got %d instructions, want at most 1000 of the kernel's %d", longest, bpf.MaxInsns)
	}
}

// The proof itself must be able to fail: it notices every change of one instruction. (Without the list of hot numbers,
// whose comparisons the search tree repeats; with kill, so that x32 numbers differ from unknown ones; and without the
// gate of socket, which has two reasons for the same answer.)
func TestProofNoticesChanges(t *testing.T) {
	table := mustTable(t, abi.AMD64, seccomp.Request{
		ProcessLimit: true, OnDeny: seccomp.OnDenyKill, Deny: []seccomp.Named{{Name: "socket"}},
	})
	prog, err := seccomp.Assemble(abi.AMD64, table, nil)
	if err != nil {
		t.Fatal(err)
	}
	insns, err := bpf.Decode(prog)
	if err != nil {
		t.Fatal(err)
	}
	for i := range insns {
		for _, change := range []func(*bpf.Insn){
			func(in *bpf.Insn) { in.K++ },
			func(in *bpf.Insn) { in.K ^= 0x80000000 },
			func(in *bpf.Insn) { in.JT, in.JF = in.JF, in.JT },
		} {
			mutant := slices.Clone(insns)
			change(&mutant[i])
			if mutant[i] == insns[i] {
				continue
			}
			var r recorder
			seccomptest.Prove(&r, abi.AMD64, table, bpf.Encode(mutant))
			if r == 0 {
				t.Errorf("instruction %d changed from %+v to %+v: the proof does not notice", i, insns[i], mutant[i])
			}
		}
	}
}

// recorder counts the failures of a proof that is expected to fail.
type recorder int

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { *r++ }

// What is allowed whatever its arguments are is decided by the kernel's bitmap, without running the filter.
func TestHotCallsAreCached(t *testing.T) {
	for name, req := range requests() {
		for _, a := range abi.Arches {
			insns, err := bpf.Decode(mustAssemble(t, a, mustTable(t, a, req)))
			if err != nil {
				t.Fatal(err)
			}
			for _, call := range []string{"write", "close", "futex", "fstat", "epoll_pwait", "clock_nanosleep", "munmap", "brk"} {
				nr, _ := abi.SyscallNumber(a, call)
				if !bpf.ConstAllow(insns, a.Audit(), nr) {
					t.Errorf("%s, %s: %s is not decided by the kernel's allow cache", name, a, call)
				}
			}
		}
	}
}

// A policy pays for what it uses: with nothing but a limit on processes, only the fork family is notified, and
// of rt_sigaction only a handler for SIGCHLD, which could interrupt it. Of socket and bind only
// netlink's are, and of prctl the parent-death signal: registers show that.
func TestMinimalNotifiesTheForkFamilyOnly(t *testing.T) {
	want := map[string]bool{
		"clone": true, "fork": true, "vfork": true, "rt_sigaction": true, "socket": true, "bind": true, "prctl": true,
	}
	limited := seccomp.Request{ProcessLimit: true}
	expect(t, limited, sys("rt_sigaction", 17, 0x1000), notify)
	expect(t, limited, sys("rt_sigaction", 17, 0), allow)
	expect(t, limited, sys("rt_sigaction", 2, 0x1000), allow)
	expect(t, seccomp.Request{}, sys("rt_sigaction", 17, 0x1000), allow)
	limited.Deny = []seccomp.Named{{Name: "clone"}}
	expect(t, limited, sys("rt_sigaction", 17, 0x1000), allow)
	for _, a := range abi.Arches {
		table := mustTable(t, a, seccomp.Request{ProcessLimit: true})
		for _, s := range abi.Syscalls(a) {
			if got := notifies(table, s.Nr); got != want[s.Name] {
				t.Errorf("%s: %s is notified: got %v, want %v", a, s.Name, got, want[s.Name])
			}
		}
		alone := mustTable(t, a, seccomp.Request{
			NoSupervisor: true, ProcessLimit: true, WriteGrants: true, BindPorts: seccomp.BindListed,
		})
		for nr := range uint32(1024) {
			if notifies(alone, nr) {
				t.Errorf("%s: number %d is notified without a supervisor", a, nr)
			}
		}
	}
}

func notifies(table []ir.SyscallEntry, nr uint32) bool {
	e := table[query.Syscall(table, nr, [6]uint64{}).Entry]
	for _, c := range e.Clauses {
		if c.Action == ir.Notify {
			return true
		}
	}
	return e.Action == ir.Notify
}
