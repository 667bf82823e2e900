package lower

import (
	"slices"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Requires states what the host must offer. It reads the finished filters: what they notify is what needs a listener.
func Requires(u *Unit) {
	p := u.Program
	p.Requires = []ir.Requirement{
		{Feature: ir.FeatureLandlock, Min: landlockFloor(&p.Landlock), Fields: landlockFields(u)},
		{Feature: ir.FeatureSeccompFilter, Fields: []string{"network.unix", "syscalls"}},
	}
	if fields := notifyFields(u); len(fields) > 0 {
		p.Requires = append(p.Requires, ir.Requirement{Feature: ir.FeatureSeccompNotify, Fields: fields})
	}
	if p.VerifiesExec() {
		p.Requires = append(p.Requires, ir.Requirement{Feature: ir.FeaturePtrace, Fields: []string{"rules"}})
	}
	if p.Limits.Backend == ir.BackendCgroup {
		need := func(feature ir.Feature, field string, limit uint64) {
			if limit > 0 {
				p.Requires = append(p.Requires, ir.Requirement{Feature: feature, Fields: []string{"limits.backend", field}})
			}
		}
		need(ir.FeatureCgroupMemory, "limits.memory", p.Limits.Memory)
		need(ir.FeatureCgroupCPU, "limits.cpu", uint64(p.Limits.CPUPercent))
	}
	p.Requires = append(p.Requires, viewRequirements(u)...)
}

// landlockFloor is the lowest ABI that knows every right that may not be dropped. It can be below the target: a
// protection that is off, or may degrade, does not count.
func landlockFloor(l *ir.Landlock) uint32 {
	for v := 1; v < abi.LatestLandlock; v++ {
		fs, net, scoped := abi.Supported(v)
		lacksFS := l.Handled.FS &^ l.Degrade.FS &^ fs
		lacksNet := l.Handled.Net &^ l.Degrade.Net &^ net
		lacksScoped := l.Handled.Scoped &^ l.Degrade.Scoped &^ scoped
		if lacksFS|lacksNet|lacksScoped == 0 {
			return uint32(v)
		}
	}
	return abi.LatestLandlock
}

// landlockFields names the protections that ask for more than the first ABI.
func landlockFields(u *Unit) []string {
	fields := []string{"filesystem"}
	l := &u.Program.Landlock
	for _, p := range Protections(&u.Policy.Protections) {
		strict := p.Rights.FS&l.Handled.FS&^l.Degrade.FS | p.Rights.Net&l.Handled.Net&^l.Degrade.Net | p.Rights.Scoped&l.Handled.Scoped&^l.Degrade.Scoped
		if strict != 0 {
			fields = append(fields, "protections."+p.Name)
		}
	}
	slices.Sort(fields)
	return fields
}

// notifyingCalls are the calls by which each feature shows whether it is notified.
var notifyingCalls = []struct{ field, call string }{
	{"determinism.random_seed", "getrandom"},
	{"determinism.time_start", "clock_gettime"},
	{"filesystem.write", "fchmodat"},
	{"limits.memory", "mmap"},
	{"limits.memory", "sysinfo"},
	{"limits.num_cpus", "sched_getaffinity"},
	{"limits.processes", "clone"},
	{"network", "socket"},
}

func notifyFields(u *Unit) []string {
	var fields []string
	for _, n := range notifyingCalls {
		if n.field == "limits.num_cpus" && u.Program.Limits.CPUCount == 0 {
			continue // on arm64 programs are prepared at its call
		}
		if notifies(u.Program, n.call) {
			fields = append(fields, n.field)
		}
	}
	n := &u.Program.Net
	if n.DecidesDestinations() {
		fields = append(fields, destinationField(n))
	}
	if n.Unix != ir.UnixNone && notifies(u.Program, "connect") {
		fields = append(fields, "network.unix")
	}
	if n.PortRemap {
		fields = append(fields, "network.port_remap")
	}
	switch {
	case len(n.DenyBind) > 0:
		fields = append(fields, "network.deny_bind")
	case notifies(u.Program, "listen"):
		fields = append(fields, "network.allow_bind")
	}
	if len(u.Program.Rules) > 0 {
		fields = append(fields, "rules")
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// notifies tells whether any filter hands a call to the supervisor.
func notifies(p *ir.Program, call string) bool {
	return slices.ContainsFunc(p.Seccomp.Filters, func(f ir.ArchFilter) bool {
		nr, ok := abi.SyscallNumber(f.Arch, call)
		if !ok {
			return false
		}
		e := f.Table[query.Syscall(f.Table, nr, [6]uint64{}).Entry]
		return e.Action == ir.Notify ||
			slices.ContainsFunc(e.Clauses, func(c ir.Clause) bool { return c.Action == ir.Notify })
	})
}
