// Package supervisetest has what tests of handlers need in place of a kernel.
package supervisetest

import (
	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Base is the address of a Memory's first byte.
const Base = 0x1000

// Memory is a guest whose only mapped bytes start at Base. It is a supervise.Guest.
type Memory struct {
	Bytes    []byte
	Gone     bool // the caller no longer waits
	ReadOnly bool
	Sealed   error // why not even Overwrite works
}

// ReadMemory copies what is mapped from addr on.
func (m *Memory) ReadMemory(_ int, addr uint64, b []byte) (int, error) {
	if addr < Base || addr >= Base+uint64(len(m.Bytes)) {
		return 0, unix.EFAULT
	}
	return copy(b, m.Bytes[addr-Base:]), nil
}

// GatherMemory copies what is mapped of ranges.
func (m *Memory) GatherMemory(tid int, from []kernel.Range, b []byte) (n int, err error) {
	for _, r := range from {
		part := b[n:min(n+r.Len, len(b))]
		if len(part) == 0 {
			continue
		}
		got, err := m.ReadMemory(tid, uint64(r.Base), part)
		if n += got; err != nil && n == 0 {
			return 0, err
		}
		if err != nil || got < len(part) {
			break
		}
	}
	return n, nil
}

// WriteMemory overwrites what is mapped from addr on.
func (m *Memory) WriteMemory(_ int, addr uint64, b []byte) (int, error) {
	if m.ReadOnly || addr < Base || addr >= Base+uint64(len(m.Bytes)) {
		return 0, unix.EFAULT
	}
	return copy(m.Bytes[addr-Base:], b), nil
}

// OpenMemory gives what Overwrite writes through: read-only bytes too.
func (m *Memory) OpenMemory(int) (Overwriter, error) { return overwriter{m}, m.Sealed }

// Overwriter is supervise.Overwriter, which cannot be named here: the tests of supervise use this package.
type Overwriter = interface {
	Read(addr uint64, b []byte) error
	Write(addr uint64, b []byte) error
	Close()
}

type overwriter struct{ memory *Memory }

func (o overwriter) Write(addr uint64, b []byte) error {
	m := o.memory
	if addr < Base || addr+uint64(len(b)) > Base+uint64(len(m.Bytes)) {
		return unix.EIO
	}
	copy(m.Bytes[addr-Base:], b)
	return nil
}

func (o overwriter) Read(addr uint64, b []byte) error {
	m := o.memory
	if addr < Base || addr+uint64(len(b)) > Base+uint64(len(m.Bytes)) {
		return unix.EIO
	}
	copy(b, m.Bytes[addr-Base:])
	return nil
}

func (overwriter) Close() {}

// Valid reports whether the caller still waits.
func (m *Memory) Valid(uint64) bool { return !m.Gone }
