package main

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// haveLegacy: open(2) and creat(2) exist on amd64 only; libraries have moved to openat(2), attackers need not.
const haveLegacy = true

const legacyGetdents = unix.SYS_GETDENTS

func legacyOpen(path string, flags int) error {
	buf := append([]byte(path), 0)
	_, _, errno := unix.Syscall(unix.SYS_OPEN, address(buf), uintptr(flags), 0o644)
	runtime.KeepAlive(buf)
	return nilIfZero(errno)
}

func legacyCreat(path string) error {
	buf := append([]byte(path), 0)
	_, _, errno := unix.Syscall(unix.SYS_CREAT, address(buf), 0o644, 0)
	runtime.KeepAlive(buf)
	return nilIfZero(errno)
}
