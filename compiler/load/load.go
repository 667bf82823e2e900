// Package load turns policy files into a validated policy tree.
//
// In: CUE files or packages, as people write them. Out: a [policy.Policy], or diagnostics that name the user's lines,
// all of them at once. Every policy is unified with the embedded schema, whatever it imports. Loading reads the
// policy's own module and nothing else: it never uses the network, a registry or a cache, and the environment does not
// change what it returns.
//
// Read next: source.go (files to a CUE value), explain.go (CUE's errors to diagnostics), decode.go (value to tree),
// origin.go (who wrote what).
package load

import (
	"io"
	"os"
	"strings"
	"sync"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
)

// Options says what to load.
type Options struct {
	Args  []string  // files (*.cue), "-" for standard input, or package paths; none = the package in Dir
	Dir   string    // directory that Args are relative to; "" = the working directory
	Stdin io.Reader // what "-" reads; nil = os.Stdin
	Tags  []string  // values for @tag attributes, "key=value"
}

// Load reads, validates and decodes a policy. The policy is nil if there are diagnostics.
//
// File names in both are relative to [Root].
func Load(opts Options) (*policy.Policy, diag.List) {
	clearEnvironment()
	src, diags := open(opts)
	if diags != nil {
		return nil, diags.Sorted()
	}
	ctx := cuecontext.New()
	user, diags := src.build(ctx)
	if diags != nil {
		return nil, diags.Sorted()
	}
	lang, err := buildSchema(ctx, src.instances)
	if err != nil {
		return nil, diag.List{{Msg: "load embedded schema: " + err.Error(), Rule: "internal"}}
	}
	// The user's value comes first, so that paths in errors begin at the policy and not at #Policy.
	merged := user.Unify(lang.policy)
	d := &decoder{names: src.names, lang: lang}
	if err := merged.Validate(cue.Concrete(true), cue.Final()); err != nil {
		d.partial = true
		d.policy(user, user)
		x := explainer{names: src.names, user: user, lang: lang}
		return nil, combine(x.findings(err), x.structure(), d.diags).Sorted()
	}
	p := d.policy(merged, user)
	if len(d.diags) > 0 {
		return nil, d.diags.Sorted()
	}
	if p.Name.V == "" {
		p.Name.V = src.defaultName()
		p.Name.Origin.File = src.firstFile()
	}
	return p, nil
}

// Root returns the directory that file names in diagnostics and origins are relative to: the module's root, or, where
// there is no module, the directory of the first argument.
func Root(opts Options) (string, error) {
	_, root, err := opts.directories()
	return root, err
}

// clearEnvironment removes the variables that change how CUE evaluates (CUE_EXPERIMENT, CUE_DEBUG) and where it looks
// for modules (CUE_REGISTRY, CUE_CACHE_DIR). Its library reads them when it is first used.
var clearEnvironment = sync.OnceFunc(func() {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "CUE_") {
			_ = os.Unsetenv(name) // fails for malformed names only
		}
	}
})
