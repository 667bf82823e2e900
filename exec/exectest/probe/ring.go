package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringCommands install things that act later, out of a filter's sight.
var ringCommands = []command{
	{"io-uring", "", 0, func([]string) outcome {
		params := make([]byte, 120) // struct io_uring_params
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, address(params), 0)
		return result(nilIfZero(errno))
	}},
	{"seccomp-listener", "", 0, func([]string) outcome { return installFilter(unix.SECCOMP_RET_ALLOW) }},
	{"seccomp-mask", "", 0, func([]string) outcome { return installFilter(unix.SECCOMP_RET_USER_NOTIF) }},
	{"bpf-map", "", 0, func([]string) outcome {
		attr := make([]byte, 128)
		attr[0], attr[4], attr[8], attr[12] = unix.BPF_MAP_TYPE_ARRAY, 4, 4, 1
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, address(attr), 128)
		return result(nilIfZero(errno))
	}},
	{"perf-event", "PID", 1, func(args []string) outcome {
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK}
		attr.Size = uint32(unsafe.Sizeof(attr))
		_, err := unix.PerfEventOpen(&attr, number(args[0]), -1, -1, 0)
		return result(err)
	}},
}

// installFilter asks for a listener of its own, for a filter that gives every call the same answer.
func installFilter(answer uint32) outcome {
	return seccomp(answer, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
}

// allowAll installs a filter that the kernel never has to run: what remains is the price of having one.
func allowAll() outcome { return seccomp(unix.SECCOMP_RET_ALLOW, 0) }

// ownFilter answers the clone of processes and fchmodat in one of several ways, and allows the rest.
func ownFilter(answer string) outcome {
	ret, ok := map[string]uint32{
		"allow":  unix.SECCOMP_RET_ALLOW,
		"log":    unix.SECCOMP_RET_LOG,
		"trace":  unix.SECCOMP_RET_TRACE,
		"notify": unix.SECCOMP_RET_USER_NOTIF,
		"errno":  unix.SECCOMP_RET_ERRNO | uint32(unix.EXDEV),
	}[answer]
	if !ok {
		return outcome("value no answer " + answer)
	}
	return install([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FCHMODAT, Jt: 3},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16}, // its flags
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.CLONE_THREAD, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: ret},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}, 0)
}

func seccomp(answer uint32, flags uintptr) outcome {
	return install([]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: answer}}, flags)
}

func install(insns []unix.SockFilter, flags uintptr) outcome {
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return failedAt("no_new_privs", err)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	return result(nilIfZero(errno))
}
