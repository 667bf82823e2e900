package compiler

import (
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
)

// gap is a field of the language, or a use of it, that this build cannot enforce.
type gap struct {
	path string
	// uses returns the places where a policy asks for it. A value that asks for nothing (an empty list, false, the
	// default) is no use.
	uses func(*policy.Policy) []policy.Origin
	hint string
}

// gaps is THE table of what cannot be enforced yet. Whoever builds a feature takes its line out; nothing is accepted
// and ignored.
var gaps = []gap{
	scalar("target.backend", func(p *policy.Policy) policy.Val[string] { return p.Target.Backend }, "auto"),

	scalar("program.uid", func(p *policy.Policy) policy.Val[uint32] { return p.Program.UID }),
	scalar("program.gid", func(p *policy.Policy) policy.Val[uint32] { return p.Program.GID }),
	scalar("program.strict_lifetime", func(p *policy.Policy) policy.Val[bool] { return p.Program.StrictLifetime }, false),

	list("filesystem.deny", func(p *policy.Policy) policy.List[policy.PathRule] { return p.Filesystem.Deny }),
	scalar("filesystem.chroot", func(p *policy.Policy) policy.Val[string] { return p.Filesystem.Chroot }),
	list("filesystem.mount", func(p *policy.Policy) policy.List[policy.Mount] { return p.Filesystem.Mount }),
	scalar("filesystem.tmp", func(p *policy.Policy) policy.Val[string] { return p.Filesystem.Tmp }, "host"),
	{"filesystem.proc", privateProc, `write filesystem.proc: "host" to expose the host's processes`},
	scalar("filesystem.workdir", func(p *policy.Policy) policy.Val[string] { return p.Filesystem.Workdir }),
	scalar("filesystem.isolation", func(p *policy.Policy) policy.Val[string] { return p.Filesystem.Isolation }, "auto", "none"),
	scalar("filesystem.storage", func(p *policy.Policy) policy.Val[string] { return p.Filesystem.Storage }),
	scalar("filesystem.on_exit", func(p *policy.Policy) policy.Val[string] { return p.Filesystem.OnExit }, "commit"),
	scalar("filesystem.on_error", func(p *policy.Policy) policy.Val[string] { return p.Filesystem.OnError }, "abort"),
	list("filesystem.protect", func(p *policy.Policy) policy.List[string] { return p.Filesystem.Protect }),

	scalar("limits.disk", func(p *policy.Policy) policy.Val[uint64] { return p.Limits.Disk }),
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

// list is a gap of a list that is used when it has elements.
func list[T any](path string, field func(*policy.Policy) policy.List[T]) gap {
	return gap{path: path, uses: func(p *policy.Policy) []policy.Origin { return elements(field(p)) }}
}

// elements returns the place of a list that has elements, and none otherwise.
func elements[T any](l policy.List[T]) []policy.Origin {
	if len(l.Items) == 0 {
		return nil
	}
	o := l.Origin
	if first := l.Items[0].Origin; o.File == "" {
		o.Place = first.Place
	}
	return []policy.Origin{o}
}

func findUnsupported(p *policy.Policy) diag.List {
	var diags diag.List
	for _, g := range gaps {
		for _, o := range g.uses(p) {
			d := diag.At(o, "unsupported", "not supported by this build")
			d.Hint = g.hint
			diags.Add(d)
		}
	}
	return diags
}

// privateProc: an own /proc needs namespaces. Without a grant that shows processes nothing is lost.
func privateProc(p *policy.Policy) []policy.Origin {
	proc := p.Filesystem.Proc
	switch proc.V {
	case "host", "none":
		return nil
	case "private":
		return []policy.Origin{proc.Origin}
	}
	var uses []policy.Origin
	add := func(path policy.Val[string], item policy.Origin) {
		if showsProcesses(path.V) {
			uses = append(uses, item)
		}
	}
	for _, l := range []policy.List[policy.PathRule]{p.Filesystem.Read, p.Filesystem.Write} {
		for _, it := range l.Items {
			add(it.V.Path, it.Origin)
		}
	}
	for _, it := range p.Filesystem.Rules.Items {
		add(it.V.Path, it.Origin)
	}
	return uses
}

// showsProcesses tells whether a grant of path opens the directories of processes in /proc.
func showsProcesses(path string) bool {
	if path == "/" || path == "/proc" {
		return true
	}
	rest, ok := strings.CutPrefix(path, "/proc/")
	if !ok {
		return false
	}
	entry, _, _ := strings.Cut(rest, "/")
	_, err := strconv.ParseUint(entry, 10, 32)
	return entry == "self" || entry == "thread-self" || strings.Contains(entry, "${") || err == nil
}
