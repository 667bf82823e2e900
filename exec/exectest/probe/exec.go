package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// execCommands start another program in place of this one; their line appears only when that fails.
var execCommands = []command{
	{"exec", "PATH ARG…", 1, func(args []string) outcome {
		return result(syscall.Exec(args[0], args, os.Environ()))
	}},
	{"exec-fd", "PATH ARG…", 1, func(args []string) outcome {
		fd, err := unix.Open(args[0], unix.O_PATH, 0)
		if err != nil {
			return failedAt("O_PATH", err)
		}
		return result(execDescriptor(fd, args))
	}},
	{"exec-memfd", "PATH ARG…", 1, func(args []string) outcome {
		program, err := os.ReadFile(args[0])
		if err != nil {
			return failedAt("read", err)
		}
		fd, err := unix.MemfdCreate("probe", 0)
		if err != nil {
			return failedAt("memfd_create", err)
		}
		if err := writeAll(fd, program); err != nil {
			return failedAt("write", err)
		}
		return result(execDescriptor(fd, args))
	}},
	{"exec-copy", "PATH COPY ARG…", 2, func(args []string) outcome {
		program, err := os.ReadFile(args[0])
		if err != nil {
			return failedAt("read", err)
		}
		if err := os.WriteFile(args[1], program, 0o755); err != nil {
			return failedAt("write", err)
		}
		return result(syscall.Exec(args[1], args[1:], os.Environ()))
	}},
}

func execDescriptor(fd int, argv []string) error {
	argvp, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	envp, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return err
	}
	empty := []byte{0}
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), address(empty), pointers(argvp), pointers(envp),
		unix.AT_EMPTY_PATH, 0)
	return errno
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
