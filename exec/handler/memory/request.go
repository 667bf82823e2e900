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
	bytes  uint64
	shared bool   // anonymous memory that several processes may come to map
	sysv   bool   // a System V segment
	brk    uint64 // where the heap will end
	// exact looks at the caller's mappings and returns what the call will cost more precisely. It is asked only when bytes
	// do not fit.
	exact func(mappings) uint64
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
	switch k {
	case kindMap:
		return mapRequest(c)
	case kindProtect:
		addr, n := c.Args[0], pages(c.Args[1])
		return request{bytes: n, exact: func(list mappings) uint64 {
			return overlap(list, addr, n, func(m kernel.Mapping) bool { return !m.Shared && !m.Writable })
		}}
	case kindBrk:
		return brkRequest(c.Args[0], a)
	case kindRemap:
		return remapRequest(c.Args[0], pages(c.Args[1]), pages(c.Args[2]), c.Args[3])
	case kindShadow:
		return request{bytes: pages(c.Args[1])}
	case kindShmget:
		if c.Arg32(2)&unix.IPC_CREAT == 0 && int32(c.Arg32(0)) != unix.IPC_PRIVATE {
			return request{}
		}
		return request{bytes: pages(c.Args[1]), sysv: true}
	}
	return request{bytes: neverFits - 1} // no other kind is wired
}

func mapRequest(c *supervise.Call) request {
	const mapType = 0xf
	addr, n, flags := c.Args[0], pages(c.Args[1]), c.Args[3]
	r := request{bytes: n, shared: flags&mapType == unix.MAP_SHARED || flags&mapType == unix.MAP_SHARED_VALIDATE}
	if r.shared && flags&unix.MAP_ANONYMOUS == 0 && !isZero(c.TID, int(c.Arg32(4))) {
		return request{} // a file: its pages are the file system's, or a memfd's, which are counted as they are written
	}
	if flags&unix.MAP_FIXED != 0 && flags&unix.MAP_FIXED_NOREPLACE == 0 && !r.shared {
		r.exact = func(list mappings) uint64 {
			return minus(n, overlap(list, addr, n, charged))
		}
	}
	return r
}

// brkRequest: the heap grows up to the new end. Where it ends now is known from the last call, or it is taken to be empty.
func brkRequest(end uint64, a *account) request {
	known := a.brkStart
	if a.brk != 0 {
		known = a.brk
	}
	return request{bytes: pages(minus(end, known)), brk: end, exact: func(list mappings) uint64 {
		last := uint64(0)
		err := list(func(m kernel.Mapping) bool {
			if m.Heap {
				last = m.End
			}
			return last == 0 || m.Heap
		})
		if err != nil || last == 0 {
			last = a.brkStart // of this image: the ledger has just read it again
		}
		if last == 0 {
			return 0 // the kernel does not show it; what it grants is read the next time
		}
		return pages(minus(end, last))
	}}
}

// remapRequest: the mapping grows, or is there twice.
func remapRequest(addr, before, after, flags uint64) request {
	more := minus(after, before)
	if flags&unix.MREMAP_DONTUNMAP != 0 {
		more = after
	}
	return request{bytes: more, exact: func(list mappings) uint64 {
		found := false
		_ = list(func(m kernel.Mapping) bool {
			if addr >= m.Start && addr < m.End {
				found = charged(m) || m.Anonymous
			}
			return m.End <= addr
		})
		if !found {
			return 0
		}
		return more
	}}
}

// charged tells whether a mapping is one that the kernel counts as data.
func charged(m kernel.Mapping) bool { return m.Writable && !m.Shared }

// overlap sums what of a range lies in mappings of a kind. Where they cannot be read it is the whole.
func overlap(list mappings, addr, n uint64, of func(kernel.Mapping) bool) uint64 {
	end, sum := plus(addr, n), uint64(0)
	err := list(func(m kernel.Mapping) bool {
		if from, to := max(m.Start, addr), min(m.End, end); from < to && of(m) {
			sum += to - from
		}
		return m.Start < end
	})
	if err != nil {
		return n
	}
	return sum
}

// isZero tells whether a descriptor is /dev/zero: to map that shared is to ask for anonymous memory. What cannot be
// looked at counts as such.
func isZero(tid, fd int) bool {
	own, err := kernel.DuplicateFD(tid, fd)
	if err != nil {
		return !errors.Is(err, unix.EBADF) // then the kernel refuses the mapping
	}
	defer unix.Close(own)
	var st unix.Stat_t
	return unix.Fstat(own, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 5)
}
