package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NeedsUserNamespace reports whether the calling thread may make other namespaces only inside a user namespace of its
// own: it lacks CAP_SYS_ADMIN.
func NeedsUserNamespace() (bool, error) {
	have, err := Capabilities()
	return have>>unix.CAP_SYS_ADMIN&1 == 0, err
}

// otherNamespaces are all that a start can ask for beside a user namespace.
const otherNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET

// probeNamespaces makes namespaces as a start would, and mounts in them. A user namespace by itself would say little:
// distributions let it be made and refuse everything in it (kernel.apparmor_restrict_unprivileged_userns).
func (h *Host) probeNamespaces() {
	step, err := tryNamespaces(unix.CLONE_NEWUSER)
	h.UserNamespaces, h.UserNSReason = offered(step, err)
	h.MappedProc, h.MappedProcReason = offeredProc(step, err)
	h.Namespaces, h.NamespacesReason = h.UserNamespaces, h.UserNSReason
	h.FreshProc, h.FreshProcReason = h.MappedProc, h.MappedProcReason
	if needs, e := NeedsUserNamespace(); e == nil && !needs {
		step, err = tryNamespaces(0)
		h.Namespaces, h.NamespacesReason = offered(step, err)
		h.FreshProc, h.FreshProcReason = offeredProc(step, err)
	}
}

// offered reports whether namespaces can be made, given the step that failed: /proc comes last.
func offered(step string, err error) (bool, string) {
	if err == nil || step == StepMountProc {
		return true, ""
	}
	return false, failure(step, err)
}

func offeredProc(step string, err error) (bool, string) {
	if err == nil {
		return true, ""
	}
	if step != StepMountProc {
		return false, "there are no such namespaces to mount it in"
	}
	return false, failure(step, err)
}

func failure(step string, err error) string {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	return fmt.Sprintf("%s: %s: %s", step, errno.Error(), NamespaceFailure(errno, step))
}

// rawCall is a system call that a forked child makes. Its first argument is the last call's result where then is set.
type rawCall struct {
	nr   uintptr
	args [5]uintptr
	then bool
	step uint32 // index into probeSteps
}

var probeSteps = [...]string{StepNamespaces, StepMapIDs, StepMount, StepMountProc}

// tryNamespaces has a child do it, and returns the step that failed.
func tryNamespaces(user uintptr) (step string, err error) {
	var calls []rawCall
	var keep [][]byte // what the calls point to
	text := func(s string) uintptr {
		b := append([]byte(s), 0)
		keep = append(keep, b)
		return uintptr(unsafe.Pointer(&b[0]))
	}
	write := func(path, line string) {
		at := int32(unix.AT_FDCWD)
		calls = append(calls,
			rawCall{nr: unix.SYS_OPENAT, args: [5]uintptr{uintptr(at), text(path), unix.O_WRONLY | unix.O_CLOEXEC}, step: 1},
			rawCall{nr: unix.SYS_WRITE, args: [5]uintptr{0, text(line), uintptr(len(line))}, then: true, step: 1})
	}
	mount := func(step uint32, fs, target string, flags uintptr) {
		calls = append(calls, rawCall{nr: unix.SYS_MOUNT, args: [5]uintptr{text(fs), text(target), text(fs), flags, 0}, step: step})
	}
	if user != 0 {
		write("/proc/self/setgroups", "deny")
		write("/proc/self/uid_map", fmt.Sprintf("%d %[1]d 1", os.Geteuid()))
		write("/proc/self/gid_map", fmt.Sprintf("%d %[1]d 1", os.Getegid()))
	}
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mount(2, "none", "/", unix.MS_REC|unix.MS_PRIVATE)
	mount(2, "tmpfs", "/", safe) // seen by nobody: paths still begin beneath it
	mount(3, "proc", "/proc", safe)

	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return "", err
	}
	defer unix.Close(pipe[0])
	pid, errno := forkAndCall(user|otherNamespaces|uintptr(unix.SIGCHLD), calls, pipe[1])
	runtime.KeepAlive(keep)
	_ = unix.Close(pipe[1])
	if errno != 0 {
		return StepNamespaces, errno
	}
	var report [8]byte
	n, err := readFull(pipe[0], report[:])
	for {
		if _, e := unix.Wait4(pid, nil, unix.WALL, nil); !errors.Is(e, unix.EINTR) {
			break
		}
	}
	switch failed := binary.NativeEndian.Uint32(report[:]); {
	case err != nil:
		return "", err
	case n < len(report):
		return "", errors.New("the child that tried it ended early")
	case int(failed) < len(probeSteps):
		return probeSteps[failed], unix.Errno(binary.NativeEndian.Uint32(report[4:]))
	}
	return "", nil
}

func readFull(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		m, err := unix.Read(fd, b[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

// forkAndCall makes calls in a child with memory of its own and writes the step of the one that failed and its errno to
// report; a step past the last when all went well. The child is this thread alone, without a Go runtime: signals are
// blocked, since nothing could take them.
func forkAndCall(flags uintptr, calls []rawCall, report int) (pid int, errno unix.Errno) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &old); err != nil {
		return 0, unix.EINVAL
	}
	syscall.ForkLock.Lock()
	child, errno := cloneAndCall(flags, calls, uintptr(report))
	syscall.ForkLock.Unlock()
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	return int(child), errno
}

// cloneAndCall returns in the parent alone. Nothing in the child may allocate, grow the stack or wait for a lock.
//
//go:nosplit
//go:norace
//go:noinline
func cloneAndCall(flags uintptr, calls []rawCall, report uintptr) (pid uintptr, errno unix.Errno) {
	// clone(2) has the order of its last arguments differ between architectures; they are all zero.
	pid, _, errno = unix.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	var last uintptr
	result := [2]uint32{uint32(len(probeSteps)), 0}
	for i := range calls {
		c := &calls[i]
		first := c.args[0]
		if c.then {
			first = last
		}
		last, _, errno = unix.RawSyscall6(c.nr, first, c.args[1], c.args[2], c.args[3], c.args[4], 0)
		if errno != 0 {
			result = [2]uint32{c.step, uint32(errno)}
			break
		}
	}
	unix.RawSyscall(unix.SYS_WRITE, report, uintptr(unsafe.Pointer(&result)), unsafe.Sizeof(result))
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
