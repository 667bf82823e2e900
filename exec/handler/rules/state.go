package rules

import (
	"os"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
)

// ruleSet is a set of rules by their number, of which there are at most ir.MaxRules.
type ruleSet uint64

// process is what the rules know of one process of the sandbox. It outlives the process as long as descendants do.
type process struct {
	parent  *process
	own     ruleSet // rules of scope "process" whose changes it has met itself
	counts  map[int]uint64
	exited  bool
	unknown bool // its line of descent is lost: every change of scope "process" binds it
}

// state is who is bound by what. Changes of scope "process" bind the process of the event and its descendants, those
// that it already has and those to come: a process inherits by its parent, which is looked up when it is first seen.
// The filter refuses the calls by which a process can come to have another parent than its maker while that lives (see
// compiler/lower/rules.go); so what is a child of the executor, and not the command, has lost its parent.
type state struct {
	command int
	index   *supervise.Index
	known   map[*supervise.Process]*process
	sandbox ruleSet // changes that bind everybody
	scoped  ruleSet // changes that bind somebody
	counts  map[int]uint64
	highest map[int]uint64 // of all counts of scope "process"

	parent func(pid int) (int, error)
	self   int
}

func newState(command int, index *supervise.Index) state {
	s := state{
		command: command, index: index, known: map[*supervise.Process]*process{}, counts: map[int]uint64{}, highest: map[int]uint64{}, self: os.Getpid(),
		parent: func(pid int) (int, error) {
			st, err := kernel.ReadStat(pid)
			return st.Parent, err
		},
	}
	if index != nil {
		known := s.known
		index.OnExit(func(p *supervise.Process) {
			if gone := known[p]; gone != nil {
				gone.exited = true
				delete(known, p)
			}
		})
	}
	return s
}

// maxUnseen bounds how many ancestors that were never seen are looked up for one process.
const maxUnseen = 256

// of returns what is known of a process, which is looked up when it is new.
func (s *state) of(p *supervise.Process) *process { return s.lookUp(p, maxUnseen) }

func (s *state) lookUp(p *supervise.Process, depth int) *process {
	if known := s.known[p]; known != nil {
		return known
	}
	made := &process{counts: map[int]uint64{}}
	s.known[p] = made
	if p.PID == s.command {
		return made
	}
	if made.parent = s.parentOf(p, depth); made.parent != nil {
		for rule, n := range made.parent.counts {
			made.counts[rule] = n
		}
		return made
	}
	made.unknown = true
	for rule, n := range s.highest {
		made.counts[rule] = n
	}
	return made
}

// parentOf returns the parent, nil if it is not known any more.
func (s *state) parentOf(p *supervise.Process, depth int) *process {
	pid, err := s.parent(p.PID)
	if err != nil || pid == s.self || pid == 0 || depth == 0 {
		return nil
	}
	parent, err := s.index.Add(pid)
	if err != nil {
		return nil
	}
	// The number may have gone to somebody else between the two looks: then it is not the parent any more.
	if again, err := s.parent(p.PID); err != nil || again != pid || parent.Start > p.Start {
		return nil
	}
	return s.lookUp(parent, depth-1)
}

// applied returns the rules whose changes bind a process. Ancestors that have exited are folded into their children on
// the way, so that a long line of processes that fork and exit costs nothing.
func (s *state) applied(p *process) ruleSet {
	set := s.sandbox
	for ; p != nil; p = p.parent {
		for p.parent != nil && p.parent.exited {
			p.own |= p.parent.own
			p.unknown = p.unknown || p.parent.unknown
			p.parent = p.parent.parent
		}
		set |= p.own
		if p.unknown {
			set |= s.scoped
		}
	}
	return set
}

// apply notes that a rule's changes have come into force.
func (s *state) apply(p *process, rule int, scope ir.RuleScope) {
	if scope == ir.ScopeSandbox {
		s.sandbox |= 1 << rule
		return
	}
	p.own |= 1 << rule
	s.scoped |= 1 << rule
}

// count returns how many events have met a rule's conditions; with one more it first counts this one. A process counts
// on from where its parent was when it was first seen.
func (s *state) count(p *process, rule int, scope ir.RuleScope, oneMore bool) uint64 {
	counts := s.counts
	if scope == ir.ScopeProcess {
		counts = p.counts
	}
	if oneMore {
		counts[rule]++
		if scope == ir.ScopeProcess {
			s.highest[rule] = max(s.highest[rule], counts[rule])
		}
	}
	return counts[rule]
}
