package exec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/seal"
	"github.com/sandlock-go/sandlock/ir/seal/sshsig"
)

// Artifact is a policy whose seal, and signature where one was demanded, was checked.
type Artifact struct {
	Program *ir.Program
	Digest  string // SHA-256 of header and payload, hex
	Signer  string // principal that signed it; "" if no signature was demanded

	payload []byte // that Program was read from
}

// LoadOption is a demand on an artifact.
type LoadOption func(*loading)

type loading struct{ allowedSigners string }

// AllowedSigners demands that one of the signers in a file (ssh-keygen(1), ALLOWED SIGNERS) has signed the artifact; ""
// demands nothing.
func AllowedSigners(file string) LoadOption {
	return func(l *loading) { l.allowedSigners = file }
}

// Load reads an artifact. It is hostile input until its seal checks out. The file is read once, so what is checked is what
// runs.
func Load(path string, options ...LoadOption) (*Artifact, error) {
	var demands loading
	for _, o := range options {
		o(&demands)
	}
	file, err := readBounded(path, seal.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("artifact: %w", err)
	}
	sealed, err := seal.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer := ""
	if demands.allowedSigners != "" {
		if signer, err = verify(sealed, demands.allowedSigners); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	program, err := ir.Decode(sealed.Payload)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Artifact{Program: program, Digest: sealed.Digest, Signer: signer, payload: sealed.Payload}, nil
}

// maxSigners bounds the file of allowed signers.
const maxSigners = 1 << 20

func verify(a *seal.Artifact, allowedSigners string) (principal string, err error) {
	b, err := readBounded(allowedSigners, maxSigners)
	if err != nil {
		return "", fmt.Errorf("allowed signers: %w", err)
	}
	allowed, err := sshsig.ParseAllowedSigners(allowedSigners, b)
	if err != nil {
		return "", fmt.Errorf("allowed signers: %w", err)
	}
	signer, err := sshsig.Verify(a, allowed, time.Now())
	if err != nil {
		return "", err
	}
	return signer.Principals, nil
}

// readBounded reads a regular file of at most limit bytes. Opening never blocks, as a FIFO would.
func readBounded(path string, limit int) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if st.Size > int64(limit) {
		return nil, fmt.Errorf("%s is too large: %d bytes, at most %d are allowed", path, st.Size, limit)
	}
	b := make([]byte, st.Size)
	for n := 0; n < len(b); {
		got, err := unix.Read(fd, b[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && got == 0 {
			err = io.ErrUnexpectedEOF // it shrank
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		n += got
	}
	return b, nil
}
