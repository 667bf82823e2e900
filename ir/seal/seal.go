// Package seal is the file format of artifacts: a header, a payload, a digest over both, and signatures.
//
// In: the payload that ir.Encode wrote. Out: [Seal] returns the bytes of an artifact, [Open] takes them apart again
// and checks the digest. Nothing of the payload may be looked at before Open has returned. The digest protects
// against damage, not against an attacker, who can write a new one: whether someone trusted made the artifact is
// decided by its signatures, in ir/seal/sshsig.
//
// This package links SHA-256 and no other cryptography, since every start of a sandbox pays for what it links.
//
// Read next: docs/artifact.md (the format, byte by byte), sshsig (signatures), sshsign (making them).
package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/sandlock-go/sandlock/ir"
)

// Magic begins every artifact. Its bytes are chosen as PNG's are: not text, and damaged by every translation of
// line ends.
const Magic = "\x89SBX\r\n\x1a\n"

// Bounds. An artifact beyond one of them is refused before anything else is done with it.
const (
	MaxFile       = 16 << 20
	MaxSignatures = 16
	MaxSignature  = 8 << 10
)

const (
	headerSize = len(Magic) + 2 + 4 // magic, version, length of the payload
	countSize  = 2
)

// Errors of [Open] and [Artifact.Append], to be told apart with errors.Is.
var (
	ErrNotArtifact = errors.New("not a sandlock artifact")
	ErrVersion     = errors.New("format version is unknown to this build")
	ErrTruncated   = errors.New("artifact is truncated")
	ErrDigest      = errors.New("artifact is damaged: digest mismatch")
	ErrSignatures  = errors.New("signatures are malformed")
	ErrTrailing    = errors.New("bytes after the end of the artifact")
	ErrTooLarge    = errors.New("artifact is too large")
)

// Artifact is an opened artifact. Its slices are parts of the file that was opened.
type Artifact struct {
	Payload    []byte
	Digest     string   // of header and payload, 64 lower-case hexadecimal digits
	Signatures [][]byte // SSHSIG blobs, not yet looked at

	sealed []byte // header, payload, digest
}

// Seal returns the artifact of a payload that ir.Encode wrote, without signatures.
func Seal(payload []byte) []byte {
	file := make([]byte, 0, headerSize+len(payload)+sha256.Size+countSize)
	file = append(file, Magic...)
	file = binary.BigEndian.AppendUint16(file, ir.FormatVersion)
	file = binary.BigEndian.AppendUint32(file, uint32(len(payload)))
	file = append(file, payload...)
	digest := sha256.Sum256(file)
	file = append(file, digest[:]...)
	return binary.BigEndian.AppendUint16(file, 0)
}

// Open checks an artifact's form and digest.
func Open(file []byte) (*Artifact, error) {
	a, err := open(file)
	if err != nil {
		return nil, fmt.Errorf("open artifact: %w", err)
	}
	return a, nil
}

func open(file []byte) (*Artifact, error) {
	if len(file) > MaxFile {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(file), MaxFile)
	}
	if !bytes.HasPrefix(file, []byte(Magic)) {
		return nil, ErrNotArtifact
	}
	if len(file) < headerSize {
		return nil, fmt.Errorf("%w: %d bytes, the header alone has %d", ErrTruncated, len(file), headerSize)
	}
	if v := binary.BigEndian.Uint16(file[len(Magic):]); v != ir.FormatVersion {
		return nil, fmt.Errorf("%w: version %d, this build knows %d", ErrVersion, v, ir.FormatVersion)
	}
	length := binary.BigEndian.Uint32(file[len(Magic)+2:])
	if length > ir.MaxPayload {
		return nil, fmt.Errorf("%w: payload of %d bytes, at most %d are allowed", ErrTooLarge, length, ir.MaxPayload)
	}
	end := headerSize + int(length)
	if want := end + sha256.Size + countSize; len(file) < want {
		return nil, fmt.Errorf("%w: %d bytes, at least %d are needed", ErrTruncated, len(file), want)
	}
	digest := sha256.Sum256(file[:end])
	sealed := file[:end+sha256.Size]
	if !bytes.Equal(sealed[end:], digest[:]) {
		return nil, fmt.Errorf("%w: content has %x, the seal says %x", ErrDigest, digest, sealed[end:])
	}
	signatures, err := readSignatures(file[len(sealed):])
	if err != nil {
		return nil, err
	}
	return &Artifact{
		Payload:    file[headerSize:end:end],
		Digest:     hex.EncodeToString(digest[:]),
		Signatures: signatures,
		sealed:     sealed[:len(sealed):len(sealed)],
	}, nil
}

// readSignatures reads the count and the blobs, which reach to the end of the file.
func readSignatures(b []byte) ([][]byte, error) {
	count := int(binary.BigEndian.Uint16(b))
	if count > MaxSignatures {
		return nil, fmt.Errorf("%w: %d of them, at most %d are allowed", ErrSignatures, count, MaxSignatures)
	}
	b = b[countSize:]
	var signatures [][]byte
	for i := range count {
		if len(b) < 4 {
			return nil, fmt.Errorf("%w: signature %d of %d is missing", ErrTruncated, i+1, count)
		}
		n := binary.BigEndian.Uint32(b)
		b = b[4:]
		if n == 0 || n > MaxSignature {
			return nil, fmt.Errorf("%w: signature %d has %d bytes, 1 to %d are allowed", ErrSignatures, i+1, n, MaxSignature)
		}
		if uint64(n) > uint64(len(b)) {
			return nil, fmt.Errorf("%w: signature %d has %d bytes, only %d follow", ErrTruncated, i+1, n, len(b))
		}
		signatures = append(signatures, b[:n:n])
		b = b[n:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%w: %d of them", ErrTrailing, len(b))
	}
	return signatures, nil
}

// Message is what every signature signs: the bytes of the artifact without signatures, as [Seal] wrote them. So
// `ssh-keygen -Y sign` run on an unsigned artifact signs the right thing, and signatures do not depend on each other.
func (a *Artifact) Message() []byte {
	return append(bytes.Clone(a.sealed), 0, 0)
}

// Append returns the bytes of the artifact with one signature more. The blob is not looked at: use sshsig.Attach,
// which refuses a signature that is not of this artifact.
func (a *Artifact) Append(blob []byte) ([]byte, error) {
	if len(blob) == 0 || len(blob) > MaxSignature {
		return nil, fmt.Errorf("append signature: %w: %d bytes, 1 to %d are allowed", ErrSignatures, len(blob), MaxSignature)
	}
	if len(a.Signatures) == MaxSignatures {
		return nil, fmt.Errorf("append signature: %w: the artifact has %d, no more are allowed", ErrSignatures, MaxSignatures)
	}
	file := binary.BigEndian.AppendUint16(bytes.Clone(a.sealed), uint16(len(a.Signatures)+1))
	for _, s := range append(a.Signatures[:len(a.Signatures):len(a.Signatures)], blob) {
		file = binary.BigEndian.AppendUint32(file, uint32(len(s)))
		file = append(file, s...)
	}
	return file, nil
}
