package helper

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// ProxyConfig is what an HTTP proxy is to do.
type ProxyConfig struct {
	Names   []string // that lead to certain addresses, those with a wildcard included
	Program int      // file with the program, as package ir encodes it
	Secrets int      // file with secrets, as protocol.AppendSecret writes them
	Log     bool     // tell of requests that passed, too
}

// Proxy is a running HTTP proxy.
type Proxy struct {
	*Line
	CA []byte // certificate of its authority (PEM); empty without one
}

// StartProxy starts a proxy and returns when it works. The files may be closed then.
func (p *Program) StartProxy(c ProxyConfig) (*Proxy, error) {
	x := &Proxy{}
	line, err := p.open(protocol.JobProxy, func(l *Line) error { return x.begin(l, c) })
	if err != nil {
		return nil, err
	}
	x.Line = line
	return x, nil
}

func (x *Proxy) begin(l *Line, c ProxyConfig) error {
	if err := l.tell(c.Names); err != nil {
		return err
	}
	if err := l.send(protocol.ProxyBegin{Log: c.Log}, 0, c.Program, c.Secrets); err != nil {
		return err
	}
	m, err := l.receive(0)
	if err != nil {
		return err
	}
	ready, ok := m.(protocol.ProxyReady)
	if !ok {
		return fmt.Errorf("it says %T", m)
	}
	if !isCertificate(ready.CA) {
		return errors.New("what it says of its authority is not a certificate")
	}
	x.CA = ready.CA
	return nil
}

// isCertificate holds for one certificate (PEM) and nothing else, or for nothing: it goes to files.
func isCertificate(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	block, rest := pem.Decode(b)
	return block != nil && block.Type == "CERTIFICATE" && len(block.Headers)+len(rest) == 0 && bytes.Equal(pem.EncodeToMemory(block), b)
}
