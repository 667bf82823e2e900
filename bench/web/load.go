package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// warmUp passes before anything counts.
const warmUp = 200 * time.Millisecond

// target is whom the client speaks to, and how.
type target struct {
	scheme, at, host, bundle string
}

// result is what requests took.
type result struct {
	rate     float64 // in a second
	p50, p99 time.Duration
}

// client sends one request after the other.
type client interface {
	// exchange sends a request and reads the answer; of a body that is given the bytes do not matter.
	exchange(method, path string, body int64) error
	close()
}

func (t target) tls(protocol string) (*tls.Config, error) {
	pem, err := os.ReadFile(t.bundle)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate", t.bundle)
	}
	return &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{protocol}}, nil
}

// clients makes some that can be used at the same time.
func (t target) clients(n int) (list []client, err error) {
	if t.scheme == "h2" {
		config, err := t.tls("h2")
		if err != nil {
			return nil, err
		}
		var protocols http.Protocols
		protocols.SetHTTP2(true)
		c := &h2Client{t, &http.Transport{
			TLSClientConfig: config, Protocols: &protocols, DisableCompression: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("tcp4", t.at) },
		}}
		for range n {
			list = append(list, c)
		}
		return list, nil
	}
	var config *tls.Config
	if t.scheme == "https" {
		if config, err = t.tls("http/1.1"); err != nil {
			return nil, err
		}
	}
	for range n {
		conn, err := net.Dial("tcp4", t.at)
		if err != nil {
			return nil, err
		}
		if config != nil {
			conn = tls.Client(conn, config)
		}
		list = append(list, &h1Client{t.host, conn, bufio.NewReaderSize(conn, 16<<10), make([]byte, bodyBuffer), nil})
	}
	return list, nil
}

// h1Client is one connection.
type h1Client struct {
	host    string
	conn    net.Conn
	r       *bufio.Reader
	buffer  []byte
	request []byte
}

func (c *h1Client) close() { _ = c.conn.Close() }

func (c *h1Client) exchange(method, path string, body int64) error {
	c.request = fmt.Appendf(c.request[:0], "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n", method, path, c.host)
	if body > 0 {
		c.request = fmt.Appendf(c.request, "Content-Length: %d\r\n", body)
	}
	c.request = append(c.request, "\r\n"...)
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	if err := put(c.conn, body); err != nil {
		return err
	}
	h, err := readHead(c.r)
	if err != nil {
		return err
	}
	if err := h.discard(c.r, c.buffer); err != nil {
		return err
	}
	if !strings.Contains(h.first, " 200 ") {
		return fmt.Errorf("%s %s: %s", method, path, h.first)
	}
	if h.close {
		return errors.New("the server ends the connection")
	}
	return nil
}

// h2Client is a stream of one connection that all share.
type h2Client struct {
	t         target
	transport *http.Transport
}

func (c *h2Client) close() { c.transport.CloseIdleConnections() }

func (c *h2Client) exchange(method, path string, body int64) error {
	var from io.Reader
	if body > 0 {
		from = io.LimitReader(zeros{}, body)
	}
	r, err := http.NewRequest(method, "https://"+c.t.host+path, from)
	if err != nil {
		return err
	}
	r.ContentLength = body
	answer, err := c.transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 {
		return fmt.Errorf("%s %s: %s %s", method, path, answer.Proto, answer.Status)
	}
	buffer := make([]byte, min(max(answer.ContentLength, 512), bodyBuffer))
	for {
		if _, err := answer.Body.Read(buffer); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// requests has small requests sent for a while, and at least one on each connection.
func requests(t target, connections int, length time.Duration) (result, error) {
	clients, err := t.clients(connections)
	if err != nil {
		return result{}, err
	}
	begin := time.Now().Add(warmUp)
	end := begin.Add(length)
	took, failed := make([][]time.Duration, connections), make([]error, connections)
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			defer c.close()
			for {
				start := time.Now()
				if start.After(end) && len(took[i]) > 0 {
					return
				}
				if err := c.exchange("GET", "/small", 0); err != nil {
					failed[i] = err
					return
				}
				if start.After(begin) {
					took[i] = append(took[i], time.Since(start))
				}
			}
		})
	}
	wg.Wait()
	length = time.Since(begin)
	if err := errors.Join(failed...); err != nil {
		return result{}, err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	return result{float64(len(all)) / length.Seconds(), all[len(all)/2], all[len(all)*99/100]}, nil
}

// transfer has one body go through, and returns its bytes in a second. The connection is there before.
func transfer(t target, size int64, upload bool) (float64, error) {
	clients, err := t.clients(1)
	if err != nil {
		return 0, err
	}
	c := clients[0]
	defer c.close()
	if err := c.exchange("GET", "/small", 0); err != nil {
		return 0, err
	}
	start := time.Now()
	if upload {
		err = c.exchange("POST", "/take", size)
	} else {
		err = c.exchange("GET", fmt.Sprintf("/bytes/%d", size), 0)
	}
	return float64(size) / time.Since(start).Seconds(), err
}

// idle makes connections, each of which has served a request.
func idle(t target, connections int) (done func(), err error) {
	clients, err := t.clients(connections)
	if err != nil {
		return nil, err
	}
	for _, c := range clients {
		if err := c.exchange("GET", "/small", 0); err != nil {
			return nil, err
		}
	}
	return func() {
		for _, c := range clients {
			c.close()
		}
	}, nil
}
