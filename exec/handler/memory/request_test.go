package memory

import (
	"math"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

func TestRequests(t *testing.T) {
	data := func(from, to uint64, writable bool) kernel.Mapping {
		return kernel.Mapping{Start: from, End: to, Writable: writable}
	}
	heap := kernel.Mapping{Start: 0x1000, End: 0x5001000, Writable: true, Heap: true} // 80 MB
	for _, tc := range []struct {
		name     string
		call     string
		args     []uint64
		mappings []kernel.Mapping
		want     string
	}{
		{"map", "mmap", []uint64{0, 20 * mb, 2, anonymous}, nil, "kill"},
		{"map fixed over data", "mmap", []uint64{16 * mb, 20 * mb, 2, anonymous | unix.MAP_FIXED}, []kernel.Mapping{data(16*mb, 36*mb, true)}, goesOn},
		{"map fixed over a reservation", "mmap", []uint64{16 * mb, 20 * mb, 2, anonymous | unix.MAP_FIXED}, []kernel.Mapping{data(16*mb, 36*mb, false)}, "kill"},
		{"no replacement", "mmap", []uint64{16 * mb, 20 * mb, 2, anonymous | unix.MAP_FIXED | unix.MAP_FIXED_NOREPLACE}, []kernel.Mapping{data(16*mb, 36*mb, true)}, "kill"},
		{"half an address space", "mmap", []uint64{0, 1 << 63, 2, anonymous}, nil, goesOn}, // the kernel refuses
		{"all of it", "mmap", []uint64{0, math.MaxUint64, 2, anonymous}, nil, goesOn},
		{"much", "mmap", []uint64{0, 1 << 50, 2, anonymous}, nil, "kill"},
		{"protect data", "mprotect", []uint64{16 * mb, 20 * mb, 2}, []kernel.Mapping{data(16*mb, 36*mb, true)}, goesOn},
		{"protect a reservation", "mprotect", []uint64{16 * mb, 20 * mb, 2}, []kernel.Mapping{data(mb, 40*mb, false)}, "kill"},
		{"protect a part", "mprotect", []uint64{16 * mb, 20 * mb, 2}, []kernel.Mapping{data(mb, 17*mb, false), data(17*mb, 40*mb, true)}, goesOn},
		{"protect with a key", "pkey_mprotect", []uint64{16 * mb, 20 * mb, 2}, []kernel.Mapping{data(mb, 40*mb, false)}, "kill"},
		{"heap by a little", "brk", []uint64{0x5001000 + mb}, []kernel.Mapping{heap}, goesOn},
		{"heap by much", "brk", []uint64{0x5001000 + 20*mb}, []kernel.Mapping{heap}, "kill"},
		{"smaller heap", "brk", []uint64{0x2000}, []kernel.Mapping{heap}, goesOn},
		{"heap of another image", "brk", []uint64{0x500}, []kernel.Mapping{heap}, goesOn},
		{"grow", "mremap", []uint64{mb, mb, 21 * mb}, []kernel.Mapping{data(mb, 2*mb, true)}, "kill"},
		{"grow a reservation", "mremap", []uint64{mb, mb, 21 * mb}, []kernel.Mapping{data(mb, 2*mb, false)}, goesOn},
		{"shrink", "mremap", []uint64{mb, 20 * mb, mb}, []kernel.Mapping{data(mb, 2*mb, true)}, goesOn},
		{"keep and move", "mremap", []uint64{mb, 20 * mb, 20 * mb, unix.MREMAP_MAYMOVE | unix.MREMAP_DONTUNMAP}, []kernel.Mapping{data(mb, 21*mb, true)}, "kill"},
		{"shadow stack", "map_shadow_stack", []uint64{0, 20 * mb, 0}, nil, "kill"},
		{"new segment", "shmget", []uint64{unix.IPC_PRIVATE, 20 * mb, 0}, nil, "kill"},
		{"old segment", "shmget", []uint64{7, 20 * mb, 0}, nil, goesOn},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(100 * mb)
			s := w.start(10, 1, 90*mb)
			s.mappings = tc.mappings
			w.want(t, tc.call, w.call(10, tc.call, tc.args...), tc.want)
		})
	}
}
