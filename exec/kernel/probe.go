package kernel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Host is what this machine offers a sandbox, each found by trying.
type Host struct {
	Kernel         string // uname release, for reports only; nothing is decided by it
	LandlockABI    int    // 0 without Landlock
	SeccompFilter  bool
	SeccompNotify  bool   // a listener could be installed
	NotifyReason   string // why not
	WaitKillable   bool   // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	SyncWakeUp     bool   // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
	Ptrace         bool   // descendants can be traced
	PtraceReason   string // why not
	UserNamespaces bool
	UserNSReason   string // why not, with the setting that forbids it
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
	h.UserNamespaces, h.UserNSReason = probeUserNamespace()
	return h
}

// ProbeForStart asks only for what a program can require, as cheaply as can be. What it says is proven a moment later,
// by the start itself: the ruleset is created, the listener installed, or the start fails.
func ProbeForStart() Host {
	traces, reason := probePtrace()
	return Host{
		Ptrace: traces, PtraceReason: reason,
		LandlockABI:   LandlockABI(),
		SeccompFilter: actionAvailable(seccompRetErrno),
		SeccompNotify: actionAvailable(seccompRetUserNotif),
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

// probeUserNamespace makes one, in a child: success with unshare(2) alone would say little, since distributions let
// the call through and refuse the id map (kernel.apparmor_restrict_unprivileged_userns).
func probeUserNamespace() (bool, string) {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return false, err.Error()
	}
	defer null.Close()
	attr := &os.ProcAttr{Files: []*os.File{null, null, null}, Sys: newUserNamespace()}
	p, err := os.StartProcess("/proc/self/exe", []string{"sandlock-exec", "--version"}, attr)
	if err == nil {
		st, werr := p.Wait()
		if werr == nil && st.Success() {
			return true, ""
		}
		return false, "a program cannot be started in one"
	}
	reason := err.Error()
	switch {
	case errors.Is(err, unix.ENOSPC):
		reason = "sysctl user.max_user_namespaces is 0 or used up"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		reason = "forbidden: see sysctl kernel.apparmor_restrict_unprivileged_userns, kernel.unprivileged_userns_clone, or an outer sandbox"
	}
	return false, reason
}
