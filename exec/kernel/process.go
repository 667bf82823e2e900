package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Stat is what /proc/<pid>/stat says of a process or thread (proc_pid_stat(5)).
type Stat struct {
	State    byte // 'R', 'S', 'D', 'T', 'Z', …
	Parent   int
	Exiting  bool          // it runs in the kernel only, to clean up
	Threads  int           // of its process; a leader that exited before its threads is a 'Z' with several
	Children time.Duration // CPU time of children that were waited for, in steps of a tick
	Start    uint64        // clock ticks after boot; with the pid it names a process for good
}

// Dead reports whether every thread of the process has exited.
func (s Stat) Dead() bool { return (s.State == 'Z' || s.State == 'X') && s.Threads <= 1 }

// ReadStat reads /proc/<pid>/stat.
func ReadStat(pid int) (Stat, error) {
	var buf [1024]byte // numbers of bounded width and a name of 64 bytes at most
	b, err := readProc(procPath(pid, "stat"), buf[:0])
	if err != nil {
		return Stat{}, err
	}
	return parseStat(b)
}

// tick is one of the clock ticks of /proc, USER_HZ: 100 a second on every architecture that we know.
const tick = 10 * time.Millisecond

// processExiting is PF_EXITING (linux/sched.h), a flag in the ninth field.
const processExiting = 0x4

// parseStat starts after the last ") ": the name before it is chosen by the process and may hold anything.
func parseStat(b []byte) (Stat, error) {
	_, rest, ok := cutLast(b, []byte(") "))
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 20 {
		return Stat{}, errors.New("malformed stat line")
	}
	var err error
	number := func(field int) (n uint64) { // counted as in the manual page, from 1
		if err == nil {
			n, err = strconv.ParseUint(string(fields[field-3]), 10, 64)
		}
		return n
	}
	st := Stat{
		State: fields[0][0], Parent: int(number(4)), Exiting: number(9)&processExiting != 0, Threads: int(number(20)),
		Children: time.Duration(number(16)+number(17)) * tick, Start: number(22),
	}
	if err != nil {
		return Stat{}, fmt.Errorf("stat field: %w", err)
	}
	return st, nil
}

// readProc appends a file of /proc to b. It makes the three calls that it takes, where os.ReadFile makes eight.
func readProc(path string, b []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, b)
}

func readAll(fd int, b []byte) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n == 0:
			return b, nil
		default:
			b = b[:len(b)+n]
		}
	}
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

// tagResource is RLIMIT_LOCKS (asm-generic/resource.h), which the kernel has not looked at since Linux 2.4.25.
const tagResource = 10

// Tag reads the number that SetTag has given to a process or to the ancestor that it has it from; without one, what its
// ancestors were started with, mostly math.MaxUint64. A thread has its process's.
func Tag(pid int) (uint64, error) {
	var buf [2048]byte // sixteen lines of 79 bytes and a head line
	b, err := readProc(procPath(pid, "limits"), buf[:0])
	if err != nil {
		return 0, err
	}
	return parseTag(b)
}

// parseTag takes the hard limit of the line of RLIMIT_LOCKS in /proc/<pid>/limits (proc_pid_limits(5)).
func parseTag(limits []byte) (uint64, error) {
	for line := range bytes.Lines(limits) {
		rest, ok := bytes.CutPrefix(line, []byte("Max file locks "))
		if fields := bytes.Fields(rest); ok && len(fields) >= 2 {
			if string(fields[1]) == "unlimited" {
				return math.MaxUint64, nil
			}
			return strconv.ParseUint(string(fields[1]), 10, 64)
		}
	}
	return 0, fmt.Errorf("limits have no line of file locks: %w", unix.ESRCH) // nothing is shown of a process that is gone
}

// SetTag marks a process, so that all that it forks from now on is marked as well: a child has the mark before it runs,
// keeps it when its parent ends, when it makes a session of its own and when it calls execve. The mark is a resource
// limit that has no other use, so it can only be lowered, and the filter must refuse to let the process do that itself.
// It fails with EPERM if the process has other user or group ids than this one (prlimit(2)).
func SetTag(pid int, tag uint64) error {
	return unix.Prlimit(pid, tagResource, &unix.Rlimit{Cur: tag, Max: tag}, nil)
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
	var buf [512]byte
	for _, t := range tasks {
		b, err := readProc(procPath(pid, "task/"+t.Name()+"/children"), buf[:0])
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

// CPUTime returns the CPU time that all threads of a process have used, those that ended included (the process CPU clock of
// another process, clock_getcpuclockid(3)). A zombie has it too.
func CPUTime(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED, linux/posix-timers.h: nanoseconds
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}

// PendingSignals returns the signals that wait for any thread of a process to take them, bit n-1 for signal n.
func PendingSignals(pid int) uint64 {
	b, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("ShdPnd:")); ok {
			set, _ := strconv.ParseUint(string(bytes.TrimSpace(rest)), 16, 64)
			return set
		}
	}
	return 0
}

// Halted reports whether no thread of a process gets to run outside of the kernel before somebody sends it SIGCONT: SIGSTOP
// waits to be taken, one thread has taken it for all, or all are exiting.
func Halted(pid int) bool {
	if PendingSignals(pid)>>(uint(unix.SIGSTOP)-1)&1 == 1 {
		return true
	}
	exiting := true
	for _, st := range threads(pid) {
		if st.State == 'T' {
			return true
		}
		exiting = exiting && st.Exiting
	}
	return exiting
}

// Demand returns how many processors a process uses at this moment: each thread that runs or could counts with the part of
// its life as such that it did run, 1 on a machine that has processors to spare.
func Demand(pid int) (processors float64) {
	for tid, st := range threads(pid) {
		if st.State != 'R' {
			continue
		}
		var buf [128]byte
		b, err := readProc(procPath(pid, "task/"+strconv.Itoa(tid)+"/schedstat"), buf[:0])
		fields := bytes.Fields(b)
		if err != nil || len(fields) < 2 {
			processors++ // a kernel without CONFIG_SCHED_INFO
			continue
		}
		ran, err1 := strconv.ParseFloat(string(fields[0]), 64)
		waited, err2 := strconv.ParseFloat(string(fields[1]), 64)
		if err1 != nil || err2 != nil || ran+waited <= 0 {
			processors++
			continue
		}
		processors += ran / (ran + waited)
	}
	return processors
}

// threads yields what can be read of the threads of a process.
func threads(pid int) iter.Seq2[int, Stat] {
	return func(yield func(int, Stat) bool) {
		tasks, err := os.ReadDir(procPath(pid, "task"))
		if err != nil {
			return
		}
		for _, t := range tasks {
			var buf [1024]byte
			b, err := readProc(procPath(pid, "task/"+t.Name()+"/stat"), buf[:0])
			if err != nil {
				continue
			}
			st, err := parseStat(b)
			tid, _ := strconv.Atoi(t.Name())
			if err == nil && !yield(tid, st) {
				return
			}
		}
	}
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
	return GatherMemory(pid, []Range{{Base: uintptr(addr), Len: len(b)}}, b)
}

// Range is a range of another process's memory.
type Range = unix.RemoteIovec

// GatherMemory is ReadMemory of several ranges, one after the other.
func GatherMemory(pid int, from []Range, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	return unix.ProcessVMReadv(pid, local, from, 0)
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

// StatDescriptor looks at the file behind a descriptor of a thread, without a duplicate that would have to be closed.
func StatDescriptor(tid, fd int) (st unix.Stat_t, err error) {
	if fd < 0 {
		return st, unix.EBADF
	}
	err = unix.Stat(procPath(tid, "fd/"+strconv.Itoa(fd)), &st)
	if errors.Is(err, unix.ENOENT) {
		err = unix.EBADF
	}
	return st, err
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

// SocketInode returns the inode number of the socket behind descriptor fd of the thread tid. No other socket has it while
// that one exists.
func SocketInode(tid int, fd int32) (uint64, error) {
	var b [64]byte
	n, err := unix.Readlink(procPath(tid, "fd/"+strconv.Itoa(int(fd))), b[:])
	if err != nil {
		return 0, err
	}
	number, ok := bytes.CutPrefix(b[:n], []byte("socket:["))
	if !ok {
		return 0, unix.ENOTSOCK
	}
	return strconv.ParseUint(string(bytes.TrimSuffix(number, []byte("]"))), 10, 64)
}
