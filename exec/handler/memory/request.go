package memory

import (
	"errors"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// kind is a way to ask for memory.
type kind uint8

const (
	kindMap kind = iota + 1
	kindProtect
	kindBrk
	kindRemap
	kindShadow
	kindShmget
	kindMemfd
)

// kinds names the calls; which of their uses cost something the filter knows (compiler/lower/memory.go).
var kinds = map[string]kind{
	"mmap":             kindMap,
	"mprotect":         kindProtect,
	"pkey_mprotect":    kindProtect,
	"brk":              kindBrk,
	"mremap":           kindRemap,
	"map_shadow_stack": kindShadow,
	"shmget":           kindShmget,
	"memfd_create":     kindMemfd,
}

// neverFits is more than any address space holds (56 bits with five levels of page tables): programs ask for it to see
// the kernel refuse, so that is left to the kernel.
const neverFits = 1 << 56

// request is what one call asks for, as far as its registers tell: never less than what it will cost.
type request struct {
	kind   kind
	bytes  uint64
	shared bool   // anonymous memory that several processes may come to map
	addr   uint64 // of a range whose mappings tell what it costs exactly; with kindBrk, where the heap will end
	size   uint64 // of that range
}

// mappings lists the caller's mappings until f returns false.
type mappings func(f func(kernel.Mapping) bool) error

var pageSize = uint64(os.Getpagesize())

// pages rounds up to whole pages; what would overflow stays too much.
func pages(n uint64) uint64 {
	if n > math.MaxUint64-pageSize {
		return math.MaxUint64
	}
	return (n + pageSize - 1) &^ (pageSize - 1)
}

func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func minus(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}

// request reads the registers.
func (k kind) request(c *supervise.Call, a *account) request {
	r := request{kind: k}
	switch k {
	case kindMap:
		r.mmap(c)
	case kindProtect:
		r.addr, r.size = c.Args[0], pages(c.Args[1])
		r.bytes = r.size
	case kindBrk:
		// Where the heap ends is known from the last call, or it is taken to be empty.
		known := a.brkStart
		if a.brk != 0 {
			known = a.brk
		}
		r.addr, r.bytes = c.Args[0], pages(minus(c.Args[0], known))
	case kindRemap:
		before, after := pages(c.Args[1]), pages(c.Args[2])
		r.addr, r.size = c.Args[0], before
		r.bytes = minus(after, before)
		if c.Args[3]&unix.MREMAP_DONTUNMAP != 0 {
			r.bytes = after // it is there twice
		}
	case kindShmget:
		if c.Arg32(2)&unix.IPC_CREAT != 0 || c.Arg32(0) == unix.IPC_PRIVATE {
			r.bytes = pages(c.Args[1])
		}
	case kindShadow:
		r.bytes = pages(c.Args[1])
	}
	return r
}

// free tells whether a call costs nothing, as the filter tells it (compiler/lower/memory.go).
func (k kind) free(c *supervise.Call) bool {
	switch k {
	case kindMap:
		return c.Args[2]&unix.PROT_WRITE == 0 && c.Args[3]&mapType == unix.MAP_PRIVATE
	case kindProtect:
		return c.Args[2]&unix.PROT_WRITE == 0
	case kindBrk:
		return c.Args[0] == 0
	}
	return false
}

// mapType is MAP_TYPE: the bits of mmap's flags that say how a mapping is shared.
const mapType = 0xf

func (r *request) mmap(c *supervise.Call) {
	flags := c.Args[3]
	r.bytes = pages(c.Args[1])
	r.shared = flags&mapType == unix.MAP_SHARED || flags&mapType == unix.MAP_SHARED_VALIDATE
	switch {
	case r.shared && flags&unix.MAP_ANONYMOUS == 0 && !isZero(c.TID, int(c.Arg32(4))):
		r.bytes = 0 // a file: its pages are the file system's, or a memfd's, which are counted as they are written
	case !r.shared && flags&unix.MAP_FIXED != 0 && flags&unix.MAP_FIXED_NOREPLACE == 0:
		r.addr, r.size = c.Args[0], r.bytes // it replaces what is there
	}
}

// isZero tells whether a descriptor is /dev/zero: to map that shared is to ask for anonymous memory. What cannot be
// looked at counts as such.
func isZero(tid, fd int) bool {
	st, err := kernel.StatDescriptor(tid, fd)
	if err != nil {
		return !errors.Is(err, unix.EBADF) // then the kernel refuses the mapping
	}
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 5)
}

// exact returns what the call will cost, given the caller's mappings. It is asked only when bytes do not fit.
func (r *request) exact(a *account, list mappings) uint64 {
	switch {
	case r.kind == kindBrk:
		return pages(minus(r.addr, heapEnd(a, list, r.addr)))
	case r.kind == kindProtect:
		return overlap(list, r.addr, r.size, func(m kernel.Mapping) bool { return !m.Shared && !m.Writable }, r.size)
	case r.kind == kindRemap:
		if costs := overlap(list, r.addr, 1, func(m kernel.Mapping) bool { return charged(m) || m.Anonymous }, 1); costs == 0 {
			return 0
		}
	case r.kind == kindMap && r.size > 0:
		return minus(r.bytes, overlap(list, r.addr, r.size, charged, 0))
	}
	return r.bytes
}

// heapEnd is where the heap ends now. Where neither it nor its start is shown, it is taken to be as large as asked for:
// what the kernel grants is read the next time.
func heapEnd(a *account, list mappings, wanted uint64) uint64 {
	end := uint64(0)
	err := list(func(m kernel.Mapping) bool {
		if m.Heap {
			end = m.End
		}
		return end == 0 || m.Heap
	})
	switch {
	case err == nil && end != 0:
		return end
	case a.brkStart != 0:
		return a.brkStart
	}
	return wanted
}

// charged tells whether a mapping is one that the kernel counts as data.
func charged(m kernel.Mapping) bool { return m.Writable && !m.Shared }

// overlap sums what of a range lies in mappings of a kind; where they cannot be read it is unknown.
func overlap(list mappings, addr, n uint64, of func(kernel.Mapping) bool, unknown uint64) uint64 {
	end, sum := plus(addr, n), uint64(0)
	err := list(func(m kernel.Mapping) bool {
		if from, to := max(m.Start, addr), min(m.End, end); from < to && of(m) {
			sum += to - from
		}
		return m.Start < end
	})
	if err != nil {
		return unknown
	}
	return sum
}
