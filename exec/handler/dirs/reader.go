package dirs

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

const (
	// inlineBytes is how much of a directory is read while others wait: about 2000 entries, in a millisecond.
	inlineBytes = 64 << 10
	// maxBytes bounds the records of a directory that is listed in order, as does maxEntries their number.
	maxBytes = 32 << 20
)

var errTooLarge = errors.New("the directory is too large to be sorted")

// reader reads a directory into memory.
type reader struct {
	fd      int
	own     bool     // fd is an open file of our own, else a copy of the caller's
	was     position // where the caller's stood
	raw     []byte
	entries int
}

// open opens the directory behind a copy of the caller's descriptor once more. Where that is refused (the descriptor was
// inherited, or the directory's permissions have changed since) the caller's open file is read itself, which moves its
// offset there and back. raw is memory to start with.
func open(fd int, was position, raw []byte) (*reader, error) {
	if own, err := kernel.ReopenDirectory(fd); err == nil {
		return &reader{fd: own, own: true, raw: raw[:0]}, nil
	}
	shared, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	r := &reader{fd: shared, was: was, raw: raw[:0]}
	if _, err := unix.Seek(shared, 0, unix.SEEK_SET); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *reader) close() {
	if !r.own {
		_, _ = unix.Seek(r.fd, int64(r.was), unix.SEEK_SET)
	}
	_ = unix.Close(r.fd)
}

// read reads on until the end, or until there are limit bytes.
func (r *reader) read(limit int) (done bool, err error) {
	for len(r.raw) < limit {
		r.grow()
		n, err := kernel.ReadDirectory(r.fd, r.raw[len(r.raw):cap(r.raw)])
		if err != nil {
			return false, err
		}
		if n == 0 {
			return true, nil
		}
		r.raw = r.raw[:len(r.raw)+n]
		if r.entries += count(r.raw[len(r.raw)-n:]); r.entries > maxEntries {
			return false, errTooLarge
		}
	}
	return false, nil
}

// rest reads on until the end.
func (r *reader) rest() error {
	done, err := r.read(maxBytes)
	if err == nil && !done {
		err = errTooLarge
	}
	return err
}

func (r *reader) grow() {
	if cap(r.raw)-len(r.raw) >= inlineBytes/2 {
		return
	}
	grown := make([]byte, len(r.raw), min(2*cap(r.raw), maxBytes)+inlineBytes)
	copy(grown, r.raw)
	r.raw = grown
}

func count(records []byte) (n int) {
	for len(records) > 0 {
		length, _, ok := parse(records)
		if !ok {
			break
		}
		records = records[length:]
		n++
	}
	return n
}
