package sshsign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sandlock-go/sandlock/ir/seal"
	"github.com/sandlock-go/sandlock/ir/seal/sshsig"
)

var unsigned = seal.Seal([]byte("policy"))

// keys returns a new key of every kind that can sign.
func keys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	made := make(map[string]crypto.Signer)
	add := func(name string, key crypto.Signer, err error) {
		if err != nil {
			t.Fatal(err)
		}
		made[name] = key
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	add("ed25519", ed, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	add("rsa", rsaKey, err)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		add(curve.Params().Name, key, err)
	}
	return made
}

func sshSigner(t *testing.T, key crypto.Signer) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// checkSigned asks our verifier about a signed artifact and, where it is installed, ssh-keygen about the signature.
func checkSigned(t *testing.T, file []byte, key ssh.PublicKey) {
	t.Helper()
	line := append([]byte("ann "), ssh.MarshalAuthorizedKey(key)...)
	allowed, err := sshsig.ParseAllowedSigners("signers", line)
	if err != nil {
		t.Fatal(err)
	}
	a, err := seal.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sshsig.Verify(a, allowed, time.Now()); err != nil {
		t.Error(err)
	}
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Log("ssh-keygen is not installed: it was not asked")
		return
	}
	dir := t.TempDir()
	last := a.Signatures[len(a.Signatures)-1]
	for name, content := range map[string][]byte{"signers": line, "sig": sshsig.Armor(last)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(keygen, "-Y", "verify", "-n", sshsig.Namespace, "-f", "signers", "-I", "ann", "-s", "sig")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(a.Message())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("ssh-keygen -Y verify: %v: %s", err, out)
	}
}

func TestSignWithEveryKind(t *testing.T) {
	for name, key := range keys(t) {
		t.Run(name, func(t *testing.T) {
			signer := sshSigner(t, key)
			file, err := Sign(unsigned, signer)
			if err != nil {
				t.Fatal(err)
			}
			checkSigned(t, file, signer.PublicKey())
		})
	}
}

func TestSignTwice(t *testing.T) {
	made := keys(t)
	file, err := Sign(unsigned, sshSigner(t, made["ed25519"]))
	if err != nil {
		t.Fatal(err)
	}
	file, err = Sign(file, sshSigner(t, made["P-256"]))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ed25519", "P-256"} {
		line := append([]byte("ann "), ssh.MarshalAuthorizedKey(sshSigner(t, made[name]).PublicKey())...)
		allowed, err := sshsig.ParseAllowedSigners("signers", line)
		if err != nil {
			t.Fatal(err)
		}
		a, err := seal.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sshsig.Verify(a, allowed, time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Sign(file, sshSigner(t, made["P-256"])); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("sign again with the same key: got %v, want a refusal", err)
	}
	if _, err := Sign([]byte("text"), sshSigner(t, made["P-256"])); !errors.Is(err, seal.ErrNotArtifact) {
		t.Errorf("sign text: got %v, want %q", err, seal.ErrNotArtifact)
	}
}

func TestParsePrivateKey(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	answer := func(s string, err error) func() ([]byte, error) {
		return func() ([]byte, error) { return []byte(s), err }
	}
	never := func() ([]byte, error) { t.Error("passphrase was asked for"); return nil, nil }
	for _, tc := range []struct {
		name   string
		pem    []byte
		phrase func() ([]byte, error)
		want   string
	}{
		{"plain", pem.EncodeToMemory(plain), never, ""},
		{"locked", pem.EncodeToMemory(locked), answer("secret", nil), ""},
		{"wrong phrase", pem.EncodeToMemory(locked), answer("wrong", nil), "read private key: "},
		{"no phrase", pem.EncodeToMemory(locked), nil, "passphrase"},
		{"gave up", pem.EncodeToMemory(locked), answer("", errors.New("interrupted")), "interrupted"},
		{"public key", []byte("ssh-ed25519 AAAA"), never, "read private key: "},
	} {
		got, err := ParsePrivateKey(tc.pem, tc.phrase)
		if tc.want == "" && (err != nil || !bytes.Equal(got.PublicKey().Marshal(), sshSigner(t, key).PublicKey().Marshal())) {
			t.Errorf("%s: got %v, %v, want the key", tc.name, got, err)
		}
		if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, %v, want an error with %q", tc.name, got, err, tc.want)
		}
	}
}

func TestSignThroughAgent(t *testing.T) {
	keyring := agent.NewKeyring()
	made := keys(t)
	for _, name := range []string{"ed25519", "rsa"} {
		if err := keyring.Add(agent.AddedKey{PrivateKey: made[name]}); err != nil {
			// The keyring wants a pointer where crypto/ed25519 gives a slice.
			private := made[name].(ed25519.PrivateKey)
			if err := keyring.Add(agent.AddedKey{PrivateKey: &private}); err != nil {
				t.Fatal(err)
			}
		}
	}
	socket := filepath.Join(t.TempDir(), "agent")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keyring, conn) }()
		}
	}()

	client, err := DialAgent(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, name := range []string{"ed25519", "rsa"} {
		public := sshSigner(t, made[name]).PublicKey()
		signer, err := client.Signer(ssh.MarshalAuthorizedKey(public))
		if err != nil {
			t.Fatal(err)
		}
		file, err := Sign(unsigned, signer)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkSigned(t, file, public)
	}
	absent := sshSigner(t, made["P-256"]).PublicKey()
	if _, err := client.Signer(ssh.MarshalAuthorizedKey(absent)); err == nil || !strings.Contains(err.Error(), "agent has no key") {
		t.Errorf("key that the agent does not hold: got %v, want a refusal", err)
	}
	if _, err := client.Signer([]byte("x")); err == nil || !strings.Contains(err.Error(), "read public key") {
		t.Errorf("junk as public key: got %v, want a refusal", err)
	}
	for _, socket := range []string{"", filepath.Join(t.TempDir(), "none")} {
		if _, err := DialAgent(socket); err == nil || !strings.Contains(err.Error(), "connect to SSH agent") {
			t.Errorf("dial %q: got %v, want a refusal", socket, err)
		}
	}
}

// The flow of docs/artifact.md: ssh-keygen signs the file, the signature is attached afterwards.
func TestAttachWhatSSHKeygenSigned(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.sbx"), unsigned, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-q", "-t", "ed25519", "-N", "", "-f", "key"},
		{"-q", "-Y", "sign", "-n", sshsig.Namespace, "-f", "key", "p.sbx"},
	} {
		cmd := exec.Command(keygen, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen %v: %v: %s", args, err, out)
		}
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	file, err := sshsig.Attach(read("p.sbx"), read("p.sbx.sig"))
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(read("key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	checkSigned(t, file, key)

	// The same private key, read by us, as a file of today's ssh-keygen has it.
	signer, err := ParsePrivateKey(read("key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Sign(unsigned, signer)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, file) {
		t.Errorf("Ed25519 signs deterministically: got %x, ssh-keygen made %x", again, file)
	}
}
