// Package check finds mistakes that no single field shows: items that contradict each other, names that name nothing,
// grants that cannot mean what they say.
//
// In: the policy tree, which the schema has accepted. Out: diagnostics, errors and warnings, each with the places of
// all items that it is about. Ranges, enumerations, exclusions and "needs" between fields are the schema's; what is
// not built yet stands in compiler/unsupported.go. It changes nothing and does not look at the host.
//
// To add a rule: a function in the file of its noun, a line in rules, a case in check_test.go, and a stable
// identifier in brackets that the message keeps.
package check

import (
	"cmp"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
)

// rules are all rules, in the order of the sections that they are about.
var rules = []func(*checker){
	checkTarget,
	checkParams,
	checkTemplates,
	checkProgram,
	checkSupervisor,
	checkNamespaces,
	checkPaths,
	checkAccessRules,
	checkProc,
	checkChroot,
	checkMounts,
	checkDeny,
	checkProtect,
	checkBranch,
	checkKernelPaths,
	checkPorts,
	checkHTTP,
	checkGroups,
	checkSyscallArgs,
	checkLimits,
	checkRules,
	checkTests,
}

// Policy checks a policy.
func Policy(p *policy.Policy) diag.List {
	c := &checker{Policy: p, used: map[string]bool{}}
	for _, rule := range rules {
		rule(c)
	}
	return c.list
}

// checker collects diagnostics about one policy.
type checker struct {
	*policy.Policy
	list diag.List
	used map[string]bool // parameters that something uses
}

func (c *checker) add(d diag.Diagnostic) { c.list.Add(d) }

func (c *checker) errorf(o policy.Origin, rule, format string, args ...any) {
	c.add(diag.At(o, rule, format, args...))
}

func (c *checker) warnf(o policy.Origin, rule, format string, args ...any) {
	c.add(diag.At(o, rule, format, args...).AsWarning())
}

// unknown reports a name that names nothing, with the nearest that does.
func (c *checker) unknown(o policy.Origin, rule, what, name string, candidates []string) {
	d := diag.At(o, rule, "no such %s: %q", what, name)
	if near, ok := diag.Suggest(name, candidates); ok {
		d = d.WithHint("did you mean %q?", near)
	}
	c.add(d)
}

// repeated calls found for each element that says the same as an earlier one of its list.
func repeated[T any, K comparable](l policy.List[T], key func(T) K, found func(again, first policy.Val[T])) {
	first := map[K]policy.Val[T]{}
	for _, it := range l.Items {
		k := key(it.V)
		if earlier, ok := first[k]; ok {
			found(it, earlier)
			continue
		}
		first[k] = it
	}
}

// place returns the origin of a list's element, or where the element has none the list's.
func place(it, list policy.Origin) policy.Origin {
	if it.File == "" {
		it.Place = list.Place
	}
	it.Path = cmp.Or(it.Path, list.Path)
	return it
}
