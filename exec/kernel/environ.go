package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// WipeEnvironment overwrites the values of variables: in the environment that this process was started with, which
// /proc/PID/environ shows (proc_pid_environ(5)), and where package os has them from, so that what was read of them before
// is gone too. The variables are then unset.
func WipeEnvironment(names []string) error {
	if len(names) == 0 {
		return nil
	}
	for _, name := range names {
		if err := wipeString(os.Getenv(name)); err != nil {
			return fmt.Errorf("variable %s: %w", name, err)
		}
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	start, end, err := environmentArea()
	if err != nil || start == end {
		return err
	}
	area := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), start)), end-start)
	for len(area) > 0 {
		variable, rest, _ := bytes.Cut(area, []byte{0})
		name, value, ok := bytes.Cut(variable, []byte("="))
		for _, n := range names {
			if ok && string(name) == n {
				clear(value)
			}
		}
		area = rest
	}
	return nil
}

// wipeString overwrites a string, unless it lies in memory that cannot be written: then it is part of the program.
func wipeString(s string) error {
	if s == "" {
		return nil
	}
	zeros := make([]byte, len(s))
	local := []unix.Iovec{{Base: &zeros[0], Len: uint64(len(s))}}
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(unsafe.StringData(s))), Len: len(s)}}
	if _, err := unix.ProcessVMWritev(os.Getpid(), local, remote, 0); err != nil && !errors.Is(err, unix.EFAULT) {
		return err
	}
	runtime.KeepAlive(s)
	return nil
}

// environmentArea returns where the environment lies in this process's memory (proc_pid_stat(5), env_start and env_end).
func environmentArea() (start, end uintptr, err error) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, 0, err
	}
	const envStart, envEnd = 50, 51 // counted from 1
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const third = 3 // the first behind the name
	if len(fields) <= envEnd-third {
		return 0, 0, errors.New("/proc/self/stat is too short")
	}
	var area [2]uint64
	for i := range area {
		if area[i], err = strconv.ParseUint(string(fields[envStart-third+i]), 10, 64); err != nil {
			return 0, 0, err
		}
	}
	if area[0] == 0 || area[1] < area[0] {
		return 0, 0, fmt.Errorf("/proc/self/stat has an environment from %#x to %#x", area[0], area[1])
	}
	return uintptr(area[0]), uintptr(area[1]), nil
}
