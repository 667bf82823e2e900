// Package dirs lists directories in the order of their entries' bytes (determinism.deterministic_dirs).
//
// It answers getdents64 and, where the architecture has it, getdents: "." and ".." first, as file systems commonly have
// them, then all other names as bytes. A directory is read as a whole when a listing starts, through a descriptor of the
// executor's own; the listing stays as it was read until it starts anew. (Who watches the directory with inotify sees that
// descriptor opened and closed.)
//
// Where a reader stands is kept where the kernel keeps it, in the offset of the caller's open file: a number that names
// the listing and the entry in it. So small buffers, rewinddir, telldir and seekdir, and descriptors that were duplicated
// or inherited work without any notion here of whose descriptor it is, and nothing needs to be told of a close.
//
// It makes runs repeatable and grants nothing: it lists what the caller has open for reading, and leaves to the kernel,
// in the kernel's order, whatever it cannot list: procfs, a directory of more than half a million entries ([maxEntries]) or one
// whose offset cannot be set, a reader that began outside of the sandbox, and a process that this thread may not look into.
//
// Read next: listing.go (records), reader.go (how a directory is read), cache.go (which listings are kept).
package dirs

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// maxAnswer bounds the bytes of one answer, whatever the caller has room for. Libraries ask for 32 KiB to 1 MiB.
const maxAnswer = 256 << 10

// maxTooLarge bounds the memory of directories that are left to the kernel.
const maxTooLarge = 64

// Handler answers the listing calls of one sandbox.
type Handler struct {
	calls    []abi.Sysno
	legacy   abi.Sysno // getdents
	canDefer func(*supervise.Call) bool
	cache    cache
	scratch  []byte // what the next directory is read into

	// tooLarge holds directories that were left to the kernel, whose offsets can look like ours: in the middle of one it is
	// not tried again.
	tooLarge map[directory]bool

	sorting   chan struct{}                  // holds one place
	closer    supervise.Closer               // Busy: who has that many closed forgoes sorted listings meanwhile
	duplicate func(tid, fd int) (int, error) // tests replace it
}

// New makes the handler. canDefer tells whether supervise.Defer would find room for a call.
func New(arch abi.Arch, canDefer func(*supervise.Call) bool) *Handler {
	h := &Handler{
		canDefer: canDefer, legacy: ^abi.Sysno(0), duplicate: kernel.DuplicateFD,
		tooLarge: map[directory]bool{}, sorting: make(chan struct{}, 1),
	}
	if nr, ok := abi.SyscallNumber(arch, "getdents64"); ok {
		h.calls = append(h.calls, nr)
	}
	if nr, ok := abi.SyscallNumber(arch, "getdents"); ok {
		h.calls = append(h.calls, nr)
		h.legacy = nr
	}
	return h
}

// Name is the concern.
func (h *Handler) Name() string { return "dirs" }

// Syscalls lists getdents64 and getdents.
func (h *Handler) Syscalls() []abi.Sysno { return h.calls }

// kernelsOrder leaves a call to the kernel, which also finds the right error for what is no readable directory. The
// caller's memory is never read, so nothing can be raced.
func kernelsOrder() supervise.Verdict { return supervise.Continue(supervise.DecidedOnRegisters) }

// Handle answers with the next entries.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict { return h.handle(c, nil) }

// handle answers a call; fresh is what was read for it meanwhile.
func (h *Handler) handle(c *supervise.Call, fresh *snapshot) supervise.Verdict {
	if h.closer.Busy() {
		return kernelsOrder()
	}
	fd, err := h.duplicate(c.TID, int(c.Arg32(0)))
	if err != nil {
		return kernelsOrder()
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		h.closer.Close(fd) // it may be a socket
		return kernelsOrder()
	}
	defer unix.Close(fd)
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&(unix.O_PATH|unix.O_ACCMODE) != unix.O_RDONLY {
		return kernelsOrder()
	}
	at, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	if err != nil {
		return kernelsOrder()
	}
	pos := position(at)
	if !pos.start() && !pos.ours() {
		return kernelsOrder()
	}
	dir := directory{uint64(st.Dev), st.Ino}
	s := h.cache.find(dir, pos)
	switch {
	case s != nil && st.Nlink == 0 && removed(fd):
		return supervise.Errno(unix.ENOENT)
	case s == nil && fresh != nil && fresh.dir == dir:
		s = h.cache.add(fresh)
	case s == nil:
		var later *supervise.Verdict
		if s, later = h.read(c, fd, pos, dir); later != nil {
			return *later
		}
	}
	return h.answer(c, fd, pos, s)
}

// read lists a directory, or says what else becomes of the call: a large one is read on outside of the loop, so that no
// other process waits for it.
func (h *Handler) read(c *supervise.Call, fd int, pos position, dir directory) (*snapshot, *supervise.Verdict) {
	verdict := func(v supervise.Verdict) (*snapshot, *supervise.Verdict) { return nil, &v }
	if onProc(fd) || !pos.start() && h.tooLarge[dir] {
		return verdict(kernelsOrder())
	}
	r, err := open(fd, pos, h.scratch)
	if err != nil {
		return verdict(kernelsOrder())
	}
	done, err := r.read(inlineBytes)
	if err == nil && !done && h.canDefer(c) {
		h.scratch = nil
		return verdict(supervise.Defer(func(ctx context.Context) supervise.Verdict { return h.readOn(ctx, r, dir) }))
	}
	defer r.close()
	if err == nil && !done {
		err = r.rest()
	}
	if err != nil {
		return verdict(h.failure(dir, err))
	}
	delete(h.tooLarge, dir)
	if h.scratch = r.raw; cap(r.raw) > inlineBytes {
		h.scratch = nil
	}
	return h.cache.add(newSnapshot(dir, r.raw)), nil
}

// onProc reports whether a directory is on procfs, or may be. What it shows there depends on who reads it (the supervisor
// may look at its own memory map, the command may not), and the kernel's order is no accident: numbers ascend.
func onProc(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) != nil || fs.Type == unix.PROC_SUPER_MAGIC
}

// readOn is read for the rest of a large directory. It runs on another thread, and touches nothing of the handler's
// before it is back on the loop's.
func (h *Handler) readOn(ctx context.Context, r *reader, dir directory) supervise.Verdict {
	defer r.close() // before the call is back
	// One at a time: a huge directory takes much memory, and the command could list many at once.
	select {
	case h.sorting <- struct{}{}:
		defer func() { <-h.sorting }()
	case <-ctx.Done():
		return supervise.Errno(unix.EIO)
	}
	if err := r.rest(); err != nil {
		return supervise.Resume(func(*supervise.Call) supervise.Verdict { return h.failure(dir, err) })
	}
	fresh := newSnapshot(dir, r.raw)
	return supervise.Resume(func(c *supervise.Call) supervise.Verdict {
		delete(h.tooLarge, dir)
		return h.handle(c, fresh)
	})
}

// failure is what the kernel would say; a directory that is too large for us is not too large for the kernel.
func (h *Handler) failure(dir directory, err error) supervise.Verdict {
	if !errors.Is(err, errTooLarge) {
		return supervise.FromError(err)
	}
	if len(h.tooLarge) >= maxTooLarge {
		clear(h.tooLarge)
	}
	h.tooLarge[dir] = true
	return kernelsOrder()
}

// answer writes the entries of s from pos on that there is room for, and moves the caller's offset behind them. The offset
// is set first: if that cannot be done, the kernel can still carry out the call.
func (h *Handler) answer(c *supervise.Call, fd int, pos position, s *snapshot) supervise.Verdict {
	first := pos.index()
	if first >= s.entries() {
		return supervise.Return(0)
	}
	n := s.fitting(first, min(int(c.Arg32(2)), maxAnswer))
	if n == 0 {
		return supervise.Errno(unix.EINVAL)
	}
	for ; n > 0; n /= 2 { // what cannot be written whole may be writable in part
		if _, err := unix.Seek(fd, int64(s.position(first+n)), unix.SEEK_SET); err != nil {
			return kernelsOrder()
		}
		records := s.records(first, n)
		if c.Nr == h.legacy {
			records = legacyRecords(records)
		}
		err := c.Write(c.Args[1], records)
		if err == nil {
			return supervise.Return(int64(len(records)))
		}
		if !errors.Is(err, unix.EFAULT) || n == 1 {
			_, _ = unix.Seek(fd, int64(pos), unix.SEEK_SET)
			return supervise.FromError(err)
		}
	}
	return supervise.Errno(unix.EFAULT)
}

// removed asks the kernel whether a directory is gone; a buffer with no room moves nothing.
func removed(fd int) bool {
	_, err := kernel.ReadDirectory(fd, make([]byte, 1))
	return errors.Is(err, unix.ENOENT)
}
