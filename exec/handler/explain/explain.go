// Package explain watches for --explain-denials: which calls would Landlock or the filter refuse, and which line of
// the policy comes closest to allowing them.
//
// The observing filter notifies path and address calls that it would otherwise let through, and calls that it would
// refuse without asking. The first are evaluated with ir/query and then continued: Landlock decides in the kernel, so a
// path that another thread swaps meanwhile falsifies at most the report. The second are answered with the errno that
// the decision table says. Nothing is allowed that the plain filter does not allow.
//
// Read next: paths.go (what each call asks for), report.go.
package explain

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Policy is what the handler asks; the executor answers from ir/query.
type Policy struct {
	// Path says whether a path is granted all rights in want; if not, which rule comes closest.
	Path func(path string, want uint64) (ok bool, closestRule, closestOrigin string)
	// Covered says whether what is mounted over a path refuses some right in want, whatever is granted, and by which error.
	Covered func(path string, want uint64) (r query.Ruling, e unix.Errno, refused bool)
	// Kept says whether something is mounted on a path, so that it cannot be removed or renamed.
	Kept func(path string) (query.Ruling, bool)
	// Connect and Bind decide about TCP ports.
	Connect, Bind func(port uint16) query.Ruling
	// Describe names the rule of a ruling and its place in the policy.
	Describe func(query.Ruling) (rule, origin string)
	// Where names a rule of the decision table and its place; "" for a built-in one.
	Where func(ir.OriginRef) (rule, origin string)
	// Root is where the command's paths begin.
	Root kernel.Root
}

// Handler observes one sandbox.
type Handler struct {
	arch    abi.Arch
	table   []ir.SyscallEntry
	watched map[abi.Sysno]watch
	policy  Policy
	journal supervise.Journal
	report  *Report
}

// New makes the handler for a decision table and the calls that the observing filter adds. j is not the report's journal:
// what is observed again and again is recorded once.
func New(arch abi.Arch, table []ir.SyscallEntry, calls []abi.Sysno, p Policy, r *Report, j supervise.Journal) *Handler {
	h := &Handler{arch: arch, table: table, watched: map[abi.Sysno]watch{}, policy: p, report: r, journal: j}
	for _, nr := range calls {
		name, _ := abi.SyscallName(arch, nr)
		h.watched[nr] = watches[name]
	}
	return h
}

// Name is the concern.
func (h *Handler) Name() string { return "explain" }

// Syscalls lists every number of the table: any may be refused by it.
func (h *Handler) Syscalls() []abi.Sysno {
	var list []abi.Sysno
	for _, s := range abi.Syscalls(h.arch) {
		list = append(list, s.Nr)
	}
	slices.Sort(list)
	return list
}

// Handle reports, and answers what the table decides by itself.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	d := query.Syscall(h.table, c.Nr, c.Args)
	switch d.Action.Kind {
	case ir.ActNotify:
		h.watch(c, func(w want) bool { return w.port == nil }) // a handler decides about addresses, and reports itself
		return supervise.Next()
	case ir.ActErrno, ir.ActKill:
		return h.refuse(c, d)
	}
	h.watch(c, func(want) bool { return true })
	// The kernel's own Landlock hooks decide.
	return supervise.Continue(supervise.KernelDecides)
}

// watch evaluates what a call asks for, as far as it is of interest.
func (h *Handler) watch(c *supervise.Call, interesting func(want) bool) {
	w := h.watched[c.Nr]
	if w.look == nil {
		return
	}
	for _, want := range w.look(&call{c, h.policy.Root}) {
		if interesting(want) {
			h.check(c, want)
		}
	}
}

// refuse answers as the plain filter would have.
func (h *Handler) refuse(c *supervise.Call, d query.Decision) supervise.Verdict {
	e := unix.Errno(d.Action.Errno)
	if d.Action.Kind == ir.ActKill {
		e = unix.EPERM // the filter itself would have killed; under observation the call fails and the report says so
	}
	name, _ := abi.SyscallName(h.arch, c.Nr)
	rule, origin := h.policy.Where(d.Origin)
	h.note(c, supervise.Event{Kind: "denied", Syscall: name, Verdict: unix.ErrnoName(e), Reason: d.Reason, Rule: rule, Origin: origin})
	return supervise.Errno(e)
}

// check evaluates one thing that a call asks for.
func (h *Handler) check(c *supervise.Call, w want) {
	name, _ := abi.SyscallName(h.arch, c.Nr)
	switch {
	case w.port != nil:
		ask := h.policy.Connect
		if w.bind {
			ask = h.policy.Bind
		}
		if r := ask(*w.port); !r.Allowed {
			rule, origin := h.policy.Describe(r)
			h.note(c, supervise.Event{
				Kind: "observed", Syscall: name, Address: w.what, Verdict: "EACCES", Reason: r.Reason, Rule: rule, Origin: origin,
			})
		}
	case w.moves:
		if r, kept := h.policy.Kept(w.path); kept {
			h.covered(c, name, w.path, r, unix.EBUSY)
		}
	case w.path != "":
		if r, e, refused := h.policy.Covered(w.path, w.rights); refused {
			h.covered(c, name, w.path, r, e)
			return
		}
		if w.unseen {
			return
		}
		ok, rule, origin := h.policy.Path(w.path, w.rights)
		if ok {
			return
		}
		h.note(c, supervise.Event{
			Kind: "observed", Syscall: name, Path: w.path, Verdict: "EACCES",
			Reason: "needs " + rightNames(w.rights), Rule: rule, Origin: origin, Closest: true,
		})
	}
}

// covered reports what a mount of the view refuses.
func (h *Handler) covered(c *supervise.Call, name, path string, r query.Ruling, e unix.Errno) {
	rule, origin := h.policy.Describe(r)
	h.note(c, supervise.Event{
		Kind: "observed", Syscall: name, Path: path, Verdict: unix.ErrnoName(e), Reason: r.Reason, Rule: rule, Origin: origin,
	})
}

// note records an event the first time and counts it from then on.
func (h *Handler) note(c *supervise.Call, e supervise.Event) {
	e.PID = c.TID
	if h.report.add(e) {
		h.journal.Record(e)
	}
}
