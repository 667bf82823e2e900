// Package supervisetest has what tests of handlers need in place of a kernel.
package supervisetest

import "golang.org/x/sys/unix"

// Base is the address of a Memory's first byte.
const Base = 0x1000

// Memory is a guest whose only mapped bytes start at Base. It is a supervise.Guest.
type Memory struct {
	Bytes    []byte
	Gone     bool // the caller no longer waits
	ReadOnly bool
}

// ReadMemory copies what is mapped from addr on.
func (m *Memory) ReadMemory(_ int, addr uint64, b []byte) (int, error) {
	if addr < Base || addr >= Base+uint64(len(m.Bytes)) {
		return 0, unix.EFAULT
	}
	return copy(b, m.Bytes[addr-Base:]), nil
}

// WriteMemory overwrites what is mapped from addr on.
func (m *Memory) WriteMemory(_ int, addr uint64, b []byte) (int, error) {
	if m.ReadOnly || addr < Base || addr >= Base+uint64(len(m.Bytes)) {
		return 0, unix.EFAULT
	}
	return copy(m.Bytes[addr-Base:], b), nil
}

// Valid reports whether the caller still waits.
func (m *Memory) Valid(uint64) bool { return !m.Gone }
