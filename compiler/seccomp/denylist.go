package seccomp

import (
	"slices"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// denial is a set of calls that fail for one reason.
type denial struct {
	reason string
	names  []string
}

// alwaysDenied fails with EPERM in every filter: nothing that runs in a sandbox, not even another sandbox, needs it.
var alwaysDenied = []denial{
	{"default deny: swap and reboot", []string{"swapon", "swapoff", "reboot", "kexec_load", "kexec_file_load"}},
	{"default deny: kernel modules", []string{"init_module", "finit_module", "delete_module"}},
	{"default deny: kernel attack surface", []string{"perf_event_open", "bpf"}},
	{"default deny: hardware ports", []string{"ioperm", "iopl"}},
	// Operations of a ring run without passing the filter, among them openat, connect and socket.
	{"default deny: io_uring bypasses the filter", []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}},
}

// supervisedDenied fails with EPERM when there is a supervisor. Without one these stay open, because a sandbox that is
// started inside needs several of them, and Landlock and the lack of privilege hold regardless.
var supervisedDenied = []denial{
	{"default deny: mounts", []string{
		"mount", "umount2", "pivot_root", "chroot",
		"open_tree", "open_tree_attr", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
		"statmount", "listmount",
	}},
	{"default deny: namespaces", []string{"unshare", "setns", "listns"}},
	{"default deny: host identity", []string{"sethostname", "setdomainname"}},
	{"default deny: other processes", []string{
		"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "process_madvise", "process_mrelease", "kcmp",
		"migrate_pages", "move_pages",
	}},
	{"default deny: kernel attack surface", []string{
		"userfaultfd", "memfd_secret", "modify_ldt", "uselib", "_sysctl", "personality", "lsm_set_self_attr",
	}},
	{"default deny: kernel keyrings", []string{"keyctl", "add_key", "request_key"}},
	// A handle names a file without a path, and so past every path rule.
	{"default deny: file handles", []string{"open_by_handle_at", "name_to_handle_at"}},
	{"default deny: accounting and quota", []string{"quotactl", "quotactl_fd", "acct"}},
	{"default deny: system log and terminals", []string{"syslog", "vhangup", "lookup_dcookie", "nfsservctl"}},
	{"default deny: system time", []string{"clock_settime", "settimeofday", "adjtimex", "clock_adjtime"}},
	{"default deny: watches beyond the grants", []string{"fanotify_init", "fanotify_mark"}},
}

// absent fails with ENOSYS in every filter, as if the kernel did not have the call.
var absent = []denial{
	// The flags of clone3 lie in memory, where a filter cannot see CLONE_NEWUSER. C libraries and Go fall back to
	// clone on ENOSYS, and on ENOSYS only.
	{"clone3 hides its flags from the filter; callers fall back to clone", []string{"clone3"}},
	{"obsolete", []string{
		"create_module", "get_kernel_syms", "query_module", "getpmsg", "putpmsg", "afs_syscall", "tuxcall", "security",
		"vserver", "epoll_ctl_old", "epoll_wait_old", "ustat", "sysfs",
	}},
}

// supervisedAbsent fails with ENOSYS when there is a supervisor.
var supervisedAbsent = []denial{
	// A handle on the supervisor is the start of most ways to disturb it. Libraries fall back to plain pids.
	{"pidfd_open could name the supervisor; libraries fall back to pids", []string{"pidfd_open"}},
}

// Group is a named set of system calls that a policy can allow or deny as a whole.
type Group struct {
	Name    string
	Members []string // sorted; not every architecture has each of them
	// reason says why the group is denied unless the policy allows it.
	reason string
}

// Names of groups.
const (
	groupSysvIPC      = "sysv_ipc"
	groupPosixMQ      = "posix_mq"
	groupFileMetadata = "file_metadata"
)

var groups = []Group{
	{
		Name: groupFileMetadata,
		Members: []string{
			"chmod", "chown", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "file_setattr", "fremovexattr",
			"fsetxattr", "futimesat", "lchown", "lremovexattr", "lsetxattr", "removexattr", "removexattrat", "setxattr",
			"setxattrat", "utime", "utimensat", "utimes",
		},
		// Landlock has no right for these calls: they reach every file that the user owns.
		reason: "default deny: file metadata, which Landlock does not guard (group file_metadata)",
	},
	{
		Name: groupPosixMQ,
		Members: []string{
			"mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink",
		},
		reason: "default deny: message queues are shared with the host (group posix_mq)",
	},
	{
		Name: groupSysvIPC,
		Members: []string{
			"msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt",
			"shmget",
		},
		reason: "default deny: System V IPC is shared with the host (group sysv_ipc)",
	},
}

// Groups returns the groups, sorted by name.
func Groups() []Group { return slices.Clone(groups) }

func findGroup(name string) (Group, bool) {
	for _, g := range groups {
		if g.Name == name {
			return g, true
		}
	}
	return Group{}, false
}

// groupOf returns the group that a call belongs to.
func groupOf(call string) (Group, bool) {
	for _, g := range groups {
		if slices.Contains(g.Members, call) {
			return g, true
		}
	}
	return Group{}, false
}

func findDenial(lists []denial, call string) (reason string, ok bool) {
	for _, d := range lists {
		if slices.Contains(d.names, call) {
			return d.reason, true
		}
	}
	return "", false
}

// hotNames are the most frequent calls of ordinary programs that need no look at their arguments.
var hotNames = []string{"read", "write", "futex", "close", "mmap", "fstat", "lseek", "epoll_wait", "epoll_pwait", "clock_nanosleep"}

// Hot returns the numbers that [Assemble] should decide first. Kernels since 5.11 remember plainly allowed numbers
// and do not run the filter for them; the list serves older ones, and is short because every other call pays for it.
func Hot(arch abi.Arch) []uint32 {
	var numbers []uint32
	for _, name := range hotNames {
		if nr, ok := abi.SyscallNumber(arch, name); ok {
			numbers = append(numbers, nr)
		}
	}
	return numbers
}
