package exec

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// lifetime watches the command from start to end: it forwards signals, keeps the time limit, hands the terminal over
// and back, and sees to it that no descendant outlives the command. All of it happens on the supervisor's thread, in
// turn with the notified calls. mu orders every signal before or after the reaping of the command, so that none ever
// goes to a recycled pid, whoever sends it.
type lifetime struct {
	child       *stage.Child
	family      *family
	terminal    bool // the command has the terminal
	refuseForks func()
	stops       *stops
	limit       time.Duration
	started     time.Time
	audit       *audit.Log
	asked       map[unix.Signal]bool // to end; read by others when all is over
	tracer      tracer               // nil where nothing is traced

	mu       sync.Mutex
	reaped   bool
	timedOut bool
	killed   bool  // by the executor
	fault    error // why the executor had to end the command itself
}

// tracer is who traces processes of the sandbox for a while.
type tracer interface {
	Follows(pid int) bool // the next stop of a process is the tracer's
	ChildStopped()        // a child or traced process may have stopped or ended
}

// forwarded are the signals that the executor passes on to the command's process group. A second SIGTERM or SIGINT
// ends a command that ignores the first.
var forwarded = []unix.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP,
}

// catchSignals is called before the command exists: from then on none is lost.
func catchSignals(traces bool) (fd int, err error) {
	list := forwarded
	if traces || onTerminal() {
		list = append(list[:len(list):len(list)], unix.SIGCHLD) // tells that the command, or a traced process, was stopped
	}
	return kernel.CatchSignals(list...)
}

// watch adds what concerns the command's life to the supervisor's loop: signals that arrive in a descriptor, -1 for
// none, and the time limit.
func (l *lifetime) watch(loop *supervise.Loop, signals int) error {
	if signals >= 0 {
		if err := loop.Watch(signals, func() { l.readSignals(signals) }); err != nil {
			return err
		}
	}
	if l.limit <= 0 {
		return nil
	}
	timer, err := supervise.NewTimer(loop, l.expire)
	if err != nil {
		return fmt.Errorf("time limit: %w", err)
	}
	timer.Set(l.limit - time.Since(l.started))
	return nil
}

func (l *lifetime) readSignals(fd int) {
	for _, s := range pendingSignals(fd) {
		l.signalled(s)
	}
}

// pendingSignals takes the signals that have arrived in a descriptor of catchSignals, -1 for none.
func pendingSignals(fd int) (all []unix.Signal) {
	if fd < 0 {
		return nil
	}
	var pending [64]byte
	n, err := unix.Read(fd, pending[:])
	if err != nil {
		return nil
	}
	for _, s := range pending[:n] {
		all = append(all, unix.Signal(s))
	}
	return all
}

func (l *lifetime) signalled(sig unix.Signal) {
	switch sig {
	case unix.SIGCHLD:
		if l.tracer != nil {
			l.tracer.ChildStopped()
		}
		if onTerminal() && (l.tracer == nil || !l.tracer.Follows(l.child.PID)) {
			l.followStop()
		}
		return
	case unix.SIGTERM, unix.SIGINT:
		if l.asked[sig] {
			l.killAll()
			return
		}
		l.asked[sig] = true
	case unix.SIGHUP, unix.SIGQUIT:
		l.asked[sig] = true
	}
	l.forward(sig)
}

// forward passes a signal on, unless a paused sandbox is not to have it.
func (l *lifetime) forward(sig unix.Signal) {
	if l.stops.forward(sig) {
		l.signalGroup(sig)
	}
}

func (l *lifetime) expire() {
	l.mu.Lock()
	l.timedOut = !l.reaped
	l.mu.Unlock()
	l.audit.Write(audit.Line{Event: "timeout", Reason: fmt.Sprintf("the time limit of %v is over", l.limit), Rule: "limits.time"})
	l.killAll()
}

// fail ends a command around which the executor cannot keep its own promises.
func (l *lifetime) fail(err error) {
	l.mu.Lock()
	l.fault = err
	l.mu.Unlock()
	l.killAll()
}

// dropCapabilities takes them from the threads of the runtime, which run no code of the sandbox's. It must not run on the
// supervisor's own: that may not signal other threads where the kernel's Landlock still tells them apart (before 6.15).
func (l *lifetime) dropCapabilities(keep uint64) {
	if err := kernel.DropCapabilities(keep); err != nil {
		l.fail(fmt.Errorf("drop the executor's capabilities: %w", err))
	}
}

// failure returns why the executor had to end the command itself, nil if it had not.
func (l *lifetime) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

// ended tells whether the executor has killed the command.
func (l *lifetime) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.killed
}

// killAll ends the command; finish then ends what is left of its family.
func (l *lifetime) killAll() {
	l.mu.Lock()
	l.killed = l.killed || !l.reaped
	l.mu.Unlock()
	l.refuseForks()
	l.signalGroup(unix.SIGKILL)
}

// signalGroup signals the command's process group, and the command itself in case it left that group.
func (l *lifetime) signalGroup(sig unix.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reaped {
		return
	}
	_ = unix.Kill(-l.child.PID, sig)
	if pgrp, err := unix.Getpgid(l.child.PID); err == nil && pgrp != l.child.PID {
		_ = unix.Kill(l.child.PID, sig)
	}
}

// finish waits for the command, ends everything that it left behind, and says how it went.
func (l *lifetime) finish() Result {
	status, used := l.awaitCommand()
	l.refuseForks()
	killed := l.family.end()
	if l.terminal {
		l.reclaimTerminal()
	}
	r := l.conclude(status, killed)
	r.Peak = Peak{RSS: uint64(used.Maxrss) << 10, User: time.Duration(used.Utime.Nano()), Sys: time.Duration(used.Stime.Nano())}
	return r
}

// awaitCommand looks first and reaps under the lock: a signal must not race with the release of the pid.
func (l *lifetime) awaitCommand() (status unix.WaitStatus, used unix.Rusage) {
	for {
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, l.child.PID, &info, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reaped = true
	for {
		if _, err := unix.Wait4(l.child.PID, &status, 0, &used); !errors.Is(err, unix.EINTR) {
			return status, used
		}
	}
}

// followStop keeps job control as it would be without us. Stops that the executor itself makes are none of its business.
func (l *lifetime) followStop() {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, l.child.PID, &info, unix.WSTOPPED|unix.WNOHANG, nil)
	if err == nil && kernel.ChildPID(&info) != 0 && !l.stops.made(l.child.PID) {
		l.stopped(stopSignal(&info))
	}
}

// stopped gives the terminal to a command that wants it, if it is ours to give; otherwise the executor stops as the
// command did, and continues it when it is continued itself.
func (l *lifetime) stopped(sig unix.Signal) {
	if (sig == unix.SIGTTIN || sig == unix.SIGTTOU) && inForeground() && kernel.SetForegroundGroup(0, l.child.PID) == nil {
		l.terminal = true
		l.forward(unix.SIGCONT)
		return
	}
	hadTerminal := l.reclaimTerminal()
	if err := l.stops.suspend(); err != nil {
		l.fail(err)
		return
	}
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	// Continued, by the shell's fg or bg.
	l.stops.proceed()
	if hadTerminal && inForeground() {
		_ = kernel.SetForegroundGroup(0, l.child.PID)
	}
	l.forward(unix.SIGCONT)
}

// stopSignal is si_status of a CLD_STOPPED child.
func stopSignal(info *unix.Siginfo) unix.Signal { return unix.Signal(kernel.ChildStatus(info)) }

// reclaimTerminal takes the terminal back if the command's group still has it.
func (l *lifetime) reclaimTerminal() bool {
	pgrp, err := kernel.ForegroundGroup(0)
	if err != nil || pgrp != l.child.PID {
		return false
	}
	return kernel.SetForegroundGroup(0, unix.Getpgrp()) == nil
}

func (l *lifetime) conclude(status unix.WaitStatus, killed int) Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Result{Duration: time.Since(l.started), Killed: killed, TimedOut: l.timedOut}
	switch {
	case l.timedOut:
		r.Code = CodeTimeout
	case status.Signaled():
		r.Signal = int(status.Signal())
		r.Code = 128 + r.Signal
	default:
		r.Code = status.ExitStatus()
	}
	return r
}

// ownsTerminal reports whether all standard streams are one terminal whose foreground group is ours. In a pipeline
// another process of our group may need the terminal (`sandlock-exec … | less`), so it is then handed over only when
// the command asks for it.
func ownsTerminal() bool {
	for fd := range 3 {
		if _, err := kernel.ForegroundGroup(fd); err != nil {
			return false
		}
	}
	return inForeground()
}

func onTerminal() bool {
	_, err := kernel.ForegroundGroup(0)
	return err == nil
}

func inForeground() bool {
	pgrp, err := kernel.ForegroundGroup(0)
	return err == nil && pgrp == unix.Getpgrp()
}
