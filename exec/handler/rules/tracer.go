package rules

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

const (
	// tracerTick is how often traced threads are looked at, should no SIGCHLD have told of their stop.
	tracerTick = 2 * time.Millisecond
	// execTime is how long an execve may take before the thread is asked to stop: it has failed, most likely.
	execTime = 20 * time.Millisecond
)

// tracer follows threads through an execve that has been let go on.
//
// A thread is seized while it waits for its answer, which does not disturb it. What it comes to next tells how the call
// ended: the stop of a successful execve, before the first instruction of the new program; any other stop (a signal, a
// group stop, the interruption by the tick) is on the way back to user mode, so the call has failed, and the thread is
// let go as it stopped. It is traced no longer than that.
//
// Only one thread of a process is followed at a time. The kernel holds a lock of the process while it executes a program,
// and during that waits for the other threads to be gone, traced ones to be reaped by their tracer; to seize a thread
// takes the same lock. The loop must never wait for what only it could bring about.
type tracer struct {
	command   int // a child of this process: its end is for exec/lifetime.go to see
	verify    func(*tracing) bool
	following map[int]*tracing // by pid
	timer     int
	ticking   bool
}

// tracing is one followed execve.
type tracing struct {
	process     *supervise.Process
	tid         int
	id          kernel.FileID // of the file that was admitted
	admitted    *held
	since       time.Time
	interrupted bool
	killed      bool
}

func (t *tracer) init(loop *supervise.Loop, command int, verify func(*tracing) bool) error {
	t.command, t.verify, t.following, t.timer = command, verify, map[int]*tracing{}, -1
	if loop == nil {
		return nil
	}
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("timer for traced programs: %w", err)
	}
	t.timer = fd
	return loop.Watch(fd, func() {
		var expirations [8]byte
		_, _ = unix.Read(fd, expirations[:])
		t.poll()
	})
}

// busy reports whether another thread of a process is being followed.
func (t *tracer) busy(p *supervise.Process, tid int) bool {
	if f := t.following[p.PID]; f == nil || f.tid == tid && f.process == p {
		return false
	}
	t.poll()
	f := t.following[p.PID]
	return f != nil && (f.tid != tid || f.process != p)
}

// follow traces the caller of an admitted execve.
func (t *tracer) follow(w *held, id kernel.FileID) error {
	pid := w.process.PID
	f := t.following[pid]
	if f == nil {
		if err := kernel.Seize(w.call.TID); err != nil {
			return err
		}
		f = &tracing{process: w.process, tid: w.call.TID}
		t.following[pid] = f
	}
	// A thread whose last execve has failed, and which tries another, is traced still.
	f.id, f.admitted, f.since = id, w, time.Now()
	w.call = nil // the loop uses it again
	t.tick(true)
	return nil
}

// tick starts or stops the timer.
func (t *tracer) tick(on bool) {
	if on == t.ticking {
		return
	}
	t.ticking = on
	var spec unix.ItimerSpec
	if on {
		spec.Interval, spec.Value = unix.NsecToTimespec(int64(tracerTick)), unix.NsecToTimespec(int64(tracerTick))
	}
	_ = unix.TimerfdSettime(t.timer, 0, &spec, nil)
}

// poll sees to every followed thread. It never waits.
func (t *tracer) poll() {
	for pid, f := range t.following {
		if t.settled(f) {
			delete(t.following, pid)
		}
	}
	t.tick(len(t.following) > 0)
}

// settled looks at one followed thread, and reports whether that is over. A thread that is not its process's leader has
// become it once the program is executed.
func (t *tracer) settled(f *tracing) bool {
	gone := true
	for _, id := range []int{f.tid, f.process.PID} {
		stop, stopped, err := kernel.Stopped(id)
		switch {
		case stopped:
			return t.stopped(f, id, stop)
		case kernel.Exited(id):
			if id != t.command {
				kernel.ReapTraced(id)
			}
			if id == f.process.PID {
				return true
			}
		case !errors.Is(err, kernel.ErrNotTraced):
			gone = false
		}
	}
	if gone {
		return true
	}
	if !f.interrupted && !f.killed && time.Since(f.since) > execTime {
		f.interrupted = true
		err := kernel.Interrupt(f.tid)
		if err != nil && f.tid != f.process.PID {
			err = kernel.Interrupt(f.process.PID)
		}
		return err != nil // neither is traced: the thread has ended
	}
	return false
}

// stopped deals with a stop, and reports whether the thread is not followed any more.
func (t *tracer) stopped(f *tracing, id int, stop kernel.Stop) bool {
	if f.killed {
		return false // its end is on the way
	}
	if stop.Exec() && !t.verify(f) {
		f.killed = true
		f.kill()
		return false
	}
	return kernel.Detach(id, stop.Signal) == nil // otherwise it was killed meanwhile, and its end comes next
}

// kill ends a followed process. As long as it is traced its number is its own.
func (f *tracing) kill() { _ = unix.Kill(f.process.PID, unix.SIGKILL) }

// Follows reports whether a process's next stop is for the handler to see, not for job control.
func (h *Handler) Follows(pid int) bool { return h.tracer.following[pid] != nil }

// ChildStopped has the handler look at the threads that it traces: one may have stopped.
func (h *Handler) ChildStopped() { h.tracer.poll() }

// Close lets go of everything at the sandbox's end: what is traced still is killed, and reaped as far as it is not a
// child that others wait for.
func (h *Handler) Close() {
	for _, f := range h.tracer.following {
		f.kill()
	}
	for range 1000 {
		h.tracer.poll()
		if len(h.tracer.following) == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
