package ir

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// DumpOptions adds to the text of [Program.Dump].
type DumpOptions struct {
	Origins bool // append file:line:col to what the policy wrote
	BPF     bool // append the disassembled filters
}

// Dump returns the program as the text that reviewers read in golden files: totals first, so that a widening is seen
// at a glance, then one rule a line, sorted. Without options it holds nothing that changes while the meaning stays:
// no line numbers, no digests, no times.
func (p *Program) Dump(o DumpOptions) string {
	d := &dumper{p: p, o: o}
	d.header()
	d.totals()
	d.requires()
	d.process()
	d.view()
	d.branch()
	d.filesystem()
	d.network()
	d.http()
	d.limits()
	d.determinism()
	d.dynamicRules()
	d.params()
	d.notified()
	d.syscalls()
	d.mechanisms()
	d.tests()
	if o.BPF {
		d.bpf()
	}
	return d.b.String()
}

// dumper writes one dump. Sections are separated by an empty line and begin at the margin; their lines are indented.
type dumper struct {
	p *Program
	o DumpOptions
	b strings.Builder
}

func (d *dumper) section(format string, args ...any) {
	fmt.Fprintf(&d.b, "\n"+format+"\n", args...)
}

// row is a line of columns, and where it was written.
type row struct {
	cells  []string
	origin OriginRef
}

// rows writes lines with their columns aligned. An empty column takes no space where it is empty in every row.
func (d *dumper) rows(rows []row) {
	var widths []int
	for _, r := range rows {
		for i, cell := range r.cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, cell := range r.cells {
			if widths[i] > 0 {
				fmt.Fprintf(&line, "  %-*s", widths[i], cell)
			}
		}
		text := strings.TrimRight(line.String(), " ")
		if at := d.origin(r.origin); at != "" {
			text = fmt.Sprintf("%-60s  <- %s", text, at)
		}
		d.b.WriteString(text + "\n")
	}
}

// pairs writes two aligned columns.
func (d *dumper) pairs(pairs ...string) {
	var rows []row
	for i := 0; i < len(pairs); i += 2 {
		rows = append(rows, row{cells: pairs[i : i+2]})
	}
	d.rows(rows)
}

func (d *dumper) origin(ref OriginRef) string {
	o, ok := d.p.Origin(ref)
	if !ok || !d.o.Origins {
		return ""
	}
	at := fmt.Sprintf("%s:%d:%d %s", o.File, o.Line, o.Col, o.Path)
	switch o.Kind {
	case OriginDefault:
		at += " (default)"
	case OriginDerived:
		at += " (derived)"
	}
	return at
}

func (d *dumper) header() {
	fmt.Fprintf(&d.b, "policy %s  format %d  landlock %d  %s\n",
		d.p.Name, FormatVersion, d.p.Target.LandlockABI, joinStrings(d.p.Target.Arches, " "))
	for line := range strings.Lines(d.p.Description) {
		fmt.Fprintf(&d.b, "  %s\n", strings.TrimSpace(line))
	}
}

func (d *dumper) totals() {
	d.section("totals")
	pairs := []string{"filesystem", d.filesystemTotals()}
	if d.p.Namespaced() {
		pairs = append(pairs, "view", d.viewTotals())
	}
	if d.p.Branch.Kind != BranchNone {
		pairs = append(pairs, "branch", d.p.Branch.branchTotals())
	}
	d.pairs(append(pairs,
		"connect", d.destinationTotals(),
		"bind", d.bindTotals(),
		"environment", d.environmentTotals(),
		"processes", limitText(uint64(d.p.Limits.Processes), "at most %d alive"),
		"supervisor", map[bool]string{true: "yes", false: "none"}[d.p.Process.Start != StartInPlace],
		"waivers", d.waivers(),
	)...)
	d.syscallTotals()
}

func limitText(n uint64, format string) string {
	if n == 0 {
		return "unlimited"
	}
	return fmt.Sprintf(format, n)
}

func (d *dumper) environmentTotals() string {
	p := &d.p.Process
	text := "inherited"
	if p.CleanEnv {
		text = "empty"
		if len(p.PassEnv) > 0 {
			text += " but for " + strings.Join(p.PassEnv, " ")
		}
	}
	if len(p.Env) > 0 {
		text += ", " + count(len(p.Env), "variable") + " set"
	}
	return text
}

// waivers lists the Landlock protections that are not demanded. Ports are not among them: the lines about connect and
// bind say that they are not restricted, which may be a waiver or a rule for every port.
func (d *dumper) waivers() string {
	l := &d.p.Landlock
	fs, _, scoped := abi.Supported(int(d.p.Target.LandlockABI))
	off := slices.Concat(
		abi.FSRightNames(fs&^l.Handled.FS),
		abi.ScopeNames(scoped&^l.Handled.Scoped),
	)
	weak := slices.Concat(abi.FSRightNames(l.Degrade.FS), abi.NetRightNames(l.Degrade.Net), abi.ScopeNames(l.Degrade.Scoped))
	var parts []string
	if low := belowUsual(int(d.p.Target.LandlockABI)); len(low) > 0 {
		parts = append(parts, "the target's Landlock does not know: "+strings.Join(low, " "))
	}
	if len(off) > 0 {
		parts = append(parts, "never restricted: "+strings.Join(off, " "))
	}
	if len(weak) > 0 {
		parts = append(parts, "not restricted where the kernel cannot: "+strings.Join(weak, " "))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, "; ")
}

// usualLandlock is the floor that policies have unless they lower it (target.landlock).
const usualLandlock = 6

// belowUsual lists the protections that a lowered floor gives up.
func belowUsual(floor int) []string {
	fs, net, scoped := abi.Supported(usualLandlock)
	lowFS, lowNet, lowScoped := abi.Supported(floor)
	return slices.Concat(abi.FSRightNames(fs&^lowFS), abi.NetRightNames(net&^lowNet), abi.ScopeNames(scoped&^lowScoped))
}

func (d *dumper) requires() {
	if len(d.p.Requires) == 0 {
		return
	}
	d.section("requires")
	var rows []row
	for _, r := range d.p.Requires {
		need := r.Feature.String()
		if r.Min > 0 {
			need += " >= " + strconv.Itoa(int(r.Min))
		}
		rows = append(rows, row{cells: []string{need, "for " + strings.Join(r.Fields, ", ")}})
	}
	d.rows(rows)
}

func (d *dumper) process() {
	p := &d.p.Process
	d.section("process")
	rows := []row{{cells: []string{"start", startNames[p.Start]}}}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, row{cells: []string{name, value}})
		}
	}
	add("exec", p.Exec)
	if len(p.Args) > 0 {
		add("args", quoteAll(p.Args))
	}
	add("cwd", p.Cwd)
	for _, v := range p.Env {
		rows = append(rows, row{cells: []string{"env", v.Name + "=" + quoteIfNeeded(v.Value)}, origin: v.Origin})
	}
	var names []string
	for _, c := range p.Capabilities {
		names = append(names, capabilityName(c))
	}
	add("capabilities", cmp.Or(strings.Join(names, " "), "none"))
	for _, flag := range []struct {
		name string
		on   bool
	}{{"no_coredump", p.NoCoredump}, {"no_huge_pages", p.NoHugePages}, {"no_randomize_memory", p.NoRandomizeMemory}} {
		if flag.on {
			add(flag.name, "yes")
		}
	}
	d.rows(rows)
}

func capabilityName(c uint8) string {
	if name, ok := abi.CapabilityName(c); ok {
		return name
	}
	return "capability_" + strconv.Itoa(int(c))
}

var startNames = map[Start]string{
	StartDirect:     "direct: supervised",
	StartInPlace:    "in place: no supervisor",
	StartNamespaced: "namespaced: supervised, in namespaces of its own",
}

func (d *dumper) limits() {
	l := &d.p.Limits
	d.section("limits")
	rows := []row{{cells: []string{"processes", limitText(uint64(l.Processes), "%d")}, origin: l.ProcessesOrigin}}
	if l.OpenFiles > 0 {
		rows = append(rows, row{cells: []string{"open_files", strconv.Itoa(int(l.OpenFiles))}})
	}
	if l.TimeMS > 0 {
		rows = append(rows, row{cells: []string{"time", strconv.FormatUint(l.TimeMS, 10) + " ms"}, origin: l.TimeOrigin})
	}
	if l.Memory > 0 {
		rows = append(rows, row{cells: []string{"memory", sizeText(l.Memory)}, origin: l.MemoryOrigin})
	}
	if l.CPUPercent > 0 {
		rows = append(rows, row{cells: []string{"cpu", fmt.Sprintf("%d %% of one core", l.CPUPercent)}, origin: l.CPUOrigin})
	}
	if l.Backend == BackendCgroup {
		rows = append(rows, row{cells: []string{"backend", "cgroup"}})
	}
	if l.CPUCount > 0 {
		rows = append(rows, row{cells: []string{"num_cpus", strconv.Itoa(int(l.CPUCount)) + " visible"}})
	}
	if l.MachineFiles {
		how := "limited: opens are notified"
		if d.p.View.Mount {
			how = "limited: mounted over"
		}
		rows = append(rows, row{cells: []string{"machine_files", how}})
	}
	if len(l.CPUCores) > 0 {
		rows = append(rows, row{cells: []string{"cpu_cores", joinInts(l.CPUCores)}})
	}
	switch l.GPU.Mode {
	case GPUAll:
		rows = append(rows, row{cells: []string{"gpu_devices", "all"}})
	case GPUIndices:
		rows = append(rows, row{cells: []string{"gpu_devices", joinInts(l.GPU.Devices)}})
	}
	d.rows(rows)
}

// sizeText writes bytes in the largest unit that divides them, as policies do.
func sizeText(n uint64) string {
	for _, unit := range []struct {
		shift  int
		suffix string
	}{{30, "G"}, {20, "M"}, {10, "K"}} {
		if n != 0 && n&(1<<unit.shift-1) == 0 {
			return strconv.FormatUint(n>>unit.shift, 10) + unit.suffix
		}
	}
	return strconv.FormatUint(n, 10) + " bytes"
}

func (d *dumper) determinism() {
	t := &d.p.Determinism
	if !t.Random && !t.ShiftTime && !t.SortedDirs {
		return
	}
	d.section("determinism  what programs are told; no security boundary")
	var rows []row
	if t.Random {
		rows = append(rows, row{cells: []string{"random_seed", strconv.FormatUint(t.Seed, 10)}, origin: t.RandomOrigin})
	}
	if t.ShiftTime {
		start := time.Unix(int64(t.TimeStart), 0).UTC().Format(time.RFC3339)
		rows = append(rows, row{cells: []string{"time_start", start}, origin: t.TimeOrigin})
	}
	if t.SortedDirs {
		rows = append(rows, row{cells: []string{"deterministic_dirs", "sorted"}, origin: t.DirsOrigin})
	}
	d.rows(rows)
}

func (d *dumper) params() {
	if len(d.p.Params) == 0 {
		return
	}
	d.section("params  bound when the sandbox starts")
	var rows []row
	for _, q := range d.p.Params {
		value := "must be given"
		if q.HasDefault {
			value = "default " + strconv.Quote(q.Default)
		}
		cells := []string{q.Name, q.Type.String(), value, "", "", ""}
		if q.Pattern != "" {
			cells[3] = "matches " + q.Pattern
		}
		if len(q.Under) > 0 {
			cells[4] = "beneath " + strings.Join(q.Under, " ")
		}
		if q.Description != "" {
			cells[5] = "# " + strings.Join(strings.Fields(q.Description), " ")
		}
		rows = append(rows, row{cells: cells, origin: q.Origin})
	}
	d.rows(rows)
}

func (d *dumper) mechanisms() {
	if len(d.p.Mechanisms) == 0 {
		return
	}
	d.section("mechanisms")
	var rows []row
	for _, m := range d.p.Mechanisms {
		rows = append(rows, row{cells: []string{m.Feature, m.Choice, m.Reason}})
	}
	d.rows(rows)
}

func (d *dumper) tests() {
	if len(d.p.Tests) == 0 {
		return
	}
	d.section("tests")
	var rows []row
	for _, t := range d.p.Tests {
		verdict := "deny"
		if t.Allow {
			verdict = "allow"
		}
		rows = append(rows, row{cells: []string{verdict, t.Event(), "# " + t.Name}, origin: t.Origin})
	}
	d.rows(rows)
}

// Event returns what the test asks about, as `sandlock-compile explain` takes it.
func (t *Test) Event() string {
	switch t.Kind {
	case TestOpen:
		return "open " + t.Target + " for " + t.For
	case TestConnect:
		return "connect " + t.Target
	case TestBind:
		return "bind " + t.Target
	case TestHTTP:
		return "http " + t.Target
	}
	words := []string{"syscall", t.Target}
	for _, a := range t.Args {
		words = append(words, number(a))
	}
	return strings.Join(words, " ")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// number writes small values in decimal and others in hexadecimal, which is how headers define flags.
func number(v uint64) string {
	if v < 256 {
		return strconv.FormatUint(v, 10)
	}
	return "0x" + strconv.FormatUint(v, 16)
}

func joinInts(list []uint16) string {
	var words []string
	for _, n := range list {
		words = append(words, strconv.Itoa(int(n)))
	}
	return strings.Join(words, " ")
}

func joinStrings[T fmt.Stringer](list []T, sep string) string {
	var words []string
	for _, s := range list {
		words = append(words, s.String())
	}
	return strings.Join(words, sep)
}

func quoteAll(list []string) string {
	var words []string
	for _, s := range list {
		words = append(words, strconv.Quote(s))
	}
	return strings.Join(words, " ")
}

// quoteIfNeeded quotes what would not stand on one line as it is.
func quoteIfNeeded(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` || strings.TrimSpace(s) != s {
		return q
	}
	return s
}

func eachBit(mask uint64, do func(bit uint64)) {
	for ; mask != 0; mask &= mask - 1 {
		do(1 << bits.TrailingZeros64(mask))
	}
}
