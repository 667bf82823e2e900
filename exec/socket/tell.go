package socket

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
)

// Tell writes an address to where a call wants it, as the kernel does (move_addr_to_user): as much of it as the caller has
// room for, which it says at length, and its whole length there.
func Tell(c *supervise.Call, at, length uint64, name []byte) error {
	var b [4]byte
	if err := c.Bytes(length, b[:]); err != nil {
		return err
	}
	room := int32(binary.NativeEndian.Uint32(b[:]))
	if room < 0 {
		return unix.EINVAL
	}
	if n := min(int(room), len(name)); n > 0 {
		if err := c.Write(at, name[:n]); err != nil {
			return err
		}
	}
	binary.NativeEndian.PutUint32(b[:], uint32(len(name)))
	return c.Write(length, b[:])
}
