// Package machine tells programs of a smaller machine than there is, for limits.memory and limits.num_cpus, so that they
// make as many threads and as large heaps as the limits have room for.
//
// In: sched_getaffinity and sysinfo. Out: the kernel's own answer, reduced. It is no security boundary: the same numbers
// are found elsewhere, in /proc/cpuinfo for one. It bounds every size that the caller chooses.
package machine

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Handler answers for the machine.
type Handler struct {
	cpus              int    // 0: as many as there are
	memory            uint64 // 0: as much as there is
	charged           func() (bytes uint64, processes int)
	affinity, sysinfo abi.Sysno
	mask              [maxMask]byte
}

// maxMask is the mask of 8192 CPUs, the most that the kernel can be built for (CONFIG_NR_CPUS).
const maxMask = 8192 / 8

// New makes the handler. charged says what of the memory is in use.
func New(arch abi.Arch, cpus uint32, memory uint64, charged func() (bytes uint64, processes int)) *Handler {
	h := &Handler{cpus: int(cpus), memory: memory, charged: charged}
	h.affinity, _ = abi.SyscallNumber(arch, "sched_getaffinity")
	h.sysinfo, _ = abi.SyscallNumber(arch, "sysinfo")
	return h
}

// Name is the concern.
func (h *Handler) Name() string { return "machine" }

// Syscalls lists the calls that tell of the machine.
func (h *Handler) Syscalls() []abi.Sysno { return []abi.Sysno{h.affinity, h.sysinfo} }

// Handle answers on behalf of the kernel.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	if c.Nr == h.sysinfo {
		return h.answerSysinfo(c)
	}
	return h.answerAffinity(c)
}

// answerAffinity follows sched_getaffinity(2): the size must hold the kernel's mask and be whole words, and what is
// returned is how many bytes were written.
func (h *Handler) answerAffinity(c *supervise.Call) supervise.Verdict {
	tid, size, addr := int(c.Arg32(0)), uint32(c.Args[1]), c.Args[2]
	if size%8 != 0 {
		return supervise.Errno(unix.EINVAL)
	}
	if tid == 0 {
		tid = c.TID
	}
	mask := h.mask[:min(size, maxMask)]
	n, err := kernel.Affinity(tid, mask)
	if err != nil {
		return supervise.FromError(err)
	}
	First(mask[:n], h.cpus)
	if err := c.Write(addr, mask[:n]); err != nil {
		return supervise.FromError(err)
	}
	return supervise.Return(int64(n))
}

// First leaves the first n set bits of a mask.
func First(mask []byte, n int) {
	for i := range mask {
		for bit := range 8 {
			if mask[i]>>bit&1 == 0 {
				continue
			}
			if n--; n < 0 {
				mask[i] &^= 1 << bit
			}
		}
	}
}

// answerSysinfo reports the limit as the machine's memory. Loads and the time since boot stay true.
func (h *Handler) answerSysinfo(c *supervise.Call) supervise.Verdict {
	var host unix.Sysinfo_t
	if err := unix.Sysinfo(&host); err != nil {
		return supervise.FromError(err)
	}
	used, processes := h.charged()
	total := min(h.memory, uint64(host.Totalram)*uint64(host.Unit))
	b := encode(&host, total, total-min(used, total), processes)
	if err := c.Write(c.Args[0], b); err != nil {
		return supervise.FromError(err)
	}
	return supervise.Return(0)
}

// encode lays struct sysinfo out as 64-bit architectures have it (linux/sysinfo.h). There is no swap, and nothing shared
// or buffered, in a machine of the sandbox's own.
func encode(host *unix.Sysinfo_t, total, free uint64, processes int) []byte {
	le := binary.NativeEndian
	b := make([]byte, 112)
	le.PutUint64(b[0:], uint64(host.Uptime))
	for i, load := range host.Loads {
		le.PutUint64(b[8+8*i:], load)
	}
	le.PutUint64(b[32:], total)
	le.PutUint64(b[40:], free)
	le.PutUint16(b[80:], uint16(min(max(processes, 1), math.MaxUint16)))
	le.PutUint32(b[104:], 1) // unit: a byte
	return b
}
