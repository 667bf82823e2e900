package kernel

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// AtCWD is AT_FDCWD as it stands in a 32-bit argument.
const AtCWD = unix.AT_FDCWD

// Pin holds a file by an O_PATH descriptor: whatever happens to names after that, it stays the same file.
type Pin struct {
	FD   int
	Path string // the file's path as the kernel tells it; "" for a file without one (a pipe, a memfd, a socket)
}

// Close releases the pin.
func (p Pin) Close() { _ = unix.Close(p.FD) }

// SelfPath names the pinned file through this process's own descriptor table, for calls that take no descriptor.
func (p Pin) SelfPath() string { return "/proc/self/fd/" + strconv.Itoa(p.FD) }

// PinDescriptor pins the file behind a descriptor of the thread tid.
func (r Root) PinDescriptor(tid int, fd int32) (Pin, error) {
	if fd < 0 {
		return Pin{}, unix.EBADF
	}
	got, err := unix.Open(procPath(tid, "fd/"+strconv.Itoa(int(fd))), unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return Pin{}, unix.EBADF
	}
	if err != nil {
		return Pin{}, err
	}
	return r.pinOf(tid, got)
}

// PinPath pins the file that path names for the thread tid, relative to its directory descriptor dirfd (or AtCWD).
// With follow unset a final symbolic link is pinned itself.
//
// The walk happens in this process, so links that mean the caller ("/proc/self", "/dev/fd") would mean the executor:
// magic links are refused by the kernel (ELOOP), and what lies on procfs is refused here. The one form that programs
// really use, a descriptor's own link, is taken for what it means.
func (r Root) PinPath(tid int, dirfd int32, path string, follow bool) (Pin, error) {
	if fd, ok := ownDescriptor(path); ok && follow {
		return r.PinDescriptor(tid, fd)
	}
	fd, err := r.walk(Base{TID: tid, DirFD: dirfd}, path, follow, 0)
	if err != nil {
		return Pin{}, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type == unix.PROC_SUPER_MAGIC {
		_ = unix.Close(fd)
		return Pin{}, unix.EPERM
	}
	return r.newPin(fd)
}

// deleted is what the kernel appends to the last path of a file whose name is gone.
const deleted = " (deleted)"

// newPin makes a pin of a descriptor that the caller's path has led to. It owns the descriptor.
func (r Root) newPin(fd int) (Pin, error) {
	p := Pin{FD: fd}
	path, err := r.Where(fd)
	if err != nil {
		p.Close()
		return Pin{}, unix.EPERM
	}
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/memfd:") {
		// A file whose name is gone keeps its last one: its directory still says where it belongs.
		p.Path = strings.TrimSuffix(path, deleted)
	}
	return p, nil
}

// pinOf makes a pin of what a process has open, executes or stands in, which beneath another root may be elsewhere.
func (r Root) pinOf(tid, fd int) (Pin, error) {
	p, err := r.newPin(fd)
	if err != nil || r.Own() || p.Path == "" {
		return p, err
	}
	if err := r.view.mounted(tid, fd); err != nil {
		p.Close()
		return Pin{}, err
	}
	return p, nil
}

// ownDescriptor recognises /proc/self/fd/N and its other names.
func ownDescriptor(path string) (int32, bool) {
	for _, prefix := range []string{"/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"} {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			n, err := strconv.ParseInt(rest, 10, 32)
			return int32(n), err == nil && n >= 0
		}
	}
	switch path {
	case "/dev/stdin":
		return 0, true
	case "/dev/stdout":
		return 1, true
	case "/dev/stderr":
		return 2, true
	}
	return 0, false
}
