package main

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var raceCommands = []command{{"swap-race", "DIR SECRET N", 3, swapRace}, {"pointer-race", "FILE SECRET N", 3, pointerRace}}

// pointerRace opens a path N times while another thread writes FILE and SECRET over it in turn, which are equally long.
func pointerRace(args []string) outcome {
	file, secret, n := args[0], args[1], number(args[2])
	if len(file) != len(secret) {
		return "the paths differ in length"
	}
	path := append([]byte(file), 0)
	var stop atomic.Bool
	var swaps atomic.Int64
	go func() {
		runtime.LockOSThread()
		for !stop.Load() {
			copy(path, secret)
			copy(path, file)
			swaps.Add(1)
		}
	}()
	leaks, opened, refused := 0, 0, 0
	buf := make([]byte, 1)
	for i := 0; i < n || swaps.Load() < int64(n/2); i++ {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, at(unix.AT_FDCWD), address(path), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		if errno != 0 {
			refused++
			continue
		}
		opened++
		if got, _ := unix.Read(int(fd), buf); got == 1 && buf[0] == 'S' {
			leaks++
		}
		unix.Close(int(fd))
	}
	stop.Store(true)
	return value("leaks=%s opened=%s refused=%s", anyOrNone(leaks), anyOrNone(opened), anyOrNone(refused))
}

// at makes a register of a directory descriptor.
func at(fd int) uintptr { return uintptr(fd) }

// swapRace opens DIR/link N times while another thread makes it point to DIR/ok and to SECRET in turn. SECRET's first
// byte is "S"; an open that reads it is a leak. A race needs two runners: on a busy machine the opens go on until the
// link was swapped a fifth as often as that too. A swap takes as long as several opens.
func swapRace(args []string) outcome {
	dir, secret, n := args[0], args[1], number(args[2])
	link, next := dir+"/link", dir+"/next"
	if err := os.WriteFile(dir+"/ok", []byte("o"), 0o644); err != nil {
		return failedAt("write", err)
	}
	if err := os.Symlink(dir+"/ok", link); err != nil {
		return failedAt("symlink", err)
	}
	var stop atomic.Bool
	var swaps atomic.Int64
	go func() {
		runtime.LockOSThread()
		for !stop.Load() {
			for _, target := range []string{secret, dir + "/ok"} {
				unix.Symlink(target, next)
				unix.Rename(next, link)
			}
			swaps.Add(1)
		}
	}()
	leaks, opened, refused := 0, 0, 0
	buf := make([]byte, 1)
	for i := 0; i < n || swaps.Load() < int64(n/5); i++ {
		fd, err := unix.Open(link, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			refused++
			continue
		}
		opened++
		if got, _ := unix.Read(fd, buf); got == 1 && buf[0] == 'S' {
			leaks++
		}
		unix.Close(fd)
	}
	stop.Store(true)
	return value("leaks=%s opened=%s refused=%s", anyOrNone(leaks), anyOrNone(opened), anyOrNone(refused))
}

// anyOrNone keeps the line stable: how often a race is won differs from run to run.
func anyOrNone(n int) string {
	if n == 0 {
		return "none"
	}
	return "some"
}

func itoa(n int) string { return strconv.Itoa(n) }
