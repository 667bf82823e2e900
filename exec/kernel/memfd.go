package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// SealedFile makes a file in memory that holds b, positioned at its start, which nobody can change (memfd_create(2),
// fcntl(2) F_ADD_SEALS).
func SealedFile(name string, b []byte) (fd int, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
			fd = -1
		}
	}()
	for rest := b; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fd, fmt.Errorf("write memfd: %w", err)
		}
		rest = rest[max(n, 0):]
	}
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return fd, fmt.Errorf("rewind memfd: %w", err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fd, fmt.Errorf("seal memfd: %w", err)
	}
	return fd, nil
}
