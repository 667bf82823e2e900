package ir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

func (p *Program) checkLandlock() error {
	l := &p.Landlock
	fs, net, scoped := abi.Supported(abi.LatestLandlock)
	if unknown := l.Handled.without(Rights{FS: fs, Net: net, Scoped: scoped}); unknown != (Rights{}) {
		return fmt.Errorf("handled: unknown rights fs %#x, net %#x, scoped %#x", unknown.FS, unknown.Net, unknown.Scoped)
	}
	if extra := l.Degrade.without(l.Handled); extra != (Rights{}) {
		return fmt.Errorf("degrade: rights fs %#x, net %#x, scoped %#x are not handled", extra.FS, extra.Net, extra.Scoped)
	}
	if len(l.Paths) > maxList || len(l.Ports) > maxList {
		return tooMany(max(len(l.Paths), len(l.Ports)), maxList)
	}
	for i := range l.Paths {
		if err := p.checkPathRule(&l.Paths[i]); err != nil {
			return fmt.Errorf("paths[%d]: %w", i, err)
		}
	}
	for i := range l.Ports {
		if err := p.checkPortRule(&l.Ports[i]); err != nil {
			return fmt.Errorf("ports[%d]: %w", i, err)
		}
	}
	return nil
}

// without returns the rights of r that o does not have.
func (r Rights) without(o Rights) Rights {
	return Rights{FS: r.FS &^ o.FS, Net: r.Net &^ o.Net, Scoped: r.Scoped &^ o.Scoped}
}

func (p *Program) checkPathRule(r *PathRule) error {
	if r.Kind < PathRequired || r.Kind > PathNumbered {
		return fmt.Errorf("kind %d is unknown", r.Kind)
	}
	if err := checkAccess(r.Access, p.Landlock.Handled.FS); err != nil {
		return fmt.Errorf("path %q: %w", r.Path, err)
	}
	if err := p.checkPath(r.Path); err != nil {
		return err
	}
	return p.checkOrigin(r.Origin)
}

func (p *Program) checkPortRule(r *PortRule) error {
	if err := checkAccess(r.Access, p.Landlock.Handled.Net); err != nil {
		return fmt.Errorf("port %d: %w", r.Port, err)
	}
	switch {
	case r.Param != "" && r.Port != 0:
		return fmt.Errorf("port %d and parameter %q", r.Port, r.Param)
	case r.Param != "":
		i := p.paramIndex(r.Param)
		if i < 0 || p.Params[i].Type != ParamPort {
			return fmt.Errorf("%q is not a parameter of type port", r.Param)
		}
	case r.Port == 0 && r.Access&^(abi.NetBindTCP|abi.NetBindUDP) != 0:
		return errors.New("port 0 means an ephemeral port and can only be bound")
	}
	return p.checkOrigin(r.Origin)
}

// checkAccess: the kernel refuses a rule with rights that the ruleset does not handle, and one with none.
func checkAccess(access, handled uint64) error {
	if access == 0 || access&^handled != 0 {
		return fmt.Errorf("access %#x is empty or not part of the handled %#x", access, handled)
	}
	return nil
}

func (p *Program) checkSeccomp() error {
	if got, want := len(p.Seccomp.Filters), len(p.Target.Arches); got != want {
		return fmt.Errorf("%d filters for %d architectures", got, want)
	}
	for i := range p.Seccomp.Filters {
		f := &p.Seccomp.Filters[i]
		if want := p.Target.Arches[i]; f.Arch != want {
			return fmt.Errorf("filters[%d] is for %s, the target has %s", i, f.Arch, want)
		}
		if err := p.checkFilter(f); err != nil {
			return fmt.Errorf("%s: %w", f.Arch, err)
		}
	}
	return nil
}

func (p *Program) checkFilter(f *ArchFilter) error {
	if err := bpf.Verify(f.Program, f.Arch); err != nil {
		return err
	}
	if err := p.checkTable(f.Table); err != nil {
		return err
	}
	if err := checkAscending(f.ObserveCalls, "observed call", abi.X32Bit-1); err != nil {
		return err
	}
	if len(f.Observe) == 0 {
		if len(f.ObserveCalls) > 0 {
			return errors.New("observed calls without a program that observes")
		}
		return nil
	}
	if err := bpf.Verify(f.Observe, f.Arch); err != nil {
		return fmt.Errorf("observe: %w", err)
	}
	if len(f.ObserveCalls) == 0 || !returnsNotify(f.Observe) {
		return errors.New("observe: notifies nothing")
	}
	return nil
}

func (p *Program) checkTable(table []SyscallEntry) error {
	if len(table) == 0 || table[0].First != 0 {
		return errors.New("table does not start at call 0")
	}
	if len(table) > maxList {
		return tooMany(len(table), maxList)
	}
	for i := range table {
		e := &table[i]
		if i > 0 && e.First <= table[i-1].First {
			return fmt.Errorf("entry %d: call %d after %d: not ascending", i, e.First, table[i-1].First)
		}
		if err := p.checkEntry(e); err != nil {
			return fmt.Errorf("entry %d (call %d): %w", i, e.First, err)
		}
	}
	return nil
}

func (p *Program) checkEntry(e *SyscallEntry) error {
	if err := p.checkDecision(e.Action, e.Reason, e.Origin); err != nil {
		return err
	}
	if len(e.Clauses) > maxClauses {
		return tooMany(len(e.Clauses), maxClauses)
	}
	for i := range e.Clauses {
		c := &e.Clauses[i]
		err := p.checkDecision(c.Action, c.Reason, c.Origin)
		if err == nil {
			err = checkConds(c.Conds)
		}
		if err != nil {
			return fmt.Errorf("clause %d: %w", i, err)
		}
	}
	return nil
}

func (p *Program) checkDecision(a Action, reason string, origin OriginRef) error {
	switch {
	case a.Kind < ActAllow || a.Kind > ActKill:
		return fmt.Errorf("action %d is unknown", a.Kind)
	case a.Kind == ActErrno && (a.Errno == 0 || a.Errno > abi.MaxErrno):
		return fmt.Errorf("errno %d, want 1 to %d", a.Errno, abi.MaxErrno)
	case a.Kind != ActErrno && a.Errno != 0:
		return fmt.Errorf("errno %d with action %d, which has none", a.Errno, a.Kind)
	}
	if err := checkLine(reason); err != nil {
		return fmt.Errorf("reason: %w", err)
	}
	return p.checkOrigin(origin)
}

// checkConds: a clause without conditions would always hold, and is then the entry's own action.
func checkConds(conds []Cond) error {
	if len(conds) == 0 || len(conds) > maxConds {
		return fmt.Errorf("%d conditions, 1 to %d are allowed", len(conds), maxConds)
	}
	for _, c := range conds {
		if c.Arg > 5 {
			return fmt.Errorf("argument %d, the last is 5", c.Arg)
		}
		if c.Op < OpEq || c.Op > OpSet {
			return fmt.Errorf("comparison %d is unknown", c.Op)
		}
	}
	return nil
}

// notifies tells whether the decision table asks the supervisor about any call.
func (f *ArchFilter) notifies() bool {
	return slices.ContainsFunc(f.Table, func(e SyscallEntry) bool {
		return e.Action.Kind == ActNotify ||
			slices.ContainsFunc(e.Clauses, func(c Clause) bool { return c.Action.Kind == ActNotify })
	})
}

// returnsNotify tells whether a verified program has an instruction that returns "notify". It need not be reached:
// the question is what the program could do.
func returnsNotify(prog []byte) bool {
	for ; len(prog) >= bpf.InsnSize; prog = prog[bpf.InsnSize:] {
		code, k := binary.LittleEndian.Uint16(prog), binary.LittleEndian.Uint32(prog[4:])
		if code == bpf.Ret && bpf.Return(k) == bpf.RetUserNotif {
			return true
		}
	}
	return false
}
