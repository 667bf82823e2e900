package strict

import (
	"bytes"
	"errors"
	"io"
	"math"
)

const bufferBytes = 4 << 10 // at first; it grows with the head that it holds

// state says what comes next, once that which may pass has passed.
type state uint8

const (
	inHead     state = iota
	atChunk          // a chunk's size
	afterChunk       // the end of a chunk's data
	inTrailer
	atEnd // of a message: what comes next depends on the answer, if the message asked for an upgrade
	raw   // not HTTP any more
)

// errMore says that it takes more bytes than have been read.
var errMore = errors.New("more bytes are needed")

// Read reads into p what has been checked. It never reads across the end of a message, so the next head is looked at when
// somebody asks for it. An error of the connection is returned as it is, and after a timeout Read goes on where it was.
func (c *Conn) Read(p []byte) (n int, err error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	for n < len(p) {
		switch {
		case c.pass > 0 && c.r < c.w:
			k := copy(p[n:], c.buf[c.r:c.w][:min(c.pass, uint64(c.w-c.r))])
			n += k
			c.r += k
			c.pass -= uint64(k)
		case n > 0 && (c.pass > 0 || c.state == atEnd):
			return n, nil
		case c.pass > 0:
			return c.through(p)
		default:
			err := c.advance()
			if err != nil && n > 0 {
				return n, nil // advance says it again
			}
			if err == errMore {
				err = c.fill()
			}
			if err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// through reads bytes that may pass straight to where they are wanted.
func (c *Conn) through(p []byte) (int, error) {
	if c.pass < uint64(len(p)) {
		p = p[:c.pass]
	}
	n, err := c.Conn.Read(p)
	c.pass -= uint64(n)
	if n > 0 {
		return n, nil // a connection says it again
	}
	return 0, c.ended(err)
}

// fill reads at least one byte more.
func (c *Conn) fill() error {
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	if c.w == len(c.buf) { // whoever needs more has checked the limit
		c.buf = append(c.buf, make([]byte, max(bufferBytes, len(c.buf)))...)
	}
	n, err := c.Conn.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return c.ended(err)
}

// ended tells the end of the stream between messages from that inside one.
func (c *Conn) ended(err error) error {
	between := c.state == raw || c.pass == 0 && c.r == c.w && (c.state == inHead || c.state == atEnd)
	if err == io.EOF && !between {
		return io.ErrUnexpectedEOF
	}
	return err
}

// advance looks at the bytes behind those that have passed, and says how many more may.
func (c *Conn) advance() error {
	if c.err != nil {
		return c.err
	}
	switch c.state {
	case inHead:
		return c.readHead()
	case atChunk:
		return c.readChunk()
	case afterChunk:
		return c.endChunk()
	case inTrailer:
		return c.readTrailer()
	default:
		return c.between()
	}
}

// allow lets the lines that have been checked pass, and n bytes behind them.
func (c *Conn) allow(n uint64, then state) {
	c.pass = uint64(c.lines) + n
	c.lines = 0
	c.state = then
}

// line returns the next line of the section that begins at r, without its end; ok is false if there is none yet. The
// section's limit counts before what its lines say, so the outcome does not depend on how the bytes arrive.
func (c *Conn) line(limit int) (line []byte, ok bool, bad *Refusal) {
	rest := c.buf[c.r+c.lines : c.w]
	i := bytes.IndexByte(rest, '\n')
	switch {
	case i < 0 && c.w-c.r < limit:
		return nil, false, nil
	case i < 0 || c.lines+i+1 > limit:
		return nil, false, tooLarge
	case i == 0 || rest[i-1] != '\r':
		return nil, false, bareLF
	}
	c.lines += i + 1
	return rest[:i-1], true, nil
}

func (c *Conn) readHead() error {
	for {
		line, ok, bad := c.line(c.limit)
		if !ok && bad == nil {
			return errMore
		}
		if ok && len(line) == 0 && c.head.lines == 0 && c.stray {
			c.r += c.lines
			c.lines, c.stray = 0, false
			continue
		}
		if ok && len(line) == 0 && c.head.lines > 0 {
			if bad = c.head.end(); bad == nil {
				c.begin()
				return nil
			}
		} else if ok {
			bad = c.head.add(line)
		}
		if bad != nil {
			c.refuse(bad)
			return nil
		}
	}
}

// begin hands a head on.
func (c *Conn) begin() {
	h := &c.head
	if h.chunked {
		c.allow(0, atChunk)
	} else {
		c.allow(h.length, atEnd)
	}
	// Old clients send an empty line after the body of a POST; servers are told to ignore it (RFC 9112 §2.2).
	c.stray = h.chunked || h.hasLength
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	if h.upgrade {
		c.upgrade = askedUpgrade
	}
}

// refuse puts the request that answers for the refused one in its place, and ends the stream behind it.
func (c *Conn) refuse(bad *Refusal) {
	c.buf = []byte(refusedHead)
	c.r, c.w, c.lines = 0, len(c.buf), 0
	c.allow(uint64(c.w), atEnd)
	c.err = io.EOF
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	c.refusal = bad
}

// fail ends the stream.
func (c *Conn) fail(err error) error {
	c.err = err
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = err
	return err
}

// between is the end of a message.
func (c *Conn) between() error {
	c.mu.Lock()
	asked, got := c.upgrade == askedUpgrade, c.upgrade == gotUpgrade
	c.mu.Unlock()
	switch {
	case got:
		c.allow(math.MaxUint64, raw)
	case asked && c.r < c.w:
		return c.fail(ErrEarly)
	case asked:
		return errMore
	default:
		c.state, c.head = inHead, head{}
	}
	return nil
}
