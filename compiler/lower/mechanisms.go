package lower

import (
	"cmp"
	"slices"

	"github.com/sandlock-go/sandlock/ir"
)

// Mechanisms records what enforces each feature of the policy and why that, in words for a reviewer.
func Mechanisms(u *Unit) {
	m := &u.Program.Mechanisms
	add := func(feature, choice, reason string) {
		*m = append(*m, ir.Mechanism{Feature: feature, Choice: choice, Reason: reason})
	}
	filesystemMechanisms(u, add)
	viewMechanisms(u, add)
	networkMechanisms(u, add)
	httpMechanisms(u, add)
	processMechanisms(u, add)
	limitMechanisms(u, add)
	determinismMechanisms(u, add)
	ruleMechanisms(u, add)
	slices.SortFunc(*m, func(a, b ir.Mechanism) int {
		return cmp.Or(cmp.Compare(a.Feature, b.Feature), cmp.Compare(a.Choice, b.Choice))
	})
}

type adder func(feature, choice, reason string)

func filesystemMechanisms(u *Unit, add adder) {
	if len(u.Program.Landlock.Paths) > 0 {
		add("filesystem", "landlock", "the kernel decides on the file that a path leads to, so no race and no link changes the answer")
	} else {
		add("filesystem", "landlock", "no grant: every file is refused")
	}
	switch {
	case notifies(u.Program, "fchmodat"):
		add("filesystem.write", "notify", "Landlock does not guard modes, owners, times and attributes: the supervisor changes them, beneath write grants only")
	case u.Filter.WriteGrants && u.Filter.NoSupervisor:
		add("filesystem.write", "refused", "changes of modes, owners, times and attributes need a supervisor, so they are refused everywhere")
	case !u.Filter.WriteGrants:
		add("filesystem.write", "refused", "no write grant: modes, owners, times and attributes cannot be changed")
	}
}

func processMechanisms(u *Unit, add adder) {
	p := &u.Program.Process
	switch p.Start {
	case ir.StartInPlace:
		add("program", "in place", "no supervisor: the executor confines itself and becomes the command")
	case ir.StartNamespaced:
		add("program", "namespaced", "in namespaces of its own the command is confined before it runs, and supervised until all of its processes are gone")
	default:
		add("program", "direct", "the command is confined before it runs and supervised until all of its processes are gone")
	}
	if len(p.Capabilities) == 0 {
		add("program.capabilities", "dropped", "the command keeps none, also when it runs as root")
	} else {
		add("program.capabilities", "kept", "those listed are kept if the executor has them, all others dropped")
	}
	if p.NoCoredump {
		add("program.no_coredump", "rlimit", "RLIMIT_CORE is 0")
	}
	if p.NoHugePages {
		add("program.no_huge_pages", "prctl", "PR_SET_THP_DISABLE is inherited by all descendants")
	}
	if p.NoRandomizeMemory {
		add("determinism.no_randomize_memory", "personality", "ADDR_NO_RANDOMIZE is inherited by all descendants")
	}
	add("syscalls", "seccomp", "a program in the kernel decides by number and register arguments")
}

func limitMechanisms(u *Unit, add adder) {
	l := &u.Program.Limits
	switch {
	case l.Processes > 0 && notifies(u.Program, "clone"):
		add("limits.processes", "notify", "RLIMIT_NPROC counts all processes of the user, so the supervisor counts those of the sandbox")
	case l.Processes > 0:
		add("limits.processes", "seccomp", "new processes are refused altogether")
	default:
		add("limits.processes", "none", "nobody counts: there is no supervisor")
	}
	cgroup := l.Backend == ir.BackendCgroup
	switch {
	case l.Memory > 0 && cgroup:
		add("limits.memory", "cgroup, notify", "the kernel counts and kills (memory.max, nothing is swapped); the supervisor answers sysinfo")
	case l.Memory > 0:
		add("limits.memory", "notify", "the supervisor is asked for what can be written, looks at what is used from time to time, and kills what exceeds the limit; no control group is needed")
	}
	if l.CPUCount > 0 {
		add("limits.num_cpus", "notify", "the supervisor answers sched_getaffinity; it is no boundary, other places tell the truth")
	}
	switch {
	case l.MachineFiles && u.Program.View.Shows():
		add("limits.machine_files", "mount", "files that tell of the machine are mounted over by such that tell of the limits; nothing is notified")
	case l.MachineFiles:
		add("limits.machine_files", "notify", "a path is seen by the supervisor alone, so every open is notified; files that tell of the machine are answered with a snapshot in memory, others are left to the kernel")
	}
	if l.OpenFiles > 0 {
		add("limits.open_files", "rlimit", "RLIMIT_NOFILE, soft and hard")
	}
	if l.TimeMS > 0 {
		add("limits.time", "supervisor", "the supervisor ends all processes when the time is over")
	}
	switch {
	case l.CPUPercent > 0 && cgroup:
		add("limits.cpu", "cgroup", "a quota of the kernel's for all processes together (cpu.max)")
	case l.CPUPercent > 0:
		add("limits.cpu", "stop, continue", "the supervisor measures all processes and stops them while they are ahead; a quota of the kernel's needs a cgroup of our own")
	}
	if len(l.CPUCores) > 0 {
		add("limits.cpu_cores", "affinity, seccomp", "the mask is inherited by all descendants, and none may change its own")
	}
	if l.GPU.Mode != ir.GPUNone {
		add("limits.gpu_devices", "landlock", "only the device nodes of the selected GPUs are granted")
	}
}

func determinismMechanisms(u *Unit, add adder) {
	if u.Program.Determinism.Random {
		add("determinism.random_seed", "notify, vdso", "getrandom and the random devices are answered from the seed; each program's AT_RANDOM is overwritten, and its vDSO made to call")
	}
	if u.Program.Determinism.ShiftTime {
		add("determinism.time_start", "notify, vdso", "calls that read the time of day are answered, and deadlines corrected; each program's vDSO is made to shift or call")
	}
	switch {
	case !u.Program.Determinism.SortedDirs:
	case notifies(u.Program, "getdents64") || notifies(u.Program, "getdents"):
		add("determinism.deterministic_dirs", "notify", "file systems list in the order of hashes or of creation, so the supervisor reads directories and answers with sorted entries")
	default:
		add("determinism.deterministic_dirs", "none", "the policy refuses to list directories")
	}
}
