package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Stat is what /proc/<pid>/stat says of a process or thread (proc_pid_stat(5)).
type Stat struct {
	State  byte // 'R', 'S', 'D', 'T', 'Z', …
	Parent int
	Start  uint64 // clock ticks after boot; with the pid it names a process for good
}

// ReadStat reads /proc/<pid>/stat.
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return Stat{}, err
	}
	return parseStat(b)
}

// parseStat starts after the last ") ": the name before it is chosen by the process and may hold anything.
func parseStat(b []byte) (Stat, error) {
	_, rest, ok := cutLast(b, []byte(") "))
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 20 {
		return Stat{}, errors.New("malformed stat line")
	}
	parent, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return Stat{}, fmt.Errorf("stat parent: %w", err)
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("stat start time: %w", err)
	}
	return Stat{State: fields[0][0], Parent: parent, Start: start}, nil
}

func cutLast(b, sep []byte) (before, after []byte, ok bool) {
	i := bytes.LastIndex(b, sep)
	if i < 0 {
		return b, nil, false
	}
	return b[:i], b[i+len(sep):], true
}

// ThreadGroup returns the process (thread group id) that a thread belongs to.
func ThreadGroup(tid int) (int, error) {
	b, err := os.ReadFile(procPath(tid, "status"))
	if err != nil {
		return 0, err
	}
	return statusNumber(b, "Tgid:")
}

// statusNumber finds a numeric line of /proc/<pid>/status. Names are escaped there, so a line start is ours.
func statusNumber(status []byte, key string) (int, error) {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			return strconv.Atoi(string(bytes.TrimSpace(rest)))
		}
	}
	return 0, fmt.Errorf("status has no %s line", key)
}

// Sandboxed reports whether a process runs under no_new_privs and a seccomp filter, as every process of a sandbox
// does and the children that the executor may have had before do not.
func Sandboxed(pid int) bool {
	b, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return false
	}
	nnp, err1 := statusNumber(b, "NoNewPrivs:")
	mode, err2 := statusNumber(b, "Seccomp:")
	return err1 == nil && err2 == nil && nnp == 1 && mode == 2
}

// Children returns the live and zombie children of all threads of a process (proc_tid_children(5)). The list may
// miss children that change parents meanwhile; callers repeat until nothing changed.
func Children(pid int) ([]int, error) {
	tasks, err := os.ReadDir(procPath(pid, "task"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, t := range tasks {
		b, err := os.ReadFile(procPath(pid, "task/"+t.Name()+"/children"))
		if err != nil {
			continue // the thread ended; its children moved to a sibling thread or to a reaper
		}
		for f := range bytes.FieldsSeq(b) {
			if n, err := strconv.Atoi(string(f)); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids, nil
}

// BlockedIn returns the number of the system call that a thread sleeps in; ok is false when it runs or is gone.
func BlockedIn(tid int) (nr int, ok bool) {
	b, err := os.ReadFile(procPath(tid, "syscall"))
	if err != nil {
		return 0, false
	}
	first, _, _ := bytes.Cut(b, []byte(" "))
	nr, err = strconv.Atoi(string(bytes.TrimSpace(first)))
	return nr, err == nil
}

// CommandName returns the first argument that a process was started with, cut to 128 bytes, or "".
func CommandName(pid int) string {
	f, err := os.Open(procPath(pid, "cmdline"))
	if err != nil {
		return ""
	}
	defer f.Close()
	var b [128]byte
	n, _ := f.Read(b[:])
	name, _, _ := bytes.Cut(b[:n], []byte{0})
	return string(name)
}

func procPath(pid int, rest string) string { return "/proc/" + strconv.Itoa(pid) + "/" + rest }

// ReadMemory copies from another process's memory (process_vm_readv(2)). It may return fewer bytes than asked for
// when the range ends in an unmapped page.
func ReadMemory(pid int, addr uint64, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
	return unix.ProcessVMReadv(pid, local, remote, 0)
}

// WriteMemory copies into another process's memory (process_vm_writev(2)): writable pages only.
func WriteMemory(pid int, addr uint64, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
	return unix.ProcessVMWritev(pid, local, remote, 0)
}

// Alive reports whether the process behind a pidfd has not exited. A zombie is not alive.
func Alive(pidfd int) bool {
	set := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(set, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 0
		}
	}
}

// DuplicateFD copies descriptor fd of the thread tid (pidfd_getfd(2)). A thread may have a descriptor table of its
// own, so its own pidfd is asked first where the kernel has such.
func DuplicateFD(tid, fd int) (int, error) {
	pidfd, err := ThreadPIDFD(tid)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	return unix.PidfdGetfd(pidfd, fd, 0)
}
