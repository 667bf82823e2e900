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

// MountID returns the number of the mount that a file was opened by (statx(2), STATX_MNT_ID, Linux 5.8).
func MountID(fd int) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	if err == nil && st.Mask&unix.STATX_MNT_ID == 0 {
		err = unix.ENOSYS
	}
	return st.Mnt_id, err
}
