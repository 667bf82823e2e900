package sshsig

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sandlock-go/sandlock/ir/seal"
)

// Errors of [Verify], to be told apart with errors.Is.
var (
	ErrUnsigned   = errors.New("artifact is not signed")
	ErrNotAllowed = errors.New("no signature is by an allowed signer")
)

// Signer is whose signature was accepted.
type Signer struct {
	Principals string // as the file has them
	Key        PublicKey
	Place      string // file:line of the allowed signers file
}

// Verify returns the first allowed signer of the artifact. A signature is acceptable if its namespace is
// [Namespace], its key is in a line of the file, that line allows the namespace and the time, and the signature is
// valid for a.Message. One is enough; others may be by keys that nobody here knows.
func Verify(a *seal.Artifact, allowed *AllowedSigners, now time.Time) (*Signer, error) {
	if len(a.Signatures) == 0 {
		return nil, ErrUnsigned
	}
	message := a.Message()
	var reasons []string
	for i, blob := range a.Signatures {
		signer, err := allowed.accept(blob, message, now)
		if err == nil {
			return signer, nil
		}
		reasons = append(reasons, fmt.Sprintf("signature %d: %v", i+1, err))
	}
	return nil, fmt.Errorf("%w (%s): %s", ErrNotAllowed, allowed.name, strings.Join(reasons, "; "))
}

func (l *AllowedSigners) accept(blob, message []byte, now time.Time) (*Signer, error) {
	s, err := parse(blob)
	if err != nil {
		return nil, err
	}
	e, err := l.find(s, now)
	if err == nil {
		err = s.verify(message)
	}
	if err != nil {
		return nil, fmt.Errorf("by %s %s: %w", s.Key.Type, s.Key.Fingerprint(), err)
	}
	return &Signer{Principals: e.principals, Key: e.key, Place: fmt.Sprintf("%s:%d", l.name, e.line)}, nil
}

// find returns the first line that accepts the signature's key. If several lines have the key and none accepts, the
// last line's reason is returned.
func (l *AllowedSigners) find(s *Signature, now time.Time) (*entry, error) {
	if s.Namespace != Namespace {
		return nil, fmt.Errorf("signature is for namespace %q, want %q", s.Namespace, Namespace)
	}
	err := errors.New("key is not listed")
	for i := range l.entries {
		e := &l.entries[i]
		if !bytes.Equal(e.key.Blob, s.Key.Blob) {
			continue
		}
		if err = e.refuse(s.Namespace, now); err == nil {
			return e, nil
		}
		err = fmt.Errorf("line %d: %w", e.line, err)
	}
	return nil, err
}

// Attach returns the artifact with a signature added, which may be armored. It refuses a signature that is not for
// this artifact, and a second one by the same key.
func Attach(file, signature []byte) ([]byte, error) {
	a, err := seal.Open(file)
	if err != nil {
		return nil, err
	}
	s, err := Parse(signature)
	if err != nil {
		return nil, err
	}
	if s.Namespace != Namespace {
		return nil, fmt.Errorf("attach signature: it is for namespace %q, want %q", s.Namespace, Namespace)
	}
	if err := s.verify(a.Message()); err != nil {
		return nil, fmt.Errorf("attach signature by %s: %w", s.Key.Fingerprint(), err)
	}
	for _, blob := range a.Signatures {
		if other, err := parse(blob); err == nil && bytes.Equal(other.Key.Blob, s.Key.Blob) {
			return nil, fmt.Errorf("attach signature: %s has signed this artifact already", s.Key.Fingerprint())
		}
	}
	return a.Append(s.Marshal())
}
