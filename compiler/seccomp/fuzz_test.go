package seccomp_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/compiler/seccomp/seccomptest"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// choices turns fuzz input into decisions; it answers 0 when the input is used up.
type choices []byte

func (c *choices) below(n int) int {
	if len(*c) == 0 {
		return 0
	}
	b := (*c)[0]
	*c = (*c)[1:]
	return int(b) % n
}

var fuzzActions = []ir.Action{allow, notify, kill, eperm, enosys, ir.Errno(4095), ir.Errno(1)}

var fuzzWords = []uint64{
	0, 1, 2, 5, 0xf, 0x1000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 1 << 32, 1<<32 | 1, 5<<32 | 5, 0xf << 40,
	0xffffffff << 32, 1 << 63, 1<<63 - 1, 1<<64 - 1, 0xdeadbeefcafef00d,
}

func (c *choices) word() uint64 { return fuzzWords[c.below(len(fuzzWords))] }

func (c *choices) cond() ir.Cond {
	return ir.Cond{Arg: uint8(c.below(6)), Op: ir.Op(1 + c.below(7)), Mask: c.word(), Value: c.word()}
}

func (c *choices) clauses() (all []ir.Clause) {
	for range c.below(4) {
		clause := ir.Clause{Action: fuzzActions[c.below(len(fuzzActions))]}
		for range c.below(4) {
			clause.Conds = append(clause.Conds, c.cond())
		}
		all = append(all, clause)
	}
	return all
}

func (c *choices) table(arch abi.Arch) []ir.SyscallEntry {
	var table []ir.SyscallEntry
	for first := uint32(0); len(table) == 0 || len(*c) > 0 && len(table) < 12; first += 1 + uint32(c.below(256)) {
		table = append(table, ir.SyscallEntry{
			First: first, Clauses: c.clauses(), Action: fuzzActions[c.below(len(fuzzActions))],
		})
	}
	if arch == abi.AMD64 {
		table = append(table, ir.SyscallEntry{First: abi.X32Bit, Action: enosys})
	}
	return table
}

// FuzzAssemble: the program of any table decides what the table says.
func FuzzAssemble(f *testing.F) {
	f.Add([]byte{}, []byte{0, 1})
	f.Add([]byte{1, 2, 2, 0, 3, 17, 5, 1, 4, 10, 12, 0, 7, 2, 1, 1, 6, 3, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, []byte{7})
	f.Add([]byte(strings.Repeat("\x03\x01\x03\x02\x05\x11\x0b", 40)), []byte{1, 2, 3})
	f.Add([]byte(strings.Repeat("\x02\x00\x02\x01\x06\x09\x12\x04\x03\x08\x0d\xff", 12)), []byte{9, 255})
	f.Fuzz(func(t *testing.T, data, hot []byte) {
		var numbers []uint32
		for _, b := range hot[:min(len(hot), 8)] {
			numbers = append(numbers, uint32(b))
		}
		for _, a := range abi.Arches {
			c := choices(data)
			table := c.table(a)
			prog, err := seccomp.Assemble(a, table, numbers)
			if err != nil {
				t.Fatalf("%+v: %v", table, err)
			}
			seccomptest.ProveDecisions(t, a, table, prog)
			observed, _ := seccomp.ObserveTable(a, table)
			if prog, err = seccomp.Assemble(a, observed, numbers); err != nil {
				t.Fatalf("observed %+v: %v", observed, err)
			}
			seccomptest.ProveDecisions(t, a, observed, prog)
		}
	})
}

func (c *choices) name() string {
	calls := abi.Syscalls(abi.AMD64)
	return calls[(c.below(256)<<8|c.below(256))%len(calls)].Name
}

func (c *choices) request() seccomp.Request {
	flag := func() bool { return c.below(2) == 1 }
	req := seccomp.Request{
		NoSupervisor: flag(), ProcessLimit: flag(), WriteGrants: flag(), UDP: flag(), ICMP: flag(), UnixSockets: flag(),
		OnDeny: seccomp.OnDeny(c.below(2)), BindPorts: seccomp.BindPorts(c.below(3)), Destinations: flag(), BranchFS: flag(),
	}
	for _, g := range seccomp.Groups() {
		if flag() {
			req.AllowGroups = append(req.AllowGroups, seccomp.Named{Name: g.Name})
		}
	}
	for range c.below(4) {
		req.Deny = append(req.Deny, seccomp.Named{Name: c.name()})
	}
	for range c.below(8) {
		req.Args = append(req.Args, seccomp.ArgRule{
			Syscall: c.name(), Arg: uint8(c.below(6)), Op: ir.Op(1 + c.below(7)), Value: c.word(), Mask: c.word(),
			Then: seccomp.Then(1 + c.below(2)),
		})
	}
	for range c.below(3) {
		req.Traps = append(req.Traps, seccomp.Trap{Names: []string{c.name(), c.name()}, Reason: "a feature", Clauses: c.clauses()})
	}
	return req
}

// FuzzTable: whatever a policy asks for, what it denies stays denied, rules and traps only narrow, and the program
// decides what the table says.
func FuzzTable(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 1, 1, 0, 1, 0, 2, 1, 0, 1, 2, 0, 9, 1, 1, 4, 0, 41, 0, 1, 2, 9, 1, 0, 9, 2, 3, 4, 0, 1, 2, 1, 1, 1, 1})
	f.Add([]byte(strings.Repeat("\x01\x00\x03\x07\x29\x01", 20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := choices(data)
		req := c.request()
		without := req
		without.Args, without.Traps, without.Deny = nil, nil, nil
		for _, a := range abi.Arches {
			table, err := seccomp.Table(a, req)
			var refused *seccomp.RequestError
			if errors.As(err, &refused) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			prog, err := seccomp.Assemble(a, table, seccomp.Hot(a))
			if err != nil {
				t.Fatal(err)
			}
			seccomptest.ProveDecisions(t, a, table, prog)
			plain := mustTable(t, a, without)
			for _, s := range abi.Syscalls(a) {
				for _, args := range [][6]uint64{{}, {1, 1, 1, 1, 1, 1}, {2, 1, 6, 1 << 32}, {1<<64 - 1, 0x5412, 1 << 63}} {
					now, before := query.Syscall(table, s.Nr, args).Action, query.Syscall(plain, s.Nr, args).Action
					if denies(before) && !denies(now) {
						t.Fatalf("%s: %s%v: rules turn %+v into %+v", a, s.Name, args, before, now)
					}
					for _, d := range req.Deny {
						if d.Name == s.Name && !denies(now) {
							t.Fatalf("%s: %s%v is denied, but the table says %+v", a, s.Name, args, now)
						}
					}
				}
			}
		}
	})
}

func denies(a ir.Action) bool { return a.Kind == ir.ActErrno || a.Kind == ir.ActKill }
