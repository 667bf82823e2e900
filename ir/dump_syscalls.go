package ir

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

// dumpWidth is where lists of names wrap.
const dumpWidth = 110

// decision is everything that a table says of one or more system calls.
type decision struct {
	text   []string // one line, or for a call that is decided by its arguments one a clause and one for the rest
	kind   ActionKind
	gated  bool // has clauses
	origin OriginRef
	calls  callSet
}

// callSet holds sorted names of system calls.
type callSet map[abi.Arch][]string

// shared returns the names that stand for all of the architectures, and own what is left for each.
func (c callSet) shared(arches []abi.Arch) (shared []string, own callSet) {
	own = callSet{}
	for i, arch := range arches {
		if i == 0 {
			shared = slices.Clone(c[arch])
		}
		shared = slices.DeleteFunc(shared, func(n string) bool { return !slices.Contains(c[arch], n) })
	}
	for _, arch := range arches {
		own[arch] = slices.DeleteFunc(slices.Clone(c[arch]), func(n string) bool { return slices.Contains(shared, n) })
	}
	return shared, own
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
				d = &decision{text: text, kind: e.Action.Kind, gated: len(e.Clauses) > 0, origin: e.Origin, calls: callSet{}}
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
		return strings.Compare(a.sortKey(p.Target.Arches), b.sortKey(p.Target.Arches))
	})
	return all
}

// sortKey orders plain decisions by what they say, and those by argument by the call that they are about.
func (d *decision) sortKey(arches []abi.Arch) string {
	text := strings.Join(d.text, "\n")
	if !d.gated {
		return text
	}
	for _, arch := range arches {
		if names := d.calls[arch]; len(names) > 0 {
			return names[0] + "\n" + text
		}
	}
	return text
}

// callCounts are the numbers of system calls by outcome.
type callCounts struct{ allowed, gated, notified, denied int }

func (f *ArchFilter) callCounts() (c callCounts) {
	for _, call := range abi.Syscalls(f.Arch) {
		e := f.entryAt(call.Nr)
		_, notifies := e.notifies()
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

// notified writes which calls wait for the supervisor, and what for: the price of the policy's features.
func (d *dumper) notified() {
	sets := map[string]callSet{}
	for i := range d.p.Seccomp.Filters {
		f := &d.p.Seccomp.Filters[i]
		for _, call := range abi.Syscalls(f.Arch) {
			if reason, ok := f.entryAt(call.Nr).notifies(); ok {
				if sets[reason] == nil {
					sets[reason] = callSet{}
				}
				sets[reason][f.Arch] = append(sets[reason][f.Arch], call.Name)
			}
		}
	}
	if len(sets) == 0 {
		d.section("notified  no call: nothing waits for a supervisor")
		return
	}
	d.section("notified  the supervisor answers these calls")
	for _, reason := range slices.Sorted(maps.Keys(sets)) {
		for arch := range sets[reason] {
			slices.Sort(sets[reason][arch])
		}
		d.b.WriteString("  " + reason + "\n")
		d.callSet(sets[reason])
	}
}

// notifies tells whether an entry can notify, and why.
func (e *SyscallEntry) notifies() (reason string, ok bool) {
	for _, c := range e.Clauses {
		if c.Action.Kind == ActNotify {
			return c.Reason, true
		}
	}
	return e.Reason, e.Action.Kind == ActNotify
}

func (d *dumper) syscalls() {
	d.section("system calls  those not named are allowed; arguments are compared on 32 bits where no width is given")
	if d.p.Seccomp.LogDenied {
		d.b.WriteString("  refused calls are logged by the kernel\n")
	}
	all := d.p.decisions()
	for _, kind := range []ActionKind{ActAllow, ActErrno, ActKill} {
		for _, dec := range all {
			plain := dec.kind == ActAllow && dec.text[0] == actionText(Allow) // allowed without a word
			if dec.kind == kind && !dec.gated && !plain {
				d.line(dec.text[0], dec.origin)
				d.callSet(dec.calls)
			}
		}
	}
	for _, dec := range all {
		if dec.gated {
			d.gated(dec)
		}
	}
	d.unnamed()
	for i := range d.p.Seccomp.Filters {
		d.filterCounts(&d.p.Seccomp.Filters[i])
	}
}

func (d *dumper) line(text string, ref OriginRef) {
	if at := d.origin(ref); at != "" {
		text += "  <- " + at
	}
	d.b.WriteString("  " + text + "\n")
}

// gated writes calls that are decided by their arguments.
func (d *dumper) gated(dec *decision) {
	shared, own := dec.calls.shared(d.p.Target.Arches)
	names := slices.Clone(shared)
	for _, arch := range d.p.Target.Arches {
		for _, n := range own[arch] {
			names = append(names, n+" ("+arch.String()+" only)")
		}
	}
	d.line(strings.Join(names, ", "), dec.origin)
	for _, line := range dec.text {
		d.b.WriteString("      " + line + "\n")
	}
}

// callSet writes the names of system calls, first those that stand for every architecture.
func (d *dumper) callSet(calls callSet) {
	shared, own := calls.shared(d.p.Target.Arches)
	d.names("", shared)
	for _, arch := range d.p.Target.Arches {
		d.names(arch.String()+" only: ", own[arch])
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
