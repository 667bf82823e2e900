package kernel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// StatBytes returns struct stat as the kernel writes it (stat(2)).
func StatBytes(st *unix.Stat_t) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(st)), unsafe.Sizeof(*st))...)
}

// StatxBytes returns struct statx as the kernel writes it (statx(2)).
func StatxBytes(st *unix.Statx_t) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(st)), unsafe.Sizeof(*st))...)
}
