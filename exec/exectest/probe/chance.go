package main

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// chanceCommands print what differs from run to run unless somebody answers instead of the kernel.
var chanceCommands = []command{
	{"random", "", 0, randomSources},
	{"getrandom", "LENGTH FLAGS", 2, func(args []string) outcome {
		b := make([]byte, number(args[0]))
		n, e := getrandom(b, number(args[1]))
		if e != 0 {
			return result(e)
		}
		return value("%d", n)
	}},
	{"read-file", "PATH OPEN-FLAGS LENGTH", 3, func(args []string) outcome {
		fd, err := unix.Open(args[0], number(args[1]), 0)
		if err != nil {
			return failedAt("open", err)
		}
		f := os.NewFile(uintptr(fd), args[0])
		b := make([]byte, number(args[2]))
		if _, err := io.ReadFull(f, b); err != nil {
			return failedAt("read", err)
		}
		status, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		descriptor, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return value("%x nonblock=%v cloexec=%v", b, status&unix.O_NONBLOCK != 0, descriptor&unix.FD_CLOEXEC != 0)
	}},
}

// randomSources are bytes from the runtime (by way of the vDSO where that has a generator), from the system call, and
// from the start of the program.
func randomSources([]string) outcome {
	var library, call [8]byte
	if _, err := rand.Read(library[:]); err != nil {
		return failedAt("crypto/rand", err)
	}
	if _, e := getrandom(call[:], 0); e != 0 {
		return failedAt("getrandom", e)
	}
	start, err := startBytes()
	if err != nil {
		return failedAt("auxv", err)
	}
	return value("library=%x call=%x start=%x", library, call, start)
}

// getrandom makes the call itself; unix.Getrandom would ask the vDSO.
func getrandom(b []byte, flags int) (int, unix.Errno) {
	n, _, e := unix.Syscall(unix.SYS_GETRANDOM, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(flags))
	return int(n), e
}

// startBytes are those that AT_RANDOM points to. The vector is asked of the kernel, since /proc may be closed.
func startBytes() ([]byte, error) {
	const prGetAuxv, atRandom = 0x41555856, 25 // PR_GET_AUXV, Linux 6.4
	var b [1024]byte
	_, _, e := unix.RawSyscall6(unix.SYS_PRCTL, prGetAuxv, uintptr(unsafe.Pointer(&b)), uintptr(len(b)), 0, 0, 0)
	if e != 0 {
		return nil, e
	}
	for i := 0; i < len(b); i += 16 {
		if binary.NativeEndian.Uint64(b[i:]) == atRandom {
			at := binary.NativeEndian.Uint64(b[i+8:])
			return append([]byte(nil), unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), 16)...), nil
		}
	}
	return nil, unix.ENOENT
}
