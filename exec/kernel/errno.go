package kernel

import (
	"errors"

	"golang.org/x/sys/unix"
)

// ErrnoOf returns the errno that an error wraps, EACCES for one that wraps none: nothing is granted by mistake.
func ErrnoOf(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EACCES
}
