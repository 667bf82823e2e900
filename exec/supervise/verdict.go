package supervise

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Verdict is a handler's answer to one call.
type Verdict struct {
	kind   verdictKind
	value  int64 // what the call returns; for verdictAddFD the descriptor; for verdictWait what is done already
	flags  uint32
	errno  unix.Errno
	reason Reason
	later  func(context.Context) Verdict
	then   func(*Call) Verdict
	wait   *waiting
	signal func(*Call) Verdict // for wait: what answers when a signal comes first
	drop   func()              // releases what later or wait holds
}

type verdictKind uint8

const (
	verdictNext verdictKind = iota
	verdictContinue
	verdictReturn
	verdictErrno
	verdictAddFD
	verdictKill
	verdictDefer
	verdictWait
	verdictResume
)

// Reason says why a call may be continued: the kernel then reads its memory arguments again, and another thread may
// have changed them.
type Reason uint8

// Reasons.
const (
	// DecidedOnRegisters: nothing but register arguments mattered.
	DecidedOnRegisters Reason = iota + 1
	// KernelDecides: the verdict grants nothing; Landlock or file permissions decide in the kernel. The only reason
	// that holds after guest memory was read.
	KernelDecides
)

// Next leaves the call to the next handler.
func Next() Verdict { return Verdict{} }

// Pass is Next, and Continue where no further handler takes the call: for handlers that find most calls not to be theirs.
func Pass(r Reason) Verdict { return Verdict{kind: verdictNext, reason: r} }

// Continue lets the kernel carry out the call.
func Continue(r Reason) Verdict { return Verdict{kind: verdictContinue, reason: r} }

// Return answers with a value: the call was carried out on behalf of the caller.
func Return(v int64) Verdict { return Verdict{kind: verdictReturn, value: v} }

// Errno fails the call.
func Errno(e unix.Errno) Verdict { return Verdict{kind: verdictErrno, errno: e} }

// AddFD answers with a descriptor: a copy of fd, with O_CLOEXEC or 0 as flags, is installed in the caller's table, and
// the call returns its number. The verdict takes fd over and closes it. Where the copy cannot be made the call fails with
// EMFILE or EACCES; it is never carried out unmediated.
func AddFD(fd int, flags uint32) Verdict {
	return Verdict{kind: verdictAddFD, value: int64(fd), flags: flags}
}

// Restart fails the call as a signal would: with EINTR, or not at all where the signal's handler restarts calls
// (signal(7)). It is only for a caller that has a signal to take, see [Verdict.Interrupted]; others would see the kernel's
// own ERESTARTSYS.
func Restart() Verdict { return Errno(restartSys) }

// restartSys is ERESTARTSYS (linux/errno.h).
const restartSys unix.Errno = 512

// Kill ends the caller's process with SIGKILL.
func Kill() Verdict { return Verdict{kind: verdictKill} }

// Defer leaves the loop: f runs on a goroutine of its own and its verdict answers the call. It is for what may block, and
// for work that would keep others waiting; what can be waited for by a descriptor or a time is for [WaitFD].
// f must not touch the handler's state, the call or the caller's memory (no other thread may read that), and should
// return when its context ends: a minute after the call, which fails with EIO then, or when the caller is gone. It must not
// return Next, Defer, WaitFD or Kill.
//
// The functions of one process start in the order in which their calls came. They do not wait for one another to end: a
// call that blocks delays no other thread. Only so many run at a time, for a process as for the sandbox; further calls wait
// in the queue of their process, and the queues have their turns. There is a bound to the calls that wait, too, of which
// no process can take all: one more fails with EAGAIN.
func Defer(f func(context.Context) Verdict) Verdict { return Verdict{kind: verdictDefer, later: f} }

// IsContinue reports whether the verdict leaves the call to the kernel.
func (v Verdict) IsContinue() bool { return v.kind == verdictContinue }

// Resume ends a deferred call's stay outside of the loop without an answer: then runs on the loop's thread with the call,
// and its verdict answers, which may be Defer or WaitFD. It is for results that the caller's memory is to receive. Only f
// of [Defer] may return it. It is not called for a caller that is gone.
func Resume(then func(*Call) Verdict) Verdict { return Verdict{kind: verdictResume, then: then} }

// raced reports whether v would continue a call on the strength of memory that another thread may have changed since.
func (v Verdict) raced(memoryRead bool) bool {
	return v.kind == verdictContinue && (v.reason == 0 || memoryRead && v.reason != KernelDecides)
}

// Dropping has release called should the function of a Defer, WaitFD or Resume never be called, so that what it holds is
// not lost. After the end of the sandbox it may be called on another thread than the loop's.
func (v Verdict) Dropping(release func()) Verdict {
	v.drop = release
	return v
}

// Having says what a WaitFD or Wait returns where it cannot wait, in place of failing: what is already done of a call that
// may end early. 0 is nothing.
func (v Verdict) Having(done int64) Verdict {
	v.value = done
	return v
}

// unable answers a wait that cannot be.
func (v Verdict) unable(e Verdict) Verdict {
	if v.kind == verdictWait && v.value > 0 {
		return Return(v.value)
	}
	return e
}

// Defers reports whether the verdict leaves the loop.
func (v Verdict) Defers() bool { return v.kind == verdictDefer || v.kind == verdictWait }

// Deferred returns the function that was deferred, for tests.
func (v Verdict) Deferred() func(context.Context) Verdict { return v.later }

// String says what the verdict is, for tests and reports.
func (v Verdict) String() string {
	switch v.kind {
	case verdictNext:
		return [...]string{"next", "pass: decided on registers", "pass: the kernel decides"}[v.reason]
	case verdictContinue:
		return [...]string{"continue", "continue: decided on registers", "continue: the kernel decides"}[v.reason]
	case verdictReturn:
		return fmt.Sprintf("return %d", v.value)
	case verdictErrno:
		return "errno " + unix.ErrnoName(v.errno)
	case verdictAddFD:
		return fmt.Sprintf("descriptor with flags %#x", v.flags)
	case verdictKill:
		return "kill"
	case verdictResume:
		return "resume"
	case verdictWait:
		return "wait"
	}
	return "defer"
}

// FromError fails the call with the errno inside err, EPERM where there is none, and returns 0 for nil.
func FromError(err error) Verdict {
	if err == nil {
		return Return(0)
	}
	if e, ok := err.(unix.Errno); ok {
		return Errno(e)
	}
	return Errno(unix.EPERM)
}
