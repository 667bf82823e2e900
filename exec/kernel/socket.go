package kernel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Connect is connect(2) with an address as bytes, as a caller wrote it. It tells the Go runtime nothing: a call that does
// not wait is over before that would pay.
func Connect(fd int, address []byte) error {
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(address))), uintptr(len(address)))
	return errnoErr(e)
}
