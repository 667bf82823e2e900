package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Auxv is the part of a process's auxiliary vector that says where the kernel put what (getauxval(3)). A zero is an
// entry that is not there.
type Auxv struct {
	VDSO   uint64 // AT_SYSINFO_EHDR: the vDSO's ELF header
	Random uint64 // AT_RANDOM: 16 random bytes
}

const (
	atRandom      = 25
	atSysinfoEHDR = 33
)

// ReadAuxv reads /proc/<pid>/auxv. It is the kernel's copy, made when the program image was: what the process writes to
// the vector on its stack does not show.
func ReadAuxv(pid int) (Auxv, error) {
	b, err := os.ReadFile(procPath(pid, "auxv"))
	if err != nil {
		return Auxv{}, err
	}
	return parseAuxv(b), nil
}

func parseAuxv(b []byte) (a Auxv) {
	for ; len(b) >= 16; b = b[16:] {
		value := binary.NativeEndian.Uint64(b[8:])
		switch binary.NativeEndian.Uint64(b) {
		case atSysinfoEHDR:
			a.VDSO = value
		case atRandom:
			a.Random = value
		}
	}
	return a
}

// maxVDSO bounds the image that is looked at; kernels of today have one or two pages.
const maxVDSO = 16 * 4096

// OwnVDSO returns this process's vDSO as it is mapped, the same image that the kernel maps into every 64-bit process,
// and where it is. There is none when the kernel was started without.
func OwnVDSO() (image []byte, base uint64, err error) {
	a, err := ReadAuxv(os.Getpid())
	if err != nil || a.VDSO == 0 {
		return nil, 0, err
	}
	image = make([]byte, 0, 2*4096)
	for len(image) < maxVDSO {
		image = append(image, make([]byte, 4096)...)
		page := image[len(image)-4096:]
		// The first page that is not mapped ends it; what may be mapped right behind it is not looked at by anybody.
		if n, err := ReadMemory(os.Getpid(), a.VDSO+uint64(len(image)-4096), page); err != nil || n != 4096 {
			image = image[:len(image)-4096]
			break
		}
	}
	if len(image) == 0 {
		return nil, 0, errors.New("read the vDSO: it cannot be read")
	}
	return image, a.VDSO, nil
}

// Memory is the memory of another process, opened so that pages which the process may only read or execute can be
// written, as a debugger does: a private page then becomes a copy that belongs to that process alone. It stays the
// memory of the program image that it was opened for.
type Memory struct{ fd int }

// OpenMemory opens /proc/<tid>/mem.
func OpenMemory(tid int) (Memory, error) {
	fd, err := unix.Open(procPath(tid, "mem"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return Memory{-1}, err
	}
	return Memory{fd}, nil
}

// Read reads all of b, or fails.
func (m Memory) Read(addr uint64, b []byte) error {
	n, err := unix.Pread(m.fd, b, int64(addr))
	if err == nil && n != len(b) {
		err = unix.EFAULT
	}
	return err
}

// Write overwrites all of what is at addr, or fails.
func (m Memory) Write(addr uint64, b []byte) error {
	n, err := unix.Pwrite(m.fd, b, int64(addr))
	if err == nil && n != len(b) {
		err = unix.EFAULT
	}
	return err
}

// Close ends the access.
func (m Memory) Close() { _ = unix.Close(m.fd) }

// CanOverwriteCode tells whether the kernel lets a process's read-only pages be written through /proc/<pid>/mem, by
// writing a byte of this process's own vDSO again (proc_mem.force_override, Linux 6.12, can forbid it).
func CanOverwriteCode() error {
	image, base, err := OwnVDSO()
	if err != nil || image == nil {
		return err
	}
	m, err := OpenMemory(os.Getpid())
	if err != nil {
		return fmt.Errorf("open own memory: %w", err)
	}
	defer m.Close()
	if err := m.Write(base, image[:1]); err != nil {
		return fmt.Errorf("the kernel does not let read-only memory be written through /proc (boot parameter proc_mem.force_override): %w", err)
	}
	return nil
}

// CommandLine returns the arguments that a process was started with, NUL-terminated each, cut to len(b) bytes.
func CommandLine(pid int, b []byte) ([]byte, error) {
	fd, err := unix.Open(procPath(pid, "cmdline"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
