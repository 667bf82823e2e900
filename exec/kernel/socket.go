package kernel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// These take and return addresses as bytes, as callers write and read them. They tell the Go runtime nothing: a call that
// does not wait is over before that would pay.

// Connect is connect(2).
func Connect(fd int, address []byte) error {
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(address))), uintptr(len(address)))
	return errnoErr(e)
}

// Bind is bind(2).
func Bind(fd int, address []byte) error {
	_, _, e := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(address))), uintptr(len(address)))
	return errnoErr(e)
}

// SocketName is getsockname(2), or getpeername(2) for the other end's. It returns the length of the address, of which b
// holds as much as fits.
func SocketName(fd int, peer bool, b []byte) (int, error) {
	nr := uintptr(unix.SYS_GETSOCKNAME)
	if peer {
		nr = unix.SYS_GETPEERNAME
	}
	size := int32(len(b))
	_, _, e := unix.RawSyscall(nr, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(&size)))
	return int(size), errnoErr(e)
}

// Send is sendmsg(2) of one buffer, with address and control messages as bytes, each of which may be empty. It tells the Go
// runtime nothing, so flags must have MSG_DONTWAIT.
func Send(fd int, data, address, control []byte, flags int) (int, error) {
	if len(address) == 0 {
		address = nil // an address without bytes is one all the same
	}
	if len(control) == 0 {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)),
			uintptr(flags), uintptr(unsafe.Pointer(unsafe.SliceData(address))), uintptr(len(address)))
		return sent(n, e)
	}
	iov := unix.Iovec{Base: unsafe.SliceData(data)}
	iov.SetLen(len(data))
	msg := unix.Msghdr{Iov: &iov, Control: unsafe.SliceData(control), Name: unsafe.SliceData(address), Namelen: uint32(len(address))}
	msg.SetIovlen(1)
	msg.SetControllen(len(control))
	n, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), uintptr(flags))
	return sent(n, e)
}

func sent(n uintptr, e unix.Errno) (int, error) {
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
