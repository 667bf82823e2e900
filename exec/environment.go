package exec

import (
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
)

// environment builds the command's environment: what is inherited, then what the policy sets, so that an explicit
// value always wins.
func environment(p *ir.Process, inherited []string, lookup ir.Lookup) ([]string, error) {
	var env []string
	for _, kv := range inherited {
		name, _, ok := strings.Cut(kv, "=")
		if ok && name != "" && (!p.CleanEnv || passes(p.PassEnv, name)) {
			env = append(env, kv)
		}
	}
	for _, v := range p.Env {
		value, err := ir.Expand(v.Value, lookup)
		if err != nil {
			return nil, err
		}
		env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, v.Name+"=") })
		env = append(env, v.Name+"="+value)
	}
	return env, nil
}

// passes matches a name against pass_env: exact names, or prefixes that end in "*".
func passes(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(g string) bool {
		if prefix, ok := strings.CutSuffix(g, "*"); ok {
			return strings.HasPrefix(name, prefix)
		}
		return g == name
	})
}
