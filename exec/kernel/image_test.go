package kernel

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseAuxv(t *testing.T) {
	words := func(list ...uint64) (b []byte) {
		for _, w := range list {
			b = binary.NativeEndian.AppendUint64(b, w)
		}
		return b
	}
	for _, tc := range []struct {
		name string
		in   []byte
		want Auxv
	}{
		{"empty", nil, Auxv{}},
		{"both", words(33, 0x7000, 6, 4096, 25, 0x8000, 0, 0), Auxv{VDSO: 0x7000, Random: 0x8000}},
		{"cut off", words(33, 0x7000, 25), Auxv{VDSO: 0x7000}},
	} {
		if got := parseAuxv(tc.in); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestOwnVDSO(t *testing.T) {
	image, base, err := OwnVDSO()
	if err != nil || !bytes.HasPrefix(image, []byte("\x7fELF")) || base == 0 {
		t.Errorf("OwnVDSO = %d bytes at %#x, %v; want an ELF image", len(image), base, err)
	}
}

// A page that its process may only read becomes a copy; the file that it was mapped from keeps what it holds.
func TestMemoryOverwritesReadOnlyPages(t *testing.T) {
	if err := CanOverwriteCode(); err != nil {
		t.Skipf("needs read-only pages written through /proc: %v", err)
	}
	file := t.TempDir() + "/page"
	if err := os.WriteFile(file, bytes.Repeat([]byte("a"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	m, err := OpenMemory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Write(addressOf(page)+1, []byte("XY")); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if string(page[:4]) != "aXYa" || err != nil || string(content[:4]) != "aaaa" {
		t.Errorf("page %q, file %q, %v; want aXYa and aaaa", page[:4], content[:4], err)
	}
	if err := m.Write(0, []byte("X")); err == nil {
		t.Error("write to an unmapped page: got no error")
	}
}

func TestSealedFile(t *testing.T) {
	fd, err := SealedFile("test", []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := make([]byte, 8)
	if n, err := unix.Read(fd, b); string(b[:max(n, 0)]) != "text" || err != nil {
		t.Errorf("read %q, %v; want text", b[:max(n, 0)], err)
	}
	if _, err := unix.Pwrite(fd, []byte("x"), 0); err != unix.EPERM {
		t.Errorf("write: %v, want EPERM", err)
	}
}
