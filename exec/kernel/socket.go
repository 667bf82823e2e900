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
