package strict

import "fmt"

// maxTrailer is what net/http takes: a trailer section that fits into its buffer (net/http, body.readTrailer).
const maxTrailer = 4 << 10

func (c *Conn) failBody(bad *Refusal) error { return c.fail(fmt.Errorf("%w: %s", ErrBody, bad.Reason)) }

func (c *Conn) readChunk() error {
	line, ok, bad := c.line(c.limit)
	if !ok && bad == nil {
		return errMore
	}
	var size uint64
	var digits int
	if ok {
		size, digits, bad = chunkSize(line)
	}
	if bad != nil {
		return c.failBody(bad)
	}
	// Without the extension, the end of the line follows the digits: these move there.
	extension := len(line) - digits
	copy(c.buf[c.r+extension:], line[:digits])
	c.r += extension
	c.lines -= extension
	if size == 0 {
		c.allow(0, inTrailer)
	} else {
		c.allow(size, afterChunk)
	}
	return nil
}

func (c *Conn) endChunk() error {
	const end = "\r\n"
	have := c.buf[c.r:min(c.w, c.r+len(end))]
	if string(have) != end[:len(have)] {
		return c.failBody(&Refusal{400, "no line end after a chunk"})
	}
	if len(have) < len(end) {
		return errMore
	}
	c.allow(uint64(len(end)), atChunk)
	return nil
}

func (c *Conn) readTrailer() error {
	for {
		line, ok, bad := c.line(min(c.limit, maxTrailer))
		if !ok && bad == nil {
			return errMore
		}
		if ok && len(line) == 0 {
			c.allow(0, atEnd)
			return nil
		}
		if ok {
			bad = trailerLine(line)
		}
		if bad != nil {
			return c.failBody(bad)
		}
	}
}

// chunkSize reads a line with a chunk's size, and says how many digits it has. An extension says nothing to anybody here,
// and may hold what is visible.
func chunkSize(line []byte) (size uint64, digits int, r *Refusal) {
	for digits < len(line) && digits < 16 && hexDigit[line[digits]] != 0 {
		size = size<<4 | uint64(hexDigit[line[digits]]-1)
		digits++
	}
	if digits == 0 || size > maxLength || digits < len(line) && line[digits] != ';' {
		return 0, 0, bad("chunk size")
	}
	for _, c := range line[digits:] {
		if bytesOf[c]&valueByte == 0 || c >= 0x80 {
			return 0, 0, bad("chunk extension")
		}
	}
	return size, digits, nil
}
