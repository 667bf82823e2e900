package lower

import (
	"slices"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Of mman-common.h.
const (
	protWrite  = 2
	mapType    = 0xf
	mapPrivate = 2
)

// Flags that ask for huge pages: mmap(2), memfd_create(2), shmget(2).
const (
	mapHugeTLB = 0x40000
	mfdHugeTLB = 0x4
	shmHugeTLB = 0o4000
)

// memory has the supervisor asked wherever registers show that memory is asked for. What cannot be written and belongs to
// one process costs nothing: reservations (PROT_NONE) and programs' code. Making it writable is asked about.
func memory(u *Unit) {
	src := &u.Policy.Limits.Memory
	if !src.Set {
		return
	}
	ref := u.ref(src.Origin)
	u.Program.Limits.Memory, u.Program.Limits.MemoryOrigin = src.V, ref
	readOnly := ir.Cond{Arg: 2, Op: ir.OpEq, Mask: protWrite, Value: 0}
	private := ir.Cond{Arg: 3, Op: ir.OpEq, Mask: mapType, Value: mapPrivate}
	free := func(conds ...ir.Cond) []ir.Clause {
		return []ir.Clause{{Conds: conds, Action: ir.Allow, Reason: "costs no memory"}}
	}
	trap := func(clauses []ir.Clause, reason string, names ...string) {
		u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{Names: names, Reason: "limits.memory" + reason, Origin: ref, Clauses: clauses})
	}
	trap(nil, ": programs see the limit as the machine's memory", "sysinfo")
	if u.Program.Limits.Backend == ir.BackendCgroup {
		hugePages(u, ref)
		return
	}
	trap(free(private, readOnly), "", "mmap")
	trap(free(readOnly), "", "mprotect", "pkey_mprotect")
	trap(free(ir.Cond{Arg: 0, Op: ir.OpEq, Mask: ^uint64(0), Value: 0}), "", "brk")
	trap(nil, "", "mremap", "memfd_create", "map_shadow_stack", "shmget")
}

// hugePages refuses pages of the machine's pool of huge ones: control groups do not count them as memory. Transparent
// huge pages are counted.
func hugePages(u *Unit, ref ir.OriginRef) {
	for _, call := range []struct {
		name string
		arg  uint8
		flag uint64
	}{{"mmap", 3, mapHugeTLB}, {"memfd_create", 1, mfdHugeTLB}, {"shmget", 2, shmHugeTLB}} {
		u.Filter.Args = append(u.Filter.Args, seccomp.ArgRule{
			Syscall: call.name, Arg: call.arg, Op: ir.OpSet, Value: call.flag, Then: seccomp.ThenDeny, Origin: ref,
			Reason: "limits.memory: control groups do not count huge pages",
		})
	}
}

// cpuCount has programs told of fewer CPUs than there are.
func cpuCount(u *Unit) {
	src := &u.Policy.Limits.NumCPUs
	if !src.Set {
		return
	}
	u.Program.Limits.CPUCount = src.V
	u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{
		Names: []string{"sched_getaffinity"}, Reason: "limits.num_cpus: programs see so many CPUs", Origin: u.ref(src.Origin),
	})
}

// Files that tell of what limits.memory and limits.num_cpus bound.
var (
	memoryFiles = []string{"/proc/meminfo"}
	cpuFiles    = []string{
		"/proc/cpuinfo", "/proc/stat",
		"/sys/devices/system/cpu/online", "/sys/devices/system/cpu/possible", "/sys/devices/system/cpu/present",
	}
)

// readable reports whether a path can be read, whatever parameters are bound to.
func (u *Unit) readable(path string) bool {
	return query.Access(u.Program, path, abi.FSReadFile).Allowed
}

// machineFiles has files shown otherwise, by opens that are notified or by mounts, if one can be read that would tell of more than the limits leave. A path that holds a
// parameter counts for nothing: what it will be is not known.
func machineFiles(u *Unit) {
	l := &u.Program.Limits
	tell := func(limit ir.OriginRef, files []string) {
		if !slices.ContainsFunc(files, u.readable) || l.MachineFiles {
			return
		}
		l.MachineFiles = true
		if u.Program.View.Shows() {
			return // they are mounted over
		}
		trapOpens(u, "limits.machine_files: a file that tells of the machine may be opened", limit, true)
	}
	if u.Policy.Limits.MachineFiles.V == "host" {
		return
	}
	if l.Memory > 0 {
		tell(l.MemoryOrigin, memoryFiles)
	}
	if l.CPUCount > 0 {
		tell(u.ref(u.Policy.Limits.NumCPUs.Origin), cpuFiles)
	}
}
