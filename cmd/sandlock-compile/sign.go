package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/seal"
	"github.com/sandlock-go/sandlock/ir/seal/sshsig"
	"github.com/sandlock-go/sandlock/ir/seal/sshsign"
)

// maxKeyFile bounds key files, signatures and allowed signers files.
const maxKeyFile = 1 << 20

type signCmd struct {
	Artifact string `arg:"" help:"Artifact to sign (.sbx)."`
	Key      string `xor:"how" required:"" placeholder:"FILE" help:"SSH private key, or a public key (.pub) whose private key ssh-agent holds."`
	Attach   string `xor:"how" required:"" placeholder:"FILE" help:"Signature that ssh-keygen made: ssh-keygen -Y sign -n sandlock-policy -f KEY p.sbx"`
	Output   string `short:"o" placeholder:"FILE" help:"File to write. Default: the artifact itself."`
}

func (c *signCmd) Run(s *streams) error {
	file, err := readFile(c.Artifact, seal.MaxFile)
	if err != nil {
		return err
	}
	if _, err := openArtifact(c.Artifact); err != nil {
		return err // never sign what cannot be run
	}
	signed, err := c.sign(file)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Artifact, err)
	}
	output := c.Output
	if output == "" {
		output = c.Artifact
	}
	return s.write(output, signed)
}

func (c *signCmd) sign(file []byte) ([]byte, error) {
	if c.Attach != "" {
		signature, err := readFile(c.Attach, maxKeyFile)
		if err != nil {
			return nil, err
		}
		return sshsig.Attach(file, signature)
	}
	b, err := readFile(c.Key, maxKeyFile)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(c.Key, ".pub") {
		return signByAgent(file, b)
	}
	key, err := sshsign.ParsePrivateKey(b, nil)
	var encrypted *ssh.PassphraseMissingError
	if errors.As(err, &encrypted) {
		return nil, fmt.Errorf("%s is encrypted: add it to ssh-agent and give --key %s.pub", c.Key, c.Key)
	}
	if err != nil {
		return nil, err
	}
	return sshsign.Sign(file, key)
}

func signByAgent(file, publicKey []byte) ([]byte, error) {
	agent, err := sshsign.DialAgent(os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return nil, err
	}
	defer agent.Close()
	key, err := agent.Signer(publicKey)
	if err != nil {
		return nil, err
	}
	return sshsign.Sign(file, key)
}

type verifyCmd struct {
	Artifact       string `arg:"" help:"Artifact to verify (.sbx)."`
	AllowedSigners string `required:"" placeholder:"FILE" help:"Allowed signers, as ssh-keygen(1) describes them."`
}

func (c *verifyCmd) Run(s *streams) error {
	allowed, err := readFile(c.AllowedSigners, maxKeyFile)
	if err != nil {
		return err
	}
	signers, err := sshsig.ParseAllowedSigners(c.AllowedSigners, allowed)
	if err != nil {
		return err
	}
	a, err := readArtifact(c.Artifact)
	if err != nil {
		return err
	}
	if _, err := ir.Decode(a.Payload); err != nil {
		return fmt.Errorf("%s: %w", c.Artifact, err)
	}
	signer, err := sshsig.Verify(a, signers, time.Now())
	if err != nil {
		return fmt.Errorf("%s: %w", c.Artifact, err)
	}
	_, err = fmt.Fprintf(s.out, "good signature of %s by %s (%s, %s)\ndigest sha256:%s\n",
		c.Artifact, signer.Principals, signer.Key.Fingerprint(), signer.Place, a.Digest)
	return err
}
