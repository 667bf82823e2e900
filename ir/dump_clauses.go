package ir

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// describe returns the lines that say what an entry decides about a call.
func (e *SyscallEntry) describe(name string) []string {
	if len(e.Clauses) == 0 {
		return []string{actionText(e.Action) + because(e.Reason)}
	}
	var lines []string
	for _, c := range foldClauses(e.Clauses) {
		lines = append(lines, actionText(c.action)+" if "+c.conds(name)+because(c.reason))
	}
	return append(lines, actionText(e.Action)+" otherwise"+because(e.Reason))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return "  # " + reason
}

func actionText(a Action) string {
	switch a.Kind {
	case ActAllow:
		return "allow"
	case ActNotify:
		return "notify"
	case ActKill:
		return "kill"
	case ActErrno:
		if name, ok := abi.ErrnoName(abi.Errno(a.Errno)); ok {
			return "deny " + name
		}
		return "deny errno " + strconv.Itoa(int(a.Errno))
	}
	return "unknown action"
}

// String returns the action as goldens write it.
func (a Action) String() string { return actionText(a) }

// folded is a run of clauses that differ in the value of their last equality only.
type folded struct {
	action Action
	reason string
	common []Cond
	last   Cond
	values []uint64
}

func foldClauses(clauses []Clause) []folded {
	var out []folded
	for _, c := range clauses {
		n := len(c.Conds) - 1
		next := folded{action: c.Action, reason: c.Reason, common: c.Conds[:n], last: c.Conds[n], values: []uint64{c.Conds[n].Value}}
		if len(out) > 0 && out[len(out)-1].takes(next) {
			out[len(out)-1].values = append(out[len(out)-1].values, next.values...)
			continue
		}
		out = append(out, next)
	}
	return out
}

func (f *folded) takes(next folded) bool {
	return f.action == next.action && f.reason == next.reason && slices.Equal(f.common, next.common) &&
		f.last.Op == OpEq && next.last.Op == OpEq && f.last.Arg == next.last.Arg && f.last.Mask == next.last.Mask
}

func (f *folded) conds(call string) string {
	var parts []string
	for _, c := range f.common {
		parts = append(parts, c.text(call))
	}
	if len(f.values) == 1 {
		return strings.Join(append(parts, f.last.text(call)), " and ")
	}
	var values []string
	for _, v := range f.values {
		values = append(values, valueText(call, f.last.Arg, v))
	}
	list := f.last.operand(call) + " in {" + strings.Join(values, ", ") + "}"
	return strings.Join(append(parts, list), " and ")
}

var opText = map[Op]string{OpEq: "==", OpNe: "!=", OpLt: "<", OpLe: "<=", OpGt: ">", OpGe: ">="}

// text returns the condition with the names that the call's manual page uses.
func (c *Cond) text(call string) string {
	if c.Op == OpSet {
		return c.operand(call) + " has any of " + flagsText(call, c.Arg, c.Value)
	}
	return c.operand(call) + " " + opText[c.Op] + " " + valueText(call, c.Arg, c.Value)
}

// operand is the argument, with the mask where it is neither 32 nor 64 bits.
func (c *Cond) operand(call string) string {
	name := argName(call, c.Arg)
	switch c.Mask {
	case 0xffffffff:
		return name
	case ^uint64(0):
		return "(64 bits) " + name
	}
	return fmt.Sprintf("%s&%#x", name, c.Mask)
}

func flagsText(call string, arg uint8, mask uint64) string {
	var names []string
	eachBit(mask, func(bit uint64) {
		if name, ok := valueName(call, arg, bit); ok {
			names = append(names, name)
			mask &^= bit
		}
	})
	if mask != 0 {
		names = append(names, number(mask))
	}
	return strings.Join(names, "|")
}

func valueText(call string, arg uint8, v uint64) string {
	if name, ok := valueName(call, arg, v); ok {
		return name
	}
	return number(v)
}
