// Package rules looks at calls before they are carried out and narrows what the sandbox may do: the policy's section
// `rules`.
//
// It stands before every other handler. It gathers what the rules of the call's event ask about, has ir/query decide,
// puts the changes of the matching rules into force, and only then lets the call go on. It grants nothing: what it lets
// through goes to the next handler, and in the end to the kernel.
//
// Where a decision depends on memory that the command can change, letting the kernel read it again would make the
// decision worthless. So:
//
//   - files (open.go, change.go): the file or its directory is pinned, the decision is about the pin, and the call is
//     carried out on the pin by the executor, which has the same user and the same Landlock grants.
//   - addresses (network.go): the handler that carries the call out has copied the address, and asks.
//   - programs (exec.go, tracer.go): an execve cannot be carried out for someone else, and freezing everyone who could
//     write the arguments means finding them all, shared mappings included. The kernel does better: once it has copied
//     arguments and program into the new address space, which nobody shares, it stops a traced thread before the first
//     instruction. The handler traces the caller for just that long, looks again at what really runs, and kills it if
//     that is worse than what was admitted.
//
// It must never read memory for a clone, whose flags are in registers: the handlers behind it continue that call.
//
// Read next: exec.go, open.go, state.go (who is bound by what), hook.go (the Go callback).
package rules

import (
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Policy is what the handler enforces, bound for one run.
type Policy struct {
	Rules    []ir.DynamicRule // paths expanded
	Held     ir.Events
	Verify   bool     // what an execve runs must be looked at again
	Writable []string // real directories of the write grants
	// Grants says whether the static policy grants all rights in want on a real path, as in package metadata.
	Grants func(path string, want uint64) (ok bool, closestRule, closestOrigin string)
	// Name and Where give a rule's policy path and place.
	Name, Where func(rule int) string
	// LimitProcesses and LimitMemory lower a limit; nil where the program cannot ask for it.
	LimitProcesses func(n uint32)
	LimitMemory    func(bytes uint64)
	// Restrict bounds a process and what it and its descendants fork from now on, as the changes of a rule of scope "process"
	// say. Doing it twice does no harm.
	Restrict func(p *supervise.Process, rule int) error
	// Instead returns what a thread is to read in place of a pinned file that it may read, and whether there is anything.
	// flags are those of open(2).
	Instead func(pin kernel.Pin, flags, tid int) (content []byte, ok bool, err error)
	// Networks are what the changes of a rule leave of the network, by rule; Names are those that the sandbox has an address
	// by.
	Networks [][]*query.Network
	Names    func(netip.Addr) []string
	// Root is where the command's paths begin.
	Root kernel.Root
	// Audited tells that somebody reads the journal.
	Audited bool
	// Hook is asked about every held call that the rules let through, see [Hook].
	Hook Hook
}

// Handler is the dynamic rules of one sandbox.
type Handler struct {
	policy  Policy
	arch    abi.Arch
	index   *supervise.Index
	journal supervise.Journal
	calls   map[abi.Sysno]call
	targets targets
	state   state
	tracer  tracer
	hook    hook

	executions int // programs that the sandbox has executed, the command's own start included
}

// New makes the handler for a sandbox whose first process is command.
func New(arch abi.Arch, p Policy, command int, index *supervise.Index, loop *supervise.Loop, j supervise.Journal) (*Handler, error) {
	h := &Handler{policy: p, arch: arch, index: index, journal: j, calls: map[abi.Sysno]call{}, hook: hook{f: p.Hook, limit: HookTime}}
	for name, c := range calls {
		if nr, ok := abi.SyscallNumber(arch, name); ok && p.Held&c.event != 0 {
			c.name = name
			h.calls[nr] = c
		}
	}
	if p.Hook != nil {
		h.policy.Verify = true // it sees the arguments, and may decide by them
	}
	h.targets = newTargets(p.Root, p.Rules)
	h.state = newState(command, index)
	if err := h.tracer.init(loop, command, h.verify); err != nil {
		return nil, err
	}
	kernel.ClearUmask() // files are created with their creators' masks
	return h, nil
}

// Name is the concern.
func (h *Handler) Name() string { return "rules" }

// Syscalls lists the held calls.
func (h *Handler) Syscalls() []abi.Sysno {
	return slices.Collect(maps.Keys(h.calls))
}

// Handle decides a held call.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	spec := h.calls[c.Nr]
	p, err := h.index.Of(c.TID)
	if err != nil {
		return supervise.Errno(unix.EPERM)
	}
	w := &held{call: c, spec: spec, process: p, who: h.state.of(p)}
	w.facts.Kind, w.facts.AfterExec = spec.event, h.executions > 1
	switch spec.event {
	case ir.EventExec:
		return h.exec(w)
	case ir.EventClone:
		h.callersProgram(w)
		v, _ := h.settle(w, h.decide(w))
		return v
	}
	return h.file(w)
}

// held is a call that is being decided.
type held struct {
	call    *supervise.Call
	spec    call
	process *supervise.Process
	who     *process
	facts   query.Held
	file    string // EventExec: what was named
	named   []string
	again   bool // looked at before: do not count it once more
}

// decision is what became of a held call.
type decision struct {
	outcome ir.Outcome
	rule    int    // query.NoRule: none
	closed  string // the path that a rule has closed, "" if that is not why

	restricted bool // a rule has left the destination out
	impossible bool // no rule refuses: it would have failed anyway
}

func (d decision) refuses() bool { return d.outcome.Narrows() }

// decide asks the rules, and puts the changes of those that match into force.
func (h *Handler) decide(w *held) decision {
	count := func(rule int) uint64 { return h.state.count(w.who, rule, h.policy.Rules[rule].Scope, !w.again) }
	q := query.Rules(h.policy.Rules, &w.facts, h.policy.Writable, count)
	d := decision{outcome: q.Outcome, rule: q.Rule}
	for _, rule := range q.Do {
		if err := h.apply(w, rule); err != nil && !d.refuses() {
			h.fault(w, "bring "+h.policy.Name(rule)+" into force: "+err.Error())
			d = decision{outcome: errnoOutcome(unix.EPERM), rule: rule, impossible: true}
		}
	}
	if !d.refuses() {
		h.refuseClosed(w, &d)
	}
	return d
}

// apply puts a rule's changes into force. They only ever narrow, so that doing it twice does no harm.
func (h *Handler) apply(w *held, rule int) error {
	r := &h.policy.Rules[rule]
	h.state.apply(w.who, rule, r.Scope)
	if r.Scope == ir.ScopeProcess {
		if r.Limits() {
			return h.policy.Restrict(w.process, rule)
		}
		return nil
	}
	for _, c := range r.Do {
		switch c.Kind {
		case ir.ChangeProcesses:
			h.policy.LimitProcesses(uint32(c.Value))
		case ir.ChangeMemory:
			h.policy.LimitMemory(c.Value)
		}
	}
	return nil
}

// refuseClosed refuses files and programs beneath paths that a rule has closed for the caller.
func (h *Handler) refuseClosed(w *held, d *decision) {
	applied := h.state.applied(w.who)
	for rule := range h.policy.Rules {
		if applied>>rule&1 == 0 {
			continue
		}
		closed := h.targets.closedBy(&h.policy.Rules[rule])
		if len(closed) == 0 {
			continue
		}
		for _, list := range [][]query.File{w.facts.Files, programsToRun(w)} {
			for i := range list {
				within := query.Denied(closed, &list[i])
				if within == "" && w.moves() {
					within = query.MovesDenied(closed, &list[i])
				}
				if within != "" {
					d.outcome, d.rule, d.closed = errnoOutcome(unix.EACCES), rule, within
					return
				}
			}
		}
	}
}

// moves tells whether the call gives what lies beneath its files other names.
func (w *held) moves() bool { return w.spec.event&(ir.EventRename|ir.EventUnlink) != 0 }

func programsToRun(w *held) []query.File {
	if w.facts.Kind != ir.EventExec {
		return nil
	}
	return w.facts.Programs
}

func errnoOutcome(e unix.Errno) ir.Outcome {
	return ir.Outcome{Kind: ir.OutcomeErrno, Errno: uint16(e)}
}

// settle concludes a decision and turns it into a verdict: Next if nothing refuses.
func (h *Handler) settle(w *held, d decision) (v supervise.Verdict, admitted bool) {
	d = h.conclude(w, d)
	return verdict(d.outcome), !d.refuses()
}

// conclude asks the hook, and records the decision.
func (h *Handler) conclude(w *held, d decision) decision {
	if !d.refuses() && h.hook.f != nil {
		if o := h.hook.ask(h.event(w, d)); o.Narrows() {
			d = decision{outcome: o, rule: query.NoRule}
		}
	}
	h.record(w, d)
	return d
}

func verdict(o ir.Outcome) supervise.Verdict {
	switch o.Kind {
	case ir.OutcomeErrno:
		return supervise.Errno(unix.Errno(o.Errno))
	case ir.OutcomeKill:
		return supervise.Kill()
	}
	return supervise.Next()
}

// record writes the held call to the journal.
func (h *Handler) record(w *held, d decision) {
	if !h.policy.Audited {
		return
	}
	e := supervise.Event{Kind: "held", PID: w.call.TID, Parent: w.process.Parent, Syscall: w.spec.name, Path: w.file, Argv: w.facts.Argv, Address: w.address(), Verdict: verdictText(d.outcome)}
	if len(e.Argv) > maxArgs {
		e.Argv = e.Argv[:maxArgs]
	}
	paths := w.named
	if w.file != "" {
		paths = nil
	}
	if len(w.facts.Files) > 0 {
		paths = nil
		for _, f := range w.facts.Files {
			paths = append(paths, f.Path)
		}
	}
	if len(paths) > 0 {
		e.Path = paths[0]
	}
	if len(paths) > 1 {
		e.Path2 = paths[1]
	}
	if d.refuses() && !d.impossible {
		e.Kind = "denied"
	}
	if d.rule != query.NoRule {
		e.Rule, e.Origin, e.Reason = h.policy.Name(d.rule), h.policy.Where(d.rule), h.policy.Rules[d.rule].Reason
	}
	switch {
	case e.Reason != "":
	case d.impossible:
		e.Reason = "it cannot be done"
	case d.closed != "":
		e.Reason = "a rule has closed " + d.closed
	case d.restricted:
		e.Reason = "a rule has narrowed the network, and left this destination out"
	case d.refuses() && d.rule == query.NoRule:
		e.Reason = "the callback refused it"
	case d.refuses():
		e.Reason = "a rule refuses it"
	}
	h.journal.Record(e)
}

func verdictText(o ir.Outcome) string {
	switch o.Kind {
	case ir.OutcomeErrno:
		return unix.ErrnoName(unix.Errno(o.Errno))
	case ir.OutcomeKill:
		return "kill"
	case ir.OutcomeAudit:
		return "audit"
	}
	return "allow"
}

// callersProgram adds the program that the caller runs, if a rule of the event asks for it.
func (h *Handler) callersProgram(w *held) {
	asks := func(r ir.DynamicRule) bool { return r.On&w.facts.Kind != 0 && r.Exe != "" }
	if !slices.ContainsFunc(h.policy.Rules, asks) {
		return
	}
	w.facts.Programs = h.runs(w.process.PID)
}

// runs describes the program that a process runs. If that cannot be known it is taken for every program that a rule may
// refuse, and for none that a rule may let through.
func (h *Handler) runs(pid int) []query.File {
	pin, err := h.policy.Root.PinProgram(pid)
	if err != nil {
		return h.targets.unknown()
	}
	defer pin.Close()
	return []query.File{h.targets.describe(pin)}
}

// Last continues the held calls that no other handler has taken.
func (h *Handler) Last() supervise.Handler { return last{h} }

type last struct{ h *Handler }

func (l last) Name() string          { return "rules (kernel)" }
func (l last) Syscalls() []abi.Sysno { return l.h.Syscalls() }
func (last) Handle(*supervise.Call) supervise.Verdict {
	// Whatever could be changed after it was looked at has been carried out, refused, or will be looked at again: here
	// nothing is granted.
	return supervise.Continue(supervise.KernelDecides)
}

// Closed reports whether some rule has closed a path, for anybody, and which. It is for handlers that change files in
// other ways and do not know whose call they answer as the rules do.
func (h *Handler) Closed(path string) (rule, origin string, closed bool) {
	file := query.File{Path: path}
	for i := range h.policy.Rules {
		if (h.state.sandbox|h.state.scoped)>>i&1 == 1 && query.Denied(h.targets.closedBy(&h.policy.Rules[i]), &file) != "" {
			return h.policy.Name(i), h.policy.Where(i), true
		}
	}
	return "", "", false
}
