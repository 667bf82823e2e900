package memory

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
)

// maxMemfds bounds the memfds of a sandbox: each takes a descriptor of the executor.
const maxMemfds = 512

// memfds are the files in memory that the sandbox has made. They are written without a call that could be asked about, and
// can be hidden: mapped and closed, or sent into a socket that nobody reads. So each is made on behalf of the program,
// and the executor keeps a descriptor of it, which tells how large it really is.
type memfds struct {
	open    []memfd
	inotify int             // 0: not needed yet
	ghosts  map[int32]ghost // files that are watched, by watch
}

// memfd is a file, which is charged to who made it.
type memfd struct {
	fd     int // a read-only description of the executor's own
	limits []charge
}

// ghost is a file of a fixed size that the executor has no descriptor of.
type ghost struct {
	bytes  uint64
	limits []charge
}

// createMemfd makes the file. The description that the program gets carries a shared lock (flock), which lasts as long as
// anything refers to it; so the executor learns when it is gone.
func (h *Handler) createMemfd(c *supervise.Call, a *account) supervise.Verdict {
	files := &h.ledger.memfds
	if files.number() >= maxMemfds {
		h.ledger.sweepMemfds()
	}
	if files.number() >= maxMemfds {
		e := h.Rule
		e.Kind, e.PID, e.Syscall, e.Verdict = "limit", c.TID, "memfd_create", "EMFILE"
		e.Reason = "the sandbox has " + strconv.Itoa(maxMemfds) + " files in memory, the most under limits.memory"
		h.Journal.Record(e)
		return supervise.Errno(unix.EMFILE)
	}
	name, err := c.Path(0)
	const longest = 249 // MFD_NAME_MAX_LEN
	if errors.Is(err, unix.ENAMETOOLONG) || err == nil && len(name) > longest {
		return supervise.Errno(unix.EINVAL)
	}
	if err != nil {
		return supervise.FromError(err)
	}
	flags := int(uint32(c.Args[1]))
	fd, err := files.create(name, flags, a.limits)
	if err != nil {
		return supervise.FromError(err)
	}
	var install uint32
	if flags&unix.MFD_CLOEXEC != 0 {
		install = unix.O_CLOEXEC
	}
	return supervise.AddFD(fd, install)
}

// create makes a file and returns the description that is the program's.
func (m *memfds) create(name string, flags int, limits []charge) (int, error) {
	// Sealing is always possible, so that a file can be emptied for good when it seems to be gone.
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_CLOEXEC|sealing(flags))
	if err != nil {
		return -1, err
	}
	own, err := unix.Open(ownPath(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	m.open = append(m.open, memfd{own, slices.Clone(limits)})
	if err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); err != nil {
		_ = unix.Close(fd) // the next sweep finds it gone
		return -1, err
	}
	return fd, nil
}

func sealing(flags int) int {
	const noExecSeal = 8 // MFD_NOEXEC_SEAL implies it
	if flags&noExecSeal != 0 {
		return 0
	}
	return unix.MFD_ALLOW_SEALING
}

// sweep measures the files and lets go of those that nobody else has.
func (m *memfds) sweep() {
	kept := m.open[:0]
	for _, f := range m.open {
		var st unix.Stat_t
		err := unix.Fstat(f.fd, &st)
		switch seemsGone(f.fd) {
		case gone:
			_ = unix.Close(f.fd)
			continue
		case fixed:
			if err == nil && m.watch(f, pages(uint64(st.Size))) {
				continue
			}
		}
		kept = append(kept, f)
		if err == nil && st.Blocks > 0 {
			count(f.limits, uint64(st.Blocks)*512)
		}
	}
	m.open = kept
	m.bury()
	for _, g := range m.ghosts {
		count(g.limits, g.bytes)
	}
}

func count(limits []charge, bytes uint64) {
	for _, c := range limits {
		c.memfds = plus(c.memfds, bytes)
	}
}

// sweepMemfds is sweep for every limit.
func (l *ledger) sweepMemfds() {
	for _, limit := range l.limits {
		limit.memfds = 0
	}
	l.memfds.sweep()
}

// state is what the executor may think of a file.
type state uint8

const (
	inUse state = iota
	gone        // nobody has it or, if somebody does, it is empty for ever
	fixed       // nobody seems to have it, and its size cannot change
)

// seemsGone judges a file. The lock is gone with the last reference to the program's description, and the lease is to be
// had when the file was not opened a second time by way of /proc. A program could unlock its description itself to make
// a file look gone; therefore the file is first kept from growing and then emptied, for good. (The other way round the
// program could write in between.) One that the program has sealed against that keeps its size.
func seemsGone(fd int) state {
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return inUse
	}
	defer func() { _ = unix.Flock(fd, unix.LOCK_UN) }()
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return inUse
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		return inUse
	}
	writable, err := unix.Open(ownPath(fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return inUse
	}
	defer unix.Close(writable)
	seals, err := unix.FcntlInt(uintptr(writable), unix.F_GET_SEALS, 0)
	if err == nil && seals&unix.F_SEAL_GROW == 0 {
		_, err = unix.FcntlInt(uintptr(writable), unix.F_ADD_SEALS, unix.F_SEAL_GROW)
	}
	switch {
	case err != nil:
		return inUse
	case unix.Ftruncate(writable, 0) == nil:
		return gone
	case seals&unix.F_SEAL_SHRINK != 0:
		return fixed
	}
	return inUse
}

// watch lets go of a file of a fixed size, which counts until the kernel reports that it is no more.
func (m *memfds) watch(f memfd, size uint64) bool {
	if m.inotify == 0 {
		i, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return false
		}
		m.inotify, m.ghosts = i, map[int32]ghost{}
	}
	wd, err := unix.InotifyAddWatch(m.inotify, ownPath(f.fd), unix.IN_DELETE_SELF)
	if err != nil {
		return false
	}
	m.ghosts[int32(wd)] = ghost{size, f.limits}
	_ = unix.Close(f.fd) // if that was the last reference, the report is there now
	return true
}

// bury forgets the watched files that are no more.
func (m *memfds) bury() {
	const header = 16 // struct inotify_event; files that are watched themselves have no name behind it
	var events [64 * header]byte
	for len(m.ghosts) > 0 {
		n, err := unix.Read(m.inotify, events[:])
		if err != nil || n < header {
			return
		}
		for b := events[:n]; len(b) >= header; b = b[header:] {
			delete(m.ghosts, int32(binary.NativeEndian.Uint32(b)))
		}
	}
}

func (m *memfds) number() int { return len(m.open) + len(m.ghosts) }

func ownPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
