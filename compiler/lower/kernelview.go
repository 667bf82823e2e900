package lower

import (
	"slices"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// ClosedPaths are files and directories of the kernel that no sandbox with mounts of its own sees, whatever it is granted:
// they show memory and addresses of the kernel, keys of other users and devices of the host, or act on the whole machine.
// An ordinary user may read most of them on an ordinary host. Sorted.
var ClosedPaths = []string{
	"/proc/acpi",          // power and hot plug events of the machine
	"/proc/kallsyms",      // addresses of the kernel's functions
	"/proc/kcore",         // physical memory
	"/proc/key-users",     // who has how many keys
	"/proc/keys",          // key rings of the user, outside of the sandbox too (keyrings(7))
	"/proc/kmsg",          // the kernel's log
	"/proc/kpagecgroup",   // which page belongs to which control group
	"/proc/kpagecount",    // how often each page is mapped: side channels, Rowhammer
	"/proc/kpageflags",    // the same
	"/proc/latency_stats", // what other processes wait for
	"/proc/sched_debug",   // other processes by name
	"/proc/scsi",          // takes commands to add and remove devices
	"/proc/sysrq-trigger", // reboots the host
	"/proc/timer_list",    // addresses in the kernel, other processes' timers

	"/sys/class/net",           // the network interfaces of the host
	"/sys/devices/virtual/net", // the same
	"/sys/firmware",            // tables of the firmware, its variables
	"/sys/fs/bpf",              // pinned programs and maps
	"/sys/kernel/debug",        // debugfs
	"/sys/kernel/security",     // settings of the security modules
	"/sys/kernel/tracing",      // tracefs
}

// UnwritablePaths are directories of the kernel that write grants do not reach in a sandbox with mounts of its own: they
// change settings of the whole machine. Sorted.
var UnwritablePaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"}

// Reached returns those of the kernel's paths that a grant opens a part of.
func Reached(list []string, grant string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(p string) bool { return !query.Beneath(p, grant) && !query.Beneath(grant, p) })
}

// KernelView completes the view by what follows from all grants: which of the kernel's file systems another root needs, what
// of them stays closed, and whether the sandbox needs the host's network at all.
func KernelView(u *Unit) {
	v := &u.Program.View
	if !v.Mount {
		return
	}
	for i := range u.Program.Landlock.Paths {
		r := &u.Program.Landlock.Paths[i]
		within := func(dir string) bool { return r.Path == "/" || query.Beneath(r.Path, dir) }
		if v.Root != "" {
			v.Dev, v.Sys = v.Dev || within("/dev"), v.Sys || within("/sys")
		}
		v.Masks = append(v.Masks, Reached(ClosedPaths, r.Path)...)
		if r.Writes() {
			v.ReadOnly = append(v.ReadOnly, Reached(UnwritablePaths, r.Path)...)
		}
	}
	v.Masks, v.ReadOnly = sortedSet(v.Masks), sortedSet(v.ReadOnly)
	if v.Root != "" && v.Proc == ir.ProcHost { // nothing is mounted there
		inProc := func(p string) bool { return query.Beneath(p, "/proc") }
		v.Masks, v.ReadOnly = slices.DeleteFunc(v.Masks, inProc), slices.DeleteFunc(v.ReadOnly, inProc)
	}
	v.Net = v.PID && !usesNetwork(u)
}

// usesNetwork reports whether the sandbox may reach or serve anything: if not, it does as well without the host's
// interfaces. Where Landlock does not refuse ports or abstract sockets something could be reached by leave, so the host's
// network stays: who waives a protection asks for that.
func usesNetwork(u *Unit) bool {
	const ports = abi.NetBindTCP | abi.NetConnectTCP
	src, l := &u.Policy.Network, &u.Program.Landlock
	reaches := len(src.Allow.Items)+len(src.Deny.Items) > 0 || u.Policy.HTTP.On() || src.Resolver.V || u.Filter.UDP || u.Filter.ICMP
	serves := len(src.AllowBind.Items)+len(src.DenyBind.Items) > 0 || src.PortRemap.V
	waived := l.Handled.Net&ports != ports || u.Filter.UnixSockets && l.Handled.Scoped&abi.ScopeAbstractUnix == 0
	return reaches || serves || waived || len(l.Ports) > 0
}
