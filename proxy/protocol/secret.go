package protocol

import (
	"bytes"
	"errors"
	"fmt"
)

// MaxSecret bounds a secret, in bytes. Who reads one reads up to MaxSecretFile bytes and one more, so that Trim sees that
// there are too many.
const (
	MaxSecret     = 64 << 10
	MaxSecretFile = MaxSecret + len("\r\n")
)

// Trim returns a secret without the line end that editors and echo put behind it: one, since others may be part of it. The
// result is a part of b.
func Trim(b []byte) ([]byte, error) {
	s, found := bytes.CutSuffix(b, []byte("\n"))
	if found {
		s = bytes.TrimSuffix(s, []byte("\r"))
	}
	if len(s) == 0 {
		return nil, errors.New("is empty")
	}
	if len(s) > MaxSecret {
		return nil, fmt.Errorf("has more than %d bytes", MaxSecret)
	}
	return s, nil
}
