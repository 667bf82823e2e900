// Package strict stands between a client's bytes and a server of net/http, so that the server sees well-formed HTTP/1
// requests and nothing else.
//
// net/http reads more than the grammar allows: bare line feeds, folded lines, white space in odd places. Wherever two
// readers of the same bytes can differ, a request may hide in another one, so here all of that is refused. In: the bytes of
// one connection. Out: the same bytes, request by request, each head after all of it has been checked. A chunk extension is
// left out; nothing else is changed.
//
// In place of a head that is refused the server gets a request that answers for it ([RefusedHost]), and then the end of the
// connection: nothing behind a refused head is ever read. The handler counts the requests of its connection and asks
// [Conn.Refusal] before anything else. What is wrong in the middle of a body is an error of Read ([ErrBody]).
//
// It never decides whether a request is allowed, and holds no more than one head and what came in the same packet. Of the
// http.Server it needs DisableGeneralOptionsHandler, or requests would be answered that the handler does not count; an
// IdleTimeout, which bounds the time for each head but the first, since the server sees none of a head before its end; and
// a MaxHeaderBytes not below [Limits.HeadBytes].
//
// Read next: read.go (from bytes to messages), head.go (the rules), fields.go (fields that have rules of their own), chunk.go,
// syntax.go.
package strict

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// DefaultHeadBytes is the limit where Limits has none.
const DefaultHeadBytes = 32 << 10

// RefusedHost is the host of the request that takes the place of a refused one. No client can name it: the comma is refused.
const RefusedHost = "refused,invalid"

const refusedHead = "GET / HTTP/1.1\r\nHost: " + RefusedHost + "\r\nConnection: close\r\n\r\n"

var (
	// ErrBody is what Read ends with if the framing of a body is malformed; the error's text says how.
	ErrBody = errors.New("malformed message body")
	// ErrEarly is what Read ends with if the client sends on after it has asked for another protocol, without an answer.
	ErrEarly = errors.New("bytes before the answer to an upgrade request")
)

// Limits bound what is held of a connection.
type Limits struct {
	// HeadBytes bounds the request line with all header lines, a trailer section, and a line with a chunk's size.
	HeadBytes int
}

// Refusal says what is wrong with a request. The reason is for the client and the audit log: it is one of a fixed set, and
// holds nothing that the client sent.
type Refusal struct {
	Status int
	Reason string
}

// Conn is a connection whose Read returns checked requests. All methods may be called at the same time.
type Conn struct {
	net.Conn
	limit int // Limits.HeadBytes

	reading sync.Mutex // held by Read, also while it waits; guards the fields down to err
	buf     []byte
	r, w    int    // buf[r:w] has been read, and not been handed on
	pass    uint64 // bytes from r on that may be handed on, those included that have not been read yet
	state   state  // what follows them
	lines   int    // bytes from r on that are whole lines and have been checked
	head    head   // what those lines said
	stray   bool   // an empty line may come before the next request line
	err     error  // once set, no bytes follow

	mu       sync.Mutex // guards the fields below; taken after reading, and never held while waiting
	requests int        // heads that Read has begun to hand on, with the refused one
	refusal  *Refusal   // of the last of them
	upgrade  upgrade    // that the last of them asked for
	broken   error      // what else ended the stream
	closed   bool
}

type upgrade uint8

const (
	noUpgrade upgrade = iota
	askedUpgrade
	gotUpgrade
)

// NewConn wraps c, which must not be read by anybody else from now on.
func NewConn(c net.Conn, l Limits) *Conn {
	if l.HeadBytes <= 0 {
		l.HeadBytes = DefaultHeadBytes
	}
	return &Conn{Conn: c, limit: l.HeadBytes}
}

// Refusal tells why the n-th request that came from Read, from 1, stands for a refused one; nil if it does not.
func (c *Conn) Refusal(n int) *Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n != c.requests {
		return nil
	}
	return c.refusal
}

// Broken tells what the client did wrong behind a head, an ErrBody or ErrEarly; nil if nothing. The handler sees that as an
// error of the body or the end of the request's context, but net/http does not always hand the error on.
func (c *Conn) Broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// Upgraded says that the upgrade that the current request asks for is granted: what follows the request is handed on as it
// is. To be called before the first byte of the answer is written, since the client may send from then on. It does nothing
// if the request did not ask. As ever after a Hijack, the first bytes may be in its buffer.
func (c *Conn) Upgraded() { c.answer(gotUpgrade) }

// NotUpgraded says that the answer to a request for an upgrade is another one: HTTP goes on. To be called before the first
// byte of the answer is written, by whoever answers; otherwise the next request is ErrEarly.
func (c *Conn) NotUpgraded() { c.answer(noUpgrade) }

func (c *Conn) answer(u upgrade) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.upgrade == askedUpgrade {
		c.upgrade = u
	}
}

// CloseWrite lets the client see the end of what was written, as net/http does before it closes a connection that it has
// not read to the end.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

const (
	lingerTime  = 250 * time.Millisecond
	lingerBytes = 256 << 10
)

// Close closes the connection. If bytes of the client will not be read, the kernel would answer them by a reset, which
// may overtake the answer that says what is wrong with them: they are thrown away for a moment first.
func (c *Conn) Close() error {
	c.mu.Lock()
	linger := (c.refusal != nil || c.broken != nil) && !c.closed
	c.closed = true
	c.mu.Unlock()
	if linger && c.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
	}
	return c.Conn.Close()
}
