package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What a supervisor must know of a caller to carry out a call in its place.

// FileID names a file of this machine for as long as it exists.
type FileID struct{ Dev, Ino uint64 }

// ID returns the identity and type of the pinned file.
func (p Pin) ID() (id FileID, mode uint32, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(p.FD, &st); err != nil {
		return FileID{}, 0, err
	}
	return FileID{uint64(st.Dev), st.Ino}, st.Mode, nil
}

// Umask returns the file mode creation mask of a thread.
func Umask(tid int) (uint32, error) {
	b, err := os.ReadFile(procPath(tid, "status"))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("Umask:")); ok {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 8, 32)
			return uint32(n), err
		}
	}
	return 0, errors.New("status has no Umask line")
}

// ClearUmask has this process create files with exactly the modes that it asks for; after [UnshareFS] the calling thread
// only.
func ClearUmask() { unix.Umask(0) }

// UnshareFS gives the calling thread a umask and a working directory of its own (unshare(2), CLONE_FS). The goroutine must
// be locked to the thread and never give it back.
func UnshareFS() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare umask and working directory: %w", err)
	}
	return nil
}

// PinProgram pins the program that a process runs.
func (r Root) PinProgram(pid int) (Pin, error) {
	fd, err := unix.Open(procPath(pid, "exe"), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return Pin{}, err
	}
	return r.pinOf(pid, fd)
}

// maxArguments is the most that the kernel takes for arguments and environment: 3/4 of _STK_LIM (fs/exec.c).
const maxArguments = 6 << 20

// Arguments returns the arguments that a process was started with. They are as the kernel has copied them only while
// the process has not run since.
func Arguments(pid int) ([]string, error) {
	f, err := os.Open(procPath(pid, "cmdline"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxArguments+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxArguments {
		return nil, fmt.Errorf("arguments of more than %d bytes", maxArguments)
	}
	if len(b) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// SharesTerminal reports whether a process has the same controlling terminal as this one, which is what /dev/tty means.
func SharesTerminal(pid int) bool {
	own, err := terminal(os.Getpid())
	theirs, err2 := terminal(pid)
	return err == nil && err2 == nil && own == theirs
}

// terminal is the field tty_nr of /proc/<pid>/stat.
func terminal(pid int) (string, error) {
	b, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return "", err
	}
	_, rest, ok := cutLast(b, []byte(") "))
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 5 {
		return "", errors.New("malformed stat line")
	}
	return string(fields[4]), nil
}

// Base is where a caller's relative paths begin.
type Base struct {
	TID   int
	DirFD int32 // the caller's descriptor, or AtCWD
	Own   *Pin  // when set: a directory of this process instead
}

// Resolve pins the file that a path names for a caller, as the kernel would for its open. flags are those of openat2 for
// the resolution alone: RESOLVE_… constants. Unlike [PinPath] it also reaches procfs, with the executor's own files left
// out: "/proc/self" means the caller, and links of descriptors, directories and the program mean the caller's.
func (r Root) Resolve(at Base, path string, follow bool, flags uint64) (Pin, error) {
	if path == "" {
		return Pin{}, unix.ENOENT
	}
	if flags == 0 {
		if fd, ok := ownDescriptor(path); ok && follow {
			return r.PinDescriptor(at.TID, fd)
		}
		base, rest, err := r.callersOwn(at.TID, path)
		if err != nil {
			return Pin{}, err
		}
		if base != nil {
			defer base.Close()
			at, path = Base{TID: at.TID, Own: base}, rest
			if rest == "" {
				path = "."
				if !base.isDir() {
					return base.dup()
				}
			}
		} else if rest != "" {
			path = rest
		}
	}
	fd, err := r.walk(at, path, follow, flags)
	if err != nil {
		return Pin{}, err
	}
	p, err := r.newPin(fd)
	if err != nil {
		return Pin{}, err
	}
	if err := r.notOurs(at.TID, p); err != nil {
		p.Close()
		return Pin{}, err
	}
	return p, nil
}

// ResolveParent pins the directory that the last element of a path is in, and returns that element. slash tells that the
// path ended in a slash, and so must name a directory.
func (r Root) ResolveParent(at Base, path string) (dir Pin, name string, slash bool, err error) {
	if path == "" {
		return Pin{}, "", false, unix.ENOENT
	}
	trimmed := strings.TrimRight(path, "/")
	slash = trimmed != path
	i := strings.LastIndexByte(trimmed, '/')
	parent := trimmed[:i+1]
	name = trimmed[i+1:]
	switch {
	case name == "": // the root
		parent, name = "/", "."
	case parent == "":
		parent = "."
	}
	if len(name) > unix.NAME_MAX {
		return Pin{}, "", false, unix.ENAMETOOLONG
	}
	dir, err = r.Resolve(at, parent, true, 0)
	if err == nil && !dir.isDir() {
		dir.Close()
		err = unix.ENOTDIR
	}
	return dir, name, slash, err
}

// open returns a descriptor for the start of a path, -1 where it needs none.
func (b Base) open(path string, flags uint64) (int, error) {
	if strings.HasPrefix(path, "/") && flags&unix.RESOLVE_IN_ROOT == 0 {
		return -1, nil
	}
	return b.begin()
}

// begin opens the directory that a relative path begins at.
func (b Base) begin() (int, error) {
	if b.Own != nil {
		return unix.FcntlInt(uintptr(b.Own.FD), unix.F_DUPFD_CLOEXEC, 0)
	}
	link := "cwd"
	if b.DirFD != AtCWD {
		if b.DirFD < 0 {
			return -1, unix.EBADF
		}
		link = "fd/" + strconv.Itoa(int(b.DirFD))
	}
	dir, err := unix.Open(procPath(b.TID, link), unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		err = unix.EBADF
	}
	return dir, err
}

// callersOwn takes paths that mean the caller itself. It returns a pinned beginning and the rest of the path, or, without
// a beginning, a path that means the same to this process; both empty where the path is an ordinary one.
func (r Root) callersOwn(tid int, path string) (base *Pin, rest string, err error) {
	var thread bool
	switch {
	case path == "/proc/self" || strings.HasPrefix(path, "/proc/self/"):
		rest = strings.TrimPrefix(path, "/proc/self")
	case path == "/proc/thread-self" || strings.HasPrefix(path, "/proc/thread-self/"):
		rest, thread = strings.TrimPrefix(path, "/proc/thread-self"), true
	case strings.HasPrefix(path, "/dev/fd/"):
		rest = strings.TrimPrefix(path, "/dev")
	default:
		return nil, "", nil
	}
	first, after, _ := strings.Cut(strings.TrimLeft(rest, "/"), "/")
	link := ""
	switch first {
	case "cwd", "root", "exe":
		link = first
	case "fd":
		number, more, deeper := strings.Cut(after, "/")
		if n, err := strconv.ParseUint(number, 10, 31); err == nil && deeper {
			link, after = "fd/"+strconv.FormatUint(n, 10), more
		}
	}
	if link != "" {
		fd, err := unix.Open(procPath(tid, link), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, "", err
		}
		p, err := r.pinOf(tid, fd)
		if err != nil {
			return nil, "", err
		}
		return &p, strings.TrimLeft(after, "/"), nil
	}
	if !r.Own() {
		own, err := r.view.self(tid, thread)
		return nil, "/proc/" + own + rest, err
	}
	pid, err := ThreadGroup(tid)
	if err != nil {
		return nil, "", unix.ESRCH
	}
	own := "/proc/" + strconv.Itoa(pid)
	if thread {
		own += "/task/" + strconv.Itoa(tid)
	}
	return nil, own + rest, nil
}

// notOurs refuses files of procfs that belong to this process: the kernel would show them to it, not to the caller. Beneath
// another root it refuses more, see spares.
func (r Root) notOurs(tid int, p Pin) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(p.FD, &fs); err != nil {
		return unix.EACCES
	}
	if fs.Type != unix.PROC_SUPER_MAGIC {
		return nil
	}
	rest, ok := strings.CutPrefix(p.Path, "/proc/")
	if !ok {
		if p.Path == "/proc" {
			return nil
		}
		return unix.EACCES
	}
	if !r.Own() {
		return r.view.spares(tid, rest)
	}
	first, _, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(first)
	if err != nil {
		return nil // about the system, not about a process
	}
	if pid, err := ThreadGroup(n); err != nil || pid == os.Getpid() {
		return unix.EACCES
	}
	return nil
}

func (p Pin) isDir() bool {
	_, mode, err := p.ID()
	return err == nil && mode&unix.S_IFMT == unix.S_IFDIR
}

func (p Pin) dup() (Pin, error) {
	fd, err := unix.FcntlInt(uintptr(p.FD), unix.F_DUPFD_CLOEXEC, 0)
	return Pin{FD: fd, Path: p.Path}, err
}
