package branch

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// readNames lists a directory, sorted by bytes, without "." and "..". It reads from the start, with any descriptor that is
// not opened by O_PATH.
func readNames(dir int) ([]string, error) {
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(dir, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// writeFile puts a small file in place such that a crash leaves the old one or the new one: a temporary, synced, renamed, and
// its directory synced.
func writeFile(s sys, dir int, name string, text []byte) error {
	temporary := "." + name + ".new"
	if err := s.unlink(dir, temporary, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := s.create(dir, temporary, 0o600)
	if err != nil {
		return err
	}
	err = s.write(fd, text)
	if err == nil {
		err = s.fsync(fd)
	}
	unix.Close(fd)
	if err == nil {
		err = s.rename(dir, temporary, dir, name, 0)
	}
	if err == nil {
		err = s.fsync(dir)
	}
	return err
}

// smallFile bounds what readFile reads, in bytes.
const smallFile = 4 << 20

func readFile(dir int, name string) ([]byte, error) {
	fd, st, err := openRegular(dir, name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if st.Size > smallFile {
		return nil, fmt.Errorf("%s has %d bytes: %w", name, st.Size, unix.EFBIG)
	}
	text := make([]byte, st.Size)
	if err := readAll(fd, text, 0); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(text), nil
}
