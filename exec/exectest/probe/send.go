package main

import (
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendCommands send datagrams. ADDRESS is ip:port.
var sendCommands = []command{
	{"send-vector", "ADDRESS…", 1, sendVector},
	{"send-race", "CALL ALLOWED FORBIDDEN N", 4, sendRace},
	{"send-dup-race", "STREAM FORBIDDEN N", 3, sendDupRace},
}

// rawAddress is an address as the kernel takes it.
func rawAddress(text string) []byte {
	switch _, to := sockaddr(text); to := to.(type) {
	case *unix.SockaddrInet4:
		return append([]byte{unix.AF_INET, 0, byte(to.Port >> 8), byte(to.Port)}, append(to.Addr[:], make([]byte, 8)...)...)
	case *unix.SockaddrInet6:
		return append([]byte{unix.AF_INET6, 0, byte(to.Port >> 8), byte(to.Port), 0, 0, 0, 0}, append(to.Addr[:], make([]byte, 4)...)...)
	}
	return nil
}

// sendVector is one sendmmsg with a message to each address. "connected" before the addresses connects the socket to the
// first of them and names none.
func sendVector(args []string) outcome {
	connected := args[0] == "connected"
	if connected {
		args = args[1:]
	}
	domain, first := sockaddr(args[0])
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM, 0)
	if err != nil {
		return failedAt("socket", err)
	}
	if connected {
		if err := unix.Connect(fd, first); err != nil {
			return failedAt("connect", err)
		}
	}
	data := []byte("x")
	iov := unix.Iovec{Base: &data[0], Len: 1}
	vector := make([]mmsghdr, len(args))
	for i, text := range args {
		vector[i].header = unix.Msghdr{Iov: &iov, Iovlen: 1}
		if !connected {
			name := rawAddress(text)
			vector[i].header.Name, vector[i].header.Namelen = &name[0], uint32(len(name))
		}
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&vector[0])), uintptr(len(vector)), 0, 0, 0)
	if errno != 0 {
		return result(errno)
	}
	var lengths []string
	for i := range vector {
		lengths = append(lengths, itoa(int(vector[i].sent)))
	}
	return value("sent=%d lengths=%s", n, strings.Join(lengths, ","))
}

// sendRace sends N times while another thread writes one address over the other.
func sendRace(args []string) outcome {
	allowed, forbidden, n := rawAddress(args[1]), rawAddress(args[2]), number(args[3])
	domain, _ := sockaddr(args[1])
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM, 0)
	if err != nil {
		return failedAt("socket", err)
	}
	name := append([]byte(nil), allowed...)
	var stop atomic.Bool
	var swaps atomic.Int64
	go func() {
		runtime.LockOSThread()
		for !stop.Load() {
			copy(name, forbidden)
			copy(name, allowed)
			swaps.Add(1)
		}
	}()
	send := sender(args[0], fd, name)
	sent, refused := 0, 0
	for i := 0; i < n || swaps.Load() < int64(n/2); i++ {
		if send() == 0 {
			sent++
		} else {
			refused++
		}
	}
	stop.Store(true)
	return value("sent=%s refused=%s", anyOrNone(sent), anyOrNone(refused))
}

// sender returns a function that makes one call to an address in memory.
func sender(call string, fd int, name []byte) func() syscall.Errno {
	data := []byte("x")
	iov := unix.Iovec{Base: &data[0], Len: 1}
	vector := []mmsghdr{{header: unix.Msghdr{Name: &name[0], Namelen: uint32(len(name)), Iov: &iov, Iovlen: 1}}}
	return func() (errno syscall.Errno) {
		switch call {
		case "sendto":
			_, _, errno = unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), address(data), 1, 0, address(name), uintptr(len(name)))
		case "sendmsg":
			_, _, errno = unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&vector[0])), 0)
		case "sendmmsg":
			_, _, errno = unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&vector[0])), 1, 0, 0, 0)
		}
		runtime.KeepAlive(vector)
		return errno
	}
}

// sendDupRace sends N times to a forbidden address while another thread has the descriptor mean a connected stream, which
// ignores addresses, and a datagram socket, which does not.
func sendDupRace(args []string) outcome {
	domain, to := sockaddr(args[0])
	stream, err := unix.Socket(domain, unix.SOCK_STREAM, 0)
	if err != nil {
		return failedAt("socket", err)
	}
	if err := unix.Connect(stream, to); err != nil {
		return failedAt("connect", err)
	}
	if err := unix.SetNonblock(stream, true); err != nil {
		return failedAt("nonblock", err)
	}
	datagram, err := unix.Socket(domain, unix.SOCK_DGRAM, 0)
	if err != nil {
		return failedAt("socket", err)
	}
	fd, err := unix.Dup(datagram)
	if err != nil {
		return failedAt("dup", err)
	}
	n := number(args[2])
	var stop atomic.Bool
	var swaps atomic.Int64
	go func() {
		runtime.LockOSThread()
		for !stop.Load() {
			_ = unix.Dup3(stream, fd, 0)
			_ = unix.Dup3(datagram, fd, 0)
			swaps.Add(1)
		}
	}()
	send := sender("sendmsg", fd, rawAddress(args[1]))
	streamed, refused := 0, 0
	for i := 0; i < n || swaps.Load() < int64(n/2); i++ {
		switch send() {
		case 0, unix.EAGAIN:
			streamed++
		default:
			refused++
		}
	}
	stop.Store(true)
	return value("streamed=%s refused=%s", anyOrNone(streamed), anyOrNone(refused))
}
