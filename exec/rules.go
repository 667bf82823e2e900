package exec

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/sandlock-go/sandlock/exec/handler/memory"
	"github.com/sandlock-go/sandlock/exec/handler/processes"
	"github.com/sandlock-go/sandlock/exec/handler/rules"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// bindRules expands the paths of the dynamic rules.
func (s *sandbox) bindRules() (problems []string) {
	for _, r := range s.program.Rules {
		r := r
		expand := func(t *ir.Template, how func(ir.Template, ir.Lookup) (string, error)) {
			if *t == "" {
				return
			}
			path, err := how(*t, s.bound.lookup)
			if err != nil {
				problems = append(problems, s.ruleError(r.Origin, err).Error())
			}
			*t = path
		}
		expand(&r.Exe, ir.ExpandPath)
		expand(&r.Path, ir.ExpandPattern)
		r.Do = append([]ir.Change(nil), r.Do...)
		for i := range r.Do {
			expand(&r.Do[i].Path, ir.ExpandPath)
			var unbound []string
			r.Do[i].Net, unbound = s.bindPorts(r.Do[i].Net)
			problems = append(problems, unbound...)
		}
		s.rules = append(s.rules, r)
	}
	return problems
}

// lowered are the limits that rules can lower, filled in as the handlers that keep them are made.
type lowered struct {
	processes *processes.Handler
	memory    *memory.Handler
	// lowerMemory lowers limits.memory where a control group keeps it.
	lowerMemory func(bytes uint64)
	// instead are who may know what is to be read in place of a file, see [opens.Files.Instead].
	instead []func(pin kernel.Pin, flags, tid int) (content []byte, ok bool, err error)
}

// read returns what is to be read in place of a pinned file, and whether there is anything.
func (l *lowered) read(pin kernel.Pin, flags, tid int) (content []byte, ok bool, err error) {
	for _, instead := range l.instead {
		if content, ok, err = instead(pin, flags, tid); ok || err != nil {
			return content, ok, err
		}
	}
	return nil, false, nil
}

// lower lowers limits.memory, by whichever keeps it.
func (l *lowered) lower(bytes uint64) {
	if l.lowerMemory != nil {
		l.lowerMemory(bytes)
		return
	}
	l.memory.Lower(bytes)
}

// restrict bounds a process and what it and its descendants fork from now on. What holds anyway needs no scope, so that a
// rule that its own scope's processes meet again opens no other one, and scopes within scopes are few.
func (l *lowered) restrict(p *supervise.Process, changes []ir.Change, rule supervise.Event) error {
	most, err := l.processes.Least(p.PID)
	if err != nil {
		return err
	}
	bytes, opens, bounds := uint64(math.MaxUint64), false, false
	for _, c := range changes {
		switch c.Kind {
		case ir.ChangeProcesses:
			if c.Value < uint64(most) {
				most, opens = uint32(c.Value), true
			}
		case ir.ChangeMemory:
			least, err := l.memory.Least(p)
			if err != nil {
				return err
			}
			if c.Value < min(bytes, least) {
				bytes, opens, bounds = c.Value, true, true
			}
		}
	}
	if !opens {
		return nil
	}
	scope, err := l.processes.Separate(p, most, rule)
	if err != nil || !bounds {
		return err
	}
	return l.memory.Restrict(p, scope, bytes, rule)
}

// dynamicRules makes the handler of the dynamic rules, nil where the policy has none.
func (s *sandbox) dynamicRules(child *stage.Child, loop *supervise.Loop, j supervise.Journal) (*rules.Handler, *lowered, error) {
	limits := &lowered{}
	if len(s.rules) == 0 {
		return nil, limits, nil
	}
	p := rules.Policy{
		Rules: s.rules, Held: s.program.HeldEvents(), Verify: s.program.VerifiesExec(), Grants: s.grants,
		Name: func(i int) string {
			if path := rulePath(s.program, s.rules[i].Origin); path != "" {
				return path
			}
			return fmt.Sprintf("rules[%d]", i)
		},
		Where: func(i int) string { return where(s.program, s.rules[i].Origin) },
		// The policy has the limits that its rules lower, or else these panic, which refuses the call.
		LimitProcesses: func(n uint32) { limits.processes.Limit(n) },
		LimitMemory:    func(n uint64) { limits.lower(n) },
		Instead:        limits.read,
		Names:          s.namesOf(),
		Root:           s.root,
		Audited:        s.options.Audit != nil || s.options.Explain,
	}
	p.Restrict = func(process *supervise.Process, rule int) error {
		return limits.restrict(process, s.rules[rule].Do, supervise.Event{Rule: p.Name(rule), Origin: p.Where(rule)})
	}
	if s.options.hooks.event != nil {
		p.Hook = s.options.hooks.event
	}
	for i := range s.rules {
		p.Networks = append(p.Networks, s.narrowed(&s.rules[i]))
	}
	for _, r := range s.reach.Paths {
		if r.Access&abi.FSWriteFile != 0 {
			p.Writable = append(p.Writable, r.Path)
		}
	}
	h, err := rules.New(s.arch, p, child.PID, supervise.NewIndex(loop), loop, j)
	return h, limits, err
}

// narrowed are the lists of destinations to which a rule narrows the network, as tables.
func (s *sandbox) narrowed(r *ir.DynamicRule) (lists []*query.Network) {
	for i := range r.Do {
		if c := &r.Do[i]; c.Kind == ir.ChangeNetwork {
			n := &ir.Net{Destinations: ir.DestinationsAllowed, Rules: c.Net}
			lists = append(lists, query.NewNetwork(n, s.pins.Addresses, func(string) (uint16, bool) { return 0, false }))
		}
	}
	return lists
}

// namesOf returns what tells the pinned names of an address.
func (s *sandbox) namesOf() func(netip.Addr) []string {
	names := map[netip.Addr][]string{}
	for _, name := range s.pins.names {
		for _, a := range s.pins.addresses[name] {
			a = query.Canonical(a)
			names[a] = append(names[a], name)
		}
	}
	return func(a netip.Addr) []string {
		if s.learned == nil {
			return names[a]
		}
		return append(slices.Clip(names[a]), s.learned.names(a)...)
	}
}

// grantsUnless is grants without what rules have closed.
func (s *sandbox) grantsUnless(closed func(path string) (rule, origin string, ok bool)) func(string, uint64) (bool, string, string) {
	return func(path string, want uint64) (bool, string, string) {
		if rule, origin, ok := closed(path); ok {
			return false, rule, origin
		}
		return s.grants(path, want)
	}
}
