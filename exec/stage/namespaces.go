package stage

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is one system call that the keeper of [Namespaces] makes.
type Call struct {
	NR   uintptr
	Args [6]uintptr
	What string // for errors, such as "mount a tmpfs on /tmp"

	Zero          bool      // any other result is an error, too
	Tolerate      Tolerance // errors that are none
	SkipOnSuccess uint32    // how many of the calls that follow are left out when this one succeeds
	SkipOnFailure uint32    // the same when it fails in a way that is tolerated

	Made   bool // and so Result and Errno say how
	Result uintptr
	Errno  syscall.Errno

	from  [6]*Call // arguments that are results of earlier calls
	alive []any    // what Args point to
}

// Tolerance is a set of errors that a call may end with.
type Tolerance uint8

// Errors that a call may end with.
const (
	Missing       Tolerance = 1 << iota // ENOENT
	NotDirectory                        // ENOTDIR
	BadDescriptor                       // EBADF: that of a call which failed, and was allowed to
	AnyError
)

// NewCall returns a call with arguments of these types: int, uintptr, uint64, string and []byte (their address, strings
// with a NUL at the end), unsafe.Pointer, and *Call for the result of an earlier one. Other types, and a string that holds
// a NUL, are mistakes of the program: it panics.
func NewCall(what string, nr uintptr, args ...any) *Call {
	c := &Call{NR: nr, What: what}
	for i, arg := range args {
		switch v := arg.(type) {
		case int:
			c.Args[i] = uintptr(v)
		case uintptr:
			c.Args[i] = v
		case uint64:
			c.Args[i] = uintptr(v)
		case string:
			b, err := syscall.BytePtrFromString(v)
			if err != nil {
				panic(fmt.Sprintf("%s: %v", what, err))
			}
			c.Args[i] = uintptr(unsafe.Pointer(b))
			c.alive = append(c.alive, b)
		case []byte:
			c.Args[i] = uintptr(unsafe.Pointer(unsafe.SliceData(v)))
			c.alive = append(c.alive, v)
		case unsafe.Pointer:
			c.Args[i] = uintptr(v)
			c.alive = append(c.alive, v)
		case *Call:
			c.from[i] = v
		default:
			panic(fmt.Sprintf("%s: argument of type %T", what, arg))
		}
	}
	return c
}

// MayMiss tolerates that what the call names is not there.
func (c *Call) MayMiss() *Call { c.Tolerate |= Missing | NotDirectory; return c }

// CloseTrees closes the descriptors of file systems and mounts that calls have opened and not closed. It is for those that the
// keeper made before it was detached: its descriptors were this process's.
func CloseTrees(calls []*Call) {
	closed := map[*Call]bool{}
	for _, c := range calls {
		if c.NR == unix.SYS_CLOSE && c.Made {
			closed[c.from[0]] = true
		}
	}
	for _, c := range calls {
		opens := c.NR == unix.SYS_OPEN_TREE || c.NR == unix.SYS_FSOPEN || c.NR == unix.SYS_FSMOUNT
		if opens && c.Made && c.Errno == 0 && !closed[c] {
			_ = unix.Close(int(c.Result))
		}
	}
}

// MakeNamespaces is what fails when the kernel refuses the namespaces themselves.
const MakeNamespaces = "make namespaces"

// CallError is a call of the keeper that failed.
type CallError struct {
	What string
	Err  syscall.Errno
}

func (e *CallError) Error() string { return e.What + ": " + e.Err.Error() }

func (e *CallError) Unwrap() error { return e.Err }

// Namespaces are namespaces that a command can be started in. A process keeps them; see keeper.go.
type Namespaces struct {
	PID  int  // of the keeper
	Init bool // the keeper is the init of a PID namespace
	User bool // there is a user namespace: who joins it has every capability in it

	// Join are descriptors of the namespaces, in the order in which they are to be joined (setns(2)).
	Join []int

	keeper   *keeper
	stack    []byte
	socket   int // our end
	theirs   int // the keeper's end, as long as the tables are one; -1 after
	self     int // pidfd of this process for the keeper, as long as the tables are one; -1 without
	detached bool
	pending  []*Call
	closing  []*Call
}

// keeperStack is the size of the keeper's stack in bytes; its code is a loop.
const keeperStack = 32 << 10

// pulse is how often the executor looks whether the keeper is gone, as long as they have one descriptor table and so it cannot
// hear of that.
const pulse = 200 * time.Millisecond

// NewNamespaces clones a process into new namespaces (CLONE_NEW… flags of clone(2)). The calling goroutine must be locked to
// a thread that outlives them, and must not be in a Landlock domain that handles files: those forbid to mount.
func NewNamespaces(flags uintptr) (*Namespaces, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	n := &Namespaces{socket: pair[0], theirs: pair[1], self: -1, Init: flags&unix.CLONE_NEWPID != 0, User: flags&unix.CLONE_NEWUSER != 0}
	n.self, err = unix.PidfdOpen(unix.Getpid(), 0)
	if err == unix.ENOSYS {
		// Every kernel with what the rest needs has it: this is a sandbox such as ours, which refuses namespaces too.
		n.self = -1
		n.release()
		return nil, &CallError{MakeNamespaces, unix.EPERM}
	}
	if err == nil {
		tv := unix.NsecToTimeval(int64(pulse))
		err = unix.SetsockoptTimeval(n.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	}
	if err == nil {
		n.stack, err = unix.Mmap(-1, 0, keeperStack, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	}
	if err != nil {
		n.release()
		return nil, fmt.Errorf("keeper of namespaces: %w", err)
	}
	n.keeper = &keeper{socket: uintptr(n.theirs), pidfd: int32(n.self), isInit: n.Init}
	top := uintptr(unsafe.Pointer(unsafe.SliceData(n.stack))) + keeperStack - 64 // room for the argument of keep, aligned
	syscall.ForkLock.Lock()
	pid, errno := spawnKeeper(flags|unix.CLONE_VM|unix.CLONE_FILES|uintptr(unix.SIGCHLD), top, uintptr(unsafe.Pointer(n.keeper)))
	syscall.ForkLock.Unlock()
	if errno != 0 {
		n.release()
		return nil, &CallError{MakeNamespaces, syscall.Errno(errno)}
	}
	n.PID = int(pid)
	return n, nil
}

// Do has the keeper make calls, and returns a [*CallError] for the first that failed and must not.
func (n *Namespaces) Do(calls []*Call) error {
	if err := n.Begin(calls); err != nil {
		return err
	}
	return n.Wait()
}

// Begin has the keeper make calls while this process goes on; [Namespaces.Wait] waits for them, and so does the next Begin.
func (n *Namespaces) Begin(calls []*Call) error {
	if err := n.Wait(); err != nil || len(calls) == 0 {
		return err
	}
	r := request{unsafe.Pointer(unsafe.SliceData(calls)), uintptr(len(calls))}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r))
	if _, err := unix.Write(n.socket, b); err != nil {
		return fmt.Errorf("keeper of namespaces: %w", err)
	}
	n.pending = calls // and so kept alive
	return nil
}

// Wait waits for the calls that Begin has begun, and returns what [Namespaces.Do] does. Results of calls are there from then
// on.
func (n *Namespaces) Wait() error {
	calls := n.pending
	if calls == nil {
		return nil
	}
	n.pending = nil
	var a answer
	b := unsafe.Slice((*byte)(unsafe.Pointer(&a)), unsafe.Sizeof(a))
	for {
		// Before it is detached the keeper's end is in our own table too, so its death does not end this read.
		got, err := unix.Read(n.socket, b)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && !n.ended() {
			continue
		}
		if err == nil && got != len(b) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("keeper of namespaces: %w", err)
		}
		break
	}
	runtime.KeepAlive(calls)
	if a.failed >= 0 {
		return &CallError{calls[a.failed].What, syscall.Errno(a.errno)}
	}
	return nil
}

// ended tells whether the keeper is gone.
func (n *Namespaces) ended() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, n.PID, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0 || errors.Is(err, unix.ECHILD)
}

// Detach ends the start: the keeper gets a descriptor table of its own with nothing in it but its socket and the kept
// descriptors after the calls in last, loses its capabilities but for those in capabilities, and from then on ends, and with a PID namespace
// everything in it, as soon as this process is gone. closing are calls that it makes first, once nothing else runs there.
func (n *Namespaces) Detach(last []*Call, kept []int, capabilities uint64, closing []*Call) error {
	n.closing = closing // kept alive for as long as n is
	if len(closing) > 0 {
		n.keeper.closing, n.keeper.count = unsafe.Pointer(unsafe.SliceData(closing)), uintptr(len(closing))
	}
	header := &unix.CapUserHeader{Version: capabilityVersion3}
	lo, hi := uint32(capabilities), uint32(capabilities>>32)
	data := &[2]capData{{lo, lo, 0}, {hi, hi, 0}}
	// From here on there is something to take away at the end, and the keeper sees an end by itself.
	calls := append([]*Call{NewCall("keep for the end", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0)}, last...)
	calls = append(calls,
		NewCall("name the keeper", unix.SYS_PRCTL, unix.PR_SET_NAME, "sandlock-init"),
		NewCall("own descriptor table", unix.SYS_CLOSE_RANGE, uintptr(maxDescriptor), uintptr(maxDescriptor), closeRangeUnshare),
	)
	calls = append(calls, closeAllBut(append(kept, n.theirs))...)
	calls = append(calls,
		NewCall("drop the keeper's capabilities", unix.SYS_CAPSET, unsafe.Pointer(header), unsafe.Pointer(data)),
		NewCall("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
	)
	if err := n.Do(calls); err != nil {
		return err
	}
	n.detached = true
	_ = unix.Close(n.theirs)
	n.closeSelf()
	return nil
}

const maxDescriptor = 1<<32 - 1

// closeAllBut closes every descriptor but the given ones, without a look at /proc.
func closeAllBut(kept []int) (calls []*Call) {
	kept = slices.Clone(kept)
	slices.Sort(kept)
	from := 0
	for _, fd := range kept {
		if fd > from {
			calls = append(calls, NewCall("close descriptors", unix.SYS_CLOSE_RANGE, from, fd-1, 0))
		}
		from = fd + 1
	}
	return append(calls, NewCall("close descriptors", unix.SYS_CLOSE_RANGE, from, uintptr(maxDescriptor), 0))
}

// Leave lets the keeper end without waiting for it, where there is nothing to wait for: nobody else is left in a PID
// namespace, and it has no calls to make. The kernel takes the namespaces down meanwhile. The keeper stays a child of this process,
// which therefore must be about to end.
func (n *Namespaces) Leave() {
	if n.detached && len(n.closing) == 0 {
		n.PID, n.stack = 0, nil
		n.release()
	}
}

// Close lets the keeper end, and with a PID namespace everything in it, and waits for that. What is a child of this process
// must be waited for before.
func (n *Namespaces) Close() {
	_ = n.Wait()
	if n.PID > 0 {
		if n.detached {
			if n.socket >= 0 {
				_ = unix.Close(n.socket)
				n.socket = -1
			}
		} else {
			_ = unix.Shutdown(n.socket, unix.SHUT_RDWR) // ends its read, though our table holds its end too
		}
		for {
			if _, err := unix.Wait4(n.PID, nil, 0, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		n.PID = 0
	}
	n.release()
}

func (n *Namespaces) closeSelf() {
	if n.self >= 0 {
		_ = unix.Close(n.self)
		n.self = -1
	}
}

func (n *Namespaces) release() {
	n.closeSelf()
	if n.socket >= 0 {
		_ = unix.Close(n.socket)
		n.socket = -1
	}
	if !n.detached && n.theirs >= 0 {
		_ = unix.Close(n.theirs)
		n.theirs = -1
		if n.self >= 0 {
			_ = unix.Close(n.self)
		}
	}
	if n.stack != nil {
		_ = unix.Munmap(n.stack)
		n.stack = nil
	}
}
