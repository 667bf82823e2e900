// Package machine tells programs of a smaller machine than there is, for limits.memory and limits.num_cpus, so that they
// make as many threads and as large heaps as the limits have room for.
//
// In: sched_getaffinity and sysinfo, and where the policy asks for it opens of the files that tell the same: /proc/meminfo, cpuinfo
// and stat, and online, possible and present in /sys/devices/system/cpu. Out: the kernel's own answer, reduced; for a file a
// snapshot in memory, which stays as it was when it was opened. Under which path a file is opened does not matter.
//
// It is no security boundary, and decides nothing about access: other places tell the truth, and opens that it does not answer are
// the kernel's. It bounds every size that the caller chooses.
//
// Read next: open.go (which opens), files.go (what is in the files).
package machine

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Config is what the handler is to know.
type Config struct {
	CPUs    int                                  // 0: as many as there are
	Memory  uint64                               // bytes; 0: as much as there is
	Charged func() (bytes uint64, processes int) // what of the memory is in use
	Files   bool                                 // opens of files that tell of the machine are answered
	Grants  func(path string, want uint64) bool  // does the policy grant all rights in want
	Journal supervise.Journal
	Root    kernel.Root // of the command's paths and numbers of threads
}

// Handler answers for the machine.
type Handler struct {
	config            Config
	affinity, sysinfo abi.Sysno
	opens             map[abi.Sysno]opens.Spec // none where files are left alone
	files             []hostFile
	opened            opens.Files
	mask              [maxMask]byte
}

// maxMask is the mask of 8192 CPUs, the most that the kernel can be built for (CONFIG_NR_CPUS).
const maxMask = 8192 / 8

// New makes the handler.
func New(arch abi.Arch, c Config) *Handler {
	h := &Handler{config: c}
	h.affinity, _ = abi.SyscallNumber(arch, "sched_getaffinity")
	h.sysinfo, _ = abi.SyscallNumber(arch, "sysinfo")
	if !c.Files {
		return h
	}
	h.opens = opens.Readers(arch)
	h.opened = opens.Files{Name: "machine", Root: c.Root, Maybe: h.maybe, For: h.substitute, Grants: c.Grants, Journal: c.Journal}
	if c.Memory > 0 {
		h.files = identify(c.Root, memoryFiles())
	}
	if c.CPUs > 0 {
		h.files = append(h.files, identify(c.Root, cpuFiles())...)
	}
	return h
}

// Name is the concern.
func (h *Handler) Name() string { return "machine" }

// Syscalls lists the calls that tell of what is limited.
func (h *Handler) Syscalls() []abi.Sysno {
	calls := slices.Collect(maps.Keys(h.opens))
	if h.config.CPUs > 0 {
		calls = append(calls, h.affinity)
	}
	if h.config.Memory > 0 {
		calls = append(calls, h.sysinfo)
	}
	return calls
}

// Handle answers on behalf of the kernel.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	switch c.Nr {
	case h.sysinfo:
		return h.answerSysinfo(c)
	case h.affinity:
		return h.answerAffinity(c)
	}
	return h.opened.Open(c, h.opens[c.Nr])
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
	} else if host, err := h.config.Root.HostPID(c.TID, tid); err == nil {
		tid = host
	} else {
		return supervise.FromError(err)
	}
	mask, err := h.affinityOf(tid, min(int(size), maxMask))
	if err != nil {
		return supervise.FromError(err)
	}
	if err := c.Write(addr, mask); err != nil {
		return supervise.FromError(err)
	}
	return supervise.Return(int64(len(mask)))
}

// affinityOf returns the CPUs that a thread is told it may run on, in a mask of at most size bytes.
func (h *Handler) affinityOf(tid, size int) ([]byte, error) {
	n, err := kernel.Affinity(tid, h.mask[:size])
	if err != nil {
		return nil, err
	}
	First(h.mask[:n], h.config.CPUs)
	return h.mask[:n], nil
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
	used, processes := h.config.Charged()
	total := min(h.config.Memory, uint64(host.Totalram)*uint64(host.Unit))
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
