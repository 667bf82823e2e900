package compiler

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/check"
	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/load"
	"github.com/sandlock-go/sandlock/compiler/lock"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// unit is what the passes work on: the policy tree and the program, and what was found on the way.
type unit struct {
	options Options
	*lower.Unit
	diags diag.List
}

// pass is one step of a compilation. Its error is a bug; mistakes of the policy go to the unit's diagnostics.
type pass struct {
	name       string
	run        func(*unit) error
	needsSound bool // does not run once an error has been reported
}

// passes are the steps in their order. To add one: put it here, say in order what it must come before or after and
// why, and name what it lowers in compiler/lower.
var passes = []pass{
	{"load", (*unit).load, false},
	{"unsupported", (*unit).unsupported, true},
	{"check", (*unit).check, false}, // after unsupported found errors too: all of them are reported at once
	{"lock", (*unit).lock, true},
	{"identity", lowering(lower.Identity), true},
	{"target", lowering(lower.Target), true},
	{"params", lowering(lower.Params), true},
	{"program", lowering(lower.Program), true},
	{"filesystem", lowering(lower.Filesystem), true},
	{"view", lowering(lower.View), true},
	{"branch", lowering(lower.Branch), true},
	{"network", lowering(lower.Network), true},
	{"http", lowering(lower.HTTP), true},
	{"limits", lowering(lower.Limits), true},
	{"kernel view", lowering(lower.KernelView), true},
	{"determinism", lowering(lower.Determinism), true},
	{"syscalls", lowering(lower.Syscalls), true},
	{"rules", lowering(lower.Rules), true},
	{"tests", lowering(lower.Tests), true},
	{"seccomp", (*unit).seccomp, true},
	{"requires", lowering(lower.Requires), true},
	{"mechanisms", lowering(lower.Mechanisms), true},
	{"strip", (*unit).strip, true},
	{"validate", (*unit).validate, true},
}

// constraint says that one pass comes before another, and why.
type constraint struct{ before, after, why string }

// order is checked by a test.
var order = []constraint{
	{"load", "unsupported", "it reads the tree"},
	{"unsupported", "check", "a field that cannot be enforced is the first thing to hear of"},
	{"check", "lock", "a name that no rule may have needs no address"},
	{"lock", "network", "names in rules have the addresses of the lock file"},
	{"check", "identity", "lowering assumes that no two items contradict and that every name is known"},
	{"target", "filesystem", "what read and write grant depends on the rights that the target handles"},
	{"target", "network", "a wildcard takes a right out of the handled ones"},
	{"program", "limits", "variables for GPUs yield to those that the policy sets"},
	{"program", "view", "it decides between the start that the program chose and a namespaced one"},
	{"filesystem", "view", "what is mounted widens the path rules"},
	{"view", "network", "/etc/hosts is mounted over, and no open notified; sockets beneath what is mounted are granted"},
	{"view", "http", "files with the certificate are mounted over, and no open notified"},
	{"view", "limits", "files that tell of the machine are mounted over, and no open notified"},
	{"view", "branch", "it lies in the mounts of the view"},
	{"branch", "requires", "overlayfs is required exactly for a branch that it keeps"},
	{"branch", "seccomp", "the requests that settle branches of a BranchFS are refused where there is one"},
	{"branch", "mechanisms", "a mechanism is named for what there is"},
	{"network", "kernel view", "without a network there is a network namespace"},
	{"limits", "kernel view", "nodes of GPUs need a /dev"},
	{"filesystem", "limits", "GPU device nodes join the path rules"},
	{"program", "seccomp", "the filter without a supervisor is another one"},
	{"filesystem", "seccomp", "metadata changes are notified only where something can be written"},
	{"view", "seccomp", "metadata changes are notified where a mount can be written"},
	{"http", "seccomp", "opens are notified where a certificate is to be shown"},
	{"network", "seccomp", "listen is settled by the ports that may be bound"},
	{"limits", "seccomp", "new processes are notified only if they are counted"},
	{"determinism", "seccomp", "what tells the truth about time, chance and directories is notified"},
	{"rules", "seccomp", "calls are held only if rules look at them"},
	{"syscalls", "seccomp", "the policy's own rules are part of the filter"},
	{"seccomp", "requires", "a listener is required exactly if a filter notifies"},
	{"seccomp", "mechanisms", "a mechanism is named by what the filters do"},
	{"mechanisms", "strip", "every pass may still refer to origins"},
	{"strip", "validate", "what is validated is what is written"},
}

func lowering(run func(*lower.Unit)) func(*unit) error {
	return func(u *unit) error {
		run(u.Unit)
		return nil
	}
}

func (u *unit) load() error {
	p, diags := load.Load(u.options.Source)
	u.diags = append(u.diags, diags...)
	if p == nil {
		if !diags.HasErrors() {
			return errors.New("no policy and no error")
		}
		return nil
	}
	u.Unit = lower.New(p)
	return nil
}

func (u *unit) unsupported() error {
	u.diags = append(u.diags, findUnsupported(u.Policy)...)
	return nil
}

func (u *unit) check() error {
	u.diags = append(u.diags, check.Policy(u.Policy)...)
	return nil
}

// lock reads the addresses of names, where the policy has them pinned when it is compiled.
func (u *unit) lock() error {
	if u.Policy.Network.Resolve.V != "compile" {
		return nil
	}
	file, data, diags := load.ReadLock(u.options.Source)
	u.diags = append(u.diags, diags...)
	if diags.HasErrors() {
		return nil
	}
	entries, diags := lock.Parse(file, data)
	u.diags = append(u.diags, diags...)
	if diags.HasErrors() {
		return nil
	}
	again := "sandlock-compile lock"
	for _, tag := range u.options.Source.Tags {
		again += " -t " + tag
	}
	again = strings.Join(append([]string{again}, u.options.Source.Args...), " ")
	u.Lock, diags = lock.Check(u.Policy, file, entries, again)
	u.diags = append(u.diags, diags...)
	return nil
}

// seccomp makes table and programs of each architecture. Rules about system calls that turn out to contradict the
// built-in ones are mistakes of the policy; each is reported once, though both architectures find it.
func (u *unit) seccomp() error {
	for _, arch := range u.Program.Target.Arches {
		table, err := seccomp.Table(arch, u.Filter)
		if err != nil {
			if !u.refuse(err) {
				return err
			}
			continue
		}
		f, err := u.filter(arch, table)
		if err != nil {
			return err
		}
		u.Program.Seccomp.Filters = append(u.Program.Seccomp.Filters, f)
	}
	return nil
}

func (u *unit) filter(arch abi.Arch, table []ir.SyscallEntry) (ir.ArchFilter, error) {
	f := ir.ArchFilter{Arch: arch, Table: table}
	var err error
	if f.Program, err = seccomp.Assemble(arch, table, seccomp.Hot(arch)); err != nil {
		return f, err
	}
	if u.Filter.NoSupervisor { // nobody would see what is observed
		return f, nil
	}
	observed, calls := seccomp.ObserveTable(arch, table)
	if f.Observe, err = seccomp.Assemble(arch, observed, seccomp.Hot(arch)); err != nil {
		return f, fmt.Errorf("observing variant: %w", err)
	}
	f.ObserveCalls = calls
	return f, nil
}

// refuse turns the request errors that err joins into diagnostics. It reports whether there were any.
func (u *unit) refuse(err error) bool {
	found := false
	if r := (*seccomp.RequestError)(nil); errors.As(err, &r) {
		found = true
	}
	for _, e := range unjoin(err) {
		if r := (*seccomp.RequestError)(nil); errors.As(e, &r) {
			u.diags.Add(diag.At(u.At(r.Origin), "syscall", "%s: %s", r.Name, r.Message))
		}
	}
	return found
}

// unjoin returns the errors that errors.Join put together, looking through wraps.
func unjoin(err error) []error {
	for err != nil {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			return joined.Unwrap()
		}
		next := errors.Unwrap(err)
		if next == nil {
			break
		}
		err = next
	}
	return []error{err}
}

func (u *unit) strip() error {
	if u.options.Strip {
		u.Program.Strip()
	}
	return nil
}

// validate holds the compiler to the contract that the executor relies on.
func (u *unit) validate() error { return u.Program.Validate() }
