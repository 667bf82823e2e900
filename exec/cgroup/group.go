package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Limits are what a group may use; 0 is no limit.
type Limits struct {
	Memory     uint64 // bytes
	CPUPercent uint8  // of one core
}

// Controllers lists what it takes.
func (l Limits) Controllers() (list []Controller) {
	if l.Memory > 0 {
		list = append(list, Memory)
	}
	if l.CPUPercent > 0 {
		list = append(list, CPU)
	}
	return list
}

// period is that of the CPU quota, the kernel's default.
const period = 100 * time.Millisecond

// Group is the group of one sandbox. Its methods may be used after the calling thread was confined, Remove needs the right
// to remove a directory beneath its parent.
type Group struct {
	dir    string
	limits Limits
	fd     int            // of the directory
	files  map[string]int // descriptors
}

// New makes a group with limits. Nothing is in it; it stays until it is removed.
func (p *Parent) New(l Limits) (*Group, error) {
	dir, err := os.MkdirTemp(p.dir, groupPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	g := &Group{dir: dir, limits: l, fd: -1, files: map[string]int{}}
	if err := g.prepare(); err != nil {
		return nil, errors.Join(err, g.Remove())
	}
	return g, nil
}

func (g *Group) prepare() (err error) {
	if g.fd, err = unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open %s: %w", g.dir, err)
	}
	for name, flag := range map[string]int{"cgroup.procs": unix.O_RDONLY, "cgroup.kill": unix.O_WRONLY} {
		if err := g.open(name, flag); err != nil {
			return err
		}
	}
	if g.limits.Memory > 0 {
		if err := g.limitMemory(); err != nil {
			return err
		}
	}
	if g.limits.CPUPercent > 0 {
		quota := period * time.Duration(g.limits.CPUPercent) / 100
		value := fmt.Sprintf("%d %d", quota.Microseconds(), period.Microseconds())
		if err := g.open("cpu.max", unix.O_RDWR); err != nil {
			return err
		}
		return g.set("cpu.max", value)
	}
	return nil
}

// limitMemory lets nothing be swapped out, which would be memory beyond the limit. Of several processes the kernel kills
// one, as it does by default (memory.oom.group is 0).
func (g *Group) limitMemory() error {
	if err := exempt(); err != nil {
		return err
	}
	for name, flag := range map[string]int{"memory.max": unix.O_RDWR, "memory.events": unix.O_RDONLY, "memory.current": unix.O_RDONLY} {
		if err := g.open(name, flag); err != nil {
			return err
		}
	}
	err := write(filepath.Join(g.dir, "memory.swap.max"), "0")
	if errors.Is(err, fs.ErrNotExist) && !hasSwap() {
		err = nil // a kernel that does not account for swap, and there is none
	}
	if err != nil {
		return err
	}
	return g.set("memory.max", strconv.FormatUint(g.limits.Memory, 10))
}

// exempt is an error if processes that are born here cannot be killed for memory: they would hang instead.
func exempt() error {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err == nil && string(bytes.TrimSpace(b)) == "-1000" {
		return errors.New("this process is exempt from being killed for memory (/proc/self/oom_score_adj is -1000), and the command would inherit that")
	}
	return err
}

func hasSwap() bool {
	var info unix.Sysinfo_t
	return unix.Sysinfo(&info) != nil || info.Totalswap > 0
}

// open keeps a file of the group. O_NONBLOCK has newer kernels (6.16) not wait for memory to be freed when a limit is
// lowered; older ones ignore it.
func (g *Group) open(name string, flag int) error {
	path := filepath.Join(g.dir, name)
	fd, err := unix.Open(path, flag|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	g.files[name] = fd
	return nil
}

func (g *Group) set(name, value string) error {
	fd, ok := g.files[name]
	if !ok {
		return fmt.Errorf("%s of %s is not open", name, g.dir)
	}
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("write %q to %s of %s: %w", value, name, g.dir, err)
	}
	return nil
}

// read reads a whole file of the group again.
func (g *Group) read(name string) ([]byte, error) {
	fd, ok := g.files[name]
	if !ok {
		return nil, fmt.Errorf("%s of %s is not open", name, g.dir)
	}
	var all []byte
	var buf [4096]byte
	for {
		n, err := unix.Pread(fd, buf[:], int64(len(all)))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, fmt.Errorf("read %s of %s: %w", name, g.dir, err)
		case n == 0:
			return all, nil
		default:
			all = append(all, buf[:n]...)
		}
	}
}

// FD is the directory's descriptor, for CLONE_INTO_CGROUP.
func (g *Group) FD() int { return g.fd }

// Dir is the group's directory.
func (g *Group) Dir() string { return g.dir }

// LowerMemory lowers the memory limit, and never raises it. What is in use beyond it is freed, or killed for.
func (g *Group) LowerMemory(n uint64) error {
	if n >= g.limits.Memory {
		return nil
	}
	if err := g.set("memory.max", strconv.FormatUint(n, 10)); err != nil {
		return err
	}
	g.limits.Memory = n
	return nil
}

// Charged returns what is charged at present, in bytes, and the number of processes. What cannot be read is 0.
func (g *Group) Charged() (memory uint64, processes int) {
	if b, err := g.read("memory.current"); err == nil {
		memory, _ = strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	}
	b, _ := g.read("cgroup.procs")
	return memory, bytes.Count(b, []byte("\n"))
}

// Killed returns how many processes the kernel has killed because the group reached its memory limit; those that it
// killed because a group above or the machine ran out of memory do not count.
func (g *Group) Killed() (uint64, error) {
	if g.limits.Memory == 0 {
		return 0, nil
	}
	b, err := g.read("memory.events")
	if err != nil {
		return 0, err
	}
	return parseKilled(b)
}

// parseKilled reads a flat keyed file: "oom" counts how often the limit was reached and nothing could be freed, "oom_kill"
// the processes killed by any OOM killer.
func parseKilled(b []byte) (uint64, error) {
	values := map[string]uint64{}
	for line := range bytes.Lines(b) {
		key, value, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		n, err := strconv.ParseUint(string(value), 10, 64)
		if !ok || err != nil {
			return 0, fmt.Errorf("memory.events: malformed line %q", line)
		}
		values[string(key)] = n
	}
	kills, ok := values["oom_kill"]
	if !ok {
		return 0, errors.New("memory.events: no oom_kill")
	}
	if values["oom"] == 0 {
		return 0, nil
	}
	return kills, nil
}

// Check returns an error if a limit is not in force any more: somebody outside has taken the controller away.
func (g *Group) Check() error {
	for _, c := range []struct {
		file string
		used bool
	}{{"memory.max", g.limits.Memory > 0}, {"cpu.max", g.limits.CPUPercent > 0}} {
		if !c.used {
			continue
		}
		b, err := g.read(c.file)
		if err != nil {
			return fmt.Errorf("the limit of the control group is gone: %w", err)
		}
		if bytes.HasPrefix(b, []byte("max")) {
			return fmt.Errorf("the limit of the control group was lifted: %s of %s is %q", c.file, g.dir, bytes.TrimSpace(b))
		}
	}
	return nil
}

// Kill kills every process of the group at once.
func (g *Group) Kill() error { return g.set("cgroup.kill", "1") }

// removal bounds the wait for killed processes to be gone.
const removal = 10 * time.Second

// Remove kills what is in the group, and removes it. It may be called once.
func (g *Group) Remove() error {
	if _, ok := g.files["cgroup.kill"]; ok {
		_ = g.Kill()
	}
	for _, fd := range g.files {
		_ = unix.Close(fd)
	}
	if g.fd >= 0 {
		_ = unix.Close(g.fd)
	}
	deadline := time.Now().Add(removal)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		err := unix.Rmdir(g.dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove control group %s: %w", g.dir, err)
		}
		time.Sleep(pause)
	}
}
