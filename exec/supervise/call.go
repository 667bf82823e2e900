package supervise

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Guest is how a call's memory and validity are looked up; tests replace it.
type Guest interface {
	ReadMemory(tid int, addr uint64, b []byte) (int, error)
	GatherMemory(tid int, from []kernel.Range, b []byte) (int, error)
	WriteMemory(tid int, addr uint64, b []byte) (int, error)
	OpenMemory(tid int) (Overwriter, error)
	Valid(id uint64) bool
}

// Overwriter is a caller's memory, to be read, and to be written whether or not its pages are writable. It stays with
// the program image that it was opened for, also when the call has been answered.
type Overwriter = interface {
	Read(addr uint64, b []byte) error
	Write(addr uint64, b []byte) error
	Close()
}

// Call is one notified system call. Its methods are the only way to the caller's memory: each reads once, then
// proves that the notification is still the same, so that a recycled pid is never mistaken for the caller.
type Call struct {
	TID  int // thread id
	Nr   abi.Sysno
	Args [6]uint64

	id         uint64
	guest      Guest
	memoryRead bool
}

// NewCall makes a call for tests of handlers.
func NewCall(tid int, nr abi.Sysno, args [6]uint64, g Guest) *Call {
	return &Call{TID: tid, Nr: nr, Args: args, guest: g}
}

// Arg32 returns an argument that the kernel takes as int or unsigned int: the upper half of the register is ignored.
func (c *Call) Arg32(i int) int32 { return int32(uint32(c.Args[i])) }

// maxPath is PATH_MAX: the kernel refuses longer paths with ENAMETOOLONG, terminating NUL included.
const maxPath = 4096

const pageSize = 4096 // the smallest page of any architecture; reading by smaller steps is never wrong

// Path reads a NUL-terminated path. Paths are bytes: nothing is assumed about their encoding.
func (c *Call) Path(arg int) (string, error) {
	s, err := c.Text(c.Args[arg])
	if err != nil {
		return "", err
	}
	return s, nil
}

// Text reads a NUL-terminated text of less than PATH_MAX bytes. A longer one is cut, and the error is ENAMETOOLONG.
func (c *Call) Text(addr uint64) (string, error) {
	var buf [maxPath]byte
	n := 0
	c.memoryRead = true
	for n < maxPath {
		// Never across a page: the string may end just before an unmapped one.
		step := min(maxPath-n, pageSize-int((addr+uint64(n))%pageSize))
		got, err := c.guest.ReadMemory(c.TID, addr+uint64(n), buf[n:n+step])
		if err != nil || got <= 0 {
			return "", memoryError(err)
		}
		if i := bytes.IndexByte(buf[n:n+got], 0); i >= 0 {
			if !c.guest.Valid(c.id) {
				return "", unix.ESRCH
			}
			return string(buf[:n+i]), nil
		}
		n += got
	}
	if !c.guest.Valid(c.id) {
		return "", unix.ESRCH
	}
	return string(buf[:n]), unix.ENAMETOOLONG
}

// Bytes reads exactly len(b) bytes.
func (c *Call) Bytes(addr uint64, b []byte) error {
	c.memoryRead = true
	n, err := c.guest.ReadMemory(c.TID, addr, b)
	if err != nil || n != len(b) {
		return memoryError(err)
	}
	if !c.guest.Valid(c.id) {
		return unix.ESRCH
	}
	return nil
}

// Gather reads ranges, at most 1024 of them (IOV_MAX), one after the other, as far as they are mapped: n < len(b) bytes if
// they are not, and EFAULT if that is none.
func (c *Call) Gather(from []kernel.Range, b []byte) (n int, err error) {
	c.memoryRead = true
	if n, err = c.guest.GatherMemory(c.TID, from, b); err != nil || n == 0 && len(b) > 0 {
		return 0, memoryError(err)
	}
	if !c.guest.Valid(c.id) {
		return 0, unix.ESRCH
	}
	return n, nil
}

// Write overwrites len(b) bytes of the caller's memory: an answer that the caller asked for, or an argument that the
// kernel is about to read. Should the caller die and its pid be taken between the check and the write, the kernel still
// lets this thread write to processes of the sandbox only (Landlock: its domain must be an ancestor of theirs).
func (c *Call) Write(addr uint64, b []byte) error {
	if !c.guest.Valid(c.id) {
		return unix.ESRCH
	}
	if n, err := c.guest.WriteMemory(c.TID, addr, b); err != nil || n != len(b) {
		return memoryError(err)
	}
	return nil
}

// Patch is bytes to be written over what is at an address.
type Patch struct {
	Addr  uint64
	Bytes []byte
}

// Overwrite is Write for pages that the caller itself may not write, such as code that the kernel maps: the caller gets
// private copies of them. All patches are written, or an error is returned.
func (c *Call) Overwrite(patches []Patch) error {
	m, err := c.Hold()
	if err != nil {
		return err
	}
	defer m.Close()
	for _, p := range patches {
		if err := m.Write(p.Addr, p.Bytes); err != nil {
			return err
		}
	}
	return nil
}

// Hold opens the caller's memory, which the handler closes. The notification is checked once it is open: from then on it
// is the caller's, whatever its pid comes to mean.
func (c *Call) Hold() (Overwriter, error) {
	c.memoryRead = true
	m, err := c.guest.OpenMemory(c.TID)
	if err != nil {
		return nil, err
	}
	if !c.guest.Valid(c.id) {
		m.Close()
		return nil, unix.ESRCH
	}
	return m, nil
}

// Valid reports whether the caller still waits. A handler that looked at the caller through /proc or a pidfd asks
// before it acts on what it saw.
func (c *Call) Valid() bool { return c.guest.Valid(c.id) }

// memoryError is what the kernel itself would answer, except where we may not read the caller at all (a program that
// is not readable by its user is not dumpable): then the call is refused.
func memoryError(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ESRCH) {
		return unix.EPERM
	}
	return unix.EFAULT
}

type kernelGuest struct{ listener kernel.Listener }

func (g kernelGuest) ReadMemory(tid int, addr uint64, b []byte) (int, error) {
	return kernel.ReadMemory(tid, addr, b)
}

func (g kernelGuest) GatherMemory(tid int, from []kernel.Range, b []byte) (int, error) {
	return kernel.GatherMemory(tid, from, b)
}

func (g kernelGuest) WriteMemory(tid int, addr uint64, b []byte) (int, error) {
	return kernel.WriteMemory(tid, addr, b)
}

func (g kernelGuest) OpenMemory(tid int) (Overwriter, error) { return kernel.OpenMemory(tid) }

func (g kernelGuest) Valid(id uint64) bool { return g.listener.Valid(id) }
