package exec

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

func TestWithoutSecrets(t *testing.T) {
	h := &ir.HTTP{Credentials: []ir.Credential{
		{Name: "used", Kind: ir.CredentialEnv, Source: "TOKEN"}, {Name: "unused", Kind: ir.CredentialEnv, Source: "OTHER"},
		{Name: "file", Kind: ir.CredentialFile, Source: "PATH"},
	}}
	environ := []string{"PATH=/bin", "TOKEN=a", "TOKENS=b", "OTHER=", "TOKEN=c"}
	if got := withoutSecrets(environ, h); !slices.Equal(got, []string{"PATH=/bin", "TOKENS=b"}) {
		t.Errorf("got %q", got)
	}
	if len(environ) != 5 || environ[1] != "TOKEN=a" {
		t.Errorf("the caller's environment became %q", environ)
	}
}

func TestReadDescriptor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inherit := func(flags int) string {
		fd, err := unix.Open(file, unix.O_RDONLY|flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fmt.Sprint(fd)
	}
	if got, err := readDescriptor(inherit(0), 100); err != nil || string(got) != "s3cret\n" {
		t.Errorf("inherited: %q, %v", got, err)
	}
	for number, want := range map[string]string{
		inherit(unix.O_CLOEXEC): "was not inherited", "987654": "bad file descriptor",
	} {
		if got, err := readDescriptor(number, 100); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("descriptor %s: %q, %v; want %q", number, got, err, want)
		}
	}
	if got, err := readDescriptor(inherit(0), 3); err == nil || !strings.Contains(err.Error(), "more than 3 bytes") {
		t.Errorf("too long: %q, %v", got, err)
	}
}

// What was too small for a secret on its way is cleared.
func TestReadAllKeepsOneCopy(t *testing.T) {
	secret := bytes.Repeat([]byte("x"), 10_000)
	got, err := readAll(bytes.NewReader(secret), protocol.MaxSecretFile)
	if err != nil || !bytes.Equal(got, secret) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// What commands may write to can hold a link that one of them has placed there.
func TestPlaced(t *testing.T) {
	dir := t.TempDir()
	work, outside := filepath.Join(dir, "work"), filepath.Join(dir, "outside")
	for _, d := range []string{work, outside, work + "/sub"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"out": outside, "in": "sub", "key": outside + "/key"} {
		if err := os.Symlink(target, filepath.Join(work, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{outside + "/key", work + "/sub/key"} {
		if err := os.WriteFile(name, []byte("k"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &sandbox{opened: []opened{{path: work, real: work, access: abi.FSWriteFile}, {path: dir, real: dir, access: abi.FSReadFile}}}
	for path, want := range map[string]bool{
		outside + "/key": true, work + "/sub/key": true, work + "/in/key": true, work + "/sub/new": true, work + "/in/new": true,
		work + "/key": false, work + "/out/key": false, work + "/out/new": false, work + "/missing/new": false,
	} {
		if err := s.placed(path); (err == nil) != want {
			t.Errorf("%s: %v, want accepted %t", path, err, want)
		}
	}
}
