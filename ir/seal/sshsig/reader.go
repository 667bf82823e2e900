package sshsig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
)

// reader reads the data types of RFC 4251 §5. Its first error stays, and every later read returns nothing.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) bytes(n int) []byte {
	if r.err == nil && n > len(r.rest) {
		r.err = fmt.Errorf("%d bytes are missing", n-len(r.rest))
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) str() []byte {
	n := r.uint32()
	if r.err == nil && uint64(n) > uint64(len(r.rest)) {
		r.err = fmt.Errorf("string of %d bytes, only %d follow", n, len(r.rest))
		return nil
	}
	return r.bytes(int(n))
}

// mpint reads a positive number in its one canonical form: no leading zero but the one that keeps it positive.
func (r *reader) mpint() *big.Int {
	b := r.str()
	if r.err != nil {
		return new(big.Int)
	}
	if len(b) == 0 || b[0]&0x80 != 0 || b[0] == 0 && (len(b) == 1 || b[1]&0x80 == 0) {
		r.err = errors.New("number is zero, negative or not in its shortest form")
		return new(big.Int)
	}
	return new(big.Int).SetBytes(b)
}

// end returns the error, and makes bytes that were not read one.
func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%d bytes after the end", len(r.rest))
	}
	return r.err
}

func appendString(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
