package stage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const capabilityVersion3 = 0x20080522

type capData struct{ effective, permitted, inheritable uint32 }

// Start clones the child and returns once it runs the command, or, where its execve is notified or it parks, once it is
// confined and its descriptors are its own. The calling goroutine must be locked to its thread and that thread must
// outlive the child: the parent-death signal is tied to the thread that cloned (prctl(2)).
func Start(p *Plan) (*Child, error) {
	if len(p.Candidates) == 0 {
		return nil, errNoCandidate
	}
	c, keep, err := p.prepare()
	if err != nil {
		return nil, err
	}
	// A socket and no pipe: the parked child waits on it. Messages keep their boundaries.
	report, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	c.report = uintptr(report[1])
	pidfd := new(int32) // on the heap: a stack could move under the address
	keep = append(keep, pidfd)
	c.pidfd = uintptr(unsafe.Pointer(pidfd))
	if p.Cgroup > 0 {
		// Born there and not moved: no instruction of the command runs outside of the group.
		args := &cloneArgs{
			flags: uint64(c.cloneFlags)&^uint64(unix.SIGCHLD) | unix.CLONE_INTO_CGROUP, exitSignal: uint64(unix.SIGCHLD),
			pidfd: uint64(c.pidfd), cgroup: uint64(p.Cgroup),
		}
		if c.between { // the command is born in the group that the process between is in
			args.flags, args.pidfd = uint64(betweenFlags)&^uint64(unix.SIGCHLD)|unix.CLONE_INTO_CGROUP, 0
		}
		keep = append(keep, args)
		c.cloneArgs = uintptr(unsafe.Pointer(args))
	}

	syscall.ForkLock.Lock()
	pid, errno := spawn(c)
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(keep)
	if errno != 0 {
		_ = unix.Close(report[0])
		_ = unix.Close(report[1])
		if p.Cgroup > 0 {
			return nil, fmt.Errorf("clone into the control group: %w", errno)
		}
		return nil, fmt.Errorf("clone: %w", errno)
	}
	child := &Child{PID: int(pid), PIDFD: int(*pidfd), Listener: -1, report: report[0]}
	if c.listener {
		err = child.await(messageListener)
	}
	if err == nil && !p.shares() {
		err = child.await(messageReady)
	}
	_ = unix.Close(report[1]) // not before: the table was shared
	if err == nil && p.shares() {
		err = child.Failure(p)
	}
	if err != nil {
		child.Abandon()
		return nil, err
	}
	return child, nil
}

var errRefusedStart = errors.New("the policy has a call observed or answered that the start itself needs")

// await reads the next message, which must be of a kind. With messageListener comes the number of the listener's
// descriptor, which is ours too as long as the table is shared.
func (c *Child) await(kind uint32) error {
	// Our copy of the child's end stays open (shared table), so its end of file is no sign of death: watch the pidfd.
	// And a call that waits for a supervisor that is not there yet would never be answered: watch the listener.
	set := []unix.PollFd{{Fd: int32(c.report), Events: unix.POLLIN}, {Fd: int32(c.PIDFD), Events: unix.POLLIN}, {Fd: int32(c.Listener), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(set, -1); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	if set[0].Revents == 0 && set[1].Revents == 0 {
		return errRefusedStart
	}
	m, err := c.readMessage()
	if err != nil {
		return fmt.Errorf("start report: %w", err)
	}
	if m.kind != kind {
		return &StepError{Step: Step(m.kind), Err: syscall.Errno(m.value)}
	}
	if kind == messageListener {
		c.Listener = int(m.value)
	}
	return nil
}

// Release lets a parked child execute the command.
func (c *Child) Release() error {
	if _, err := unix.Write(c.report, []byte{1}); err != nil {
		return fmt.Errorf("release the command: %w", err)
	}
	return nil
}

// Failure returns the StepError that the child reported after it was ready, nil if there is none (yet).
func (c *Child) Failure(p *Plan) error {
	m, err := c.readMessage()
	if err != nil {
		return nil // nothing written: the command runs
	}
	e := &StepError{Step: Step(m.kind), Err: syscall.Errno(m.value)}
	if int(m.which) < len(p.Candidates) {
		e.Path = p.Candidates[m.which]
	}
	return e
}

func (c *Child) readMessage() (message, error) {
	var b [unsafe.Sizeof(message{})]byte
	n, _, err := unix.Recvfrom(c.report, b[:], unix.MSG_DONTWAIT)
	if err != nil {
		return message{}, err
	}
	if n != len(b) {
		return message{}, io.ErrUnexpectedEOF
	}
	return message{
		kind:  binary.NativeEndian.Uint32(b[0:]),
		value: binary.NativeEndian.Uint32(b[4:]),
		which: binary.NativeEndian.Uint32(b[8:]),
	}, nil
}

// Abandon ends and reaps a child whose start cannot be completed.
func (c *Child) Abandon() {
	_ = unix.Kill(c.PID, unix.SIGKILL)
	for {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(c.PID, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c.Close()
}

// Close releases the descriptors that the child is known by.
func (c *Child) Close() {
	_ = unix.Close(c.report)
	_ = unix.Close(c.PIDFD)
	if c.Listener >= 0 {
		_ = unix.Close(c.Listener)
	}
}

// prepare turns the plan into addresses. keep holds what they point to.
func (p *Plan) prepare() (c *prepared, keep []any, err error) {
	c = &prepared{
		cloneFlags:   unix.CLONE_FILES | unix.CLONE_PIDFD | uintptr(unix.SIGCHLD),
		parent:       uintptr(unix.Getpid()),
		takeTerminal: p.TakeTerminal,
		personality:  p.NoRandomizeMemory,
		noHugePages:  p.NoHugePages,
		noCoredump:   p.NoCoredump,
		capKeep:      p.Capabilities,
		ruleset:      uintptr(p.RulesetFD),
		filter:       uintptr(unsafe.Pointer(p.Filter)),
		filterFlags:  p.FilterFlags,
		listener:     p.FilterFlags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0,
		openFiles:    p.openFiles(),
		park:         p.Park,
		reports:      !p.shares(),
		readable:     p.ExecIsNotified,
	}
	if p.Streams != nil {
		c.hasStreams = true
		for i, fd := range p.Streams {
			c.streams[i] = uintptr(fd)
		}
	}
	if p.shares() {
		// The parent sleeps until the execve: nothing in between may wait for it.
		c.cloneFlags |= unix.CLONE_VM | unix.CLONE_VFORK
	}
	if n := p.Namespaces; n != nil {
		for _, fd := range n.Join {
			c.joins = append(c.joins, uintptr(fd))
		}
		c.dropGroups = p.DropGroups
		if n.Init {
			c.between, c.parent = true, 0
		}
	}
	keep = append(keep, p.Filter, p.CPUs)
	if p.CPUs != nil {
		c.affinity, c.affinityLen = uintptr(unsafe.Pointer(p.CPUs)), unsafe.Sizeof(*p.CPUs)
	}
	header := &unix.CapUserHeader{Version: capabilityVersion3}
	lo, hi := uint32(p.Capabilities), uint32(p.Capabilities>>32)
	data := &[2]capData{{lo, lo, lo}, {hi, hi, hi}}
	c.capHeader, c.capData = uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data))
	c.dropBounding = hasSetpcap() || p.Namespaces != nil && p.Namespaces.User
	keep = append(keep, header, data)

	str := func(s string) uintptr {
		b, e := syscall.BytePtrFromString(s)
		if e != nil {
			err = fmt.Errorf("string %q holds a NUL", s)
			return 0
		}
		keep = append(keep, b)
		return uintptr(unsafe.Pointer(b))
	}
	array := func(list []string) uintptr {
		ptrs := make([]uintptr, len(list)+1)
		for i, s := range list {
			ptrs[i] = str(s)
		}
		keep = append(keep, ptrs)
		return uintptr(unsafe.Pointer(&ptrs[0]))
	}
	if p.Dir != "" {
		c.dir = str(p.Dir)
	}
	for _, path := range p.Candidates {
		c.candidates = append(c.candidates, str(path))
	}
	c.argv, c.envv = array(p.Argv), array(p.Env)
	return c, keep, err
}

// hasSetpcap reports whether this thread may drop from its bounding set.
func hasSetpcap() bool {
	header := unix.CapUserHeader{Version: capabilityVersion3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective>>unix.CAP_SETPCAP&1 == 1
}
