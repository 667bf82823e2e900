package supervise

import "golang.org/x/sys/unix"

// Verdict is a handler's answer to one call.
type Verdict struct {
	kind   verdictKind
	value  int64
	errno  unix.Errno
	reason Reason
}

type verdictKind uint8

const (
	verdictNext verdictKind = iota
	verdictContinue
	verdictReturn
	verdictErrno
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

// Continue lets the kernel carry out the call.
func Continue(r Reason) Verdict { return Verdict{kind: verdictContinue, reason: r} }

// Return answers with a value: the call was carried out on behalf of the caller.
func Return(v int64) Verdict { return Verdict{kind: verdictReturn, value: v} }

// Errno fails the call.
func Errno(e unix.Errno) Verdict { return Verdict{kind: verdictErrno, errno: e} }

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
