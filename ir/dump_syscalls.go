package ir

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

// dumpWidth is where lists of names wrap.
const dumpWidth = 110

// decision is everything that a table says of one or more system calls.
type decision struct {
	text   []string // the entry's line, then one line a clause
	kind   ActionKind
	gated  bool // has clauses
	origin OriginRef
	calls  map[abi.Arch][]string
}

// entryAt returns the entry that holds for a number.
func (f *ArchFilter) entryAt(nr uint32) *SyscallEntry {
	i := sort.Search(len(f.Table), func(i int) bool { return f.Table[i].First > nr })
	return &f.Table[max(i-1, 0)]
}

// decisions groups the named system calls of all architectures by what is decided of them.
func (p *Program) decisions() []*decision {
	byText := map[string]*decision{}
	for i := range p.Seccomp.Filters {
		f := &p.Seccomp.Filters[i]
		for _, call := range abi.Syscalls(f.Arch) {
			e := f.entryAt(call.Nr)
			name := call.Name
			text := e.describe(name)
			key := strings.Join(text, "\n")
			d := byText[key]
			if d == nil {
				d = &decision{text: text, kind: e.Action.Kind, gated: len(e.Clauses) > 0, origin: e.Origin, calls: map[abi.Arch][]string{}}
				byText[key] = d
			}
			d.calls[f.Arch] = append(d.calls[f.Arch], name)
		}
	}
	var all []*decision
	for _, d := range byText {
		for arch := range d.calls {
			slices.Sort(d.calls[arch])
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *decision) int {
		return strings.Compare(strings.Join(a.text, "\n"), strings.Join(b.text, "\n"))
	})
	return all
}

// callCounts are the numbers of system calls by outcome.
type callCounts struct{ allowed, gated, notified, denied int }

func (f *ArchFilter) callCounts() (c callCounts) {
	for _, call := range abi.Syscalls(f.Arch) {
		e := f.entryAt(call.Nr)
		notifies := e.Action.Kind == ActNotify || slices.ContainsFunc(e.Clauses, func(c Clause) bool { return c.Action.Kind == ActNotify })
		switch {
		case notifies:
			c.notified++
		case len(e.Clauses) > 0:
			c.gated++
		case e.Action.Kind == ActAllow:
			c.allowed++
		default:
			c.denied++
		}
	}
	return c
}

func (d *dumper) syscallTotals() {
	var rows []row
	for i := range d.p.Seccomp.Filters {
		f := &d.p.Seccomp.Filters[i]
		c := f.callCounts()
		cells := []string{
			"system calls", f.Arch.String(),
			fmt.Sprintf("%d allowed,", c.allowed), fmt.Sprintf("%d by argument,", c.gated),
			fmt.Sprintf("%d notified,", c.notified), fmt.Sprintf("%d refused", c.denied),
		}
		rows = append(rows, row{cells: cells})
	}
	d.rows(rows)
}

func (d *dumper) syscalls() {
	d.section("system calls  those not named here are allowed; arguments are compared on 32 bits where no width is given")
	if d.p.Seccomp.LogDenied {
		d.b.WriteString("  refused calls are logged by the kernel\n")
	}
	all := d.p.decisions()
	for _, kind := range []ActionKind{ActNotify, ActErrno, ActKill} {
		for _, dec := range all {
			if dec.kind == kind && !dec.gated {
				d.group(dec)
			}
		}
	}
	for _, dec := range all {
		if dec.gated {
			d.group(dec)
		}
	}
	d.unnamed()
	for i := range d.p.Seccomp.Filters {
		d.filterCounts(&d.p.Seccomp.Filters[i])
	}
}

// group writes one decision and the calls that it is about: first those that it covers on every architecture.
func (d *dumper) group(dec *decision) {
	head := "  " + dec.text[0]
	if at := d.origin(dec.origin); at != "" {
		head += "  <- " + at
	}
	d.b.WriteString(head + "\n")
	for _, line := range dec.text[1:] {
		d.b.WriteString("      " + line + "\n")
	}
	if dec.gated {
		return // its first line names the call
	}
	var shared []string
	for i, arch := range d.p.Target.Arches {
		names := dec.calls[arch]
		if i == 0 {
			shared = slices.Clone(names)
		}
		shared = slices.DeleteFunc(shared, func(n string) bool { return !slices.Contains(names, n) })
	}
	d.names("", shared)
	for _, arch := range d.p.Target.Arches {
		own := slices.DeleteFunc(slices.Clone(dec.calls[arch]), func(n string) bool { return slices.Contains(shared, n) })
		d.names(arch.String()+" only: ", own)
	}
}

// names writes a wrapped list.
func (d *dumper) names(label string, names []string) {
	const indent = "      "
	line := indent + label
	for i, n := range names {
		if i > 0 && len(line)+len(n) > dumpWidth {
			d.b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = indent
		}
		line += n + " "
	}
	if len(names) > 0 {
		d.b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// unnamed writes the entries for numbers that no call has.
func (d *dumper) unnamed() {
	type unnamedRange struct{ text, arch string }
	var ranges []unnamedRange
	for i := range d.p.Seccomp.Filters {
		f := &d.p.Seccomp.Filters[i]
		add := func(what string, nr uint32) {
			e := f.entryAt(nr)
			ranges = append(ranges, unnamedRange{what + ": " + actionText(e.Action) + because(e.Reason), f.Arch.String()})
		}
		add("numbers without a name", abi.X32Bit-1)
		if f.Arch == abi.AMD64 {
			add("x32 calls", abi.X32Bit)
		}
	}
	seen := map[string][]string{}
	for _, r := range ranges {
		seen[r.text] = append(seen[r.text], r.arch)
	}
	for _, r := range ranges {
		if arches := seen[r.text]; arches != nil {
			d.b.WriteString("  " + r.text + "  [" + strings.Join(arches, " ") + "]\n")
			seen[r.text] = nil
		}
	}
}

func (d *dumper) filterCounts(f *ArchFilter) {
	insns, err := bpf.Decode(f.Program)
	if err != nil {
		return // Validate refuses it
	}
	cacheable := 0
	for _, call := range abi.Syscalls(f.Arch) {
		if bpf.ConstAllow(insns, f.Arch.Audit(), call.Nr) {
			cacheable++
		}
	}
	fmt.Fprintf(&d.b, "  filter %s: %s, %s in the kernel's allow cache", f.Arch, count(len(insns), "instruction"), count(cacheable, "call"))
	if len(f.Observe) > 0 {
		fmt.Fprintf(&d.b, "; observing %s with %s", count(len(f.ObserveCalls), "call"), count(len(f.Observe)/bpf.InsnSize, "instruction"))
	}
	d.b.WriteByte('\n')
}

// describe returns the lines that say what an entry decides. A gated entry names the call, since its arguments mean
// something for that call only.
func (e *SyscallEntry) describe(name string) []string {
	if len(e.Clauses) == 0 {
		return []string{actionText(e.Action) + because(e.Reason)}
	}
	lines := []string{name}
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
	return name + "&" + number(c.Mask)
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

func (d *dumper) bpf() {
	for i := range d.p.Seccomp.Filters {
		f := &d.p.Seccomp.Filters[i]
		d.disassemble("filter "+f.Arch.String(), f.Program, f.Arch)
		if len(f.Observe) > 0 {
			d.disassemble("observing filter "+f.Arch.String(), f.Observe, f.Arch)
		}
	}
}

func (d *dumper) disassemble(title string, prog []byte, arch abi.Arch) {
	insns, err := bpf.Decode(prog)
	if err != nil {
		d.section("%s: %v", title, err)
		return
	}
	d.section("%s", title)
	d.b.WriteString(bpf.Disassemble(insns, arch))
}
