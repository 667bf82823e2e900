package network

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
)

// maxAddress is the size of struct sockaddr_storage: the kernel refuses longer addresses with EINVAL.
const maxAddress = unix.SizeofSockaddrAny + 16 // 128

// address is a socket address (struct sockaddr and its kin) as the caller wrote it.
type address struct {
	raw  [maxAddress]byte
	size int
}

// readAddress copies the address of a call: at a pointer, with a length that the kernel takes as int.
func (a *address) read(c *supervise.Call, pointer uint64, length int32) error {
	if length < 0 || length > maxAddress {
		return unix.EINVAL
	}
	a.size = int(length)
	if length == 0 {
		return nil
	}
	return c.Bytes(pointer, a.raw[:length])
}

// bytes returns the address as the kernel takes it.
func (a *address) bytes() []byte { return a.raw[:a.size] }

// family returns the address family, AF_UNSPEC for an address too short to have one.
func (a *address) family() uint16 {
	if a.size < 2 {
		return unix.AF_UNSPEC
	}
	return binary.NativeEndian.Uint16(a.raw[:])
}

// Sizes of the internet addresses that the kernel accepts; SIN6_LEN_RFC2133 is the older, without scope (net/ipv6.h).
const (
	sizeInet4    = 16
	minSizeInet6 = 24
	sizeInet6    = 28
)

// internet returns an internet address with its port. AF_UNSPEC is taken for AF_INET where the kernel does so.
func (a *address) internet() (to netip.AddrPort, ok bool) {
	port := binary.BigEndian.Uint16(a.raw[2:])
	switch {
	case a.family() == unix.AF_INET6 && a.size >= minSizeInet6:
		addr := netip.AddrFrom16([16]byte(a.raw[8:24]))
		return netip.AddrPortFrom(addr, port), true
	case a.family() != unix.AF_INET6 && a.size >= sizeInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a.raw[4:8])), port), true
	}
	return netip.AddrPort{}, false
}

// setFamily overwrites the family of an address that has one.
func (a *address) setFamily(family uint16) { binary.NativeEndian.PutUint16(a.raw[:], family) }

// path returns the path of a unix address: the bytes up to the first NUL, or to the end of the address (unix(7)). An
// abstract address and an unnamed one have none.
func (a *address) path() (path string, ok bool) {
	if a.family() != unix.AF_UNIX || a.size <= 2 || a.raw[2] == 0 {
		return "", false
	}
	name := a.raw[2:a.size]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return string(name), true
}

// abstract reports whether the address is a name in the abstract namespace.
func (a *address) abstract() bool { return a.family() == unix.AF_UNIX && a.size > 2 && a.raw[2] == 0 }
