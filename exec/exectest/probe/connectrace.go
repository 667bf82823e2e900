package main

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// connectRaceCommands connect while another thread changes what they name. ADDRESS is ip:port, of IPv4.
var connectRaceCommands = []command{
	{"connect-race", "ALLOWED FORBIDDEN TYPE N", 4, connectRace},
	{"family-race", "FORBIDDEN N", 2, familyRace},
	{"dup-race", "ALLOWED FORBIDDEN N", 3, dupRace},
}

// flip runs a function on a thread of its own until stopped, and counts.
func flip(f func()) (turns *atomic.Int64, stop func()) {
	turns = new(atomic.Int64)
	var end atomic.Bool
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(done)
		for !end.Load() {
			f()
			turns.Add(1)
		}
	}()
	return turns, func() { end.Store(true); <-done }
}

// connectRace connects N new sockets to an address over which another thread writes ALLOWED and FORBIDDEN in turn, and
// sends a byte on each that is connected. Streams are reset, so that ports do not run out.
func connectRace(args []string) outcome {
	allowed, forbidden, kind, n := rawAddress(args[0]), rawAddress(args[1]), number(args[2]), number(args[3])
	shared := append([]byte(nil), allowed...)
	turns, stop := flip(func() { copy(shared, forbidden); copy(shared, allowed) })
	defer stop()
	connected, refused := 0, 0
	for i := 0; i < n || turns.Load() < int64(n/2); i++ {
		fd, err := unix.Socket(unix.AF_INET, kind, 0)
		if err != nil {
			return failedAt("socket", err)
		}
		if kind == unix.SOCK_STREAM {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), address(shared), uintptr(len(shared))); e != 0 {
			refused++
		} else {
			connected++
			_, _ = unix.Write(fd, []byte("x"))
		}
		unix.Close(fd)
	}
	return value("connected=%s refused=%s", anyOrNone(connected), anyOrNone(refused))
}

// familyRace connects datagram sockets to FORBIDDEN while another thread makes its family AF_UNSPEC and AF_UNIX in turn,
// which connect treats otherwise.
func familyRace(args []string) outcome {
	shared, n := rawAddress(args[0]), number(args[1])
	turns, stop := flip(func() {
		for _, family := range []uint16{unix.AF_UNSPEC, unix.AF_INET, unix.AF_UNIX, unix.AF_INET} {
			binary.NativeEndian.PutUint16(shared, family)
		}
	})
	defer stop()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return failedAt("socket", err)
	}
	sent := 0
	for i := 0; i < n || turns.Load() < int64(n/2); i++ {
		_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(fd), address(shared), uintptr(len(shared)))
		if _, err := unix.Write(fd, []byte("x")); err == nil {
			sent++
		}
	}
	return value("sent=%s", anyOrNone(sent))
}

// dupRace connects one descriptor number, which another thread makes a datagram socket and a stream socket in turn, to
// the port of ALLOWED, which is so for datagrams only, and to FORBIDDEN, which is so for streams only.
func dupRace(args []string) outcome {
	allowed, forbidden, n := rawAddress(args[0]), rawAddress(args[1]), number(args[2])
	var fds [3]int
	for i, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return failedAt("socket", err)
		}
		fds[i] = fd
	}
	target := fds[2]
	turns, stop := flip(func() { _ = unix.Dup3(fds[1], target, 0); _ = unix.Dup3(fds[0], target, 0) })
	defer stop()
	sent := 0
	for i := 0; i < n || turns.Load() < int64(n/2); i++ {
		for _, to := range [][]byte{allowed, forbidden} {
			_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(target), address(to), uintptr(len(to)))
			if _, err := unix.Write(fds[0], []byte("x")); err == nil {
				sent++
			}
			_, _ = unix.Write(fds[1], []byte("x"))
		}
	}
	return value("sent=%s", anyOrNone(sent))
}
