// Package sshsig checks the signatures of artifacts: SSH signatures, as `ssh-keygen -Y sign` makes them, by keys
// that an allowed signers file names.
//
// In: an opened artifact (ir/seal), and a file as ssh-keygen(1) describes under ALLOWED SIGNERS. Out: who signed, or
// why nobody acceptable did. All of its input is hostile: sizes are bounded, nothing recurses, and what it does not
// fully understand it refuses. It must never hold a private key; making signatures is sshsign's.
//
// It is a package of its own, and reads SSH's formats itself, so that an executor links no SSH implementation, and
// none of the public key cryptography unless it verifies (linking it costs 0.1 ms of every start).
//
// Read next: verify.go (what makes a signature acceptable), allowed.go (the file), key.go (keys and algorithms).
package sshsig

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sandlock-go/sandlock/ir/seal"
)

// Namespace keeps signatures of artifacts apart from those of commits, mails and files: a signature that was made
// for another purpose is not one of a policy, even if the bytes were the same.
const Namespace = "sandlock-policy"

const (
	magic   = "SSHSIG"
	version = 1

	armorBegin = "-----BEGIN SSH SIGNATURE-----"
	armorEnd   = "-----END SSH SIGNATURE-----"
)

// Signature is one parsed SSHSIG blob (OpenSSH's PROTOCOL.sshsig). Nothing is verified yet.
type Signature struct {
	Key       PublicKey
	Namespace string
	Hash      string // "sha256" or "sha512"

	format string // algorithm of the signature
	blob   []byte // the signature itself
	rest   []byte // of a security key: flags and counter
}

// Parse reads a signature, armored as ssh-keygen writes it or in binary as artifacts hold it.
func Parse(b []byte) (*Signature, error) {
	blob, err := Dearmor(b)
	if err == nil {
		var s *Signature
		if s, err = parse(blob); err == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("parse SSH signature: %w", err)
}

// Dearmor returns the binary form of a signature in either form.
func Dearmor(b []byte) ([]byte, error) {
	text, found := bytes.CutPrefix(bytes.TrimSpace(b), []byte(armorBegin))
	if !found {
		return b, nil
	}
	if len(b) > 2*seal.MaxSignature {
		return nil, fmt.Errorf("armored signature of %d bytes, at most %d are allowed", len(b), 2*seal.MaxSignature)
	}
	text, found = bytes.CutSuffix(text, []byte(armorEnd))
	if !found {
		return nil, errors.New("armor does not end with " + armorEnd)
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(string(bytes.Join(bytes.Fields(text), nil)))
	if err != nil {
		return nil, fmt.Errorf("armor: %w", err)
	}
	return blob, nil
}

// Armor writes a binary signature in the form of `ssh-keygen -Y sign`.
func Armor(blob []byte) []byte {
	text := base64.StdEncoding.EncodeToString(blob)
	out := []byte(armorBegin + "\n")
	for len(text) > 70 {
		out = append(append(out, text[:70]...), '\n')
		text = text[70:]
	}
	return append(out, text+"\n"+armorEnd+"\n"...)
}

func parse(b []byte) (*Signature, error) {
	if len(b) > seal.MaxSignature {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(b), seal.MaxSignature)
	}
	if !bytes.HasPrefix(b, []byte(magic)) {
		return nil, errors.New("does not begin with " + magic)
	}
	r := &reader{rest: b[len(magic):]}
	v := r.uint32()
	key, namespace, reserved, hash, signature := r.str(), r.str(), r.str(), r.str(), r.str()
	if err := r.end(); err != nil {
		return nil, err
	}
	if v != version {
		return nil, fmt.Errorf("version %d, this build knows %d", v, version)
	}
	s := &Signature{Namespace: string(namespace), Hash: string(hash)}
	var err error
	if s.Key, err = ParsePublicKey(key); err != nil {
		return nil, err
	}
	if len(reserved) > 0 {
		// ssh-keygen ignores it and leaves it out of what is signed, so anybody could change it.
		return nil, fmt.Errorf("reserved field of %d bytes, want none", len(reserved))
	}
	if s.Hash != "sha256" && s.Hash != "sha512" {
		return nil, fmt.Errorf("hash %q, want sha256 or sha512", s.Hash)
	}
	in := &reader{rest: signature}
	s.format, s.blob = string(in.str()), in.str()
	if s.Key.isSecurityKey() {
		s.rest = in.bytes(5)
	}
	if err := in.end(); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return s, nil
}

// Marshal is the inverse of [Parse]: the binary form.
func (s *Signature) Marshal() []byte {
	b := binary.BigEndian.AppendUint32([]byte(magic), version)
	b = appendString(b, s.Key.Blob)
	b = appendString(b, []byte(s.Namespace))
	b = appendString(b, nil)
	b = appendString(b, []byte(s.Hash))
	inner := appendString(nil, []byte(s.format))
	inner = appendString(inner, s.blob)
	return appendString(b, append(inner, s.rest...))
}

// New puts a signature together from what an SSH signer returned for [SignedData]. It verifies nothing.
func New(keyBlob []byte, hash, format string, blob, rest []byte) (*Signature, error) {
	key, err := ParsePublicKey(keyBlob)
	if err != nil {
		return nil, err
	}
	return &Signature{Key: key, Namespace: Namespace, Hash: hash, format: format, blob: blob, rest: rest}, nil
}

// SignedData is what an SSH key signs for a message: never the message itself, so that no signature of this kind can
// be taken for one of another protocol (an authentication, say).
func SignedData(namespace, hash string, message []byte) ([]byte, error) {
	var sum []byte
	switch hash {
	case "sha256":
		s := sha256.Sum256(message)
		sum = s[:]
	case "sha512":
		s := sha512.Sum512(message)
		sum = s[:]
	default:
		return nil, fmt.Errorf("hash %q, want sha256 or sha512", hash)
	}
	b := appendString([]byte(magic), []byte(namespace))
	b = appendString(b, nil)
	b = appendString(b, []byte(hash))
	return appendString(b, sum), nil
}

// verify checks the signature over a message. It does not ask whose key it is.
func (s *Signature) verify(message []byte) error {
	data, err := SignedData(s.Namespace, s.Hash, message)
	if err != nil {
		return err
	}
	return s.Key.verify(data, s.format, s.blob, s.rest)
}
