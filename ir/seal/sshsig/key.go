package sshsig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
)

// Sizes of RSA keys, in bits. Below, a key can be broken; above, ssh-keygen makes none, and checking would be slow.
const (
	minRSA = 2048
	maxRSA = 16384
)

// Flag of a security key's signature: the user has touched it (FIDO's user presence).
const flagUserPresent = 0x01

// PublicKey is an SSH public key (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4, OpenSSH's PROTOCOL.u2f).
type PublicKey struct {
	Type string
	Blob []byte // the wire form, which is what two keys are compared by

	public      any    // ed25519.PublicKey, *ecdsa.PublicKey or *rsa.PublicKey
	application string // of a security key
}

// Fingerprint is the key's name in messages, as ssh-keygen -l prints it.
func (k PublicKey) Fingerprint() string {
	sum := sha256.Sum256(k.Blob)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

const (
	typeEd25519   = "ssh-ed25519"
	typeRSA       = "ssh-rsa"
	typeP256      = "ecdsa-sha2-nistp256"
	typeP384      = "ecdsa-sha2-nistp384"
	typeP521      = "ecdsa-sha2-nistp521"
	typeSKEd25519 = "sk-ssh-ed25519@openssh.com"
	typeSKP256    = "sk-ecdsa-sha2-nistp256@openssh.com"
)

func (k PublicKey) isSecurityKey() bool { return k.Type == typeSKEd25519 || k.Type == typeSKP256 }

// ParsePublicKey reads a key in wire form. Certificates and DSA are among the types that it refuses.
func ParsePublicKey(blob []byte) (PublicKey, error) {
	r := &reader{rest: blob}
	k := PublicKey{Type: string(r.str()), Blob: blob}
	if r.err != nil {
		return PublicKey{}, fmt.Errorf("public key: %w", r.err)
	}
	var err error
	switch k.Type {
	case typeEd25519, typeSKEd25519:
		k.public, err = readEd25519(r)
	case typeP256, typeSKP256:
		k.public, err = readECDSA(r, "nistp256", elliptic.P256())
	case typeP384:
		k.public, err = readECDSA(r, "nistp384", elliptic.P384())
	case typeP521:
		k.public, err = readECDSA(r, "nistp521", elliptic.P521())
	case typeRSA:
		k.public, err = readRSA(r)
	default:
		return PublicKey{}, fmt.Errorf("public key: type %q is not supported", k.Type)
	}
	if k.isSecurityKey() {
		k.application = string(r.str())
	}
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key %s: %w", k.Type, err)
	}
	return k, nil
}

func readEd25519(r *reader) (ed25519.PublicKey, error) {
	b := r.str()
	if r.err == nil && len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%d bytes, want %d", len(b), ed25519.PublicKeySize)
	}
	return b, r.err
}

func readECDSA(r *reader, name string, curve elliptic.Curve) (*ecdsa.PublicKey, error) {
	got, point := r.str(), r.str()
	if r.err != nil {
		return nil, r.err
	}
	if string(got) != name {
		return nil, fmt.Errorf("curve %q, want %q", got, name)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

func readRSA(r *reader) (*rsa.PublicKey, error) {
	e, n := r.mpint(), r.mpint()
	if r.err != nil {
		return nil, r.err
	}
	if bits := n.BitLen(); bits < minRSA || bits > maxRSA {
		return nil, fmt.Errorf("key of %d bits, %d to %d are allowed", bits, minRSA, maxRSA)
	}
	if e.BitLen() > 31 || e.Int64() < 3 || e.Bit(0) == 0 {
		return nil, errors.New("exponent is even or out of range")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// errSignature says that everything was well formed and the mathematics say no.
var errSignature = errors.New("signature does not match the artifact")

// verify checks a signature over data. The algorithm follows from the key; only RSA keys have a choice, and SHA-1 is
// not in it.
func (k PublicKey) verify(data []byte, format string, blob, rest []byte) error {
	if k.isSecurityKey() {
		var err error
		if data, err = k.securityKeyData(data, rest); err != nil {
			return err
		}
	}
	if k.Type != typeRSA && format != k.Type {
		return fmt.Errorf("signature algorithm %q for a key of type %s", format, k.Type)
	}
	switch public := k.public.(type) {
	case ed25519.PublicKey:
		if !ed25519.Verify(public, data, blob) {
			return errSignature
		}
		return nil
	case *ecdsa.PublicKey:
		return verifyECDSA(public, data, blob)
	case *rsa.PublicKey:
		return verifyRSA(public, format, data, blob)
	}
	return errors.New("empty public key")
}

// securityKeyData is what a FIDO token signs: hashes of its application and of the data, and between them the flags
// and the counter that came with the signature.
func (k PublicKey) securityKeyData(data, rest []byte) ([]byte, error) {
	if len(rest) != 5 {
		return nil, errors.New("security key's flags and counter are missing")
	}
	if rest[0]&flagUserPresent == 0 {
		return nil, errors.New("security key was not touched for this signature")
	}
	application, sum := sha256.Sum256([]byte(k.application)), sha256.Sum256(data)
	return append(append(application[:], rest...), sum[:]...), nil
}

func verifyECDSA(public *ecdsa.PublicKey, data, blob []byte) error {
	in := &reader{rest: blob}
	r, s := in.mpint(), in.mpint()
	if err := in.end(); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	var sum []byte
	switch public.Curve.Params().BitSize { // RFC 5656 §6.2.1
	case 256:
		h := sha256.Sum256(data)
		sum = h[:]
	case 384:
		h := sha512.Sum384(data)
		sum = h[:]
	default:
		h := sha512.Sum512(data)
		sum = h[:]
	}
	if !ecdsa.Verify(public, sum, r, s) {
		return errSignature
	}
	return nil
}

func verifyRSA(public *rsa.PublicKey, format string, data, blob []byte) error {
	var err error
	switch format { // RFC 8332 §3
	case "rsa-sha2-256":
		h := sha256.Sum256(data)
		err = rsa.VerifyPKCS1v15(public, crypto.SHA256, h[:], blob)
	case "rsa-sha2-512":
		h := sha512.Sum512(data)
		err = rsa.VerifyPKCS1v15(public, crypto.SHA512, h[:], blob)
	default:
		return fmt.Errorf("signature algorithm %q for an RSA key, want rsa-sha2-256 or rsa-sha2-512", format)
	}
	if err != nil {
		return errSignature
	}
	return nil
}
