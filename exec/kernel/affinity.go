package kernel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Affinity fills mask with the CPUs that a thread may run on, and returns how many bytes the kernel knows
// (sched_getaffinity(2)). It fails with EINVAL where mask is smaller than that.
func Affinity(tid int, mask []byte) (int, error) {
	n, _, e := unix.Syscall(unix.SYS_SCHED_GETAFFINITY, uintptr(tid), uintptr(len(mask)), uintptr(unsafe.Pointer(unsafe.SliceData(mask))))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
