package memory

import (
	"errors"
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
	open []int // read-only descriptions of the executor's own
	used uint64
}

// createMemfd makes the file. The description that the program gets carries a shared lock (flock), which lasts as long as
// anything refers to it; so the executor learns when it is gone.
func (h *Handler) createMemfd(c *supervise.Call) supervise.Verdict {
	files := &h.ledger.memfds
	if len(files.open) >= maxMemfds {
		files.sweep()
	}
	if len(files.open) >= maxMemfds {
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
	// Sealing is always possible, so that a file can be emptied for good when it seems to be gone.
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_CLOEXEC|sealing(flags))
	if err != nil {
		return supervise.FromError(err)
	}
	own, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		if err = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); err != nil {
			_ = unix.Close(own)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return supervise.Errno(unix.EMFILE)
	}
	files.open = append(files.open, own)
	var install uint32
	if flags&unix.MFD_CLOEXEC != 0 {
		install = unix.O_CLOEXEC
	}
	return supervise.AddFD(fd, install)
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
	m.used = 0
	for _, fd := range m.open {
		if release(fd) {
			_ = unix.Close(fd)
			continue
		}
		kept = append(kept, fd)
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Blocks > 0 {
			m.used = plus(m.used, uint64(st.Blocks)*512)
		}
	}
	m.open = kept
}

// release reports whether the executor can let go of a file. The lock is gone with the last reference to the program's
// description, and the lease is to be had when the file was not opened a second time by way of /proc. A program could
// unlock its description itself to make a file look gone; therefore it is emptied and sealed at no size first. One that
// cannot be is kept.
func release(fd int) bool {
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	defer func() { _ = unix.Flock(fd, unix.LOCK_UN) }()
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	if err != nil {
		return false
	}
	writable, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(writable)
	if unix.Ftruncate(writable, 0) != nil {
		return false
	}
	_, err = unix.FcntlInt(uintptr(writable), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
	return err == nil
}
