package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SealedFile returns a descriptor of a file in memory with the given content, at its beginning, that nobody can change
// (memfd_create(2), F_ADD_SEALS).
func SealedFile(name string, content []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	n, err := unix.Pwrite(fd, content, 0)
	if err == nil && n != len(content) {
		err = unix.ENOSPC
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS,
			unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("sealed file: %w", err)
	}
	return fd, nil
}
