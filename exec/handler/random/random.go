// Package random makes everything random that the kernel gives a sandbox come from determinism.random_seed.
//
// It answers getrandom, and opens of the random devices and of the files in /proc/sys/kernel/random that give random
// names, under whatever path; package image has it fill AT_RANDOM. All other opens are the kernel's to decide.
//
// Each program run has a stream of its own, keyed by the seed, its command line, and how many runs of the same command
// line there were before; each open of a device branches off another. So the programs of a pipeline, which run in no
// certain order, still get the same bytes each time. What has no fixed order remains without one: threads of a program
// that ask at the same time, and runs of one command line that start at the same time.
//
// It decides nothing about policy: the file grants say whether a device may be opened, and where they do not the kernel
// is left to refuse. It hands out numbers that everybody can compute who knows the seed; it must never be mistaken for a
// source of secrets.
//
// Read next: stream.go (where bytes come from), open.go (devices), source.go (endless files).
package random

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Config is what the handler is to know.
type Config struct {
	Seed   uint64
	Root   kernel.Root                               // of the command's paths
	Grants func(path string, want uint64) bool       // does the policy grant all rights in want
	Of     func(tid int) (*supervise.Process, error) // the process that a thread belongs to
	Args   func(pid int) []byte                      // the arguments that a process was started with
	Rule   supervise.Event                           // Rule and Origin of the field, for the journal
}

// Handler is the randomness of one sandbox.
type Handler struct {
	config    Config
	journal   supervise.Journal
	getrandom abi.Sysno
	opens     map[abi.Sysno]opens.Spec
	streams   *streams
	files     files
	buffer    []byte // of getrandom
}

// New makes the handler.
func New(arch abi.Arch, c Config, j supervise.Journal) *Handler {
	h := &Handler{config: c, journal: j, opens: opens.Readers(arch), streams: newStreams(c.Seed)}
	h.getrandom, _ = abi.SyscallNumber(arch, "getrandom")
	h.files = newFiles(c.Root)
	return h
}

// Name is the concern.
func (h *Handler) Name() string { return "random" }

// Syscalls lists getrandom and the open family.
func (h *Handler) Syscalls() []abi.Sysno {
	return slices.AppendSeq([]abi.Sysno{h.getrandom}, maps.Keys(h.opens))
}

// Forget drops the stream of a process that has ended.
func (h *Handler) Forget(p *supervise.Process) { h.streams.forget(p) }

// Image starts the stream of the caller's new program image, and returns its AT_RANDOM.
func (h *Handler) Image(c *supervise.Call) ([16]byte, error) {
	p, err := h.config.Of(c.TID)
	if err != nil {
		return [16]byte{}, err
	}
	return h.streams.start(p, h.config.Args(p.PID)).image(), nil
}

// Handle answers a call.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	if spec, ok := h.opens[c.Nr]; ok {
		return h.open(c, spec)
	}
	return h.fill(c)
}

const (
	knownFlags = unix.GRND_NONBLOCK | unix.GRND_RANDOM | unix.GRND_INSECURE
	// maxFill bounds the work of one call. The kernel promises no more than 256 bytes at once (getrandom(2)); callers
	// ask again for the rest.
	maxFill = 64 << 10
)

// fill is getrandom(buf, len, flags).
func (h *Handler) fill(c *supervise.Call) supervise.Verdict {
	flags := uint32(c.Arg32(2))
	if flags&^knownFlags != 0 || flags&(unix.GRND_RANDOM|unix.GRND_INSECURE) == unix.GRND_RANDOM|unix.GRND_INSECURE {
		return supervise.Errno(unix.EINVAL)
	}
	n := int(min(c.Args[1], maxFill))
	if n == 0 {
		return supervise.Return(0)
	}
	s, err := h.stream(c)
	if err != nil {
		return h.fail(c, "getrandom", err)
	}
	if h.buffer == nil {
		h.buffer = make([]byte, maxFill)
	}
	b := h.buffer[:n]
	s.read(b)
	if err := c.Write(c.Args[0], b); err != nil {
		return supervise.FromError(err)
	}
	return supervise.Return(int64(n))
}

// stream returns the stream of the caller's program run. A process that was forked, and runs what its parent runs, is a
// further run of the same command line.
func (h *Handler) stream(c *supervise.Call) (*stream, error) {
	p, err := h.config.Of(c.TID)
	if err != nil {
		return nil, err
	}
	if s := h.streams.of(p); s != nil {
		return s, nil
	}
	return h.streams.start(p, h.config.Args(p.PID)), nil
}

// fail refuses what cannot be answered from the seed.
func (h *Handler) fail(c *supervise.Call, call string, err error) supervise.Verdict {
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	e := h.config.Rule
	e.Kind, e.PID, e.Syscall, e.Verdict = "error", c.TID, call, "EACCES"
	e.Reason = "no seeded answer: " + err.Error()
	h.journal.Record(e)
	return supervise.Errno(unix.EACCES)
}
