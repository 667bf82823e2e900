package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	bodyBuffer = 256 << 10
	smallBytes = 128
)

var (
	nothing = make([]byte, bodyBuffer)
	small   = []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"+
		"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", smallBytes, strings.Repeat("x", smallBytes)))
)

// serve serves /bytes/N, of N bytes, and everything else with a small answer, after it has read the body.
func serve(dir, plain, secure string) (stop func(), err error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	first, err := net.Listen("tcp4", plain)
	if err != nil {
		return nil, err
	}
	second, err := net.Listen("tcp4", secure)
	if err != nil {
		_ = first.Close()
		return nil, err
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	h2 := &http.Server{Handler: http.HandlerFunc(serveH2), Protocols: &protocols}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	go accept(first, func(conn net.Conn) { serveConn(conn) })
	go accept(second, func(conn net.Conn) {
		secured := tls.Server(conn, config)
		if secured.Handshake() != nil {
			_ = conn.Close()
			return
		}
		if secured.ConnectionState().NegotiatedProtocol == "h2" {
			_ = h2.Serve(&once{conn: secured})
			return
		}
		serveConn(secured)
	})
	return func() { _ = first.Close(); _ = second.Close() }, nil
}

func accept(l net.Listener, each func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go each(conn)
	}
}

// once is a listener of one connection.
type once struct {
	conn net.Conn
}

func (o *once) Accept() (net.Conn, error) {
	if o.conn == nil {
		return nil, io.EOF
	}
	conn := o.conn
	o.conn = nil
	return conn, nil
}

func (o *once) Close() error { return nil }

func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

// serveConn serves HTTP/1.
func serveConn(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 16<<10)
	buffer := make([]byte, bodyBuffer)
	for {
		h, err := readHead(r)
		if err != nil {
			return
		}
		if _, target, ok := strings.Cut(h.first, " /bytes/"); ok {
			text, _, _ := strings.Cut(target, " ")
			size, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return
			}
			_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", size)
			if err != nil || put(conn, size) != nil {
				return
			}
		} else {
			if err := h.discard(r, buffer); err != nil {
				return
			}
			if _, err := conn.Write(small); err != nil {
				return
			}
		}
		if h.close {
			return
		}
	}
}

func put(w io.Writer, size int64) error {
	for size > 0 {
		n, err := w.Write(nothing[:min(size, bodyBuffer)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// head is what both ends want to know of the head of a message.
type head struct {
	first   string
	length  int64
	chunked bool
	close   bool
}

var (
	nameLength     = []byte("content-length:")
	nameEncoding   = []byte("transfer-encoding:")
	nameConnection = []byte("connection:")
)

func readHead(r *bufio.Reader) (h head, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return h, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case len(line) == 0:
			return h, nil
		case h.first == "":
			h.first = string(line)
			h.close = strings.HasSuffix(h.first, "HTTP/1.0")
		case has(line, nameLength):
			if h.length, err = strconv.ParseInt(string(bytes.TrimSpace(line[len(nameLength):])), 10, 64); err != nil {
				return h, err
			}
		case has(line, nameEncoding):
			h.chunked = true
		case has(line, nameConnection):
			h.close = bytes.EqualFold(bytes.TrimSpace(line[len(nameConnection):]), []byte("close"))
		}
	}
}

func has(line, name []byte) bool {
	return len(line) >= len(name) && bytes.EqualFold(line[:len(name)], name)
}

// discard reads the body.
func (h *head) discard(r *bufio.Reader, buffer []byte) error {
	if h.chunked {
		body := httputil.NewChunkedReader(r)
		for {
			if _, err := body.Read(buffer); err == io.EOF {
				_, err = r.ReadSlice('\n') // an empty trailer
				return err
			} else if err != nil {
				return err
			}
		}
	}
	for left := h.length; left > 0; {
		n, err := r.Read(buffer[:min(left, bodyBuffer)])
		if left -= int64(n); err != nil {
			return err
		}
	}
	return nil
}

func serveH2(w http.ResponseWriter, r *http.Request) {
	if text, ok := strings.CutPrefix(r.URL.Path, "/bytes/"); ok {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", text)
		_ = put(w, size)
		return
	}
	buffer := make([]byte, bodyBuffer)
	if r.ContentLength == 0 {
		buffer = nil
	}
	for len(buffer) > 0 {
		if _, err := r.Body.Read(buffer); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write(nothing[:smallBytes])
}
