package branch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// chunk is how much of a file is in memory at a time, in bytes.
const chunk = 128 << 10

// buffers has them used again: most files are far smaller, and there are many.
var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// nextData returns where, from an offset on, a file has data, and where that ends; end, end if it has none. Where the file
// system cannot tell (EINVAL), all is data.
func nextData(fd int, from, end int64) (int64, int64, error) {
	start, err := unix.Seek(fd, from, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return end, end, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTSUP):
		return from, end, nil
	case err != nil:
		return 0, 0, err
	}
	stop, err := unix.Seek(fd, start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, err
	}
	return min(start, end), min(stop, end), nil
}

// sameData compares two regular files of one size. Where both have a hole, nothing is read: a sparse file of a terabyte costs
// what it has of data.
func sameData(a, b int, size int64) (bool, error) {
	bufA, bufB := buffers.Get().(*[chunk]byte), buffers.Get().(*[chunk]byte)
	defer buffers.Put(bufA)
	defer buffers.Put(bufB)
	for at := int64(0); at < size; {
		startA, endA, err := nextData(a, at, size)
		if err != nil {
			return false, err
		}
		startB, endB, err := nextData(b, at, size)
		if err != nil {
			return false, err
		}
		if at = min(startA, startB); at >= size {
			break
		}
		stop := endA // of a stretch in which one of them has data; a hole of the other reads as zeros
		if startA != at {
			stop = endB
		}
		for at < stop {
			n := int(min(stop-at, chunk))
			if err := readAll(a, bufA[:n], at); err != nil {
				return false, err
			}
			if err := readAll(b, bufB[:n], at); err != nil {
				return false, err
			}
			if !bytes.Equal(bufA[:n], bufB[:n]) {
				return false, nil
			}
			at += int64(n)
		}
	}
	return true, nil
}

func readAll(fd int, p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(fd, p, at)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// copyData gives a new file another's contents. Large ones by sharing blocks (FICLONE, ioctl_ficlone(2)) where the file system
// can, else stretch by stretch of data, in the kernel (copy_file_range(2)) where it will, so that holes stay holes.
func copyData(to, from int, size int64) error {
	if size <= chunk {
		return copySmall(to, from, size)
	}
	if err := unix.IoctlFileClone(to, from); err == nil {
		return nil
	}
	if err := unix.Ftruncate(to, size); err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	inKernel := true
	buf := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buf)
	for at := int64(0); at < size; {
		start, end, err := nextData(from, at, size)
		if err != nil {
			return fmt.Errorf("find data: %w", err)
		}
		for at = start; at < end; {
			if inKernel {
				in, out := at, at
				n, err := unix.CopyFileRange(from, &in, to, &out, int(min(end-at, 1<<30)), 0)
				switch {
				case errors.Is(err, unix.EINTR):
				case err == nil && n > 0:
					at += int64(n)
				case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EIO):
					return fmt.Errorf("copy: %w", err)
				default: // EXDEV before 5.19 and between some file systems, EINVAL, ENOSYS
					inKernel = false
				}
				continue
			}
			n := int(min(end-at, chunk))
			if err := readAll(from, buf[:n], at); err != nil {
				return fmt.Errorf("read: %w", err)
			}
			if err := writeAll(to, buf[:n], at); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			at += int64(n)
		}
	}
	return nil
}

// copySmall copies what fits into one buffer, in as few calls as that takes. A stretch of zeros at its end is a hole then: that
// is how large a file is made that has no data yet.
func copySmall(to, from int, size int64) error {
	buf := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buf)
	if err := readAll(from, buf[:size], 0); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	data := bytes.TrimRight(buf[:size], "\x00")
	if err := writeAll(to, data, 0); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if int64(len(data)) < size {
		if err := unix.Ftruncate(to, size); err != nil {
			return fmt.Errorf("truncate: %w", err)
		}
	}
	return nil
}

func writeAll(fd int, p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, at)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		p, at = p[max(n, 0):], at+int64(max(n, 0))
	}
	return nil
}
