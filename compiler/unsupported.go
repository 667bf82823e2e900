package compiler

import (
	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
)

// gap is a field of the language, or a use of it, that this build cannot enforce.
type gap struct {
	path string
	// uses returns the places where a policy asks for it. A value that asks for nothing (an empty list, false, the
	// default) is no use.
	uses func(*policy.Policy) []policy.Origin
}

// gaps is THE table of what cannot be enforced yet. Whoever builds a feature takes its line out; nothing is accepted
// and ignored.
var gaps = []gap{
	scalar("filesystem.isolation", func(p *policy.Policy) policy.Val[string] { return p.Filesystem.Isolation }, "auto", "none", "overlayfs", "branchfs"),
}

// scalar is a gap of a field that is used when it has a value other than the neutral ones.
func scalar[T comparable](path string, field func(*policy.Policy) policy.Val[T], neutral ...T) gap {
	return gap{path: path, uses: func(p *policy.Policy) []policy.Origin {
		v := field(p)
		if !v.Set {
			return nil
		}
		for _, n := range neutral {
			if v.V == n {
				return nil
			}
		}
		return []policy.Origin{v.Origin}
	}}
}

func findUnsupported(p *policy.Policy) diag.List {
	diags := byNotification(p)
	for _, g := range gaps {
		for _, o := range g.uses(p) {
			diags.Add(diag.At(o, "unsupported", "not supported by this build"))
		}
	}
	return diags
}

// byNotification finds what target.backend says is to be done by seccomp notification, and can only be done by namespaces.
func byNotification(p *policy.Policy) diag.List {
	var diags diag.List
	backend := p.Target.Backend
	if backend.V != "notify" {
		return nil
	}
	for _, use := range lower.ViewUses(p) {
		if use.Optional {
			continue
		}
		d := diag.At(use.Origin, "unsupported", "not supported by this build without namespaces").WithNote(backend.Origin.Place, "they are ruled out at")
		d.Hint = use.Hint
		diags.Add(d)
	}
	return diags
}
