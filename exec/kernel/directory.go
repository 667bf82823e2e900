package kernel

import "golang.org/x/sys/unix"

// ReopenDirectory opens the directory behind fd once more, for reading from its start. Permissions are checked anew.
func ReopenDirectory(fd int) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	if got, err := unix.Openat(fd, ".", flags, 0); err == nil {
		return got, nil
	}
	return unix.Open(Pin{FD: fd}.SelfPath(), flags, 0) // slower, but a directory may be listed without search permission
}

// ReadDirectory reads records in the format of getdents64(2) from where fd stands. 0 means the end.
func ReadDirectory(fd int, b []byte) (int, error) { return unix.Getdents(fd, b) }
