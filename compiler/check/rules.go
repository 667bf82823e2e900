package check

import (
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// checkRules refuses dynamic rules that ask for what their events do not have, and those that would widen.
func checkRules(c *checker) {
	if n := len(c.Rules.Items); n > ir.MaxRules {
		c.errorf(c.Rules.Items[ir.MaxRules].Origin, "list-size", "%d rules, at most %d are allowed", n, ir.MaxRules)
	}
	for i := range c.Rules.Items {
		r := &c.Rules.Items[i].V
		c.conditionFits(r, r.If.ArgvContains.Origin, r.If.ArgvContains.Set, ir.EventExec, "execve")
		if v := r.If.ArgvContains; strings.Contains(v.V, "${") {
			c.add(diag.At(v.Origin, "rule-text", "arguments are compared as they are: no parameter is replaced here").WithHint("write the text itself, or use exe or path"))
		}
		c.conditionFits(r, r.If.Path.Origin, r.If.Path.Set, ir.EventFile, "file, open, unlink and rename")
		c.addresses(r)
		for _, do := range r.Do.Items {
			c.narrows(r, &do.V)
		}
		c.reached(i)
		c.opensOnBehalf(r)
	}
}

// opensOnBehalf refuses rules about paths beside seeded randomness: either has the supervisor open files for the command,
// and the one would hand out the true devices that the other replaces.
func (c *checker) opensOnBehalf(r *policy.DynamicRule) {
	seed := c.Determinism.RandomSeed
	if !seed.Set {
		return
	}
	refuse := func(v policy.Val[string]) {
		if v.Set {
			d := diag.At(v.Origin, "rule-random", "a rule about paths cannot stand beside determinism.random_seed")
			c.add(d.WithNote(seed.Origin.Place, "the seed is set at").WithHint("leave one of them out"))
		}
	}
	refuse(r.If.Path)
	for _, do := range r.Do.Items {
		refuse(do.V.DenyPath)
	}
}

func events(r *policy.DynamicRule) (all ir.Events) {
	for _, on := range r.On.Items {
		all |= lower.RuleEvents[on.V]
	}
	return all
}

// conditionFits refuses a condition on what only some of a rule's events have: the rule would never match the others.
func (c *checker) conditionFits(r *policy.DynamicRule, origin policy.Origin, set bool, has ir.Events, names string) {
	if !set {
		return
	}
	if lacking := events(r) &^ has; lacking != 0 {
		d := diag.At(origin, "rule-condition", "only %s events have it, and the rule is also about %s", names, strings.Join(lacking.Names(), ", "))
		c.add(d.WithHint("write another rule for the other events"))
	}
}

// narrows refuses changes that are not below the limit that they change.
func (c *checker) narrows(r *policy.DynamicRule, do *policy.RuleDo) {
	check := func(origin policy.Origin, field string, value uint64, limit uint64, limitOrigin policy.Origin) {
		switch {
		case limit == 0:
			c.add(diag.At(origin, "rule-narrows", "there is no %s that it could narrow", field).WithHint("set %s", field))
		case r.Scope.V == "process" && field == "limits.memory" && c.Limits.Backend.V == "cgroup":
			d := diag.At(origin, "rule-scope", "a control group has one limit of memory, for the whole sandbox")
			c.add(d.WithNote(c.Limits.Backend.Origin.Place, "it is chosen at").WithHint(`leave out scope: "process"`))
		case value > limit:
			c.add(diag.At(origin, "rule-widens", "a rule can only narrow, and %d is more than %s", value, field).WithNote(limitOrigin.Place, "the limit is set at"))
		}
	}
	if v := do.RestrictProcesses; v.Set {
		check(v.Origin, "limits.processes", uint64(v.V), uint64(c.Limits.Processes.V), c.Limits.Processes.Origin)
	}
	if v := do.RestrictMemory; v.Set {
		check(v.Origin, "limits.memory", v.V, c.Limits.Memory.V, c.Limits.Memory.Origin)
	}
}

func conditional(c *policy.RuleCondition) bool {
	return c.ArgvContains.Set || c.Exe.Set || c.Host.Set || c.Port.Set || c.Path.Set || c.Protocol.Set || c.After.Set || c.Count.Set
}

// reached warns of a rule that an earlier one leaves nothing for.
func (c *checker) reached(i int) {
	rule := c.Rules.Items[i]
	for _, earlier := range c.Rules.Items[:i] {
		e := &earlier.V
		always := !conditional(&e.If)
		if always && e.Then.Action.Set && events(&rule.V) != 0 && events(&rule.V)&^events(e) == 0 {
			c.add(diag.At(rule.Origin, "no-effect", "an earlier rule decides all of these events").AsWarning().WithNote(earlier.Origin.Place, "decided at"))
			return
		}
	}
}

// addresses refuses conditions on what a call on a socket names where they can never hold, and names without addresses.
func (c *checker) addresses(r *policy.DynamicRule) {
	const network = "network, connect, bind and sendto"
	f := &r.If
	c.conditionFits(r, f.Host.Origin, f.Host.Set, ir.EventNetwork, network)
	c.conditionFits(r, f.Port.Origin, f.Port.Set, ir.EventNetwork, network)
	c.conditionFits(r, f.Protocol.Origin, f.Protocol.Set, ir.EventNetwork, network)
	if f.Port.Set && f.Protocol.V == "icmp" {
		c.add(diag.At(f.Port.Origin, "rule-condition", "icmp has no ports").WithNote(f.Protocol.Origin.Place, "the protocol is set at"))
	}
	if f.Host.Set {
		if rule, err := policy.ParseNetRule(f.Host.V); err == nil && rule.Kind == policy.TargetHost {
			c.known(f.Host.Origin, rule.Host)
		}
	}
	for _, do := range r.Do.Items {
		list := do.V.RestrictNetwork
		if !list.Set {
			continue
		}
		if n := &c.Network; len(n.Allow.Items)+len(n.Deny.Items) == 0 && !c.HTTP.On() {
			c.warnf(list.Origin, "no-effect", "nothing can be reached anyway")
		}
		for _, it := range list.Items {
			if it.V.Kind == policy.TargetHost {
				c.known(it.Origin, it.V.Host)
			}
		}
	}
}

// known refuses a name that has no addresses: those of names in network.allow and network.hosts are known, and others only
// where a lock file gives them. A resolver of the sandbox's own answers for the names in network.allow, wildcards included.
func (c *checker) known(o policy.Origin, name string) {
	n := &c.Network
	allowed := func(it policy.Val[policy.NetRule]) bool {
		host := it.V.Host
		return it.V.Kind == policy.TargetHost &&
			(host == name || n.Resolver.V && (query.MatchName(host, name) || query.MatchName(name, host)))
	}
	given := func(it policy.Val[policy.PinnedHost]) bool { return it.V.Name == name }
	wildcard := strings.HasPrefix(name, ir.Wildcard)
	requested := func(it policy.Val[policy.HTTPRule]) bool {
		host := it.V.Host
		return it.V.NamesHost() && (host == name || n.Resolver.V && query.MatchName(name, host))
	}
	if slices.ContainsFunc(n.Allow.Items, allowed) || slices.ContainsFunc(n.Hosts.Items, given) || slices.ContainsFunc(c.HTTP.Reached(), requested) {
		return
	}
	if n.Resolve.V == "compile" && !wildcard {
		return // compiler/lock sees to it
	}
	d := diag.At(o, "rule-host", "%s has no address here: neither network.allow nor network.hosts names it", name)
	if wildcard {
		c.add(d.WithHint("name it in network.allow, and write network.resolver: true"))
		return
	}
	c.add(d.WithHint("give it one in network.hosts"))
}
