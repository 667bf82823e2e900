package lower

import (
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

var programFields = []string{
	"program.exec", "program.args", "program.env", "program.pass_env", "program.clean_env", "program.cwd",
	"program.capabilities", "program.no_coredump", "program.no_huge_pages", "program.no_supervisor",
	"determinism.no_randomize_memory",
}

// Program lowers the state that the command starts with.
func Program(u *Unit) {
	src, p := &u.Policy.Program, &u.Program.Process
	p.Start = ir.StartDirect
	if src.NoSupervisor.V {
		p.Start = ir.StartInPlace
	}
	u.Filter.NoSupervisor = src.NoSupervisor.V
	p.Exec = src.Exec.V
	p.Args = src.Args.Values()
	for _, it := range src.Env.Items {
		p.Env = append(p.Env, ir.EnvVar{Name: it.V.Name, Value: it.V.Value, Origin: u.ref(it.Origin)})
	}
	p.CleanEnv = src.CleanEnv.V
	if p.CleanEnv { // otherwise everything is inherited anyway
		p.PassEnv = sortedSet(src.PassEnv.Values())
	}
	p.Cwd = src.Cwd.V
	for _, name := range src.Capabilities.Values() {
		if c, ok := abi.CapabilityByName(name); ok {
			p.Capabilities = append(p.Capabilities, c)
		}
	}
	p.Capabilities = sortedSet(p.Capabilities)
	p.NoCoredump = src.NoCoredump.V
	p.NoHugePages = src.NoHugePages.V
	p.NoRandomizeMemory = u.Policy.Determinism.NoRandomizeMemory.V
}

// setDefaultEnv sets a variable that the policy does not set itself, and keeps the order by name.
func setDefaultEnv(u *Unit, v ir.EnvVar) {
	env := &u.Program.Process.Env
	i, found := slices.BinarySearchFunc(*env, v.Name, func(e ir.EnvVar, name string) int { return strings.Compare(e.Name, name) })
	if !found {
		*env = slices.Insert(*env, i, v)
	}
}

func sortedSet[T string | uint8 | uint16](list []T) []T {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}
