package stage

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawClone makes the call nr, clone or clone3, with three arguments.
func rawClone(nr, a, b, c uintptr) (pid, errno uintptr)

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// prepared is a Plan as the child reads it: numbers and addresses only. The parent keeps what they point to alive.
type prepared struct {
	inPlace    bool // this process becomes the command: no group, no parent, nobody to report to
	cloneFlags uintptr
	between    bool    // a process between joins the namespaces and clones the child as its sibling, see join
	betweenErr uintptr // why it could not
	sibling    uintptr // pid of that child
	joins      []uintptr
	dropGroups bool
	pidfd      uintptr // *int32
	cloneArgs  uintptr // *cloneArgs with the same and a control group, or 0
	parent     uintptr // pid
	report     uintptr // the child's end of the report channel
	reports    bool    // the parent runs meanwhile, and hears when descriptors are the child's own
	park       bool
	readable   bool
	streams    [3]uintptr
	hasStreams bool

	takeTerminal bool
	personality  bool
	noHugePages  bool
	noCoredump   bool
	affinity     uintptr // *unix.CPUSet or 0
	affinityLen  uintptr
	dir          uintptr // C string or 0

	capHeader, capData uintptr
	capKeep            uint64
	dropBounding       bool

	ruleset     uintptr
	filter      uintptr // *unix.SockFprog
	filterFlags uintptr
	listener    bool

	openFiles  unix.Rlimit
	noCore     unix.Rlimit
	candidates []uintptr
	argv, envv uintptr
}

// cloneArgs is struct clone_args (linux/sched.h), as long as it was when it got its last field, in Linux 5.7.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// message is what the child tells the parent over the report channel, before its listener is needed or when it fails.
type message struct {
	kind  uint32 // messageListener, messageReady or a Step
	value uint32 // descriptor or errno
	which uint32 // for StepExec: index of the candidate
}

const (
	messageListener = ^uint32(0)
	messageReady    = ^uint32(1)
)

const (
	addrNoRandomize   = 0x0040000 // linux/personality.h
	personalityQuery  = 0xffffffff
	lastSignal        = 64
	kernelSigsetBytes = 8
)

// kernelSigaction is struct sigaction as the system call takes it, large enough for every architecture.
type kernelSigaction [4]uint64

// spawn clones the child. In the child it never returns. Only raw system calls run there: with a shared address
// space an allocation, a lock or a growing stack would damage the parent.
//
//go:noinline
//go:norace
//go:nosplit
func spawn(c *prepared) (pid uintptr, errno syscall.Errno) {
	beforeFork() // blocks every signal on this thread
	var en uintptr
	switch {
	case c.cloneArgs != 0:
		pid, en = rawClone(unix.SYS_CLONE3, c.cloneArgs, unsafe.Sizeof(cloneArgs{}), 0)
	case c.between:
		pid, en = rawClone(unix.SYS_CLONE, betweenFlags, 0, 0)
	default:
		pid, en = rawClone(unix.SYS_CLONE, c.cloneFlags, 0, c.pidfd)
	}
	if en == 0 && pid == 0 {
		if c.between {
			siblings(c)
		}
		child(c)
	}
	afterFork()
	if en == 0 && c.between {
		for en = uintptr(syscall.EINTR); en == uintptr(syscall.EINTR); {
			_, _, e := syscall.RawSyscall6(unix.SYS_WAIT4, pid, 0, 0, 0, 0, 0)
			en = uintptr(e)
		}
		pid, en = c.sibling, c.betweenErr
	}
	return pid, syscall.Errno(en)
}

const betweenFlags = unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_FILES | uintptr(unix.SIGCHLD)

// siblings is the process between. A PID namespace that is joined is that of children only (setns(2)), so somebody has to
// join it and clone the command; with CLONE_PARENT the command is this process's sibling, and so the executor's child as in
// a direct start.
//
//go:norace
//go:nosplit
func siblings(c *prepared) {
	var pid uintptr
	c.betweenErr = uintptr(join(c))
	if c.betweenErr == 0 {
		pid, c.betweenErr = rawClone(unix.SYS_CLONE, c.cloneFlags|unix.CLONE_PARENT, 0, c.pidfd)
		if c.betweenErr == 0 && pid == 0 {
			child(c)
		}
		c.sibling = pid
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// join enters the namespaces. Supplementary groups are dropped before, where this process may: a user namespace in which ids
// are mapped without privileges forbids it (user_namespaces(7)).
//
//go:norace
//go:nosplit
func join(c *prepared) (e syscall.Errno) {
	if c.dropGroups {
		if _, _, e = syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
			return e
		}
	}
	for i := 0; i < len(c.joins); i++ {
		if _, _, e = syscall.RawSyscall(unix.SYS_SETNS, c.joins[i], 0, 0); e != 0 {
			return e
		}
	}
	return 0
}

// child takes the steps in order. It returns, with the step that failed, only in place.
//
//go:norace
//go:nosplit
func child(c *prepared) message {
	var (
		m   message
		r   uintptr
		e   syscall.Errno
		set uint64
		act kernelSigaction
		i   int
	)
	// 0. The namespaces, if the process between has not joined them: all that follows is seen from inside.
	if !c.between && len(c.joins) > 0 {
		m.kind = uint32(StepJoin)
		if e = join(c); e != 0 {
			goto fail
		}
	}
	// 1. An own process group: the parent signals and stops the command as a group.
	if !c.inPlace {
		m.kind = uint32(StepProcessGroup)
		if _, _, e = syscall.RawSyscall(unix.SYS_SETPGID, 0, 0, 0); e != 0 {
			goto fail
		}
	}
	// 2. The terminal, while all signals are still blocked: SIGTTOU would stop a background group that asks for it.
	// Failure is no harm: the command is then a background job, as it would be without us.
	if c.takeTerminal {
		r, _, _ = syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		pgrp := int32(r)
		syscall.RawSyscall(unix.SYS_IOCTL, 0, unix.TIOCSPGRP, uintptr(unsafe.Pointer(&pgrp)))
	}
	// 3. Every signal back to default, ignored ones too (a runtime that ignores SIGPIPE would leak that through
	// execve), and none blocked. The runtime's own handlers must be gone before signals are let in.
	for i = 1; i <= lastSignal; i++ {
		if i != int(unix.SIGKILL) && i != int(unix.SIGSTOP) {
			syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(i), uintptr(unsafe.Pointer(&act)), 0, kernelSigsetBytes, 0, 0)
		}
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&set)), 0, kernelSigsetBytes, 0, 0)
	// 4. Die with the parent. The parent may have died before the request took effect: compare with its pid, not
	// with 1, because in a container the executor may be pid 1. In a PID namespace it is always 0; there the keeper of the
	// namespaces sees to it that nothing outlives the parent.
	if !c.inPlace {
		m.kind = uint32(StepParentDeath)
		if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0); e != 0 {
			goto fail
		}
		m.kind = uint32(StepParentGone)
		if r, _, _ = syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); r != c.parent {
			e = syscall.ESRCH
			goto fail
		}
	}
	// 5. Attributes that execve keeps.
	if c.personality {
		m.kind = uint32(StepPersonality)
		r, _, e = syscall.RawSyscall(unix.SYS_PERSONALITY, personalityQuery, 0, 0)
		if e != 0 {
			goto fail
		}
		if _, _, e = syscall.RawSyscall(unix.SYS_PERSONALITY, r|addrNoRandomize, 0, 0); e != 0 {
			goto fail
		}
	}
	if c.affinity != 0 {
		m.kind = uint32(StepAffinity)
		if _, _, e = syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, c.affinityLen, c.affinity); e != 0 {
			goto fail
		}
	}
	if c.noHugePages {
		m.kind = uint32(StepHugePages)
		if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_THP_DISABLE, 1, 0, 0, 0, 0); e != 0 {
			goto fail
		}
	}
	// A limit, not PR_SET_DUMPABLE: the supervisor must still be able to read the command's memory.
	if c.noCoredump {
		m.kind = uint32(StepCoredump)
		if _, _, e = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, uintptr(unsafe.Pointer(&c.noCore)), 0, 0, 0); e != 0 {
			goto fail
		}
	}
	// The supervisor reads the arguments of a notified execve in this copy of the executor's memory. A Go program that has
	// ever started a command as another user is not dumpable any more (its child's setuid, in memory shared with it, did
	// that), and so not readable.
	if c.readable {
		m.kind = uint32(StepReadable)
		if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0, 0); e != 0 {
			goto fail
		}
	}
	if c.dir != 0 {
		m.kind = uint32(StepDir)
		if _, _, e = syscall.RawSyscall(unix.SYS_CHDIR, c.dir, 0, 0); e != 0 {
			goto fail
		}
	}
	// 6. Capabilities: the bounding set first, since dropping from it needs CAP_SETPCAP. With no_new_privs (next) an
	// execve by uid 0 cannot bring back what the permitted set lost here (capabilities(7)).
	m.kind = uint32(StepCapabilities)
	if c.dropBounding {
		for i = 0; i < 64; i++ {
			if c.capKeep>>uint(i)&1 == 0 {
				if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0, 0); e == syscall.EINVAL {
					break // past the last capability that this kernel knows
				} else if e != 0 {
					goto fail
				}
			}
		}
	}
	if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); e != 0 {
		goto fail
	}
	if _, _, e = syscall.RawSyscall(unix.SYS_CAPSET, c.capHeader, c.capData, 0); e != 0 {
		goto fail
	}
	for i = 0; i < 64; i++ {
		if c.capKeep>>uint(i)&1 == 1 {
			if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(i), 0, 0, 0); e != 0 {
				goto fail
			}
		}
	}
	// 7. Needed by both Landlock and seccomp without privileges, and the end of setuid.
	m.kind = uint32(StepNoNewPrivs)
	if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		goto fail
	}
	// 8. Landlock before seccomp: once the filter is on, a call may wait for a supervisor.
	m.kind = uint32(StepLandlock)
	if _, _, e = syscall.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, c.ruleset, 0, 0); e != 0 {
		goto fail
	}
	// 9. The filter. An older kernel (before 5.19) does not know WAIT_KILLABLE_RECV and says EINVAL; no other error
	// is worth another try.
	m.kind = uint32(StepSeccomp)
	r, _, e = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, c.filterFlags, c.filter)
	if e == syscall.EINVAL && c.filterFlags&waitKillable != 0 {
		r, _, e = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, c.filterFlags&^waitKillable, c.filter)
	}
	if e != 0 {
		goto fail
	}
	if c.listener {
		m = message{kind: messageListener, value: uint32(r)}
		syscall.RawSyscall(unix.SYS_WRITE, c.report, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m))
	}
	// 10. An own descriptor table, then nothing in it but the standard streams and the report channel, which closes on
	// exec: an inherited descriptor would be a hole in every rule (CVE-2024-21626). close_range(2) and not /proc,
	// which may be out of reach by now.
	m.kind = uint32(StepDescriptors)
	if _, _, e = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, ^uintptr(0)>>32, ^uintptr(0)>>32, closeRangeUnshare); e != 0 {
		goto fail
	}
	if c.hasStreams {
		for i = 0; i < 3; i++ {
			if _, _, e = syscall.RawSyscall(unix.SYS_DUP3, c.streams[i], uintptr(i), 0); e != 0 {
				goto fail
			}
		}
	}
	if _, _, e = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, c.report+1, ^uintptr(0)>>32, 0); e != 0 {
		goto fail
	}
	if c.report > 3 {
		if _, _, e = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 3, c.report-1, 0); e != 0 {
			goto fail
		}
	}
	// 11. Last: everything above needed descriptors, and a small limit would have failed there with EMFILE.
	m.kind = uint32(StepOpenFiles)
	if _, _, e = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&c.openFiles)), 0, 0, 0); e != 0 {
		goto fail
	}
	if c.reports {
		m = message{kind: messageReady}
		syscall.RawSyscall(unix.SYS_WRITE, c.report, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m))
	}
	if c.park {
		m.kind = uint32(StepPark)
		if r, _, e = syscall.RawSyscall(unix.SYS_READ, c.report, uintptr(unsafe.Pointer(&m.which)), 1); e != 0 || r != 1 {
			goto fail // the parent is gone, or has given up
		}
		m.which = 0
	}
	// 12. As execvp(3): a candidate that is not there or not executable gives way to the next, and "permission
	// denied" is remembered over "not found".
	m.kind = uint32(StepExec)
	m.value = 0
	for i = 0; i < len(c.candidates); i++ {
		_, _, e = syscall.RawSyscall(unix.SYS_EXECVE, c.candidates[i], c.argv, c.envv)
		if m.value == 0 || (m.value == uint32(syscall.ENOENT) && e != syscall.ENOENT) {
			m.value, m.which = uint32(e), uint32(i)
		}
		if e != syscall.ENOENT && e != syscall.EACCES && e != syscall.ENOTDIR {
			break
		}
	}
	goto tell
fail:
	m.value = uint32(e)
tell:
	if c.inPlace {
		return m
	}
	syscall.RawSyscall(unix.SYS_WRITE, c.report, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 125, 0, 0)
	}
}

const (
	waitKillable      = 1 << 5
	closeRangeUnshare = 2
)
