package main

import (
	"os"
	"os/signal"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// foreignCommands touch other processes.
var foreignCommands = []command{
	{"ptrace-seize", "PID", 1, ptraceSeize},
	{"vm-read", "PID ADDRESS", 2, func(args []string) outcome {
		buf := make([]byte, 8)
		local := []unix.Iovec{{Base: &buf[0], Len: 8}}
		remote := []unix.RemoteIovec{{Base: uintptr(number(args[1])), Len: 8}}
		_, err := unix.ProcessVMReadv(number(args[0]), local, remote, 0)
		return result(err)
	}},
	{"vm-write", "PID ADDRESS", 2, func(args []string) outcome {
		buf := make([]byte, 8)
		local := []unix.Iovec{{Base: &buf[0], Len: 8}}
		remote := []unix.RemoteIovec{{Base: uintptr(number(args[1])), Len: 8}}
		_, err := unix.ProcessVMWritev(number(args[0]), local, remote, 0)
		return result(err)
	}},
	{"pidfd-signal", "PID SIGNAL", 2, func(args []string) outcome {
		fd, err := unix.PidfdOpen(number(args[0]), 0)
		if err != nil {
			return failedAt("pidfd_open", err)
		}
		return result(unix.PidfdSendSignal(fd, unix.Signal(number(args[1])), nil, 0))
	}},
	{"pidfd-getfd", "PID FD", 2, func(args []string) outcome {
		fd, err := unix.PidfdOpen(number(args[0]), 0)
		if err != nil {
			return failedAt("pidfd_open", err)
		}
		_, err = unix.PidfdGetfd(fd, number(args[1]), 0)
		return result(err)
	}},
	{"parent", "", 0, func([]string) outcome { return value("%d", unix.Getppid()) }},
	{"self-signal", "", 0, func([]string) outcome { return result(unix.Kill(unix.Getpid(), 0)) }},
	{"victim", "FILE SECONDS", 2, victim},
}

func ptraceSeize(args []string) outcome {
	pid := uintptr(number(args[0]))
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, pid, 0, 0, 0, 0); errno != 0 {
		return result(errno)
	}
	unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, pid, 0, 0, 0, 0)
	return succeeded
}

// victimData is what a process that reads victim's memory gets.
var victimData uint64 = 0x5ec2e7

// victim writes "pid address" to FILE and, for every SIGWINCH (which no program dies of), one line more.
func victim(args []string) outcome {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGWINCH)
	text := strconv.Itoa(os.Getpid()) + " " + strconv.FormatUint(uint64(uintptr(unsafe.Pointer(&victimData))), 10) + "\n"
	// Renamed into place, so that a reader never sees half of it.
	if err := os.WriteFile(args[0]+".new", []byte(text), 0o644); err != nil {
		return failedAt("write", err)
	}
	if err := os.Rename(args[0]+".new", args[0]); err != nil {
		return failedAt("rename", err)
	}
	end := time.After(time.Duration(number(args[1])) * time.Second)
	for {
		select {
		case <-signals:
			text += "winch\n"
			os.WriteFile(args[0], []byte(text), 0o644)
		case <-end:
			return succeeded
		}
	}
}
