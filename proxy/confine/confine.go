// Package confine puts the helper program itself into a sandbox, before it has read a byte of the network.
//
// In: the files that a job reads and the TCP ports that it connects to. What is left is the network and memory: no other
// file, no program, no process, no other kind of socket. UDP may be sent anywhere, since Landlock has no right for it yet.
// The confinement is for the whole process and cannot be undone.
//
// Read next: filter.go (the system calls that are left).
package confine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Needs is what a job cannot do without.
type Needs struct {
	Read  []string // files; those that do not exist are left out
	Ports []uint16 // TCP ports to connect to
	Files uint64   // descriptors
	// Memory bounds what the process may write to, in bytes; 0: nothing does.
	Memory uint64
	// Given says that all sockets are given to the process: it makes none, connects none, accepts none, and opens no file.
	Given bool
}

// CloseInherited closes what the executor's own parent left open: every descriptor from first on that the program was
// started with. The Go runtime's own are close-on-exec, which one that has come through an execve cannot be.
func CloseInherited(first int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < first {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}

// Enter confines this process: no capabilities, no new privileges, Landlock, a filter. What the host's Landlock does not
// know is left out, which the executor's own demands on the host bound.
func Enter(n Needs) error {
	if err := kernel.HideSelf(); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limit core dumps: %w", err)
	}
	if n.Memory > 0 {
		if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: n.Memory, Max: n.Memory}); err != nil {
			return fmt.Errorf("limit memory: %w", err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n.Files, Max: n.Files}); err != nil {
		return fmt.Errorf("limit open files: %w", err)
	}
	if err := kernel.DropCapabilities(0); err != nil {
		return err
	}
	if err := restrict(n); err != nil {
		return fmt.Errorf("confine the helper: %w", err)
	}
	return filter(n.Given)
}

func restrict(n Needs) error {
	fs, net, scoped := abi.Supported(kernel.LandlockABI())
	if fs == 0 {
		return kernel.ErrNoLandlock
	}
	net &= abi.NetBindTCP | abi.NetConnectTCP // answers go to any UDP port
	rules, err := kernel.NewRuleset(fs, net, scoped)
	if err != nil {
		return err
	}
	defer rules.Close()
	for _, path := range n.Read {
		if err := allowFile(rules, path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if net&abi.NetConnectTCP != 0 {
		for _, port := range slices.Compact(slices.Sorted(slices.Values(n.Ports))) {
			if err := rules.AllowPort(port, abi.NetConnectTCP); err != nil {
				return fmt.Errorf("port %d: %w", port, err)
			}
		}
	}
	return rules.RestrictProcess()
}

func allowFile(rules *kernel.Ruleset, path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return rules.AllowPath(fd, abi.FSReadFile)
}
