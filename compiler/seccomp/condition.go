package seccomp

import (
	"fmt"

	netbpf "golang.org/x/net/bpf"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

// clause emits "if all conditions hold, return the action", and continues otherwise.
func (a *assembler) clause(c ir.Clause) error {
	r, err := returnOf(c.Action)
	if err != nil {
		return err
	}
	var conds []ir.Cond
	for _, cond := range c.Conds {
		if cond.Arg > 5 || cond.Op < ir.OpEq || cond.Op > ir.OpSet {
			return fmt.Errorf("condition on argument %d with comparison %d", cond.Arg, cond.Op)
		}
		switch always, constant := constantOf(cond); {
		case !constant:
			conds = append(conds, cond)
		case !always:
			return nil
		}
	}
	fails := a.newLabel()
	for _, cond := range conds {
		holds := a.newLabel()
		a.condition(cond, holds, fails)
		a.mark(holds)
	}
	a.ret(r)
	a.mark(fails)
	return nil
}

// constantOf tells whether a condition does not depend on its argument, and what it then is. arg & Mask takes values
// from 0 to Mask.
func constantOf(c ir.Cond) (always, constant bool) {
	switch c.Op {
	case ir.OpEq:
		impossible := c.Value&^c.Mask != 0
		return c.Mask == 0 && !impossible, c.Mask == 0 || impossible
	case ir.OpLt:
		always, constant = constantOf(ir.Cond{Op: ir.OpGe, Mask: c.Mask, Value: c.Value})
		return !always, constant
	case ir.OpLe:
		always, constant = constantOf(ir.Cond{Op: ir.OpGt, Mask: c.Mask, Value: c.Value})
		return !always, constant
	case ir.OpNe:
		always, constant = constantOf(ir.Cond{Op: ir.OpEq, Mask: c.Mask, Value: c.Value})
		return !always, constant
	case ir.OpGe:
		return c.Value == 0, c.Value == 0 || c.Value > c.Mask
	case ir.OpGt:
		return false, c.Value >= c.Mask
	}
	return false, c.Mask&c.Value == 0 // OpSet
}

// half is one 32-bit half of an argument, with its parts of a condition's mask and value.
type half struct{ off, mask, value uint32 }

func halves(c ir.Cond) (hi, lo half) {
	off := bpf.OffArgs + 8*uint32(c.Arg)
	return half{off + 4, uint32(c.Mask >> 32), uint32(c.Value >> 32)}, half{off, uint32(c.Mask), uint32(c.Value)}
}

// condition emits a 64-bit comparison that is not constant, and jumps to yes or no. The accumulator is 32 bits wide,
// so it compares the high half, and the low one where the high halves are equal. A half whose mask is zero is not
// loaded.
func (a *assembler) condition(c ir.Cond, yes, no label) {
	switch c.Op {
	case ir.OpEq:
		a.equal(c, yes, no)
	case ir.OpNe:
		a.equal(c, no, yes)
	case ir.OpGt, ir.OpGe:
		a.greater(c, yes, no)
	case ir.OpLe:
		c.Op = ir.OpGt
		a.greater(c, no, yes)
	case ir.OpLt:
		c.Op = ir.OpGe
		a.greater(c, no, yes)
	case ir.OpSet:
		a.set(c, yes, no)
	}
}

func (a *assembler) equal(c ir.Cond, yes, no label) {
	hi, lo := halves(c)
	if hi.mask != 0 && lo.mask != 0 {
		next := a.newLabel()
		a.compare(netbpf.JumpEqual, hi, next, no)
		a.mark(next)
	} else if hi.mask != 0 {
		a.compare(netbpf.JumpEqual, hi, yes, no)
		return
	}
	a.compare(netbpf.JumpEqual, lo, yes, no)
}

func (a *assembler) set(c ir.Cond, yes, no label) {
	c.Mask &= c.Value
	hi, lo := halves(c)
	// The jump itself masks, so the word is loaded whole.
	hi.value, lo.value = hi.mask, lo.mask
	hi.mask, lo.mask = low, low
	if hi.value != 0 && lo.value != 0 {
		next := a.newLabel()
		a.compare(netbpf.JumpBitsSet, hi, yes, next)
		a.mark(next)
	} else if hi.value != 0 {
		a.compare(netbpf.JumpBitsSet, hi, yes, no)
		return
	}
	a.compare(netbpf.JumpBitsSet, lo, yes, no)
}

func (a *assembler) greater(c ir.Cond, yes, no label) {
	hi, lo := halves(c)
	test := netbpf.JumpGreaterThan
	if c.Op == ir.OpGe {
		test = netbpf.JumpGreaterOrEqual
	}
	switch {
	case hi.mask == 0: // then the value's high half is zero, or the condition would be constant
	case hi.value&^hi.mask != 0: // the high halves are never equal
		a.compare(netbpf.JumpGreaterThan, hi, yes, no)
		return
	case lo.mask == 0: // the low half is 0: with equal high halves only ">= 0" holds
		if lo.value != 0 {
			test = netbpf.JumpGreaterThan
		}
		a.compare(test, hi, yes, no)
		return
	default:
		notAbove, equal := a.newLabel(), a.newLabel()
		a.compare(netbpf.JumpGreaterThan, hi, yes, notAbove)
		a.mark(notAbove)
		a.compare(netbpf.JumpEqual, hi, equal, no)
		a.mark(equal)
	}
	a.compare(test, lo, yes, no)
}

func (a *assembler) compare(test netbpf.JumpTest, h half, yes, no label) {
	a.load(h.off, h.mask)
	a.branch(test, h.value, yes, no)
}
