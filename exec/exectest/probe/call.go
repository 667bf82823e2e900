package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/sandlock-go/sandlock/ir/abi"
)

var callCommands = []command{
	{"call", "NAME|NR ARG…", 1, func(args []string) outcome {
		_, errno := call(args)
		return result(nilIfZero(errno))
	}},
	{"query", "NAME|NR ARG…", 1, func(args []string) outcome {
		r, errno := call(args)
		if errno != 0 {
			return result(errno)
		}
		return value("%d", r)
	}},
}

// call makes one system call. Arguments are numbers, or memory: s:TEXT (a string), b:N (N zero bytes), h:HEX (bytes).
// An old call may be made as a newer one (newer.go).
func call(args []string) (uintptr, syscall.Errno) {
	args = present(args)
	nr := sysno(args[0])
	var words [6]uintptr
	var memory [][]byte
	for i, arg := range args[1:] {
		buf, isMemory := operand(arg)
		if isMemory {
			memory = append(memory, buf)
			words[i] = address(buf)
			continue
		}
		words[i] = word(arg)
	}
	r, _, errno := syscall.Syscall6(nr, words[0], words[1], words[2], words[3], words[4], words[5])
	runtime.KeepAlive(memory)
	return r, errno
}

// sysno finds a system call of this architecture; one that it lacks ends the program with a mark that tests skip on.
func sysno(name string) uintptr {
	if n, err := strconv.ParseUint(name, 0, 64); err == nil {
		return uintptr(n)
	}
	arch, _ := abi.ParseArch(runtime.GOARCH)
	nr, ok := abi.SyscallNumber(arch, name)
	if !ok {
		fmt.Println("absent")
		os.Exit(0)
	}
	return uintptr(nr)
}

func operand(arg string) (buf []byte, isMemory bool) {
	kind, text, found := strings.Cut(arg, ":")
	if !found {
		return nil, false
	}
	switch kind {
	case "s":
		return append([]byte(text), 0), true
	case "b":
		return make([]byte, number(text)), true
	case "h":
		buf, err := hex.DecodeString(text)
		if err != nil {
			fmt.Fprintf(os.Stderr, "probe: %q: %v\n", arg, err)
			os.Exit(2)
		}
		return buf, true
	}
	return nil, false
}

// word takes unsigned values above the signed range too, such as 0x8000000000000000.
func word(arg string) uintptr {
	if n, err := strconv.ParseUint(arg, 0, 64); err == nil {
		return uintptr(n)
	}
	return uintptr(number(arg))
}

func address(buf []byte) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData(buf)))
}

func nilIfZero(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
