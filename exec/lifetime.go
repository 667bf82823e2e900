package exec

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
)

// lifetime watches the command from start to end: it forwards signals, keeps the time limit, hands the terminal over
// and back, and sees to it that no descendant outlives the command.
//
// The supervisor's thread serves notifications until the command ends and then calls finish. Beside it relay sends
// signals, and followStops keeps job control where there is a terminal. mu orders every signal before or after the
// reaping of the command, so that none ever goes to a recycled pid.
type lifetime struct {
	child       *stage.Child
	family      *family
	own         *kernel.Ruleset
	terminal    bool // the command has the terminal
	refuseForks func()
	limit       time.Duration
	started     time.Time
	audit       *audit.Log

	mu       sync.Mutex
	reaped   bool
	timedOut bool
	fault    error // why the executor had to end the command itself
}

// forwarded are the signals that the executor passes on to the command's process group. A second SIGTERM or SIGINT
// ends a command that ignores the first.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP,
}

// catchSignals asks the runtime for signals. It is called before the command exists: from then on none is lost, and the
// threads that this starts do not hold up the first answers (see supervise.Serve).
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	return signals
}

// begin starts watching the command, and delivers the signals that have come meanwhile.
func (l *lifetime) begin(signals <-chan os.Signal) {
	go l.relay(signals)
	if onTerminal() {
		go l.followStops()
	}
}

func (l *lifetime) relay(signals <-chan os.Signal) {
	if err := l.confine(); err != nil {
		l.fail(err)
	}
	var expired <-chan time.Time
	if l.limit > 0 {
		expired = time.After(l.limit - time.Since(l.started))
	}
	asked := map[os.Signal]bool{}
	for {
		select {
		case <-expired:
			l.expire()
		case s := <-signals:
			sig := s.(unix.Signal)
			if (sig == unix.SIGTERM || sig == unix.SIGINT) && asked[s] {
				l.killAll()
				continue
			}
			asked[s] = true
			l.signalGroup(sig)
		}
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

// failure returns why the executor had to end the command itself, nil if it had not.
func (l *lifetime) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

// killAll ends the command; finish then ends what is left of its family.
func (l *lifetime) killAll() {
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

// confine puts this goroutine's thread under the executor's ruleset: only the runtime's own threads stay outside.
func (l *lifetime) confine() error {
	runtime.LockOSThread()
	return confineThread(l.own)
}

// finish waits for the command, ends everything that it left behind, and says how it went.
func (l *lifetime) finish() Result {
	status := l.awaitCommand()
	l.refuseForks()
	killed := l.family.end()
	if l.terminal {
		l.reclaimTerminal()
	}
	return l.conclude(status, killed)
}

// awaitCommand looks first and reaps under the lock: a signal must not race with the release of the pid.
func (l *lifetime) awaitCommand() (status unix.WaitStatus) {
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
		if _, err := unix.Wait4(l.child.PID, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			return status
		}
	}
}

// followStops keeps job control as it would be without us.
func (l *lifetime) followStops() {
	if err := l.confine(); err != nil {
		l.fail(err)
	}
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, l.child.PID, &info, unix.WSTOPPED, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // reaped
		}
		l.stopped(stopSignal(&info))
	}
}

// stopped gives the terminal to a command that wants it, if it is ours to give; otherwise the executor stops as the
// command did, and continues it when it is continued itself.
func (l *lifetime) stopped(sig unix.Signal) {
	if (sig == unix.SIGTTIN || sig == unix.SIGTTOU) && inForeground() && kernel.SetForegroundGroup(0, l.child.PID) == nil {
		l.terminal = true
		l.signalGroup(unix.SIGCONT)
		return
	}
	hadTerminal := l.reclaimTerminal()
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	// Continued, by the shell's fg or bg.
	if hadTerminal && inForeground() {
		_ = kernel.SetForegroundGroup(0, l.child.PID)
	}
	l.signalGroup(unix.SIGCONT)
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
