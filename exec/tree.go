package exec

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
)

// family tells the sandbox's processes from other children of this process: those that it already had when it became
// the executor, as `exec sandlock-exec …` in a shell with background jobs leaves behind, and in a program that uses
// [Cmd] its own children and those of other sandboxes. Its methods are for the supervisor's thread only.
type family struct {
	before []int
	scoped bool          // the supervisor's thread is in a Landlock domain that scopes signals
	shared bool          // there may be other children at any time
	waited time.Duration // CPU time of the sandbox's processes that this one has waited for, the command excepted
	// keeper is the init of the sandbox's PID namespace, nil without one. What loses its parent becomes its child, not ours.
	keeper *stage.Namespaces
	waits  bool // for the keeper's end: what is mounted in its namespace must not be any more
}

// adopt makes this process the one that the sandbox's orphans become children of.
func (s *sandbox) adopt(rs *rulesets) (*family, error) {
	f := &family{scoped: rs.scoped, shared: s.shared}
	keeper := 0
	if s.view != nil {
		if keeper = s.view.Namespaces.PID; s.view.Namespaces.Init {
			f.keeper, f.waits = s.view.Namespaces, s.branch != nil
		}
	}
	if f.shared {
		if !f.scoped {
			return nil, errors.New("a sandbox within a program needs Landlock's signal scope (ABI 6, protections.signal_scope not off) to tell its processes from others; use sandlock-exec")
		}
		return f, reapers.join()
	}
	if !s.childless || s.resolver != nil || s.proxy != nil {
		var err error
		if f.before, err = existingChildren(); err != nil {
			return nil, err
		}
		f.before = slices.DeleteFunc(f.before, func(pid int) bool { return pid == keeper })
	}
	if err := kernel.BecomeSubreaper(); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
	return f, nil
}

// reapers counts the sandboxes of this process, which is a subreaper as long as there are any.
var reapers subreaper

type subreaper struct {
	mu     sync.Mutex
	count  int
	before bool
}

func (r *subreaper) join() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == 0 {
		var err error
		if r.before, err = kernel.IsSubreaper(); err != nil {
			return err
		}
		if err := kernel.BecomeSubreaper(); err != nil {
			return fmt.Errorf("become subreaper: %w", err)
		}
	}
	r.count++
	return nil
}

func (r *subreaper) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count--; r.count == 0 && !r.before {
		_ = kernel.ResignSubreaper()
	}
}

// disown ends adopt.
func (f *family) disown() {
	if f.shared {
		reapers.leave()
	}
}

// owns reports whether a process belongs to the sandbox. The kernel knows: a domain with a signal scope reaches the
// processes of nested domains, which are the sandbox's, and no others (landlock(7)). Without the scope, what every
// process of a sandbox has and few others do must serve.
func (f *family) owns(pid int) bool {
	if f.scoped {
		return unix.Kill(pid, 0) == nil
	}
	return kernel.Sandboxed(pid)
}

// existingChildren lists the children of this process; asking the kernel whether there are any costs one call.
func existingChildren() ([]int, error) {
	if noChildren() {
		return nil, nil
	}
	return kernel.Children(os.Getpid())
}

// alone tells whether every child of this process is the sandbox's.
func (f *family) alone() bool { return !f.shared && len(f.before) == 0 }

// members lists those processes of the sandbox whose parent is not of the sandbox. As subreaper this process is the ancestor
// of every one of them, and what loses its parent becomes its child, or the child of the keeper.
func (f *family) members() ([]int, error) {
	pids, err := kernel.Children(os.Getpid())
	if err != nil {
		return pids, err
	}
	if f.keeper != nil {
		orphans, err := kernel.Children(f.keeper.PID)
		if err != nil {
			return nil, err
		}
		pids = slices.DeleteFunc(append(pids, orphans...), func(pid int) bool { return pid == f.keeper.PID })
	}
	if f.alone() {
		return pids, nil
	}
	return slices.DeleteFunc(pids, func(pid int) bool {
		return slices.Contains(f.before, pid) || !f.owns(pid)
	}), nil
}

// endPatience bounds the wait for killed processes; one that sits in an uninterruptible call may outlast it.
const endPatience = 10 * time.Second

// end kills and reaps every descendant once the command itself has been reaped, and returns how many processes it had to
// kill. Only direct children are killed: as long as they are not reaped their pids cannot mean anyone else. Their
// children become ours in turn, so the loop ends when there are none, whatever double forks and sessions the command
// made.
func (f *family) end() (killed int) {
	defer f.disown()
	if f.keeper != nil {
		return f.endNamespace()
	}
	deadline := time.Now().Add(endPatience)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		if f.alone() && noChildren() {
			return killed
		}
		pids, err := f.members()
		if err == nil && len(pids) == 0 || time.Now().After(deadline) {
			return killed
		}
		for _, pid := range pids {
			if f.reap(pid) {
				continue
			}
			if st, err := kernel.ReadStat(pid); err == nil && !st.Dead() && unix.Kill(pid, unix.SIGKILL) == nil {
				killed++
			}
		}
		time.Sleep(pause)
	}
}

// endNamespace has the keeper end, and the kernel with it all that is left in the PID namespace.
func (f *family) endNamespace() (left int) {
	pending, err := f.members()
	for err == nil && len(pending) > 0 {
		pid := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		if st, err := kernel.ReadStat(pid); err == nil && !st.Dead() {
			left++
		}
		if more, err := kernel.Children(pid); err == nil {
			pending = append(pending, more...)
		}
	}
	if err == nil && left == 0 && !f.shared && !f.waits {
		f.keeper.Leave()
		return 0
	}
	f.keeper.Close()
	return left
}

// noChildren asks the kernel, which a command that left nothing behind need not wait longer for.
func noChildren() bool {
	err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return errors.Is(err, unix.ECHILD)
}

// reap collects a child if it has ended. One that is traced may report a stop instead, which is the tracer's to take.
func (f *family) reap(pid int) bool {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || kernel.ChildPID(&info) != pid || kernel.Trapped(&info) {
			return false
		}
		var used unix.Rusage
		got, err := unix.Wait4(pid, nil, unix.WNOHANG, &used)
		if err != nil || got != pid {
			return false
		}
		f.waited += time.Duration(used.Utime.Nano() + used.Stime.Nano())
		return true
	}
}

// reapOrphans collects those ended children that are not the command: what lost its parent inside the sandbox. Called
// whenever processes are counted, it keeps the executor's own dead children from piling up.
func (f *family) reapOrphans(command int) {
	pids, err := f.members()
	if err != nil {
		return
	}
	for _, pid := range pids {
		if pid != command {
			f.reap(pid)
		}
	}
}

// current returns a function that lists the members once the dead among them, save the command, have been reaped.
func (f *family) current(command int) func() ([]int, error) {
	return func() ([]int, error) {
		f.reapOrphans(command)
		return f.members()
	}
}
