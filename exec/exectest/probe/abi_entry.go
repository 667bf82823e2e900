package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// abiCommands enter the kernel by doors whose numbers mean something else than the filter may think.
var abiCommands = []command{
	// The x32 ABI shares AUDIT_ARCH_X86_64; its numbers carry bit 30.
	{"x32", "NAME|NR ARG…", 1, func(args []string) outcome {
		r, _, errno := syscall.RawSyscall6(sysno(args[0])|0x40000000, 0, 0, 0, 0, 0, 0)
		if errno != 0 {
			return result(errno)
		}
		return value("%d", r)
	}},
	{"int80", "NR", 1, func(args []string) outcome {
		if !haveInt80 {
			return "absent"
		}
		r := int32(int80(uintptr(number(args[0])), 0, 0, 0))
		if r < 0 && r >= -4095 {
			return result(syscall.Errno(-r))
		}
		if int(r) == unix.Getpid() {
			return "value pid"
		}
		return value("%d", r)
	}},
}
