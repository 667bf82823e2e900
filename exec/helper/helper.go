// Package helper starts the helper program, sandlock-proxy: what parses the network's bytes is not the supervisor.
//
// In: where the program is, one of its jobs, descriptors. Out: a process that ends with the thread that started it. The
// package knows nothing of what the jobs do. It never starts a file that somebody else could have written.
//
// Read next: lookup.go (a job that runs to its end), cmd/sandlock-proxy (the program).
package helper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Name is the program's file name.
const Name = "sandlock-proxy"

// Program is the helper's file, held by its descriptor.
type Program struct {
	Path string // as the kernel tells it
	fd   int
}

// Find opens the program at path, or where that is empty beside this process's own program. It must be a regular file of
// root's or of this user's that nobody else may write.
func Find(path string) (*Program, error) {
	if path == "" {
		self, err := os.Readlink("/proc/self/exe")
		if err != nil {
			return nil, fmt.Errorf("where is %s: %w", Name, err)
		}
		path = filepath.Join(filepath.Dir(self), Name)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("the helper program %s does not exist: it belongs beside the executor", path)
	}
	if err != nil {
		return nil, fmt.Errorf("the helper program %s: %w", path, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		err = trusted(&st, uint32(os.Geteuid()))
	}
	if err == nil {
		path, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("the helper program %s: %w", path, err)
	}
	return &Program{Path: path, fd: fd}, nil
}

// trusted refuses what another user may have written.
func trusted(st *unix.Stat_t, uid uint32) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("is not a regular file")
	case st.Uid != 0 && st.Uid != uid:
		return fmt.Errorf("belongs to user %d, neither root nor the one who runs it", st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("may be written by others (mode %#o): chmod go-w", st.Mode&0o7777)
	}
	return nil
}

// Close releases the program; processes go on.
func (p *Program) Close() { _ = unix.Close(p.fd) }

// Process is a running helper.
type Process struct {
	PID   int
	PIDFD int
}

// Start starts a job with descriptors that become 0, 1, 2 and so on. The environment is empty. The process has a session of
// its own, so that no terminal signals it, and is killed when the calling thread ends, to which the goroutine must be
// locked.
func (p *Program) Start(job string, files ...int) (*Process, error) {
	list := make([]uintptr, len(files))
	for i, fd := range files {
		list[i] = uintptr(fd)
	}
	pidfd := -1
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(p.fd), []string{Name, job}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: list,
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, PidFD: &pidfd},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Path, err)
	}
	h := &Process{PID: pid, PIDFD: pidfd}
	if pidfd < 0 {
		h.End()
		return nil, fmt.Errorf("start %s: the kernel gives no pidfd", p.Path)
	}
	return h, nil
}

// Wait waits for the end, but no longer than a time, and reaps. ok is false where the time was over first.
func (h *Process) Wait(limit time.Duration) (status syscall.WaitStatus, ok bool) {
	set := []unix.PollFd{{Fd: int32(h.PIDFD), Events: unix.POLLIN}}
	for end := time.Now().Add(limit); ; {
		left := time.Until(end)
		n, err := unix.Poll(set, int(max(left, 0)/time.Millisecond))
		if n > 0 {
			return h.reap(), true
		}
		if err == nil || left <= 0 {
			return 0, false
		}
	}
}

// End kills and reaps the process.
func (h *Process) End() {
	_ = unix.Kill(h.PID, unix.SIGKILL) // not reaped, so the number is still its own
	h.reap()
}

func (h *Process) reap() (status syscall.WaitStatus) {
	for {
		if _, err := syscall.Wait4(h.PID, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if h.PIDFD >= 0 {
		_ = unix.Close(h.PIDFD)
		h.PIDFD = -1
	}
	return status
}
