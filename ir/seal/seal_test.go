package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
)

// The empty artifact, byte by byte: what docs/artifact.md says, and what no change may alter.
const emptyArtifact = "895342580d0a1a0a" + "0001" + "00000000" +
	"34cb47d0bb0521a451b49d55b892f9c5886d0ee99c6afb63274c95fae71b64ee" + "0000"

func TestSeal(t *testing.T) {
	file := Seal(nil)
	want := emptyArtifact
	if got := fmt.Sprintf("%x", file); got != want {
		t.Errorf("seal of nothing: got %s, want %s", got, want)
	}
	payload := []byte("payload")
	file = Seal(payload)
	a, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Payload, payload) || len(a.Signatures) != 0 || !bytes.Equal(a.Message(), file) {
		t.Errorf("open: got payload %q, %d signatures, message %x, want %q, none and the file", a.Payload, len(a.Signatures), a.Message(), payload)
	}
	if want := fmt.Sprintf("%x", file[len(file)-34:len(file)-2]); a.Digest != want {
		t.Errorf("digest: got %s, want %s", a.Digest, want)
	}
}

// with returns file after edit has changed a copy of it.
func with(file []byte, edit func(b []byte) []byte) []byte { return edit(bytes.Clone(file)) }

func signed(t testing.TB, blobs ...string) []byte {
	t.Helper()
	file := Seal([]byte("payload"))
	for _, blob := range blobs {
		a, err := Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if file, err = a.Append([]byte(blob)); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func TestOpenRefuses(t *testing.T) {
	file := Seal([]byte("payload"))
	count := len(file) - countSize
	for _, tc := range []struct {
		name string
		file []byte
		want error
	}{
		{"nothing", nil, ErrNotArtifact},
		{"text", []byte("package policy\n"), ErrNotArtifact},
		{"line ends translated", with(file, func(b []byte) []byte { return slices.Delete(b, 4, 5) }), ErrNotArtifact},
		{"magic only", []byte(Magic), ErrTruncated},
		{"version 0", with(file, func(b []byte) []byte { b[9] = 0; return b }), ErrVersion},
		{"version 2", with(file, func(b []byte) []byte { b[9] = 2; return b }), ErrVersion},
		{"version 257", with(file, func(b []byte) []byte { b[8] = 1; return b }), ErrVersion},
		{"length beyond the file", with(file, func(b []byte) []byte { b[13]++; return b }), ErrTruncated},
		{"length beyond the bound", with(file, func(b []byte) []byte { binary.BigEndian.PutUint32(b[10:], ir.MaxPayload+1); return b }), ErrTooLarge},
		{"length of 4 GiB", with(file, func(b []byte) []byte { binary.BigEndian.PutUint32(b[10:], 1<<32-1); return b }), ErrTooLarge},
		{"large file", make([]byte, MaxFile+1), ErrTooLarge},
		{"payload changed", with(file, func(b []byte) []byte { b[14] ^= 1; return b }), ErrDigest},
		{"digest changed", with(file, func(b []byte) []byte { b[count-1] ^= 1; return b }), ErrDigest},
		{"trailing byte", append(bytes.Clone(file), 0), ErrTrailing},
		{"trailing byte after signature", append(signed(t, "one"), 0), ErrTrailing},
		{"signature missing", with(file, func(b []byte) []byte { b[count+1] = 1; return b }), ErrTruncated},
		{"17 signatures", with(file, func(b []byte) []byte { b[count+1] = 17; return b }), ErrSignatures},
		{"empty signature", with(file, func(b []byte) []byte { b[count+1] = 1; return append(b, 0, 0, 0, 0) }), ErrSignatures},
		{"large signature", with(file, func(b []byte) []byte {
			b[count+1] = 1
			return append(binary.BigEndian.AppendUint32(b, MaxSignature+1), make([]byte, MaxSignature+1)...)
		}), ErrSignatures},
		{"short signature", with(file, func(b []byte) []byte { b[count+1] = 1; return append(b, 0, 0, 0, 2, 'x') }), ErrTruncated},
	} {
		if a, err := Open(tc.file); a != nil || !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, %v, want error %q", tc.name, a, err, tc.want)
		}
	}
}

func TestAppend(t *testing.T) {
	file := signed(t, "one", "two")
	a, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%s", a.Signatures); got != "[one two]" {
		t.Errorf("signatures: got %s, want [one two]", got)
	}
	if want := Seal([]byte("payload")); !bytes.Equal(a.Message(), want) {
		t.Errorf("message of a signed artifact: got %x, want the unsigned artifact %x", a.Message(), want)
	}
	for _, blob := range [][]byte{nil, make([]byte, MaxSignature+1)} {
		if _, err := a.Append(blob); !errors.Is(err, ErrSignatures) {
			t.Errorf("append %d bytes: got %v, want %q", len(blob), err, ErrSignatures)
		}
	}
	full, err := Open(signed(t, slices.Repeat([]string{"x"}, MaxSignatures)...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := full.Append([]byte("x")); !errors.Is(err, ErrSignatures) {
		t.Errorf("append signature %d: got %v, want %q", MaxSignatures+1, err, ErrSignatures)
	}
}

func TestOpenRefusesEveryTruncation(t *testing.T) {
	file := signed(t, "one", "two")
	for n := range file {
		if _, err := Open(file[:n]); !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrNotArtifact) {
			t.Fatalf("open the first %d of %d bytes: got %v, want %q", n, len(file), err, ErrTruncated)
		}
	}
}

func TestOpenRefusesEveryFlippedBit(t *testing.T) {
	file := Seal([]byte("payload"))
	for i := range file {
		for bit := range 8 {
			file[i] ^= 1 << bit
			if _, err := Open(file); err == nil {
				t.Fatalf("open with bit %d of byte %d flipped: got no error", bit, i)
			}
			file[i] ^= 1 << bit
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte(Magic))
	f.Add(Seal(nil))
	f.Add(signed(f, "one"))
	f.Add(signed(f, "one", "two"))
	f.Fuzz(func(t *testing.T, file []byte) {
		a, err := Open(file)
		if err != nil {
			if a != nil {
				t.Fatalf("open: got an artifact with error %v", err)
			}
			return
		}
		again := Seal(a.Payload)
		if !bytes.Equal(again, a.Message()) {
			t.Fatalf("message: got %x, want %x", a.Message(), again)
		}
		for _, blob := range a.Signatures {
			b, err := Open(again)
			if err != nil {
				t.Fatal(err)
			}
			if again, err = b.Append(blob); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(again, file) {
			t.Fatalf("accepted file is written again as another:\n got %x\nwant %x", again, file)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	file := Seal(make([]byte, 46_000))
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if _, err := Open(file); err != nil {
			b.Fatal(err)
		}
	}
}
