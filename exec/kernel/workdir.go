package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// InDirectory runs f on the calling thread with a umask, and in the directory of a descriptor, or where the thread is for
// -1. The thread must have called [UnshareFS]: for others both belong to the whole process.
func InDirectory(dir int, umask uint32, f func() error) error {
	if dir >= 0 {
		back, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("own working directory: %w", err)
		}
		defer unix.Close(back)
		if err := unix.Fchdir(dir); err != nil {
			return err
		}
		defer func() { _ = unix.Fchdir(back) }()
	}
	defer unix.Umask(unix.Umask(int(umask)))
	return f()
}
