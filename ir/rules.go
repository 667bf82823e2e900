package ir

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/glob"
)

// MaxRules bounds the rules of a program: which of them have applied is then one word of bits.
const MaxRules = 64

// DynamicRule is one rule that is looked at before a held system call is carried out. The first rule that matches and
// has an outcome decides the call; a rule without one only makes its changes. Whatever rules say, they narrow: a call
// that they let through is still decided by Landlock, the filter's argument rules and the limits.
type DynamicRule struct {
	On        Events    `cbor:"1,keyasint"`
	Argv      string    `cbor:"2,keyasint,omitempty"` // contained in one of the arguments (EventExec only)
	Exe       Template  `cbor:"3,keyasint,omitempty"` // the program: with EventExec the one to be run, else the caller's
	Path      Template  `cbor:"4,keyasint,omitempty"` // pattern of the file, see [PathPattern] (events of files only)
	AfterExec bool      `cbor:"5,keyasint,omitempty"` // once the command has itself executed another program
	Count     uint32    `cbor:"6,keyasint,omitempty"` // from the Count-th matching event on; 0 and 1: from the first
	Then      Outcome   `cbor:"7,keyasint"`
	Do        []Change  `cbor:"8,keyasint,omitempty"`
	Scope     RuleScope `cbor:"9,keyasint"`
	Reason    string    `cbor:"10,keyasint,omitempty"`
	Origin    OriginRef `cbor:"11,keyasint,omitempty"`

	// What a call on a socket names (events of the network only): a CIDR block as in [NetRule], or a name, "*." before it
	// included; a port; one of the protocols.
	Host     string    `cbor:"12,keyasint,omitempty"`
	Port     uint16    `cbor:"13,keyasint,omitempty"`
	Protocol Protocols `cbor:"14,keyasint,omitempty"`
}

// Events is a set of kinds of held system calls.
type Events uint16

// Kinds of event, and the calls behind each.
const (
	EventExec     Events = 1 << 0 // execve, execveat
	EventClone    Events = 1 << 1 // fork, vfork, clone of a process
	EventOpen     Events = 1 << 2 // open, openat, openat2, creat
	EventUnlink   Events = 1 << 3 // unlink, unlinkat, rmdir
	EventRename   Events = 1 << 4 // rename, renameat, renameat2
	EventLink     Events = 1 << 5 // link, linkat
	EventMake     Events = 1 << 6 // mkdir, mkdirat, mknod, mknodat, symlink, symlinkat
	EventTruncate Events = 1 << 7 // truncate

	EventConnect Events = 1 << 8  // connect to an internet address
	EventBind    Events = 1 << 9  // bind to an internet address
	EventSend    Events = 1 << 10 // sendto, sendmsg, sendmmsg: each datagram to an internet address that the call names

	// EventFile is every event that names a file to use or change.
	EventFile = EventOpen | EventUnlink | EventRename | EventLink | EventMake | EventTruncate

	// EventNetwork is every event that names an internet address.
	EventNetwork = EventConnect | EventBind | EventSend

	knownEvents = EventExec | EventClone | EventFile | EventNetwork
)

var eventNames = []struct {
	bit  Events
	name string
}{
	{EventExec, "execve"}, {EventClone, "clone"}, {EventOpen, "open"}, {EventUnlink, "unlink"}, {EventRename, "rename"},
	{EventLink, "link"}, {EventMake, "make"}, {EventTruncate, "truncate"},
	{EventConnect, "connect"}, {EventBind, "bind"}, {EventSend, "sendto"},
}

// Names returns the events' names, as policies and the audit stream write them.
func (e Events) Names() []string {
	var names []string
	for _, n := range eventNames {
		if e&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// Outcome is what a rule decides.
type Outcome struct {
	_     struct{} `cbor:",toarray"`
	Kind  OutcomeKind
	Errno uint16 // for OutcomeErrno
}

// OutcomeKind is the kind of outcome.
type OutcomeKind uint8

// Kinds of outcome.
const (
	OutcomeNone  OutcomeKind = 0 // later rules decide
	OutcomeAllow OutcomeKind = 1 // the static policy decides
	OutcomeAudit OutcomeKind = 2 // the same, and the audit stream says that a rule asked for it
	OutcomeErrno OutcomeKind = 3 // the call fails
	OutcomeKill  OutcomeKind = 4 // the caller's process is killed
)

// Narrows reports whether the outcome refuses the call.
func (o Outcome) Narrows() bool { return o.Kind == OutcomeErrno || o.Kind == OutcomeKill }

// Change is one restriction that holds from the matching event on, for good.
type Change struct {
	_     struct{} `cbor:",toarray"`
	Kind  ChangeKind
	Value uint64   // for ChangeProcesses and ChangeMemory
	Path  Template // for ChangeDenyPath
	// Net is for ChangeNetwork: what may still be reached of what the network policy allows; empty: nothing.
	Net []NetRule
}

// ChangeKind is the kind of change.
type ChangeKind uint8

// Kinds of change.
const (
	ChangeProcesses ChangeKind = 1 // at most Value live processes
	ChangeMemory    ChangeKind = 2 // at most Value bytes of memory
	ChangeDenyPath  ChangeKind = 3 // Path and everything beneath it is closed
	ChangeNetwork   ChangeKind = 4 // nothing is reached that Net does not name, too
)

// RuleScope says whose events count and whom changes bind.
type RuleScope uint8

// Scopes.
const (
	ScopeSandbox RuleScope = 1 // the whole sandbox
	ScopeProcess RuleScope = 2 // the process of the event and its descendants
)

// DeniesPaths reports whether some rule can close a path.
func (p *Program) DeniesPaths() bool { return p.changes(ChangeDenyPath) }

// RestrictsNetwork reports whether some rule can narrow what is reached.
func (p *Program) RestrictsNetwork() bool { return p.changes(ChangeNetwork) }

func (p *Program) changes(kind ChangeKind) bool {
	for i := range p.Rules {
		for j := range p.Rules[i].Do {
			if p.Rules[i].Do[j].Kind == kind {
				return true
			}
		}
	}
	return false
}

// LimitsScopes reports whether some rule can limit a process and its descendants.
func (p *Program) LimitsScopes() bool {
	for i := range p.Rules {
		if p.Rules[i].Limits() && p.Rules[i].Scope == ScopeProcess {
			return true
		}
	}
	return false
}

// Limits reports whether the rule can lower a limit.
func (r *DynamicRule) Limits() bool {
	for _, c := range r.Do {
		if c.Kind == ChangeProcesses || c.Kind == ChangeMemory {
			return true
		}
	}
	return false
}

// VerifiesExec reports whether rules depend on what an execve runs: then it is looked at once more when the kernel has
// read it, and nobody can change it.
func (p *Program) VerifiesExec() bool {
	for i := range p.Rules {
		if r := &p.Rules[i]; r.On&EventExec != 0 && (r.Argv != "" || r.Exe != "") {
			return true
		}
	}
	return p.DeniesPaths()
}

// HeldEvents returns the events that the supervisor must see: those that rules name and, where a rule can close a path
// or narrow the network, or asks what the command has executed, those that it takes to keep that.
func (p *Program) HeldEvents() Events {
	var held Events
	for i := range p.Rules {
		r := &p.Rules[i]
		held |= r.On
		if r.AfterExec {
			held |= EventExec
		}
		if r.Scope == ScopeProcess {
			held |= EventClone // a child inherits from its parent, which must be known by then
		}
	}
	if p.DeniesPaths() {
		held |= EventExec | EventFile
	}
	if p.RestrictsNetwork() {
		held |= EventConnect | EventSend
	}
	return held
}

// PathPattern reports whether a rule's path is a pattern rather than one path.
func PathPattern(t Template) bool {
	literal := t
	for strings.Contains(literal, "${") {
		before, _, after, err := cutName(literal)
		if err != nil {
			break
		}
		literal = before + after
	}
	return strings.ContainsAny(literal, `*?[\`) || !strings.HasPrefix(t, "/") && !strings.HasPrefix(t, "${")
}

// ExpandPattern expands a rule's path. What a parameter's value brings in stands for itself, whatever it looks like.
func ExpandPattern(t Template, lookup Lookup) (string, error) {
	if !PathPattern(t) {
		return ExpandPath(t, lookup)
	}
	s, err := expand(t, func(name string) (string, bool) {
		value, ok := lookup(name)
		return glob.Escape(value), ok
	}, func(value string) error {
		if value == "" || value == "." || value == ".." {
			return fmt.Errorf("value %q in a path", value)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("expand pattern %q: %w", t, err)
	}
	return s, nil
}

func (p *Program) checkRules() error {
	if len(p.Rules) > MaxRules {
		return tooMany(len(p.Rules), MaxRules)
	}
	for i := range p.Rules {
		if err := p.checkRule(&p.Rules[i]); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return nil
}

func (p *Program) checkRule(r *DynamicRule) error {
	switch {
	case r.On == 0 || r.On&^knownEvents != 0:
		return fmt.Errorf("events %#x are unknown", r.On)
	case r.Argv != "" && r.On != EventExec:
		return errors.New("a condition on arguments, and an event that has none")
	case r.Path != "" && r.On&^EventFile != 0:
		return errors.New("a condition on a path, and an event that has none")
	case (r.Host != "" || r.Port != 0 || r.Protocol != 0) && r.On&^EventNetwork != 0:
		return errors.New("a condition on an address, and an event that has none")
	case r.Protocol > ICMP || r.Protocol&(r.Protocol-1) != 0:
		return fmt.Errorf("protocols %#x, want one", uint8(r.Protocol))
	case r.Scope != ScopeSandbox && r.Scope != ScopeProcess:
		return fmt.Errorf("scope %d is unknown", r.Scope)
	case r.Then.Kind > OutcomeKill:
		return fmt.Errorf("outcome %d is unknown", r.Then.Kind)
	case (r.Then.Kind == OutcomeErrno) != (r.Then.Errno != 0) || r.Then.Errno > abi.MaxErrno:
		return fmt.Errorf("outcome %d with errno %d", r.Then.Kind, r.Then.Errno)
	case r.Then.Kind == OutcomeNone && len(r.Do) == 0:
		return errors.New("neither an outcome nor a change")
	case len(r.Do) > MaxRules:
		return fmt.Errorf("changes: %w", tooMany(len(r.Do), MaxRules))
	}
	if len(r.Argv) > maxArgument || strings.ContainsRune(r.Argv, 0) {
		return errors.New("a text that no argument can contain")
	}
	if r.Exe != "" {
		if err := p.checkPath(r.Exe); err != nil {
			return err
		}
	}
	if err := p.checkPattern(r.Path); err != nil {
		return err
	}
	if err := p.checkRuleHost(r.Host); err != nil {
		return err
	}
	for i := range r.Do {
		if err := p.checkChange(r, &r.Do[i]); err != nil {
			return fmt.Errorf("change %d: %w", i, err)
		}
	}
	if err := checkLine(r.Reason); err != nil {
		return fmt.Errorf("reason: %w", err)
	}
	return p.checkOrigin(r.Origin)
}

// checkRuleHost holds for a condition on an address. Names under a wildcard are known to the resolver alone.
func (p *Program) checkRuleHost(host string) error {
	if host == "" {
		return nil
	}
	if strings.Contains(host, "/") {
		return checkNetPrefix(host)
	}
	if strings.HasPrefix(host, Wildcard) && !p.Net.Resolver {
		return errors.New("names with a wildcard need the resolver")
	}
	return checkHostName(strings.TrimPrefix(host, Wildcard))
}

func (p *Program) checkPattern(t Template) error {
	switch {
	case t == "":
		return nil
	case !PathPattern(t):
		return p.checkPath(t)
	case len(t) > MaxPath:
		return fmt.Errorf("pattern of %d bytes, at most %d are allowed", len(t), MaxPath)
	}
	if err := glob.Valid(t); err != nil {
		return err
	}
	if err := checkText(t); err != nil {
		return fmt.Errorf("pattern %q: %w", t, err)
	}
	return p.checkTemplateNames(t)
}

// checkChange holds for changes that can only narrow what the static policy allows.
func (p *Program) checkChange(r *DynamicRule, c *Change) error {
	limit, what := uint64(0), ""
	if c.Kind != ChangeNetwork && len(c.Net) > 0 {
		return errors.New("destinations for something else")
	}
	switch c.Kind {
	case ChangeNetwork:
		return p.checkNetChange(c)
	case ChangeDenyPath:
		if c.Value != 0 {
			return errors.New("a number for a path")
		}
		return p.checkPath(c.Path)
	case ChangeProcesses:
		limit, what = uint64(p.Limits.Processes), "processes"
	case ChangeMemory:
		limit, what = p.Limits.Memory, "bytes of memory"
	default:
		return fmt.Errorf("kind %d is unknown", c.Kind)
	}
	switch {
	case c.Path != "":
		return errors.New("a path for a number")
	case limit == 0 || c.Value > limit:
		return fmt.Errorf("%d %s, the limit is %d: a rule can only narrow", c.Value, what, limit)
	case r.Scope != ScopeSandbox && c.Kind == ChangeMemory && p.Limits.Backend == BackendCgroup:
		return errors.New("a control group has one limit of memory, for the whole sandbox")
	}
	return nil
}

// checkNetChange holds for a list that is intersected with what the policy allows.
func (p *Program) checkNetChange(c *Change) error {
	if c.Value != 0 || c.Path != "" {
		return errors.New("a number or a path for destinations")
	}
	if len(c.Net) > maxList {
		return tooMany(len(c.Net), maxList)
	}
	for i := range c.Net {
		r := &c.Net[i]
		if strings.HasPrefix(r.Target, Wildcard) && !p.Net.Resolver {
			return errors.New("names with a wildcard need the resolver")
		}
		if err := p.checkNetRule(r); err != nil {
			return fmt.Errorf("destination %d: %w", i, err)
		}
	}
	return nil
}
