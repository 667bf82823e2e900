package kernel

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Statm is what /proc/<pid>/statm says of an address space, in bytes (proc_pid_statm(5)).
type Statm struct {
	Total uint64 // all of it, reservations included; 0: the thread has none (any more)
	Data  uint64 // private writable mappings and stacks: what the kernel may have to find memory for
	Anon  uint64 // anonymous pages that are there now
}

// ReadStatm reads the address space that a process uses. A first thread that has ended shows none although others go on, so
// then they are asked.
func ReadStatm(pid int) (Statm, error) {
	s, err := readStatm(procPath(pid, "statm"))
	if err != nil || s.Total > 0 {
		return s, err
	}
	tasks, err := os.ReadDir(procPath(pid, "task"))
	if err != nil {
		return s, nil // it is ending
	}
	for _, t := range tasks {
		if s, err := readStatm(procPath(pid, "task/"+t.Name()+"/statm")); err == nil && s.Total > 0 {
			return s, nil
		}
	}
	return s, nil
}

func readStatm(path string) (Statm, error) {
	var buf [128]byte
	n, err := readSmall(path, buf[:])
	if err != nil {
		return Statm{}, err
	}
	return parseStatm(buf[:n])
}

// parseStatm: total resident shared text lib data dt, in pages. Resident pages that are not of files are anonymous.
func parseStatm(b []byte) (Statm, error) {
	var v [7]uint64
	i := 0
	for f := range bytes.FieldsSeq(b) {
		n, err := strconv.ParseUint(string(f), 10, 52)
		if err != nil || i == len(v) {
			return Statm{}, errors.New("malformed statm line")
		}
		v[i] = n
		i++
	}
	if i < len(v) {
		return Statm{}, errors.New("malformed statm line")
	}
	page := uint64(os.Getpagesize())
	s := Statm{Total: v[0] * page, Data: v[5] * page}
	if v[1] > v[2] { // the counters are approximate
		s.Anon = (v[1] - v[2]) * page
	}
	return s, nil
}

// readSmall reads a file of /proc that fits into b.
func readSmall(path string, b []byte) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	n, err := unix.Read(fd, b)
	_ = unix.Close(fd)
	return max(n, 0), err
}

// AnonymousShare returns what a process has of anonymous memory, swapped pages included, where a page that n address
// spaces share counts 1/n (smaps_rollup of proc(5)). The kernel walks the page tables for it.
func AnonymousShare(pid int) (uint64, error) {
	b, err := os.ReadFile(procPath(pid, "smaps_rollup"))
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, key := range []string{"Pss_Anon:", "SwapPss:"} {
		n, err := kilobytes(b, key)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func kilobytes(b []byte, key string) (uint64, error) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 50)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no line %s", key)
}

// Image tells how a process came by its address space, and who uses it.
type Image struct {
	Forked   bool   // it is a copy of the parent's: no execve since the fork
	BrkStart uint64 // where its heap begins; 0 where this process may not look
	Threads  uint64
	Faults   uint64 // page faults of all its threads
}

// forkedNoExec is PF_FORKNOEXEC (linux/sched.h).
const forkedNoExec = 0x40

// ReadImage reads it from /proc/<pid>/stat.
func ReadImage(pid int) (Image, error) {
	var buf [1024]byte
	n, err := readSmall(procPath(pid, "stat"), buf[:])
	if err != nil {
		return Image{}, err
	}
	return parseImage(buf[:n])
}

func parseImage(b []byte) (Image, error) {
	_, rest, ok := cutLast(b, []byte(") "))
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 45 {
		return Image{}, errors.New("malformed stat line")
	}
	flags, err1 := strconv.ParseUint(string(fields[6]), 10, 64)
	threads, err2 := strconv.ParseUint(string(fields[17]), 10, 32)
	start, err3 := strconv.ParseUint(string(fields[44]), 10, 64)
	minor, err4 := strconv.ParseUint(string(fields[7]), 10, 64)
	major, err5 := strconv.ParseUint(string(fields[9]), 10, 64)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return Image{}, fmt.Errorf("malformed stat line: %w", err)
	}
	return Image{Forked: flags&forkedNoExec != 0, BrkStart: start, Threads: threads, Faults: minor + major}, nil
}

// CompareMemory orders processes by their address spaces; 0 means that two use the same, as after vfork (kcmp(2),
// KCMP_VM). Those that cannot be looked at are ordered by their pids.
func CompareMemory(pid, other int) int {
	const kcmpVM = 1
	r, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(other), kcmpVM, 0, 0, 0)
	switch {
	case e == 0 && r == 0:
		return 0
	case e == 0 && r == 1:
		return -1
	case e == 0 && r == 2:
		return 1
	}
	return cmp.Compare(pid, other)
}

// Mapping is one line of /proc/<pid>/maps.
type Mapping struct {
	Start, End       uint64
	Writable, Shared bool
	Inode            Inode // of a file, or of what the kernel made one for
	Heap             bool
	Anonymous        bool // shared memory without a file of the program's: MAP_SHARED|MAP_ANONYMOUS
}

// Inode names a file.
type Inode struct{ Dev, Ino uint64 }

// maxMaps bounds what is read of one process's list: a process can have 65530 mappings with paths of its choice.
const maxMaps = 32 << 20

// Mappings calls f with each mapping, in the order of addresses, until f returns false.
func Mappings(pid int, f func(Mapping) bool) error {
	file, err := os.Open(procPath(pid, "maps"))
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, maxMaps))
	lines.Buffer(make([]byte, 16<<10), 64<<10)
	for lines.Scan() {
		m, err := parseMapping(lines.Bytes())
		if err != nil {
			return err
		}
		if !f(m) {
			return nil
		}
	}
	return lines.Err()
}

// parseMapping: "start-end perms offset major:minor inode path". The kernel escapes line ends in paths.
func parseMapping(line []byte) (Mapping, error) {
	malformed := errors.New("malformed mapping")
	var f [5][]byte
	for i := range f {
		line = bytes.TrimLeft(line, " ")
		f[i], line, _ = bytes.Cut(line, []byte(" "))
	}
	start, end, ok1 := bytes.Cut(f[0], []byte("-"))
	major, minor, ok2 := bytes.Cut(f[3], []byte(":"))
	if !ok1 || !ok2 || len(f[1]) != 4 {
		return Mapping{}, malformed
	}
	var v [5]uint64
	for i, text := range [][]byte{start, end, major, minor} {
		n, err := strconv.ParseUint(string(text), 16, 64)
		if err != nil {
			return Mapping{}, malformed
		}
		v[i] = n
	}
	ino, err := strconv.ParseUint(string(f[4]), 10, 64)
	if err != nil || v[0] > v[1] {
		return Mapping{}, malformed
	}
	path := bytes.TrimLeft(line, " ")
	return Mapping{
		Start: v[0], End: v[1], Writable: f[1][1] == 'w', Shared: f[1][3] == 's',
		Inode: Inode{Dev: unix.Mkdev(uint32(v[2]), uint32(v[3])), Ino: ino},
		Heap:  string(path) == "[heap]",
		// A file of that name cannot be: /dev/zero itself has a major number.
		Anonymous: f[1][3] == 's' && v[2] == 0 && string(path) == "/dev/zero (deleted)",
	}, nil
}
