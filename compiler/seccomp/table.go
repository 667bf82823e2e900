package seccomp

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// lastReviewed is the newest call, rseq_slice_yield, that the lists of this package were checked against. (Numbers from
// 424 up are the same on all architectures.) Calls that a later table of ir/abi adds stay refused until someone has
// decided about them here.
const lastReviewed = 471

// Reasons of entries that no rule names.
const (
	reasonUnknown = "unknown number"
	reasonX32     = "x32 call"
)

// Table returns the decision table of an architecture. For each call, rules rank in this order:
//
//  1. a name or group that the policy denies;
//  2. the argument rules of the policy that deny, and its list of allowed arguments, if there is one;
//  3. the denials, groups and gates of this package;
//  4. traps, which turn what is still allowed into a notification.
func Table(arch abi.Arch, req Request) ([]ir.SyscallEntry, error) {
	calls := abi.Syscalls(arch)
	if len(calls) == 0 {
		return nil, fmt.Errorf("build system call table: unknown architecture %d", arch)
	}
	calls = slices.DeleteFunc(slices.Clone(calls), func(s abi.Syscall) bool { return s.Nr > lastReviewed })
	b := builder{req: req, arch: arch}
	b.checkNames()
	var table []ir.SyscallEntry
	unknown := ir.SyscallEntry{Action: ir.Errno(abi.ENOSYS), Reason: reasonUnknown}
	next := uint32(0)
	for _, call := range calls {
		if call.Nr > next {
			table = appendEntry(table, next, unknown)
		}
		table = appendEntry(table, call.Nr, b.decide(call.Name))
		next = call.Nr + 1
	}
	table = appendEntry(table, next, unknown)
	if arch == abi.AMD64 {
		x32 := ir.SyscallEntry{Action: ir.Errno(abi.ENOSYS), Reason: reasonX32}
		if req.OnDeny == OnDenyKill {
			x32.Action = ir.Kill
		}
		table = appendEntry(table, abi.X32Bit, x32)
	}
	if err := errors.Join(b.errs...); err != nil {
		return nil, fmt.Errorf("build system call table for %s: %w", arch, err)
	}
	return table, nil
}

// appendEntry adds an entry from number first on, unless the one before says the same.
func appendEntry(table []ir.SyscallEntry, first uint32, e ir.SyscallEntry) []ir.SyscallEntry {
	e.First = first
	if n := len(table); n > 0 {
		last := table[n-1]
		same := last.Action == e.Action && last.Reason == e.Reason && last.Origin == e.Origin
		if same && len(last.Clauses) == 0 && len(e.Clauses) == 0 {
			return table
		}
	}
	return append(table, e)
}

// builder collects the errors of a request while its table is built.
type builder struct {
	req  Request
	arch abi.Arch
	errs []error
}

func (b *builder) errorf(name string, origin ir.OriginRef, format string, args ...any) {
	b.errs = append(b.errs, &RequestError{name, origin, fmt.Sprintf(format, args...)})
}

// checkNames reports what names nothing on any architecture. A call that only this architecture lacks is no error:
// one policy serves all.
func (b *builder) checkNames() {
	for _, g := range b.req.AllowGroups {
		if _, ok := findGroup(g.Name); !ok {
			b.errorf(g.Name, g.Origin, "no such group")
		}
	}
	for _, d := range b.req.Deny {
		if _, ok := findGroup(d.Name); !ok && !abi.KnownSyscall(d.Name) {
			b.errorf(d.Name, d.Origin, "no such system call or group")
		}
	}
	for _, r := range b.req.Args {
		switch {
		case !abi.KnownSyscall(r.Syscall):
			b.errorf(r.Syscall, r.Origin, "no such system call")
		case r.Arg > 5:
			b.errorf(r.Syscall, r.Origin, "argument %d, want 0 to 5", r.Arg)
		case r.Op < ir.OpEq || r.Op > ir.OpSet:
			b.errorf(r.Syscall, r.Origin, "unknown comparison %d", r.Op)
		case r.Then != ThenDeny && r.Then != ThenAllow:
			b.errorf(r.Syscall, r.Origin, "unknown effect %d", r.Then)
		case r.Then == ThenAllow && len(r.And) > 0:
			b.errorf(r.Syscall, r.Origin, "a rule that allows has one condition")
		}
	}
	for _, t := range b.req.Traps {
		for _, name := range t.Names {
			if !abi.KnownSyscall(name) {
				b.errorf(name, t.Origin, "no such system call")
			}
		}
	}
}

// decide returns the entry of one call.
func (b *builder) decide(name string) ir.SyscallEntry {
	if e, ok := b.deniedByPolicy(name); ok {
		return e
	}
	e := b.builtin(name)
	for _, t := range b.req.Traps {
		if t.Arch != 0 && t.Arch != b.arch {
			continue
		}
		if slices.ContainsFunc(t.Names, func(n string) bool { return abi.CanonicalSyscall(n) == name }) {
			e = trap(e, t)
		}
	}
	return b.narrow(name, e)
}

// deny is the outcome of a policy denial.
func (b *builder) deny(e abi.Errno) ir.Action {
	if b.req.OnDeny == OnDenyKill {
		return ir.Kill
	}
	return ir.Errno(e)
}

func (b *builder) deniedByPolicy(name string) (ir.SyscallEntry, bool) {
	for _, d := range b.req.Deny {
		reason := cmp.Or(d.Reason, "syscalls.extra_deny")
		if g, isGroup := findGroup(d.Name); isGroup {
			if !slices.Contains(g.Members, name) {
				continue
			}
			reason += ": group " + g.Name
		} else if abi.CanonicalSyscall(d.Name) != name {
			continue
		}
		return ir.SyscallEntry{Action: b.deny(abi.EPERM), Reason: reason, Origin: d.Origin}, true
	}
	return ir.SyscallEntry{}, false
}

// builtin returns the entry of a call before the policy's own rules about system calls.
func (b *builder) builtin(name string) ir.SyscallEntry {
	denied, missing := alwaysDenied, absent
	if !b.req.NoSupervisor {
		denied = slices.Concat(alwaysDenied, supervisedDenied)
		missing = slices.Concat(absent, supervisedAbsent)
	}
	if reason, ok := findDenial(denied, name); ok {
		return ir.SyscallEntry{Action: b.deny(abi.EPERM), Reason: reason}
	}
	if reason, ok := findDenial(missing, name); ok {
		return ir.SyscallEntry{Action: ir.Errno(abi.ENOSYS), Reason: reason}
	}
	if g, ok := groupOf(name); ok {
		return b.grouped(g)
	}
	if gate, ok := gates[name]; ok {
		return gate(b)
	}
	return ir.SyscallEntry{Action: ir.Allow}
}

// grouped returns the entry of the members of a group that the policy does not deny.
func (b *builder) grouped(g Group) ir.SyscallEntry {
	if origin, ok := b.allowed(g.Name); ok {
		return ir.SyscallEntry{Action: ir.Allow, Reason: "syscalls.extra_allow: group " + g.Name, Origin: origin}
	}
	if g.Name == groupFileMetadata && !b.req.NoSupervisor && b.req.WriteGrants {
		return ir.SyscallEntry{Action: ir.Notify, Reason: "filesystem.write: metadata is changed on behalf"}
	}
	return ir.SyscallEntry{Action: b.deny(abi.EPERM), Reason: g.reason}
}

func (b *builder) allowed(group string) (origin ir.OriginRef, ok bool) {
	for _, g := range b.req.AllowGroups {
		if g.Name == group {
			return g.Origin, true
		}
	}
	return 0, false
}

// trap replaces every outcome "allow" of an entry with the clauses of a trap, then notification.
func trap(e ir.SyscallEntry, t Trap) ir.SyscallEntry {
	var clauses []ir.Clause
	for _, c := range e.Clauses {
		if c.Action != ir.Allow {
			clauses = append(clauses, c)
			continue
		}
		for _, settled := range t.Clauses {
			settled.Conds = slices.Concat(c.Conds, settled.Conds)
			clauses = append(clauses, settled)
		}
		c.Action, c.Reason, c.Origin = ir.Notify, t.Reason, t.Origin
		clauses = append(clauses, c)
	}
	if e.Action == ir.Allow {
		clauses = append(clauses, t.Clauses...)
		e.Action, e.Reason, e.Origin = ir.Notify, t.Reason, t.Origin
	}
	e.Clauses = clauses
	return e
}

// narrow puts the policy's argument rules about a call before everything else that is said of it. They only deny, so
// they cannot lift what follows.
func (b *builder) narrow(name string, e ir.SyscallEntry) ir.SyscallEntry {
	var denials []ir.Clause
	var none ir.Clause // holds when no rule that allows does
	for _, r := range b.req.Args {
		if abi.CanonicalSyscall(r.Syscall) != name {
			continue
		}
		cond := ir.Cond{Arg: r.Arg, Op: r.Op, Mask: r.Mask, Value: r.Value}
		if cond.Mask == 0 {
			cond.Mask = math.MaxUint64
		}
		if r.Then == ThenDeny {
			denials = append(denials, ir.Clause{
				Conds: append([]ir.Cond{cond}, r.And...), Action: b.deny(abi.EPERM), Reason: cmp.Or(r.Reason, "syscalls.args"), Origin: r.Origin,
			})
			continue
		}
		if alwaysFails(e) {
			b.errorf(r.Syscall, r.Origin, "cannot allow arguments of a call that is refused (%s)", e.Reason)
			return e
		}
		if none.Conds == nil {
			none = ir.Clause{
				Action: b.deny(abi.EPERM), Reason: "syscalls.args: no rule allows these arguments", Origin: r.Origin,
			}
		}
		none.Conds = append(none.Conds, negate(cond))
	}
	if none.Conds != nil {
		denials = append(denials, none)
	}
	if alwaysFails(e) {
		return e
	}
	e.Clauses = append(denials, e.Clauses...)
	return e
}

// alwaysFails tells whether an entry lets no call through, whatever its arguments are.
func alwaysFails(e ir.SyscallEntry) bool {
	fails := func(a ir.Action) bool { return a.Kind == ir.ActErrno || a.Kind == ir.ActKill }
	for _, c := range e.Clauses {
		if !fails(c.Action) {
			return false
		}
	}
	return fails(e.Action)
}

// negate returns the condition that holds exactly when c does not.
func negate(c ir.Cond) ir.Cond {
	switch c.Op {
	case ir.OpEq:
		c.Op = ir.OpNe
	case ir.OpNe:
		c.Op = ir.OpEq
	case ir.OpLt:
		c.Op = ir.OpGe
	case ir.OpGe:
		c.Op = ir.OpLt
	case ir.OpLe:
		c.Op = ir.OpGt
	case ir.OpGt:
		c.Op = ir.OpLe
	case ir.OpSet:
		c.Op, c.Mask, c.Value = ir.OpEq, c.Mask&c.Value, 0
	}
	return c
}
