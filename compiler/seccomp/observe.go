package seccomp

import (
	"slices"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// observedNames are the calls whose refusal by Landlock only an observer can explain.
var observedNames = []string{
	"open", "openat", "openat2", "creat", "execve", "execveat", "truncate",
	"mkdir", "mkdirat", "mknod", "mknodat", "unlink", "unlinkat", "rmdir",
	"rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat",
	"connect", "bind",
}

// reasonObserve is why an allowed call is notified in the observing variant.
const reasonObserve = "--explain-denials"

// ObserveTable returns the variant of a table that --explain-denials installs, and the sorted numbers that it
// notifies in addition: the calls on paths and addresses where table allows them. Policy denials, too, go to the
// supervisor, which reports them and answers as table says. Nothing is allowed that table does not allow.
func ObserveTable(arch abi.Arch, table []ir.SyscallEntry) (observed []ir.SyscallEntry, calls []uint32) {
	for _, name := range observedNames {
		if nr, ok := abi.SyscallNumber(arch, name); ok {
			calls = append(calls, nr)
		}
	}
	slices.Sort(calls)
	for i, e := range table {
		end := uint64(1) << 32
		if i+1 < len(table) {
			end = uint64(table[i+1].First)
		}
		if e.First >= abi.X32Bit {
			observed = append(observed, e) // never notified: the numbers mean something else there
			continue
		}
		for _, nr := range calls {
			if nr < e.First || uint64(nr) >= end {
				continue
			}
			if nr > e.First {
				observed = appendEntry(observed, e.First, observe(e, false))
			}
			observed = appendEntry(observed, nr, observe(e, true))
			e.First = nr + 1
		}
		if uint64(e.First) < end {
			observed = appendEntry(observed, e.First, observe(e, false))
		}
	}
	return observed, calls
}

// observe turns the denials of an entry, and where it is a call to watch also what it allows, into notifications.
func observe(e ir.SyscallEntry, watch bool) ir.SyscallEntry {
	notify := func(action *ir.Action, reason *string) {
		switch {
		case isDenial(*action):
			*action = ir.Notify
		case watch && *action == ir.Allow:
			*action, *reason = ir.Notify, reasonObserve
		}
	}
	e.Clauses = slices.Clone(e.Clauses)
	for i := range e.Clauses {
		notify(&e.Clauses[i].Action, &e.Clauses[i].Reason)
	}
	notify(&e.Action, &e.Reason)
	return e
}

// isDenial tells a policy denial from an answer that makes programs fall back.
func isDenial(a ir.Action) bool {
	return a == ir.Kill || a == ir.Errno(abi.EPERM) || a == ir.Errno(abi.EACCES)
}
