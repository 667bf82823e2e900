// Package sshsign signs artifacts with SSH keys: from a private key file, or through an agent.
//
// In: the bytes of an artifact and a signer. Out: the bytes with one signature more, of the kind that
// `ssh-keygen -Y sign -n sandlock-policy` makes. Only the compiler's command line uses it: it links an SSH
// implementation, which has no place in an executor. It never writes files and never keeps a key.
//
// Read next: ir/seal/sshsig (what a signature is, and who may sign).
package sshsign

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sandlock-go/sandlock/ir/seal"
	"github.com/sandlock-go/sandlock/ir/seal/sshsig"
)

// hash is the one that ssh-keygen takes by default.
const hash = "sha512"

// Sign returns the artifact with a signature by key added. The result was verified.
func Sign(file []byte, key ssh.Signer) ([]byte, error) {
	signature, err := Detached(file, key)
	if err != nil {
		return nil, err
	}
	return sshsig.Attach(file, signature)
}

// Detached returns the signature alone, in binary; [sshsig.Armor] makes the form of ssh-keygen's .sig files of it.
func Detached(file []byte, key ssh.Signer) ([]byte, error) {
	a, err := seal.Open(file)
	if err != nil {
		return nil, err
	}
	data, err := sshsig.SignedData(sshsig.Namespace, hash, a.Message())
	if err != nil {
		return nil, err
	}
	signed, err := signData(key, data)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", ssh.FingerprintSHA256(key.PublicKey()), err)
	}
	s, err := sshsig.New(key.PublicKey().Marshal(), hash, signed.Format, signed.Blob, signed.Rest)
	if err != nil {
		return nil, fmt.Errorf("sign artifact: %w", err)
	}
	return s.Marshal(), nil
}

// signData picks SHA-512 for RSA keys, where a signer's default is still SHA-1.
func signData(key ssh.Signer, data []byte) (*ssh.Signature, error) {
	if key.PublicKey().Type() != ssh.KeyAlgoRSA {
		return key.Sign(rand.Reader, data)
	}
	withAlgorithm, ok := key.(ssh.AlgorithmSigner)
	if !ok {
		return nil, errors.New("RSA key cannot sign with SHA-512")
	}
	return withAlgorithm.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
}

// ParsePrivateKey reads a private key file. If the key is encrypted, it calls passphrase once.
func ParsePrivateKey(b []byte, passphrase func() ([]byte, error)) (ssh.Signer, error) {
	key, err := ssh.ParsePrivateKey(b)
	var missing *ssh.PassphraseMissingError
	if errors.As(err, &missing) && passphrase != nil {
		var phrase []byte
		if phrase, err = passphrase(); err == nil {
			key, err = ssh.ParsePrivateKeyWithPassphrase(b, phrase)
			clear(phrase)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	return key, nil
}

// Agent is a connection to an SSH agent.
type Agent struct {
	conn   net.Conn
	client agent.ExtendedAgent
}

// DialAgent connects to the agent whose socket SSH_AUTH_SOCK names.
func DialAgent(socket string) (*Agent, error) {
	if socket == "" {
		return nil, errors.New("connect to SSH agent: SSH_AUTH_SOCK is not set")
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to SSH agent: %w", err)
	}
	return &Agent{conn: conn, client: agent.NewClient(conn)}, nil
}

// Close ends the connection; signers that came from it are then of no use.
func (a *Agent) Close() error { return a.conn.Close() }

// Signer returns the agent's key that belongs to a public key, given as the line of a .pub file.
func (a *Agent) Signer(publicKey []byte) (ssh.Signer, error) {
	want, _, _, _, err := ssh.ParseAuthorizedKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	signers, err := a.client.Signers()
	if err != nil {
		return nil, fmt.Errorf("list keys of SSH agent: %w", err)
	}
	for _, s := range signers {
		if bytes.Equal(s.PublicKey().Marshal(), want.Marshal()) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("SSH agent has no key %s", ssh.FingerprintSHA256(want))
}
