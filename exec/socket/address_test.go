package socket

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
)

func inet4(family uint16, text string) []byte {
	to := netip.MustParseAddrPort(text)
	b := make([]byte, unix.SizeofSockaddrInet4)
	binary.NativeEndian.PutUint16(b, family)
	binary.BigEndian.PutUint16(b[2:], to.Port())
	copy(b[4:], to.Addr().AsSlice())
	return b
}

func inet6(text string) []byte {
	to := netip.MustParseAddrPort(text)
	b := make([]byte, unix.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], to.Port())
	copy(b[8:], to.Addr().AsSlice())
	return b
}

func path(text string) []byte {
	b := make([]byte, 2, 2+len(text))
	binary.NativeEndian.PutUint16(b, unix.AF_UNIX)
	return append(b, text...)
}

func TestAddressInternet(t *testing.T) {
	for _, tc := range []struct {
		name  string
		bytes []byte
		want  string // "" for none
	}{
		{"ipv4", inet4(unix.AF_INET, "127.0.0.1:80"), "127.0.0.1:80"},
		{"unspecified family", inet4(unix.AF_UNSPEC, "0.0.0.0:80"), "0.0.0.0:80"},
		{"ipv4 and more", append(inet4(unix.AF_INET, "127.0.0.1:80"), 1, 2), "127.0.0.1:80"},
		{"ipv4 cut off", inet4(unix.AF_INET, "127.0.0.1:80")[:15], ""},
		{"ipv6", inet6("[::1]:443"), "[::1]:443"},
		{"ipv6 without scope", inet6("[::1]:443")[:24], "[::1]:443"},
		{"ipv6 cut off", inet6("[::1]:443")[:23], ""},
		{"mapped", inet6("[::ffff:127.0.0.1]:1"), "[::ffff:127.0.0.1]:1"},
		{"empty", nil, ""},
		{"one byte", []byte{2}, ""},
	} {
		var a Address
		a.Set(tc.bytes)
		got, ok := a.Internet()
		if ok != (tc.want != "") || ok && got != netip.MustParseAddrPort(tc.want) {
			t.Errorf("%s: %v, %v; want %q", tc.name, got, ok, tc.want)
		}
	}
}

func TestAddressPath(t *testing.T) {
	for _, tc := range []struct {
		name, text, want string
		ok, abstract     bool
	}{
		{"path", "/run/s\x00", "/run/s", true, false},
		{"no final NUL", "/run/s", "/run/s", true, false},
		{"bytes behind the NUL", "/run/s\x00/etc", "/run/s", true, false},
		{"no text", "\xff\xfe", "\xff\xfe", true, false},
		{"abstract", "\x00name", "", false, true},
		{"unnamed", "", "", false, false},
	} {
		var a Address
		a.Set(path(tc.text))
		got, ok := a.Path()
		if got != tc.want || ok != tc.ok || a.Abstract() != tc.abstract {
			t.Errorf("%s: %q, %v, abstract %v", tc.name, got, ok, a.Abstract())
		}
	}
}

func TestAddressRead(t *testing.T) {
	m := &supervisetest.Memory{Bytes: inet4(unix.AF_INET, "127.0.0.1:80")}
	for _, tc := range []struct {
		name    string
		pointer uint64
		length  int32
		want    error
	}{
		{"whole", supervisetest.Base, 16, nil},
		{"empty", 0, 0, nil},
		{"negative", supervisetest.Base, -1, unix.EINVAL},
		{"too long", supervisetest.Base, MaxAddress + 1, unix.EINVAL},
		{"half mapped", supervisetest.Base + 8, 16, unix.EFAULT},
		{"not mapped", 8, 16, unix.EFAULT},
	} {
		var a Address
		if err := a.Read(supervise.NewCall(1, 0, [6]uint64{}, m), tc.pointer, tc.length); err != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// FuzzAddress compares what is made of an address with what the kernel makes of it: it binds a socket to no other port
// than Internet says, and to none that Internet does not know.
func FuzzAddress(f *testing.F) {
	for _, b := range [][]byte{
		inet4(unix.AF_INET, "127.0.0.1:0"), inet4(unix.AF_UNSPEC, "0.0.0.0:7"), inet6("[::1]:0"), inet6("[::ffff:127.0.0.1]:9"), path("/x"), path("\x00x"), {1}, nil,
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Address
		a.Set(b)
		if got := a.Bytes(); len(got) > MaxAddress || !bytes.HasPrefix(b, got) {
			t.Fatalf("%x became %x", b, got)
		}
		if name, ok := a.Path(); ok && (name == "" || a.Abstract()) {
			t.Errorf("path %q of %x", name, b)
		}
		to, ok := a.Internet()
		specified := a
		specified.Specify()
		if now, still := specified.Internet(); still != ok || now.Port() != to.Port() {
			t.Errorf("%x becomes %x", b, specified.Bytes())
		}
		for _, domain := range []int{unix.AF_INET, unix.AF_INET6} {
			fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Skip(err)
			}
			if err := kernel.Bind(fd, a.Bytes()); err == nil {
				if !ok {
					t.Errorf("domain %d: the kernel takes %x", domain, b)
				} else if got := port(t, fd); to.Port() != 0 && got != to.Port() {
					t.Errorf("domain %d: %x is port %d to the kernel, %d here", domain, b, got, to.Port())
				}
			}
			unix.Close(fd)
		}
	})
}

func port(t *testing.T, fd int) uint16 {
	t.Helper()
	var b [MaxAddress]byte
	n, err := kernel.SocketName(fd, false, b[:])
	if err != nil {
		t.Fatal(err)
	}
	var a Address
	a.Set(b[:n])
	at, _ := a.Internet()
	return at.Port()
}
