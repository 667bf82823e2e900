package supervise

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Process is one process (thread group) of the sandbox. Its address is its identity: a later process with the same pid is
// another Process.
type Process struct {
	PID    int
	Start  uint64 // clock ticks after boot; with PID it names a process for good
	Parent int    // pid of the parent when the process was first seen
	PIDFD  int    // readable once the process has exited; closed when it is forgotten
}

// Index knows the processes that have been seen, by the threads that called. It is used on the loop's thread only.
type Index struct {
	processes map[int]*Process // by pid
	threads   map[int]thread   // other threads than leaders, by tid
	exited    []func(*Process)
	watch     func(fd int, ready func()) error
	unwatch   func(fd int)
	lookup    lookup
}

// thread holds a tid: while its pidfd is not readable the tid is still the same thread's.
type thread struct {
	process *Process
	pidfd   int
}

// lookup is what the index asks the kernel; tests replace it.
type lookup struct {
	group      func(tid int) (pid int, err error)
	stat       func(pid int) (kernel.Stat, error)
	open       func(pid int) (pidfd int, err error)
	alive      func(pidfd int) bool
	openThread func(tid int) (pidfd int, err error)
}

// maxThreads bounds the remembered threads, each of which holds a descriptor. One more and all are forgotten.
const maxThreads = 256

// NewIndex makes an index whose processes are watched by the loop.
func NewIndex(l *Loop) *Index {
	x := newIndex(l.Watch, l.Unwatch, lookup{
		group:      kernel.ThreadGroup,
		stat:       kernel.ReadStat,
		open:       func(pid int) (int, error) { return unix.PidfdOpen(pid, 0) },
		openThread: kernel.ThreadPIDFD,
		alive:      kernel.Alive,
	})
	l.AtEnd(x.close)
	return x
}

func newIndex(watch func(int, func()) error, unwatch func(int), l lookup) *Index {
	return &Index{processes: map[int]*Process{}, threads: map[int]thread{}, watch: watch, unwatch: unwatch, lookup: l}
}

// OnExit has f called when a process that the index knows has exited.
func (x *Index) OnExit(f func(*Process)) { x.exited = append(x.exited, f) }

// Of returns the process of the thread that makes a call. The caller waits for its answer, so it cannot exit unless it is
// killed; who acts on the result checks the notification once more.
func (x *Index) Of(tid int) (*Process, error) {
	if p := x.Known(tid); p != nil {
		return p, nil
	}
	if t, ok := x.threads[tid]; ok {
		if x.lookup.alive(t.pidfd) {
			return t.process, nil
		}
		x.forgetThread(tid)
	}
	pid, err := x.lookup.group(tid)
	if err != nil {
		return nil, fmt.Errorf("process of thread %d: %w", tid, err)
	}
	p, err := x.Add(pid)
	if err != nil || tid == pid {
		return p, err
	}
	if len(x.threads) >= maxThreads {
		for t := range x.threads {
			x.forgetThread(t)
		}
	}
	if pidfd, err := x.lookup.openThread(tid); err == nil {
		x.threads[tid] = thread{p, pidfd}
	}
	return p, nil
}

// Known returns the live process with a pid if the index has it, else nil.
func (x *Index) Known(pid int) *Process {
	p := x.processes[pid]
	if p == nil {
		return nil
	}
	if !x.lookup.alive(p.PIDFD) {
		x.forget(p)
		return nil
	}
	return p
}

// Add returns the process with a pid, which is looked up if the index does not have it.
func (x *Index) Add(pid int) (*Process, error) {
	if p := x.Known(pid); p != nil {
		return p, nil
	}
	pidfd, err := x.lookup.open(pid)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	// Read after the pidfd was opened and before it is found alive: so both mean the same process.
	st, err := x.lookup.stat(pid)
	if err == nil && !x.lookup.alive(pidfd) {
		err = unix.ESRCH
	}
	if err != nil {
		_ = unix.Close(pidfd)
		return nil, fmt.Errorf("look at process %d: %w", pid, err)
	}
	p := &Process{PID: pid, Start: st.Start, Parent: st.Parent, PIDFD: pidfd}
	if err := x.watch(pidfd, func() { x.forget(p) }); err != nil {
		_ = unix.Close(pidfd)
		return nil, err
	}
	x.processes[pid] = p
	return p, nil
}

// All calls f with each known process; one that has exited may be among them.
func (x *Index) All(f func(*Process)) {
	for _, p := range x.processes {
		f(p)
	}
}

func (x *Index) forget(p *Process) {
	if x.processes[p.PID] != p {
		return
	}
	delete(x.processes, p.PID)
	x.unwatch(p.PIDFD)
	for tid, t := range x.threads {
		if t.process == p {
			x.forgetThread(tid)
		}
	}
	for _, f := range x.exited {
		f(p)
	}
	_ = unix.Close(p.PIDFD)
}

// close releases what the index holds when the loop has ended.
func (x *Index) close() {
	for tid := range x.threads {
		x.forgetThread(tid)
	}
	for pid, p := range x.processes {
		delete(x.processes, pid)
		_ = unix.Close(p.PIDFD)
	}
}

func (x *Index) forgetThread(tid int) {
	_ = unix.Close(x.threads[tid].pidfd)
	delete(x.threads, tid)
}
