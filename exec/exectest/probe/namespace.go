package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var namespaceCommands = []command{
	{"clone", "FLAGS", 1, func(args []string) outcome { return cloneOnce(uintptr(number(args[0]))) }},
	{"clone3", "FLAGS", 1, func(args []string) outcome { return clone3Once(uint64(number(args[0]))) }},
	{"setns", "PATH FLAGS", 2, func(args []string) outcome {
		fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return failedAt("open", err)
		}
		return result(unix.Setns(fd, number(args[1])))
	}},
	{"open-tree-move", "FROM TO", 2, openTreeMove},
	{"fsmount", "FSTYPE", 1, fsmount},
}

// cloneOnce forks with extra flags and waits for the child, which only exits.
func cloneOnce(flags uintptr) outcome {
	return awaited(forkExit(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0))
}

func clone3Once(flags uint64) outcome {
	args := [11]uint64{0: flags, 4: uint64(unix.SIGCHLD)} // struct clone_args: flags first, exit_signal fifth
	return awaited(forkExit(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args)))
}

// forkExit makes a child that exits at once. The child has a copy of the memory but only this thread, so that it may
// not enter the scheduler, which any function that checks its stack could: hence nosplit, and raw calls.
//
//go:nosplit
func forkExit(nr, a, b uintptr) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(nr, a, b, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
	}
	return pid, errno
}

func awaited(pid uintptr, errno syscall.Errno) outcome {
	if errno != 0 {
		return result(errno)
	}
	if _, err := unix.Wait4(int(pid), nil, 0, nil); err != nil {
		return failedAt("wait4", err)
	}
	return succeeded
}

// openTreeMove binds FROM over TO by the mount calls of Linux 5.2.
func openTreeMove(args []string) outcome {
	fd, err := unix.OpenTree(unix.AT_FDCWD, args[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return failedAt("open_tree", err)
	}
	return result(unix.MoveMount(fd, "", unix.AT_FDCWD, args[1], unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// fsmount makes a file system without attaching it anywhere.
func fsmount(args []string) outcome {
	fs, err := unix.Fsopen(args[0], unix.FSOPEN_CLOEXEC)
	if err != nil {
		return failedAt("fsopen", err)
	}
	if _, _, errno := unix.Syscall6(unix.SYS_FSCONFIG, uintptr(fs), unix.FSCONFIG_CMD_CREATE, 0, 0, 0, 0); errno != 0 {
		return failedAt("fsconfig", errno)
	}
	_, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	return result(err)
}
