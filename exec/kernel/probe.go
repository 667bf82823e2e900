package kernel

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Host is what this machine offers a sandbox, each found by trying.
type Host struct {
	Kernel        string // uname release, for reports only; nothing is decided by it
	LandlockABI   int    // 0 without Landlock
	SeccompFilter bool
	SeccompNotify bool   // a listener could be installed
	NotifyReason  string // why not
	WaitKillable  bool   // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	SyncWakeUp    bool   // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
	Ptrace        bool   // descendants can be traced
	PtraceReason  string // why not
	// Mount, PID and other namespaces can be made and mounted in: as root, or by means of a user namespace.
	Namespaces       bool
	NamespacesReason string // why not, with the setting that forbids it
	UserNamespaces   bool   // with ids mapped, also where that is not needed for the others
	UserNSReason     string // why not, with the setting that forbids it
	// A new /proc can be mounted in such namespaces. It often cannot in a container, where the kernel would have to show
	// what the container hides (mount_too_revealing).
	FreshProc        bool
	FreshProcReason  string // why not
	MappedProc       bool   // with ids mapped; as root in a container it may be one and not the other
	MappedProcReason string // why not
	// Groups of our own can limit memory and CPU time. Package cgroup tries that, not this one.
	CgroupMemory       bool
	CgroupMemoryReason string // why not
	CgroupCPU          bool
	CgroupCPUReason    string // why not
}

// Probe tries every facility. The listener is tried on a thread that is thrown away afterwards, since a filter
// cannot be removed.
func Probe() Host {
	h := Host{LandlockABI: ProvenLandlockABI()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	h.SeccompFilter = actionAvailable(seccompRetErrno)
	h.probeListener()
	h.Ptrace, h.PtraceReason = probePtrace()
	h.probeNamespaces()
	return h
}

// ProbeForStart asks only for what a program can require, as cheaply as can be. What it says is proven a moment later,
// by the start itself: the ruleset is created, the listener installed, the namespaces made, or the start fails (see
// [NamespaceFailure]).
func ProbeForStart() Host {
	traces, reason := probePtrace()
	return Host{
		Ptrace: traces, PtraceReason: reason,
		LandlockABI:   LandlockABI(),
		SeccompFilter: actionAvailable(seccompRetErrno),
		SeccompNotify: actionAvailable(seccompRetUserNotif),
		Namespaces:    true, UserNamespaces: true, FreshProc: true, MappedProc: true,
	}
}

// allowAll is the program "return SECCOMP_RET_ALLOW".
var allowAll = []byte{0x06, 0, 0, 0, 0, 0, 0xff, 0x7f}

func (h *Host) probeListener() {
	if !actionAvailable(seccompRetUserNotif) {
		h.NotifyReason = "the kernel does not know SECCOMP_RET_USER_NOTIF (needs Linux 5.0)"
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, killable, err := tryListener()
		if err != nil {
			h.NotifyReason = err.Error()
			return
		}
		h.SeccompNotify, h.WaitKillable = true, killable
		h.SyncWakeUp = Listener{fd}.SyncWakeUp() == nil
		_ = unix.Close(fd)
	}()
	<-done
}

func tryListener() (fd int, killable bool, err error) {
	if err := NoNewPrivs(); err != nil {
		return -1, false, fmt.Errorf("no_new_privs: %w", err)
	}
	prog, err := FilterProgram(allowAll)
	if err != nil {
		return -1, false, err
	}
	for _, flags := range []uintptr{SeccompFlagNewListener | SeccompFlagWaitKillable, SeccompFlagNewListener} {
		r, _, e := unix.Syscall(unix.SYS_SECCOMP, SeccompSetModeFilter, flags, uintptr(unsafe.Pointer(prog)))
		switch e {
		case 0:
			return int(r), flags&SeccompFlagWaitKillable != 0, nil
		case unix.EBUSY:
			return -1, false, ErrListenerBusy
		case unix.EINVAL:
			err = e
		default:
			return -1, false, fmt.Errorf("seccomp listener: %w", e)
		}
	}
	return -1, false, fmt.Errorf("seccomp listener: %w", err)
}

// probePtrace asks Yama, where there is one: up to scope 1 ancestors may trace.
func probePtrace() (bool, string) {
	b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return true, "" // no Yama
	}
	if scope := strings.TrimSpace(string(b)); scope != "0" && scope != "1" {
		return false, "sysctl kernel.yama.ptrace_scope " + scope + ", 1 is needed"
	}
	return true, ""
}
