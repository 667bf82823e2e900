package main

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stateCommands tell what this process was started with.
var stateCommands = []command{
	{"caps", "", 0, caps},
	{"nnp", "", 0, func([]string) outcome { return prctlValue(unix.PR_GET_NO_NEW_PRIVS) }},
	{"seccomp", "", 0, func([]string) outcome { return prctlValue(unix.PR_GET_SECCOMP) }},
	{"dumpable", "", 0, func([]string) outcome { return prctlValue(unix.PR_GET_DUMPABLE) }},
	{"thp", "", 0, func([]string) outcome { return prctlValue(unix.PR_GET_THP_DISABLE) }},
	{"limit", "NUMBER", 1, func(args []string) outcome {
		var limit unix.Rlimit
		if err := unix.Getrlimit(number(args[0]), &limit); err != nil {
			return result(err)
		}
		return value("%d %d", int64(limit.Cur), int64(limit.Max))
	}},
	{"affinity", "", 0, affinity},
	{"fds", "", 0, openDescriptors},
	{"layout", "", 0, layout},
	{"cwd", "", 0, func([]string) outcome {
		buf := make([]byte, 4096)
		n, err := unix.Getcwd(buf)
		if err != nil {
			return result(err)
		}
		return value("%s", buf[:n-1])
	}},
	{"ids", "", 0, func([]string) outcome {
		groups, err := unix.Getgroups()
		if err != nil {
			return result(err)
		}
		return value("uid=%d euid=%d gid=%d groups=%d", unix.Getuid(), unix.Geteuid(), unix.Getgid(), len(groups))
	}},
}

func prctlValue(option int) outcome {
	v, err := unix.PrctlRetInt(option, 0, 0, 0, 0)
	if err != nil {
		return result(err)
	}
	return value("%d", v)
}

// caps prints the five sets of capabilities(7).
func caps([]string) outcome {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return failedAt("capget", err)
	}
	var bounding, ambient uint64
	for number := range 64 {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(number), 0, 0, 0); err == nil && v == 1 {
			bounding |= 1 << number
		}
		if v, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(number), 0, 0); err == nil && v == 1 {
			ambient |= 1 << number
		}
	}
	join := func(low, high uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return value("effective=%x permitted=%x inheritable=%x bounding=%x ambient=%x",
		join(data[0].Effective, data[1].Effective), join(data[0].Permitted, data[1].Permitted),
		join(data[0].Inheritable, data[1].Inheritable), bounding, ambient)
}

func affinity([]string) outcome {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return result(err)
	}
	var cpus []string
	for cpu := range 1024 {
		if set.IsSet(cpu) {
			cpus = append(cpus, itoa(cpu))
		}
	}
	return value("%s", strings.Join(cpus, ","))
}

func openDescriptors([]string) outcome {
	var open []string
	for fd := range 1024 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			open = append(open, itoa(fd))
		}
	}
	return value("%s", strings.Join(open, " "))
}

// layout prints addresses that the kernel chose before the first instruction: the same in every run when it does not
// randomise them. What this runtime maps later depends on when its threads start.
func layout([]string) outcome {
	const sysinfoEhdr, random = 33, 25 // AT_SYSINFO_EHDR and AT_RANDOM, getauxval(3)
	vector, err := unix.Auxv()
	if err != nil {
		return failedAt("auxv", err)
	}
	addresses := map[uintptr]uintptr{}
	for _, entry := range vector {
		addresses[entry[0]] = entry[1]
	}
	return value("vdso=%x stack=%x", addresses[sysinfoEhdr], addresses[random])
}

func pointers(list []*byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(list))) }
