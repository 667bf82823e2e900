package kernel

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// view is what has been found out about a root that is not this process's own. It does not change while the sandbox runs,
// but for what the host mounts meanwhile.
type view struct {
	root int
	path string // of the root as this process reads it: "" where it is that of a mount namespace

	mu     sync.Mutex
	mounts map[uint64]bool // see mounted
	level  int             // see procfs; negative until it is known
	init   int             // the PID namespace's first process by this process's number, 0 until it is known
}

// nowhere is a path that nothing has.
const nowhere = "\x00"

func newView(fd int) *view {
	v := &view{root: fd, path: nowhere, level: -1}
	if text, err := os.Readlink(Pin{FD: fd}.SelfPath()); err == nil && strings.HasPrefix(text, "/") {
		v.path = strings.TrimSuffix(text, "/")
	}
	return v
}

// inside makes of a path as this process reads it from a descriptor the command's. The kernel tells such a path up to the
// first mount of the file's own namespace, so that it needs no change where the command's root is that.
func (v *view) inside(text string) (string, error) {
	if !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "/memfd:") {
		return text, nil
	}
	rest, ok := strings.CutPrefix(text, v.path)
	switch {
	case ok && rest == "":
		return "/", nil
	case ok && rest[0] == '/':
		return rest, nil
	}
	return "", unix.EACCES
}

// mounted refuses what lies on no mount of the command's: a descriptor that it was started with, or that was passed to it,
// can be of the host's, and then its path means another file to the command.
func (v *view) mounted(tid, fd int) error {
	mount, err := MountID(fd)
	if err != nil {
		return unix.EACCES
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mounts[mount] {
		return nil
	}
	// It may be a newer one: the host's mounts can reach the command (mount_namespaces(7), shared subtrees).
	b, err := os.ReadFile(procPath(tid, "mountinfo"))
	if err != nil {
		return unix.EACCES
	}
	v.mounts = map[uint64]bool{}
	for line := range bytes.Lines(b) {
		number, _, _ := bytes.Cut(line, []byte(" "))
		if id, err := strconv.ParseUint(string(number), 10, 64); err == nil {
			v.mounts[id] = true
		}
	}
	if !v.mounts[mount] {
		return unix.EACCES
	}
	return nil
}

// numbers are what a thread and its process are called in each PID namespace that they are in: first in that of this
// process's /proc, last in their own.
type numbers struct{ threads, processes []int }

// numbersOf reads them (proc_pid_status(5)).
func numbersOf(tid int) (n numbers, err error) {
	var buf [4096]byte
	b, err := readProc(procPath(tid, "status"), buf[:0])
	if err != nil {
		return n, unix.ESRCH
	}
	n.threads, n.processes = statusNumbers(b, "NSpid:"), statusNumbers(b, "NStgid:")
	if len(n.threads) == 0 || len(n.processes) != len(n.threads) {
		return numbers{}, unix.ESRCH
	}
	return n, nil
}

// statusNumbers finds a line of several numbers, nil for none.
func statusNumbers(status []byte, key string) (list []int) {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte(key))
		if !ok {
			continue
		}
		for f := range bytes.FieldsSeq(rest) {
			n, err := strconv.Atoi(string(f))
			if err != nil {
				return nil
			}
			list = append(list, n)
		}
		return list
	}
	return nil
}

// noProcfs is the level of a view without one.
const noProcfs = 1 << 10

// procfs returns which of a thread's numbers the view's /proc knows it by: 0 is this process's own, as where the host
// refuses a fresh procfs and its own is shown, or where there is no PID namespace. Which it is shows in who is there.
func (v *view) procfs(tid int) (level int, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.level >= 0 {
		return v.level, nil
	}
	var fs unix.Statfs_t
	fd, err := v.open("/proc", unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		err = unix.Fstatfs(fd, &fs)
		_ = unix.Close(fd)
	}
	switch {
	case err == unix.ENOENT, err == unix.ENOTDIR, err == nil && fs.Type != unix.PROC_SUPER_MAGIC:
		v.level = noProcfs
		return v.level, nil
	case err != nil:
		return 0, unix.EACCES
	}
	list, err := numbersOf(tid)
	if err != nil {
		return 0, err
	}
	own, err := ReadStat(list.processes[0])
	if err != nil {
		return 0, unix.ESRCH
	}
	for level := len(list.processes) - 1; level >= 0; level-- {
		b, err := v.read("/proc/" + strconv.Itoa(list.processes[level]) + "/stat")
		if err != nil {
			continue
		}
		if there, err := parseStat(b); err == nil && there.Start == own.Start {
			v.level = level
			return level, nil
		}
	}
	return 0, unix.EACCES // it numbers processes in a way that nothing here knows
}

func (v *view) open(path string, flags int) (int, error) {
	return openScoped(v.root, path, unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

// read reads a file of the view's procfs.
func (v *view) read(path string) ([]byte, error) {
	fd, err := v.open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, make([]byte, 0, 4096))
}

// self returns how the view's /proc calls the caller's process, or its thread: a path relative to "/proc".
func (v *view) self(tid int, thread bool) (string, error) {
	level, err := v.procfs(tid)
	if err != nil {
		return "", err
	}
	list, err := numbersOf(tid)
	if err != nil {
		return "", err
	}
	if level >= len(list.processes) {
		return "", unix.ENOENT
	}
	own := strconv.Itoa(list.processes[level])
	if thread {
		own += "/task/" + strconv.Itoa(list.threads[level])
	}
	return own, nil
}

// byItsOpener are files of procfs that show or change something of whoever opens them, so of the host's namespaces where
// this process does it for the command.
var byItsOpener = []string{
	"sys/net", "sys/user", "sys/fs/mqueue", "sys/kernel/sem", "sys/kernel/shm", "sys/kernel/msg", "sys/kernel/auto_msgmni", "sysvipc",
	"keys", "key-users",
}

// idMaps are such files of a process (user_namespaces(7)).
var idMaps = map[string]bool{"uid_map": true, "gid_map": true, "projid_map": true, "setgroups": true}

// spares refuses a file of procfs, named relative to "/proc", that a command has no business with by way of this process:
// of this process itself or of the sandbox's init, or by its opener.
func (v *view) spares(tid int, rest string) error {
	first, after, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(first)
	if err != nil {
		for _, name := range byItsOpener {
			if strings.HasPrefix(rest, name) {
				return unix.EACCES
			}
		}
		return nil
	}
	if i := strings.LastIndexByte(after, '/'); idMaps[after[i+1:]] {
		return unix.EACCES
	}
	level, err := v.procfs(tid)
	if err != nil {
		return unix.EACCES
	}
	if level == 0 {
		list, err := numbersOf(n)
		last := len(list.processes) - 1
		if err != nil || list.processes[0] == os.Getpid() || last > 0 && list.processes[last] == 1 {
			return unix.EACCES
		}
		return nil
	}
	// This process has no number there. A thread of init's is named by its own.
	b, err := v.read("/proc/" + first + "/status")
	if err != nil {
		return unix.EACCES
	}
	if group, err := statusNumber(b, "Tgid:"); err != nil || group == 1 {
		return unix.EACCES
	}
	return nil
}
