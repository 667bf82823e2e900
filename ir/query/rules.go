package query

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/glob"
)

// Held is one held system call, as the dynamic rules see it.
type Held struct {
	Kind ir.Events // one of them
	Argv []string  // EventExec: the arguments
	// Programs are what is to be run (EventExec: with a script, both it and its interpreter), else what the caller runs.
	Programs []File
	// Files are what the call names: one, or source and target.
	Files []File
	// Protocol and To are what a call on a socket names (EventNetwork).
	Protocol ir.Protocols
	To       netip.AddrPort
	// Names returns the names by which the sandbox has an address. nil: there are none.
	Names func(netip.Addr) []string
	// AfterExec says that the command has itself executed another program.
	AfterExec bool
}

// File is a file by the path that the kernel knows it by.
type File struct {
	Path string
	// Also lists paths of the policy that lead to the same file: a hard link is the file whatever it is called.
	Also []string
}

// NoRule is the [HeldDecision.Rule] of a decision that no rule made.
const NoRule = -1

// HeldDecision is what the rules say of a held call: the outcome, the rule that decided, and the rules whose changes
// apply from now on.
type HeldDecision struct {
	Outcome ir.Outcome
	Rule    int
	Do      []int
}

// Rules asks the dynamic rules in their order. Paths in rules must be expanded, and led to where they lead, as those of
// the event are; writable lists the directories that patterns without a leading slash are relative to. count is called
// for each rule whose other conditions hold and returns how many events, this one included, have met them.
//
// An event may involve several programs or files, and an address may stand for another. A rule that narrows matches if
// any of them does; one that lets through must match all, so that no denied thing hides behind an allowed one.
func Rules(rules []ir.DynamicRule, e *Held, writable []string, count func(rule int) uint64) HeldDecision {
	d := HeldDecision{Outcome: ir.Outcome{Kind: ir.OutcomeAllow}, Rule: NoRule}
	for i := range rules {
		r := &rules[i]
		any, all := matches(r, e, writable)
		if !any || r.Count > 1 && count(i) < uint64(r.Count) {
			continue
		}
		if len(r.Do) > 0 {
			d.Do = append(d.Do, i)
		}
		if r.Then.Kind == ir.OutcomeNone || !r.Then.Narrows() && !all {
			continue
		}
		d.Outcome, d.Rule = r.Then, i
		return d
	}
	return d
}

// matches evaluates all conditions but the count.
func matches(r *ir.DynamicRule, e *Held, writable []string) (any, all bool) {
	if r.On&e.Kind == 0 || r.AfterExec && !e.AfterExec {
		return false, false
	}
	if r.Argv != "" && !slices.ContainsFunc(e.Argv, func(arg string) bool { return strings.Contains(arg, r.Argv) }) {
		return false, false
	}
	if r.Protocol != 0 && r.Protocol != e.Protocol || r.Port != 0 && (e.Protocol == ir.ICMP || r.Port != e.To.Port()) {
		return false, false
	}
	any, all = true, true
	if r.Host != "" {
		any, all = e.reaches(r.Host)
	}
	involved := func(files []File, match func(*File) bool) {
		n := 0
		for i := range files {
			if match(&files[i]) {
				n++
			}
		}
		any, all = any && n > 0, all && n > 0 && n == len(files)
	}
	if r.Exe != "" {
		involved(e.Programs, func(f *File) bool { return f.is(r.Exe) })
	}
	if r.Path != "" {
		involved(e.Files, func(f *File) bool { return f.matchesPattern(r.Path, writable) })
	}
	return any, all
}

// reaches tells whether the address is what a rule names: as itself, and as any of the addresses that it may lead to.
func (e *Held) reaches(host string) (any, all bool) {
	addr := Canonical(e.To.Addr())
	if all = e.named(host, addr); all {
		return true, true
	}
	if e.named(host, plain(e.To.Addr())) { // 0.0.0.0 and :: as such
		return true, false
	}
	inner, ok := Embedded(addr)
	return ok && e.named(host, Canonical(inner)), false
}

// named tells whether an address is what a rule names.
func (e *Held) named(host string, addr netip.Addr) bool {
	if strings.Contains(host, "/") {
		prefix, err := netip.ParsePrefix(host)
		return err == nil && prefix.Contains(addr)
	}
	return e.Names != nil && slices.ContainsFunc(e.Names(addr), func(name string) bool { return MatchName(host, name) })
}

// Leaves decides whether a list of destinations, to which the network was narrowed, holds an address: as such, or by a
// name that the sandbox has it by.
func (w *Network) Leaves(protocol ir.Protocols, to netip.AddrPort, names func(netip.Addr) []string) bool {
	if allowed, _ := w.Decide(protocol, to); allowed {
		return true
	}
	if names == nil {
		return false
	}
	for _, name := range names(Canonical(to.Addr())) {
		if allowed, _ := w.Among(w.NameRules(name), protocol, to.Port()); allowed {
			return true
		}
	}
	return false
}

func (f *File) is(name string) bool { return f.Path == name || slices.Contains(f.Also, name) }

func (f *File) matchesPattern(pattern string, writable []string) bool {
	switch {
	case !ir.PathPattern(pattern):
		return f.is(pattern)
	case strings.HasPrefix(pattern, "/"):
		return glob.Match(pattern, f.Path)
	}
	for _, w := range writable {
		rest, ok := strings.CutPrefix(f.Path, strings.TrimSuffix(w, "/")+"/")
		if ok && glob.Match(pattern, rest) {
			return true
		}
	}
	return false
}

// Denied returns the closed path that a file is or lies beneath, "" if none. denied holds paths as the kernel knows them.
func Denied(denied []string, f *File) string {
	for _, d := range denied {
		if f.is(d) || Beneath(f.Path, d) {
			return d
		}
	}
	return ""
}

// above reports whether a path lies above a closed one: to move or remove it would give the closed one another name.
func above(p, denied string) bool { return p != denied && Beneath(denied, p) }

// MovesDenied returns the closed path that would get another name if f were moved, "" if none.
func MovesDenied(denied []string, f *File) string {
	for _, d := range denied {
		if above(f.Path, d) {
			return d
		}
	}
	return Denied(denied, f)
}

// Beneath reports whether a path is another or lies beneath it.
func Beneath(p, parent string) bool {
	return p == parent || parent == "/" || parent != "" && strings.HasPrefix(p, parent) && p[len(parent)] == '/'
}
