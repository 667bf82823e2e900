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
// Two goroutines share it. follow blocks in wait and is the only one that reaps; relay sends signals. mu orders a
// signal before or after the reaping of the command, so that none ever goes to a recycled pid.
type lifetime struct {
	child       *stage.Child
	family      *family
	own         *kernel.Ruleset
	terminal    bool // the command was given the terminal
	refuseForks func()
	limit       time.Duration
	started     time.Time
	audit       *audit.Log

	done   int // eventfd: readable when everything is over
	over   chan struct{}
	result Result

	mu       sync.Mutex
	reaped   bool
	timedOut bool
}

// forwarded are the signals that the executor passes on to the command's process group. A second SIGTERM or SIGINT
// ends a command that ignores the first.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP,
}

// begin starts watching. It returns at once.
func (l *lifetime) begin() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	l.done, l.over = fd, make(chan struct{})
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	go l.relay(signals)
	go l.follow()
	return nil
}

// wait returns when the command and all of its descendants are gone.
func (l *lifetime) wait() Result {
	<-l.over
	return l.result
}

func (l *lifetime) relay(signals <-chan os.Signal) {
	if l.confine() != nil {
		l.killAll()
	}
	var expired <-chan time.Time
	if l.limit > 0 {
		expired = time.After(l.limit - time.Since(l.started))
	}
	asked := map[os.Signal]bool{}
	for {
		select {
		case <-l.over:
			return
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

// killAll ends the command; follow then ends what is left of its family.
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

// follow waits for the command, reaping orphans on the way, and then ends the family.
func (l *lifetime) follow() {
	if l.confine() != nil {
		l.killAll()
	}
	status := l.awaitCommand()
	l.refuseForks()
	if l.terminal {
		l.reclaimTerminal()
	}
	killed := l.family.end()
	l.result = l.conclude(status, killed)
	close(l.over)
	_, _ = unix.Write(l.done, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// confine puts this goroutine's thread under the executor's ruleset: only the runtime's own threads stay outside.
func (l *lifetime) confine() error {
	runtime.LockOSThread()
	return confineThread(l.own)
}

func (l *lifetime) awaitCommand() unix.WaitStatus {
	for {
		// Look first, reap under the lock: a signal must not race with the pid's release.
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		l.mu.Lock()
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WUNTRACED, nil)
		ended := pid == l.child.PID && !status.Stopped() || errors.Is(err, unix.ECHILD)
		l.reaped = l.reaped || ended
		l.mu.Unlock()
		if ended {
			return status
		}
		if pid == l.child.PID && status.Stopped() {
			l.stopped(status.StopSignal())
		}
	}
}

// stopped keeps job control as it would be without us: a command that wants the terminal gets it if it is ours to
// give; otherwise the executor stops as the command did, and continues it when it is continued itself.
func (l *lifetime) stopped(sig unix.Signal) {
	if (sig == unix.SIGTTIN || sig == unix.SIGTTOU) && inForeground() {
		if kernel.SetForegroundGroup(0, l.child.PID) == nil {
			l.terminal = true
			l.signalGroup(unix.SIGCONT)
			return
		}
	}
	hadTerminal := l.terminal && l.reclaimTerminal()
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	// Continued, by the shell's fg or bg.
	if hadTerminal && inForeground() {
		_ = kernel.SetForegroundGroup(0, l.child.PID)
	}
	l.signalGroup(unix.SIGCONT)
}

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

func inForeground() bool {
	pgrp, err := kernel.ForegroundGroup(0)
	return err == nil && pgrp == unix.Getpgrp()
}
