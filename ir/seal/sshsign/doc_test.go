package sshsign

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir/seal/sshsig"
)

// TestDocumentedCommands runs the shell blocks of docs/artifact.md, in order, on an artifact that is signed twice.
func TestDocumentedCommands(t *testing.T) {
	for _, tool := range []string{"sh", "od", "tr", "head", "tail", "base64", "sha256sum", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	doc, err := os.ReadFile("../../../docs/artifact.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(script string) (string, error) {
		cmd := exec.Command("sh", "-eu", "-c", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("ssh-keygen -q -t ed25519 -N '' -f id_ed25519; { printf 'ann@example.com '; cat id_ed25519.pub; } > allowed_signers"); err != nil {
		t.Fatalf("make a key: %v: %s", err, out)
	}
	private, err := os.ReadFile(filepath.Join(dir, "id_ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivateKey(private, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Sign(unsigned, key)
	if err != nil {
		t.Fatal(err)
	}
	if signed, err = Sign(signed, sshSigner(t, keys(t)["P-256"])); err != nil {
		t.Fatal(err)
	}
	write := func(file []byte) {
		if err := os.WriteFile(filepath.Join(dir, "p.sbx"), file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(signed)

	blocks := shellBlocks(string(doc))
	if len(blocks) < 4 {
		t.Fatalf("got %d shell blocks, want the four of \"Checking by hand\"", len(blocks))
	}
	for _, block := range blocks {
		if out, err := run(block); err != nil {
			t.Errorf("%v: %s\n%s", err, out, block)
		}
	}
	signature, err := os.ReadFile(filepath.Join(dir, "unsigned.sbx.sig"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sshsig.Attach(unsigned, signature); err != nil {
		t.Errorf("attach the signature that the last block made: %v", err)
	}

	// The checks of the first two blocks must be able to fail.
	signed[14] ^= 1
	write(signed)
	for _, block := range blocks[:2] {
		if out, err := run(block); err == nil {
			t.Errorf("on a changed artifact: got success: %s\n%s", out, block)
		}
	}
}

func shellBlocks(doc string) []string {
	var blocks []string
	for {
		_, rest, ok := strings.Cut(doc, "```sh\n")
		if !ok {
			return blocks
		}
		block, after, _ := strings.Cut(rest, "```\n")
		blocks = append(blocks, block)
		doc = after
	}
}
