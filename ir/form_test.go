package ir

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds the containers inside each other; a program needs 10.
const maxDepth = 16

// container is one open array or map of the scan.
type container struct {
	left   uint64 // items still to come; a map's pairs count twice
	isMap  bool
	hasKey bool // a key has been seen; lastKey holds it
	last   uint64
}

// checkForm is the canonical form written a second time, without our types: one linear scan that refuses indefinite
// lengths, integers longer than needed, unsorted or repeated keys, keys that are not unsigned integers, negative
// numbers, floats, tags, null, invalid UTF-8 and trailing bytes. Tests hold the decoder to it.
func checkForm(b []byte) error {
	if len(b) > MaxPayload {
		return fmt.Errorf("payload of %d bytes, at most %d are allowed", len(b), MaxPayload)
	}
	var stack [maxDepth]container
	depth, pos := 0, 0
	for {
		h, err := readHead(b, pos)
		if err != nil {
			return err
		}
		if depth == 0 && h.major != cborMap {
			return formError(pos, "a program is a map, not %s", cborNames[h.major])
		}
		if depth > 0 {
			if err := stack[depth-1].take(h, pos); err != nil {
				return err
			}
		}
		pos = h.end
		switch h.major {
		case cborBytes, cborText:
			if h.arg > uint64(len(b)-pos) {
				return formError(h.start, "string of %d bytes, only %d follow", h.arg, len(b)-pos)
			}
			s := b[pos : pos+int(h.arg)]
			if h.major == cborText && !utf8.Valid(s) {
				return formError(h.start, "text is not valid UTF-8")
			}
			pos += int(h.arg)
		case cborArray, cborMap:
			if h.arg > uint64(len(b)-pos) { // every item takes a byte at least; also keeps the doubling below in range
				return formError(h.start, "container of %d items, only %d bytes follow", h.arg, len(b)-pos)
			}
			if depth == maxDepth {
				return formError(h.start, "more than %d containers inside each other", maxDepth)
			}
			c := container{left: h.arg}
			if h.major == cborMap {
				c.left, c.isMap = 2*h.arg, true
			}
			stack[depth] = c
			depth++
		}
		for depth > 0 && stack[depth-1].left == 0 {
			depth--
		}
		if depth == 0 {
			break
		}
	}
	if pos != len(b) {
		return formError(pos, "%d bytes after the end", len(b)-pos)
	}
	return nil
}

// take accounts for one more item of c, which begins with h.
func (c *container) take(h head, pos int) error {
	isKey := c.isMap && c.left%2 == 0
	c.left--
	if !isKey {
		return nil
	}
	switch {
	case h.major != cborUint:
		return formError(pos, "map key is %s, not an unsigned integer", cborNames[h.major])
	case c.hasKey && h.arg == c.last:
		return formError(pos, "key %d twice in one map", h.arg)
	case c.hasKey && h.arg < c.last:
		return formError(pos, "key %d after key %d: keys are not ascending", h.arg, c.last)
	}
	c.hasKey, c.last = true, h.arg
	return nil
}

// head is the initial byte and the argument of a data item.
type head struct {
	major      byte
	arg        uint64
	start, end int
}

func readHead(b []byte, pos int) (head, error) {
	if pos >= len(b) {
		return head{}, formError(pos, "ends in the middle")
	}
	h := head{major: b[pos] >> 5, start: pos, end: pos + 1}
	info := b[pos] & 0x1f
	switch {
	case h.major == 1 || h.major == 6:
		return head{}, formError(pos, "%s is never used", cborNames[h.major])
	case h.major == 7 && b[pos] != 0xf4 && b[pos] != 0xf5: // false, true
		return head{}, formError(pos, "byte %#02x: of the simple values only true and false are used", b[pos])
	case h.major == 7:
		return h, nil
	case info < 24:
		h.arg = uint64(info)
		return h, nil
	case info == 31:
		return head{}, formError(pos, "indefinite length")
	case info > 27:
		return head{}, formError(pos, "reserved initial byte %#02x", b[pos])
	}
	size := 1 << (info - 24)
	if len(b)-h.end < size {
		return head{}, formError(pos, "ends in the middle")
	}
	var least uint64
	switch arg := b[h.end:]; size {
	case 1:
		h.arg, least = uint64(arg[0]), 24
	case 2:
		h.arg, least = uint64(binary.BigEndian.Uint16(arg)), 1<<8
	case 4:
		h.arg, least = uint64(binary.BigEndian.Uint32(arg)), 1<<16
	case 8:
		h.arg, least = binary.BigEndian.Uint64(arg), 1<<32
	}
	if h.arg < least {
		return head{}, formError(pos, "%d is not written in its shortest form", h.arg)
	}
	h.end += size
	return h, nil
}

func formError(pos int, format string, args ...any) error {
	return fmt.Errorf("payload byte %d: "+format, append([]any{pos}, args...)...)
}
