// Package socket holds what every handler of socket calls needs: the address that a caller wrote, copied once, and the
// socket that it named, duplicated once. What is then decided about these two holds, whatever the caller does meanwhile.
//
// It decides nothing.
package socket

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// MaxAddress is the size of struct sockaddr_storage: the kernel refuses longer addresses with EINVAL.
const MaxAddress = unix.SizeofSockaddrAny + 16 // 128

// Address is a socket address (struct sockaddr and its kin) as the caller wrote it.
type Address struct {
	raw  [MaxAddress]byte
	size int
}

// Read copies the address of a call: at a pointer, with a length that the kernel takes as int. It fails with EINVAL for a
// length that the kernel refuses and with EFAULT for memory that is not there.
func (a *Address) Read(c *supervise.Call, pointer uint64, length int32) error {
	if length < 0 || length > MaxAddress {
		return unix.EINVAL
	}
	a.size = int(length)
	if length == 0 {
		return nil
	}
	return c.Bytes(pointer, a.raw[:length])
}

// NameOf returns the address that a socket has (getsockname(2)), or that of its peer.
func NameOf(fd int, peer bool) (*Address, error) {
	var b [MaxAddress]byte
	n, err := kernel.SocketName(fd, peer, b[:])
	if err != nil {
		return nil, err
	}
	name := new(Address)
	name.Set(b[:min(n, len(b))])
	return name, nil
}

// Of returns an internet address in the form that a socket of a family takes, AF_INET or AF_INET6: IPv4 addresses as IPv4-mapped
// ones for AF_INET6. It fails with EAFNOSUPPORT for an IPv6 address that AF_INET has no form for.
func Of(family int, at netip.AddrPort) (a Address, err error) {
	switch {
	case family == unix.AF_INET6:
		ip := at.Addr().As16()
		copy(a.raw[8:], ip[:])
		a.size = unix.SizeofSockaddrInet6
	case at.Addr().Is4():
		ip := at.Addr().As4()
		copy(a.raw[4:], ip[:])
		a.size = sizeInet4
	default:
		return a, unix.EAFNOSUPPORT
	}
	a.SetFamily(uint16(family))
	a.SetPort(at.Port())
	return a, nil
}

// Set makes b the address; what is beyond MaxAddress is cut off.
func (a *Address) Set(b []byte) { a.size = copy(a.raw[:], b) }

// Bytes returns the address as the kernel takes it.
func (a *Address) Bytes() []byte { return a.raw[:a.size] }

// Family returns the address family, AF_UNSPEC for an address too short to have one.
func (a *Address) Family() uint16 {
	if a.size < 2 {
		return unix.AF_UNSPEC
	}
	return binary.NativeEndian.Uint16(a.raw[:])
}

// Sizes of the internet addresses that the kernel accepts; SIN6_LEN_RFC2133 is the older, without scope (net/ipv6.h).
const (
	sizeInet4    = 16
	minSizeInet6 = 24
)

// Internet returns an internet address with its port. AF_UNSPEC is taken for AF_INET where the kernel does so.
func (a *Address) Internet() (to netip.AddrPort, ok bool) {
	port := binary.BigEndian.Uint16(a.raw[2:])
	switch {
	case a.Family() == unix.AF_INET6 && a.size >= minSizeInet6:
		addr := netip.AddrFrom16([16]byte(a.raw[8:24]))
		return netip.AddrPortFrom(addr, port), true
	case a.Family() != unix.AF_INET6 && a.size >= sizeInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a.raw[4:8])), port), true
	}
	return netip.AddrPort{}, false
}

// Specify writes the loopback address over the unspecified one, as which it was decided about: on a socket that is bound to
// another own address the kernel would take that.
func (a *Address) Specify() {
	var addr []byte
	switch a.Family() {
	case unix.AF_INET:
		addr = a.raw[4:8]
	case unix.AF_INET6:
		addr = a.raw[8:24]
	default:
		return
	}
	to, _ := a.Internet()
	switch ip := to.Addr(); {
	case !ip.Unmap().IsUnspecified():
	case ip.Is6() && !ip.Is4In6():
		addr[15] = 1
	default:
		copy(addr[len(addr)-4:], []byte{127, 0, 0, 1})
	}
}

// SetFamily overwrites the family of an address that has one.
func (a *Address) SetFamily(family uint16) { binary.NativeEndian.PutUint16(a.raw[:], family) }

// SetPort overwrites the port of an internet address.
func (a *Address) SetPort(port uint16) { binary.BigEndian.PutUint16(a.raw[2:], port) }

// Path returns the path of a unix address: the bytes up to the first NUL, or to the end of the address (unix(7)). An
// abstract address and an unnamed one have none.
func (a *Address) Path() (path string, ok bool) {
	if a.Family() != unix.AF_UNIX || a.size <= 2 || a.raw[2] == 0 {
		return "", false
	}
	name := a.raw[2:a.size]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return string(name), true
}

// SetPath makes the address that of a path, which must be short.
func (a *Address) SetPath(path string) {
	*a = Address{}
	a.SetFamily(unix.AF_UNIX)
	a.size = 2 + copy(a.raw[2:len(a.raw)-1], path) + 1
}

// Size is the length of the address in bytes.
func (a *Address) Size() int { return a.size }

// Abstract reports whether the address is a name in the abstract namespace.
func (a *Address) Abstract() bool { return a.Family() == unix.AF_UNIX && a.size > 2 && a.raw[2] == 0 }
