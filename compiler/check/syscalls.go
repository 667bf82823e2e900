package check

import (
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func checkGroups(c *checker) {
	s := &c.Syscalls
	for _, it := range s.ExtraAllow.Items {
		switch {
		case isGroup(it.V):
		case abi.KnownSyscall(it.V):
			d := diag.At(it.Origin, "syscall-group", "%q is a system call: only groups can be allowed again", it.V)
			c.add(d.WithHint("the groups are %s", join(groupNames())))
		default:
			c.unknown(it.Origin, "syscall-group", "group of system calls", it.V, groupNames())
		}
	}
	for _, it := range s.ExtraDeny.Items {
		if !isGroup(it.V) && !abi.KnownSyscall(it.V) {
			c.unknown(it.Origin, "syscall", "system call or group", it.V, slices.Concat(groupNames(), syscallNames()))
		}
		if slices.Contains(members(it.V), "execve") {
			c.errorf(it.Origin, "syscall-needed", "without %q no command can be started", it.V)
		}
	}
	checkDisjoint(c)
}

// checkDisjoint: after groups are expanded, nothing may be both allowed and denied.
func checkDisjoint(c *checker) {
	for _, deny := range c.Syscalls.ExtraDeny.Items {
		for _, allow := range c.Syscalls.ExtraAllow.Items {
			if !isGroup(allow.V) {
				continue
			}
			both := slices.DeleteFunc(slices.Clone(members(allow.V)), func(n string) bool { return !slices.Contains(members(deny.V), n) })
			if len(both) == 0 {
				continue
			}
			d := diag.At(deny.Origin, "syscall-conflict", "%q is denied, and the group %q is allowed", deny.V, allow.V)
			c.add(d.WithNote(allow.Origin.Place, "allowed at").WithHint("both hold %s", strings.Join(both, ", ")))
		}
	}
}

func checkSyscallArgs(c *checker) {
	for _, it := range c.Syscalls.Args.Items {
		name := it.V.Syscall
		o := place(name.Origin, it.Origin)
		switch {
		case isGroup(name.V):
			c.errorf(o, "syscall", "%q is a group: arguments are those of one system call", name.V)
			continue
		case !abi.KnownSyscall(name.V):
			c.unknown(o, "syscall", "system call", name.V, syscallNames())
			continue
		}
		for _, deny := range c.Syscalls.ExtraDeny.Items {
			if slices.Contains(members(deny.V), abi.CanonicalSyscall(name.V)) {
				d := diag.At(o, "no-effect", "%q is denied altogether, so a rule about its arguments has no effect", name.V)
				c.add(d.AsWarning().WithNote(deny.Origin.Place, "denied at"))
			}
		}
	}
	repeated(c.Syscalls.Args, func(a policy.SyscallArg) [5]any {
		return [5]any{a.Syscall.V, a.Arg.V, a.Op.V, a.Value.V, a.Then.V}
	}, func(again, first policy.Val[policy.SyscallArg]) {
		c.add(diag.At(again.Origin, "duplicate", "the same rule is listed twice").AsWarning().WithNote(first.Origin.Place, "first at"))
	})
}

func isGroup(name string) bool { return slices.Contains(groupNames(), name) }

func groupNames() []string {
	var names []string
	for _, g := range seccomp.Groups() {
		names = append(names, g.Name)
	}
	return names
}

// members returns the system calls that a name of extra_allow or extra_deny stands for.
func members(name string) []string {
	for _, g := range seccomp.Groups() {
		if g.Name == name {
			return g.Members
		}
	}
	return []string{abi.CanonicalSyscall(name)}
}

func syscallNames() []string {
	var names []string
	for _, a := range abi.Arches {
		for _, s := range abi.Syscalls(a) {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
