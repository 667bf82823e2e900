package ir

import (
	"slices"
	"strings"
)

// KernelClosed are files and directories of the kernel that no sandbox with mounts of its own sees, whatever it is granted:
// they show memory and addresses of the kernel, keys of other users and devices of the host, or act on the whole machine.
// An ordinary user may read most of them on an ordinary host. Sorted.
var KernelClosed = []string{
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
	"/proc/pagetypeinfo",  // how physical memory is laid out
	"/proc/sched_debug",   // other processes by name
	"/proc/scsi",          // takes commands to add and remove devices
	"/proc/slabinfo",      // the kernel's own memory, by kind
	"/proc/sysrq-trigger", // reboots the host
	"/proc/timer_list",    // addresses in the kernel, other processes' timers
	"/proc/vmallocinfo",   // addresses in the kernel

	"/sys/class/net",           // the network interfaces of the host
	"/sys/devices/virtual/net", // the same
	"/sys/firmware",            // tables of the firmware, its variables
	"/sys/fs/bpf",              // pinned programs and maps
	"/sys/kernel/debug",        // debugfs
	"/sys/kernel/security",     // settings of the security modules
	"/sys/kernel/tracing",      // tracefs
}

// KernelReadOnly are directories of the kernel that write grants do not reach in a sandbox with mounts of its own: they
// change settings of the whole machine. Sorted.
var KernelReadOnly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"}

// KernelReached returns those of the kernel's paths that a grant opens a part of.
func KernelReached(list []string, grant string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(p string) bool { return !beneath(p, grant) && !beneath(grant, p) })
}

// Exposes returns a path of the kernel that a grant would open although the view was to close it, "" if there is none. A
// compiler closes what it sees to be reached; that a parameter or a symbolic link leads there shows at the start alone.
func (v *View) Exposes(grant string, access uint64) string {
	if !v.Mount {
		return ""
	}
	missing := func(list, have []string) string {
		for _, p := range KernelReached(list, grant) {
			absent := v.Root != "" && v.Proc == ProcHost && beneath(p, "/proc") // nothing is mounted there
			if !absent && !slices.Contains(have, p) {
				return p
			}
		}
		return ""
	}
	if p := missing(KernelClosed, v.Masks); p != "" {
		return p
	}
	if rule := (PathRule{Access: access, Kind: PathRequired}); rule.Writes() {
		return missing(KernelReadOnly, v.ReadOnly)
	}
	return ""
}

func beneath(p, parent string) bool {
	return p == parent || parent == "/" || strings.HasPrefix(p, parent+"/")
}
