package exectest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runLimit bounds a run whose options do not.
const runLimit = 60 * time.Second

// Opts says what to run. Without Policy and Flags the command runs as it is, with no sandbox.
type Opts struct {
	User    User
	Policy  string   // artifact
	Flags   []string // of sandlock-exec
	Args    []string // the command; under a policy, what stands behind "--"
	Env     []string // the whole environment; nil: the tests' own
	Dir     string
	Stdin   string
	Timeout time.Duration // 0: a minute

	TTY           *PTY       // all three streams are this terminal, which becomes the controlling one
	Wrap          []string   // a command that starts the whole, such as a shell that ignores a signal
	Files         []*os.File // inherited as descriptors 3 and up
	Cgroup        string     // directory of the control group that the command is started in
	PrivateMounts bool       // where the tests run as root: mounts that the command makes are not seen outside
}

// Result is what a run printed and how it ended. Code is 128+N where signal N ended it.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Process is a run that goes on.
type Process struct {
	Cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	opts           Opts
	done           chan struct{}
	err            error
}

// Run runs a command to its end. It fails the test when the command takes too long.
func Run(tb testing.TB, o Opts) Result {
	tb.Helper()
	return Start(tb, o).Wait(tb)
}

// Start starts a command. It is killed at the test's end at the latest.
func Start(tb testing.TB, o Opts) *Process {
	tb.Helper()
	argv := commandLine(tb, o)
	p := &Process{Cmd: exec.Command(argv[0], argv[1:]...), opts: o, done: make(chan struct{})}
	p.Cmd.Dir, p.Cmd.Env, p.Cmd.ExtraFiles = o.Dir, o.Env, o.Files
	p.Cmd.Stdin, p.Cmd.Stdout, p.Cmd.Stderr = strings.NewReader(o.Stdin), &p.stdout, &p.stderr
	if o.TTY != nil {
		p.Cmd.Stdin, p.Cmd.Stdout, p.Cmd.Stderr = o.TTY.Slave, o.TTY.Slave, o.TTY.Slave
	}
	p.Cmd.SysProcAttr = attributes(o)
	if o.Cgroup != "" {
		dir, err := os.Open(o.Cgroup)
		if err != nil {
			tb.Fatal(err)
		}
		defer dir.Close()
		p.Cmd.SysProcAttr.UseCgroupFD, p.Cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	// A descendant that survives and holds the output open must show as a failure of its own, not hang the run.
	p.Cmd.WaitDelay = 2 * time.Second
	if err := p.Cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", strings.Join(argv, " "), err)
	}
	go func() {
		p.err = p.Cmd.Wait()
		close(p.done)
	}()
	tb.Cleanup(func() {
		p.kill()
		<-p.done
	})
	return p
}

func commandLine(tb testing.TB, o Opts) []string {
	tb.Helper()
	argv := append([]string{}, o.Wrap...)
	if o.Policy == "" && o.Flags == nil {
		return append(argv, o.Args...)
	}
	argv = append(append(argv, Executor(tb)), o.Flags...)
	if o.Policy != "" {
		argv = append(argv, o.Policy)
	}
	return append(append(argv, "--"), o.Args...)
}

func attributes(o Opts) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if o.TTY != nil {
		attr.Setpgid, attr.Setsid, attr.Setctty = false, true, true // Setctty: descriptor 0
	}
	if o.User != Self() {
		attr.Credential = &syscall.Credential{Uid: uint32(o.User.UID), Gid: uint32(o.User.GID)}
	}
	if o.PrivateMounts && Self().Root() {
		attr.Unshareflags = syscall.CLONE_NEWNS
	}
	return attr
}

// kill ends the process and those of its group; a sandbox's own group must end with its supervisor.
func (p *Process) kill() {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL)
	}
}

// Signal sends a signal to the process alone, not to its group.
func (p *Process) Signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		tb.Fatalf("signal %v: %v", s, err)
	}
}

// Wait waits for the end, which must come in time.
func (p *Process) Wait(tb testing.TB) Result {
	tb.Helper()
	limit := p.opts.Timeout
	if limit == 0 {
		limit = runLimit
	}
	select {
	case <-p.done:
	case <-time.After(limit):
		p.kill()
		<-p.done
		tb.Fatalf("%s: still running after %v\nstdout: %s\nstderr: %s", strings.Join(p.Cmd.Args, " "), limit,
			p.stdout.String(), p.stderr.String())
	}
	if errors.Is(p.err, exec.ErrWaitDelay) {
		tb.Errorf("%s: a process that outlived the command held its output open", strings.Join(p.Cmd.Args, " "))
	}
	r := Result{Stdout: p.stdout.String(), Stderr: p.stderr.String(), Code: p.Cmd.ProcessState.ExitCode()}
	if status := p.Cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		r.Code = 128 + int(status.Signal())
	}
	if p.opts.TTY != nil {
		r.Stdout = p.opts.TTY.Output()
	}
	return r
}
