package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/branch"
)

// Cmd is a command in a sandbox, shaped like the standard library's os/exec: set the fields, then Run, Output, or Start
// and Wait. It can be started once. It is made by [Artifact.Command].
//
// The supervisor is a goroutine of this process, locked to a thread of its own that ends with the command; it enters a
// Landlock domain, the process as a whole does not. As long as a sandbox runs, the process is a child subreaper
// (prctl(2), PR_SET_CHILD_SUBREAPER). Nothing that the command starts outlives it.
type Cmd struct {
	Params  map[string]string // values of the policy's parameters
	Dir     string            // working directory where the policy sets none; "" is this process's
	Env     []string          // what the policy's environment rules start from; nil is os.Environ()
	Timeout time.Duration     // narrows limits.time; 0 keeps it
	Audit   *audit.Log        // nil discards
	Cgroup  string            // cgroup v2 directory for limits.backend "cgroup"; "" is the one that this process is in
	Explain bool              // observe what the policy refuses: see ExitStatus.Denied; slower

	// Where a policy has names resolved, or rules about requests: the helper program sandlock-proxy, "" is the one beside this
	// program; and the servers that a policy's resolver asks (network.resolver), none are those of /etc/resolv.conf. Credentials
	// that a policy reads from the environment are read from Env; what the program itself has of them it keeps.
	Helper      string
	Nameservers []netip.AddrPort

	// Review, if set, makes this a dry run: when all is over it is shown the branch of the working directory, whose changes are
	// then dropped. A policy without a branch (filesystem.workdir), or with one of a BranchFS, which does not tell what has
	// changed, is refused. It runs on a goroutine of its own, and what it
	// returns is in ExitStatus.Branch.
	Review func(*branch.Branch) error

	// As in os/exec: nil is /dev/null, an *os.File is handed over as it is, for anything else a goroutine copies.
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	ctx      context.Context
	artifact *Artifact
	args     []string
	hooks    hooks
	freezer  Freezer
	within   *place // nil but for a stage of a transaction that runs

	streams streams
	done    chan struct{} // closed when the command and its family are gone

	mu     sync.Mutex
	state  state
	run    *running
	status ExitStatus
	err    error
}

// state is how far a Cmd has come.
type state uint8

const (
	isNew state = iota
	isParked
	isRunning
	isOver
)

// ExitStatus is how a command ended.
type ExitStatus struct {
	Code     int           // the command's exit code; 128+Signal when a signal ended it; 124 when its time ran out; Branch.Code
	Signal   unix.Signal   // that ended it, 0 if none
	Killed   bool          // by SIGKILL
	TimedOut bool          // limits.time or Timeout ran out
	Limit    string        // the policy's limit that processes were killed for, "" if none were
	Duration time.Duration // wall clock
	Detached int           // processes that were still alive when the command ended, and were killed
	Peak     Peak
	Denied   []Denial      // with Explain
	Branch   *BranchResult // of the working directory; nil without one
}

// Success reports whether the command exited with code 0.
func (s ExitStatus) Success() bool { return s.Code == 0 && !s.TimedOut }

// Peak is the most that a sandbox used.
type Peak struct {
	RSS  uint64        // bytes: resident set of the largest process that was waited for (getrusage(2), ru_maxrss)
	User time.Duration // CPU time of the command and what it waited for
	Sys  time.Duration
}

// ExitError says that a command did not succeed.
type ExitError struct {
	Status ExitStatus
	Stderr []byte // by Output, if Stderr was not set
}

func (e *ExitError) Error() string {
	s := e.Status
	switch {
	case e.Unwrap() != nil:
		return e.Unwrap().Error()
	case s.TimedOut:
		return "time limit is over"
	case s.Limit != "" && s.Killed:
		return "killed: " + s.Limit
	case s.Signal != 0:
		return "signal: " + s.Signal.String()
	case s.Limit != "" && s.Code == 0:
		return "processes were killed: " + s.Limit
	}
	return fmt.Sprintf("exit status %d", s.Code)
}

// Unwrap returns why the changes of a command that did succeed could not be applied: a *branch.ConflictError, …; else nil.
func (e *ExitError) Unwrap() error {
	if b := e.Status.Branch; b != nil && b.Code != 0 {
		return b.Err
	}
	return nil
}

// Errors of a Cmd that is used out of turn.
var (
	ErrStarted    = errors.New("the sandbox was started already: it runs once")
	ErrNotStarted = errors.New("the sandbox has not been started")
	ErrEnded      = errors.New("the sandbox has ended")
)

// Command makes a command that runs under the artifact's policy; without a name it is the policy's own (program.exec).
// When ctx is done the sandbox is killed.
func (a *Artifact) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := &Cmd{ctx: ctx, artifact: a, done: make(chan struct{})}
	if name != "" {
		c.args = append([]string{name}, args...)
	}
	return c
}

// Start starts the command and returns when it runs, or lets a created one run. A *[SetupError] says why the sandbox could
// not be set up, a *[CommandError] why the command could not be executed.
func (c *Cmd) Start() error {
	c.mu.Lock()
	if c.state == isParked {
		defer c.mu.Unlock()
		if err := c.run.child.Release(); err != nil {
			return err
		}
		c.state = isRunning
		return nil
	}
	c.mu.Unlock()
	return c.launch(isRunning)
}

// Create starts the sandbox and leaves the command waiting in it, confined, before its execve. Start lets it run.
func (c *Cmd) Create() error { return c.launch(isParked) }

func (c *Cmd) launch(to state) error {
	c.mu.Lock()
	if c.state != isNew {
		c.mu.Unlock()
		return ErrStarted
	}
	c.state = isOver // until it runs
	c.mu.Unlock()
	if err := c.ctx.Err(); err != nil {
		return c.fail(err)
	}
	o := Options{
		Artifact: c.artifact, Command: c.args, Params: c.Params, Environ: c.environ(), Timeout: c.Timeout, Audit: c.Audit,
		Explain: c.Explain, Cgroup: c.Cgroup, park: to == isParked, dir: c.Dir, hooks: c.hooks, Freezer: &c.freezer,
		Helper: c.Helper, Nameservers: c.Nameservers, Review: c.Review,
	}
	c.within.narrow(&o)
	s, err := newSandbox(o)
	if err != nil {
		return c.fail(err)
	}
	s.shared = !c.within.ownsProcess()
	if !s.supervised() {
		return c.fail(&SetupError{[]string{"the policy has no supervisor (program.no_supervisor): sandlock-exec or Confine can run it, a Cmd cannot"}})
	}
	if s.options.streams, err = c.streams.open(c); err != nil {
		return c.fail(err)
	}
	started := make(chan error, 1)
	go c.supervise(s, to, started)
	if err := <-started; err != nil {
		return c.fail(err)
	}
	c.streams.begin()
	return nil
}

// fail ends a Cmd that has not run.
func (c *Cmd) fail(err error) error {
	c.streams.abandon()
	c.freezer.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	close(c.done)
	return err
}

func (c *Cmd) environ() []string {
	if c.Env != nil {
		return c.Env
	}
	return os.Environ()
}

// supervise is the life of the supervisor's goroutine. Its thread is confined, so it is never given back.
func (c *Cmd) supervise(s *sandbox, to state, started chan<- error) {
	runtime.LockOSThread()
	plan, rs, err := s.prepare()
	if rs != nil {
		defer rs.close()
	}
	if err == nil {
		err = s.openBoard()
	}
	var r *running
	if err == nil {
		r, err = s.start(plan, rs)
	}
	c.streams.handedOver()
	if err != nil {
		s.cleanUp()
		started <- err
		return
	}
	c.mu.Lock()
	c.run, c.state = r, to
	c.mu.Unlock()
	// The context may live much longer: it must not keep what has ended.
	stop := context.AfterFunc(c.ctx, func() { _ = c.Kill() })
	started <- nil
	result, err := r.serve()
	stop()
	s.cleanUp() // before anybody is told that it is over
	c.finish(result, err)
}

func (c *Cmd) finish(r Result, err error) {
	c.streams.closeStdin()
	c.streams.wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = isOver
	c.status = ExitStatus{
		Code: r.Code, Signal: unix.Signal(r.Signal), Killed: r.Signal == int(unix.SIGKILL), TimedOut: r.TimedOut, Limit: r.Limit,
		Duration: r.Duration, Detached: r.Killed, Peak: r.Peak, Denied: r.Denied,
		Branch: r.Branch,
	}
	c.err = err
	close(c.done)
}

// Done is closed when the command and everything that it started are gone and its output has been copied.
func (c *Cmd) Done() <-chan struct{} { return c.done }

// Wait waits for the command to end. It returns an *[ExitError] if the command did not succeed, or the context's error if
// that ended it. It may be called any number of times; abandoning a wait (see Done) loses no output.
func (c *Cmd) Wait() error {
	c.mu.Lock()
	unstarted := c.state == isNew
	c.mu.Unlock()
	if unstarted {
		return ErrNotStarted
	}
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.status.Success() {
		return c.err
	}
	if err := c.ctx.Err(); err != nil && c.status.Killed {
		return err
	}
	return &ExitError{Status: c.status}
}

// Run starts the command and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns what it wrote to its standard output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errStreamSet
	}
	var out, errs bytes.Buffer
	c.Stdout = &out
	captured := c.Stderr == nil
	if captured {
		c.Stderr = &errs
	}
	err := c.Run()
	if exit := (*ExitError)(nil); captured && errors.As(err, &exit) {
		exit.Stderr = errs.Bytes()
	}
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns what it wrote to its standard output and error, in one pipe.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errStreamSet
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Status returns how the command ended; ok is false until it has.
func (c *Cmd) Status() (s ExitStatus, ok bool) {
	select {
	case <-c.done:
	default:
		return ExitStatus{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status, c.err == nil
}

// Pid returns the command's process id, 0 before it exists. After Wait the number may be another's.
func (c *Cmd) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil {
		return 0
	}
	return c.run.child.PID
}

// alive returns the run, if there is one that has not ended.
func (c *Cmd) alive() (*running, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == isNew:
		return nil, ErrNotStarted
	case c.state == isOver:
		return nil, ErrEnded
	}
	return c.run, nil
}

// Kill ends the command with SIGKILL, and everything that it started.
func (c *Cmd) Kill() error {
	r, err := c.alive()
	if err == nil {
		r.life.killAll()
	}
	return err
}

// Pause stops every process of the sandbox, see [Freezer.Pause].
func (c *Cmd) Pause() error { return c.freezer.Pause() }

// Resume continues a paused sandbox.
func (c *Cmd) Resume() error { return c.freezer.Resume() }

// Signal sends a signal to the command's process group.
func (c *Cmd) Signal(sig unix.Signal) error {
	r, err := c.alive()
	if err == nil {
		r.life.signalGroup(sig)
	}
	return err
}

// String returns the command line.
func (c *Cmd) String() string { return fmt.Sprint(slices.Clone(c.args)) }
