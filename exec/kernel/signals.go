package kernel

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// catchPC returns the address of the handler in signals_*.s, which writes the signal's number into signalPipe. Package
// os/signal would hand each signal over between threads: 0.7 ms of a start that takes three.
func catchPC() uintptr

// restorePC returns the address of the code that ends a handler, 0 where the kernel brings its own.
func restorePC() uintptr

// signalPipe is the write end of the pipe, as the handler reads it.
//
//lint:ignore U1000 used by assembly code
var signalPipe int32 = -1

// signalPipeRead is the other end.
var signalPipeRead = -1

// sigaction is struct sigaction as rt_sigaction(2) takes it on amd64 and arm64.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Flags of struct sigaction (asm/signal.h).
const (
	saRestorer = 0x04000000
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
)

// CatchSignals has the process receive the given signals as bytes, each a signal's number, in the returned descriptor,
// which never blocks. It takes them from the Go runtime, for good; what arrives while nobody reads is kept in the pipe.
func CatchSignals(list ...unix.Signal) (fd int, err error) {
	if signalPipeRead < 0 {
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return -1, fmt.Errorf("pipe for signals: %w", err)
		}
		signalPipeRead, signalPipe = pipe[0], int32(pipe[1])
	}
	action := sigaction{handler: catchPC(), flags: saOnStack | saRestart, mask: ^uint64(0)}
	if action.restorer = restorePC(); action.restorer != 0 {
		action.flags |= saRestorer
	}
	for _, s := range list {
		_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, unsafe.Sizeof(action.mask), 0, 0)
		if e != 0 {
			return -1, fmt.Errorf("catch %v: %w", s, e)
		}
	}
	return signalPipeRead, nil
}

// SignalWaits reports whether a thread has a signal to take: one that is pending and not blocked. Signals of a whole process
// count only where it has one thread, since any may take them, and a stop does not.
func SignalWaits(tid int) bool {
	b, err := os.ReadFile(procPath(tid, "status"))
	if err != nil {
		return false
	}
	return signalWaits(b)
}

func signalWaits(status []byte) bool {
	mask := func(key string) uint64 {
		for line := range bytes.Lines(status) {
			if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
				n, _ := strconv.ParseUint(string(bytes.TrimSpace(rest)), 16, 64)
				return n
			}
		}
		return 0
	}
	pending := mask("SigPnd:")
	if n, err := statusNumber(status, "Threads:"); err == nil && n == 1 {
		pending |= mask("ShdPnd:")
	}
	const stop = 1 << (unix.SIGSTOP - 1)
	return pending&^mask("SigBlk:")&^stop != 0
}
