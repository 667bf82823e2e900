package main

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

var portCommands = []command{
	{"bind-unspec", "PORT", 1, func(args []string) outcome {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return failedAt("socket", err)
		}
		return result(bindRaw(fd, anyAddress(unix.AF_UNSPEC, number(args[0]))))
	}},
	{"bind-listen", "ADDRESS", 1, func(args []string) outcome {
		return withSocket([]string{args[0], "1", "0"}, func(fd int, to unix.Sockaddr) error {
			if err := unix.Bind(fd, to); err != nil {
				return err
			}
			return unix.Listen(fd, 1)
		})
	}},
	{"bind-address-race", "PORT N", 2, bindAddressRace},
	{"bind-descriptor-race", "PORT N", 2, bindDescriptorRace},
}

// anyAddress is 0.0.0.0 with a port, as struct sockaddr_in.
func anyAddress(family uint16, port int) []byte {
	b := make([]byte, unix.SizeofSockaddrInet4)
	binary.NativeEndian.PutUint16(b, family)
	binary.BigEndian.PutUint16(b[2:], uint16(port))
	return b
}

func bindRaw(fd int, b []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_BIND, at(fd), address(b), uintptr(len(b)))
	runtime.KeepAlive(b)
	return nilIfZero(errno)
}

// has reports whether a socket is bound to a port.
func has(fd, port int) bool {
	name, err := unix.Getsockname(fd)
	in, ok := name.(*unix.SockaddrInet4)
	return err == nil && ok && in.Port == port
}

// longestRace bounds a race on a machine where its calls are slow.
const longestRace = time.Second

// bindAddressRace binds TCP sockets to an ephemeral port while another thread changes the address to PORT and back. A
// socket that gets PORT is a leak.
func bindAddressRace(args []string) outcome {
	port, n := number(args[0]), number(args[1])
	b := anyAddress(unix.AF_INET, 0)
	harmless, denied := anyAddress(unix.AF_INET, 0), anyAddress(unix.AF_INET, port)
	return portRace(n, func() {
		copy(b[2:4], denied[2:4])
		copy(b[2:4], harmless[2:4])
	}, func() (leak, done bool) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return false, false
		}
		defer unix.Close(fd)
		done = bindRaw(fd, b) == nil
		return has(fd, port), done
	})
}

// bindDescriptorRace binds a descriptor to PORT while another thread has it mean a UDP and a TCP socket in turn. A TCP
// socket that gets PORT is a leak.
func bindDescriptorRace(args []string) outcome {
	port, n := number(args[0]), number(args[1])
	target, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return failedAt("socket", err)
	}
	var stream, datagram atomic.Int64
	return portRace(n, func() {
		unix.Dup3(int(stream.Load()), target, 0)
		unix.Dup3(int(datagram.Load()), target, 0)
	}, func() (leak, done bool) {
		for socket, kind := range map[*atomic.Int64]int{&stream: unix.SOCK_STREAM, &datagram: unix.SOCK_DGRAM} {
			fd, err := unix.Socket(unix.AF_INET, kind, 0)
			if err != nil {
				return false, false
			}
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			socket.Store(int64(fd))
		}
		tcp, udp := int(stream.Load()), int(datagram.Load())
		defer unix.Close(tcp)
		defer unix.Close(udp)
		_ = bindRaw(target, anyAddress(unix.AF_INET, port))
		return has(tcp, port), has(udp, port)
	})
}

// portRace tries n times while another thread swaps.
func portRace(n int, swap func(), try func() (leak, done bool)) outcome {
	var stop atomic.Bool
	go func() {
		runtime.LockOSThread()
		for !stop.Load() {
			swap()
		}
	}()
	leaks, bound, deadline := 0, 0, time.Now().Add(longestRace)
	for i := 0; i < n && (i%64 != 0 || time.Now().Before(deadline)); i++ {
		leak, done := try()
		if leak {
			leaks++
		}
		if done {
			bound++
		}
	}
	stop.Store(true)
	return value("leaks=%s bound=%s", anyOrNone(leaks), anyOrNone(bound))
}
