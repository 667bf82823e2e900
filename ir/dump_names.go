package ir

import "strconv"

// argNames are the arguments that the default filter looks at, as the manual pages call them.
var argNames = map[string][]string{
	"brk":           {"end"},
	"clone":         {"flags"},
	"ioctl":         {"fd", "request"},
	"ioprio_set":    {"which", "who"},
	"mmap":          {"address", "size", "prot", "flags"},
	"mprotect":      {"address", "size", "prot"},
	"pkey_mprotect": {"address", "size", "prot"},
	"prctl":         {"op", "value"},
	"prlimit64":     {"pid"},
	"rt_sigaction":  {"signal", "action"},
	"sendmmsg":      {"fd", "messages", "count", "flags"},
	"sendmsg":       {"fd", "message", "flags"},
	"sendto":        {"fd", "data", "size", "flags", "address"},
	"setpriority":   {"which", "who"},
	"setsockopt":    {"fd", "level", "option"},
	"socket":        {"domain", "type", "protocol"},
	"socketpair":    {"domain", "type", "protocol"},

	"sched_setaffinity":  {"pid"},
	"sched_setattr":      {"pid"},
	"sched_setparam":     {"pid"},
	"sched_setscheduler": {"pid"},
}

func argName(call string, arg uint8) string {
	if names := argNames[call]; int(arg) < len(names) {
		return names[arg]
	}
	return "arg" + strconv.Itoa(int(arg))
}

// argument is one argument of one call.
type argument struct {
	call string
	arg  uint8
}

var socketDomains = map[uint64]string{1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK"}
var socketTypes = map[uint64]string{1: "SOCK_STREAM", 2: "SOCK_DGRAM", 3: "SOCK_RAW", 5: "SOCK_SEQPACKET"}
var sendFlags = map[uint64]string{0x20000000: "MSG_FASTOPEN"}

// valueNames are names of the values that the default filter compares with.
var valueNames = map[argument]map[uint64]string{
	{"socket", 0}:       socketDomains,
	{"socket", 1}:       socketTypes,
	{"socket", 2}:       {0: "default", 1: "IPPROTO_ICMP", 6: "IPPROTO_TCP", 17: "IPPROTO_UDP", 58: "IPPROTO_ICMPV6"},
	{"socketpair", 0}:   socketDomains,
	{"socketpair", 1}:   socketTypes,
	{"sendto", 3}:       sendFlags,
	{"sendmsg", 2}:      sendFlags,
	{"sendmmsg", 3}:     sendFlags,
	{"setsockopt", 1}:   {6: "IPPROTO_TCP"},
	{"setsockopt", 2}:   {23: "TCP_FASTOPEN", 30: "TCP_FASTOPEN_CONNECT"},
	{"rt_sigaction", 0}: {17: "SIGCHLD"},
	{"prctl", 0}: {
		1: "PR_SET_PDEATHSIG", 4: "PR_SET_DUMPABLE", 28: "PR_SET_SECUREBITS", 35: "PR_SET_MM", 0x59616d61: "PR_SET_PTRACER",
	},
	{"ioctl", 1}: {
		0x5412: "TIOCSTI", 0x541c: "TIOCLINUX", 0x541d: "TIOCCONS", 0x894b: "SIOCOUTQNSD",
		0x40086602: "FS_IOC_SETFLAGS", 0x40046602: "FS_IOC32_SETFLAGS", 0x40087602: "FS_IOC_SETVERSION",
		0x401c5820: "FS_IOC_FSSETXATTR", 0x800c6613: "FS_IOC_SET_ENCRYPTION_POLICY", 0x40806685: "FS_IOC_ENABLE_VERITY",
		0x80806200: "FS_IOC_BRANCH_CREATE", 0x6201: "FS_IOC_BRANCH_COMMIT", 0x6202: "FS_IOC_BRANCH_ABORT",
	},
	{"clone", 0}: {
		0x00010000: "CLONE_THREAD", 0x00020000: "CLONE_NEWNS", 0x02000000: "CLONE_NEWCGROUP", 0x04000000: "CLONE_NEWUTS",
		0x08000000: "CLONE_NEWIPC", 0x10000000: "CLONE_NEWUSER", 0x20000000: "CLONE_NEWPID", 0x40000000: "CLONE_NEWNET",
	},
	{"setpriority", 0}: {0: "PRIO_PROCESS", 1: "PRIO_PGRP"},
	{"ioprio_set", 0}:  {1: "IOPRIO_WHO_PROCESS", 2: "IOPRIO_WHO_PGRP"},
}

func valueName(call string, arg uint8, v uint64) (name string, ok bool) {
	name, ok = valueNames[argument{call, arg}][v]
	return name, ok
}
