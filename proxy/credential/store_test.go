package credential

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

func TestStore(t *testing.T) {
	s := NewStore()
	mine := []byte("s3cr3t")
	if err := s.Put("a", mine); err != nil {
		t.Fatal(err)
	}
	if string(mine) != "\x00\x00\x00\x00\x00\x00" {
		t.Errorf("the caller's copy is %q", mine)
	}
	for name, secret := range map[string]string{"a": "other", "b": "", "c": strings.Repeat("x", protocol.MaxSecret+1)} {
		err := s.Put(name, []byte(secret))
		if err == nil || strings.Contains(err.Error(), "other") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Put("long", []byte(strings.Repeat("x", protocol.MaxSecret))); err != nil {
		t.Error(err)
	}
	a, ok := s.Get("a")
	if _, other := s.Get("other"); !ok || other {
		t.Errorf("a is there: %t, other is: %t", ok, other)
	}
	content := ""
	if err := a.use(func(b []byte) error { content = string(b); return nil }); err != nil || content != "s3cr3t" {
		t.Errorf("%q, %v", content, err)
	}
	e, err := s.Echo(Way{Kind: Bearer}, "a")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := a.use(func([]byte) error { return nil }); err == nil {
		t.Error("a secret can be used after its store was closed")
	}
	if _, ok := s.Get("a"); ok {
		t.Error("a secret is there after its store was closed")
	}
	if err := s.Put("late", []byte("x")); err == nil {
		t.Error("a closed store takes secrets")
	}
	h := http.Header{"X": {"s3cr3t"}}
	if !e.Redact(h) || len(h) > 0 || e.Text("s3cr3t") != "" {
		t.Errorf("what is not known any more is let through: %q", h)
	}
}

// The memory of a secret is in no core dump, and nothing of it is left behind.
func TestMemory(t *testing.T) {
	_, secret := keep(t, "s3cr3t")
	address := ""
	if err := secret.use(func(b []byte) error { address = fmt.Sprintf("%p", b); return nil }); err != nil {
		t.Fatal(err)
	}
	flags := vmFlags(t, strings.TrimPrefix(address, "0x"))
	if !slices.Contains(flags, "dd") {
		t.Errorf("flags %q, want dd", flags)
	}
	t.Logf("locked: %t", slices.Contains(flags, "lo"))
}

// vmFlags are those of the mapping that begins at an address or holds it.
func vmFlags(t *testing.T, address string) []string {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	inside := false
	for lines.Scan() {
		var from, to, at uint64
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			_, _ = fmt.Sscanf(address, "%x", &at)
			inside = from <= at && at < to
		}
		if flags, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatalf("no mapping at %s", address)
	return nil
}

func TestPrintsNothing(t *testing.T) {
	s, secret := keep(t, "s3cr3t")
	e, err := s.Echo(Way{Kind: Basic, Name: "user"}, "s")
	if err != nil {
		t.Fatal(err)
	}
	type wrapped struct {
		Secret Secret
		store  *Store
		inner  Secret
	}
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	for _, v := range []any{secret, &secret, s, e, wrapped{secret, s, secret}, []Secret{secret}, map[string]Secret{"s": secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T", "%o", "%b", "%U", "%c", "%t", "%e", "%w"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(&out, "%s\n", b)
		log.Info("x", "v", v)
	}
	for _, form := range []string{"s3cr3t", "733363723374", "[115 51", "0x73, 0x33", "czNjcjN0", "dXNlcjpzM2NyM3Q"} {
		if i := strings.Index(strings.ToLower(out.String()), strings.ToLower(form)); i >= 0 {
			t.Errorf("printed: %s", out.String()[max(0, i-50):i+50])
		}
	}
	if got := fmt.Sprintf("%v %s %x %#v", secret, s, e, &secret); got != "[secret] [secret] [secret] [secret]" {
		t.Error(got)
	}
	for _, v := range []interface {
		String() string
		GoString() string
		MarshalText() ([]byte, error)
	}{secret, s, e} {
		if b, err := v.MarshalText(); v.String() != shown || v.GoString() != shown || string(b) != shown || err != nil {
			t.Errorf("%s %#v %s %v", v, v, b, err)
		}
	}
}

func TestConcurrent(t *testing.T) {
	s, secret := keep(t, "s3cr3t")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 100 {
				h := http.Header{}
				if _, _, err := Apply(Way{Kind: Bearer}, secret, h, ""); err == nil && h.Get("Authorization") != "Bearer s3cr3t" {
					t.Error(h)
				}
				if e, err := s.Echo(Way{Kind: Bearer}, "s"); err == nil {
					e.Redact(h)
				}
			}
			if i == 7 {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
