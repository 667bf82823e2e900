package stage

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The keeper is the process that keeps a set of namespaces and makes system calls in them, lists of which the executor
// prepares. It borrows the executor's address space as a clone child does, but lives as long as the sandbox: nothing here
// may allocate, take a lock or grow a stack. In a PID namespace it is the init: what dies there it reaps (SIGCHLD is
// ignored, so the kernel does that by itself), and with it everything else there dies.

// keeper is what both sides know of it.
type keeper struct {
	socket  uintptr // its end
	pidfd   int32   // of the executor, as long as the tables are one
	isInit  bool
	closing unsafe.Pointer // to the first *Call to make once the executor is gone
	count   uintptr
}

// request asks for calls; answer tells the first that failed, -1 for none.
type (
	request struct {
		calls unsafe.Pointer // to the first *Call
		count uintptr
	}
	answer struct{ failed, errno int64 }
)

// cloneKeeper clones a process that runs a function, keep, on a stack of its own, whose end is given. The function is called
// by its address and with its argument in a register, as compiled Go code calls it: the wrapper that assembly calls by the name
// is instrumented under the race detector, whose state of this thread the keeper would then use while the thread does.
func cloneKeeper(flags, stack, k, function uintptr) (pid, errno uintptr)

var keepFunction = keep

//go:noinline
//go:norace
//go:nosplit
func spawnKeeper(flags, stack, k uintptr) (pid, errno uintptr) {
	beforeFork() // blocks every signal on this thread, and so in the keeper for good
	pid, errno = cloneKeeper(flags, stack, k, **(**uintptr)(unsafe.Pointer(&keepFunction)))
	afterFork()
	return pid, errno
}

// keep is the keeper's life. The executor's end of the socket closes when the executor is gone, whatever ended it. Until the
// keeper has a descriptor table of its own it holds that end itself, and a pidfd tells. The signal that the executor's death
// sends it meanwhile saves it from finishing calls for nobody; it would come too late for an executor that dies before it is
// asked for.
//
//lint:ignore U1000 cloneKeeper calls it
//go:norace
//go:nosplit
func keep(k *keeper) {
	var (
		r    request
		a    answer
		n    uintptr
		e    syscall.Errno
		none [4]uint64
		poll [2]unix.PollFd
	)
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	none[0] = 1 // SIG_IGN
	syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&none)), 0, kernelSigsetBytes, 0, 0)
	for {
		poll[0].Fd, poll[0].Events = int32(k.socket), unix.POLLIN
		poll[1].Fd, poll[1].Events = k.pidfd, unix.POLLIN
		syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 2, 0, 0, 0, 0)
		if poll[1].Revents&unix.POLLIN != 0 {
			break
		}
		n, _, e = syscall.RawSyscall(unix.SYS_READ, k.socket, uintptr(unsafe.Pointer(&r)), unsafe.Sizeof(r))
		if e == syscall.EINTR {
			continue
		}
		if e != 0 || n != unsafe.Sizeof(r) {
			break
		}
		a.failed, a.errno = perform(r.calls, r.count)
		syscall.RawSyscall(unix.SYS_WRITE, k.socket, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
	}
	if k.count > 0 {
		if k.isInit {
			// Nothing of the sandbox may run any more when what guards it goes. Children are gone when there are none to wait for.
			syscall.RawSyscall(unix.SYS_KILL, ^uintptr(0), uintptr(unix.SIGKILL), 0)
			for e = 0; e == 0 || e == syscall.EINTR; {
				_, _, e = syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), 0, unix.WALL, 0, 0, 0)
			}
		}
		perform(k.closing, k.count)
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// perform makes calls in order. It stops at the first that fails and must not.
//
//go:norace
//go:nosplit
func perform(calls unsafe.Pointer, count uintptr) (failed, errno int64) {
	var (
		i, j uintptr
		a    [6]uintptr
		c    *Call
		e    syscall.Errno
	)
	for i = 0; i < count; i++ {
		c = *(**Call)(unsafe.Add(calls, i*unsafe.Sizeof(calls)))
		for j = 0; j < 6; j++ {
			a[j] = c.Args[j]
			if c.from[j] != nil {
				a[j] = c.from[j].Result
			}
		}
		c.Result, _, e = syscall.RawSyscall6(c.NR, a[0], a[1], a[2], a[3], a[4], a[5])
		if e == 0 && c.Zero && c.Result != 0 {
			e = syscall.EBUSY
		}
		c.Errno, c.Made = e, true
		switch {
		case e == 0:
			i += uintptr(c.SkipOnSuccess)
		case tolerates(c.Tolerate, e):
			i += uintptr(c.SkipOnFailure)
		default:
			return int64(i), int64(e)
		}
	}
	return -1, 0
}

//go:norace
//go:nosplit
func tolerates(t Tolerance, e syscall.Errno) bool {
	switch e {
	case syscall.ENOENT:
		t &= Missing | AnyError
	case syscall.ENOTDIR:
		t &= NotDirectory | AnyError
	case syscall.EBADF:
		t &= BadDescriptor | AnyError
	default:
		t &= AnyError
	}
	return t != 0
}
