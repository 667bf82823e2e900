package exec

import (
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// family tells the sandbox's processes from children that this process already had when it became the executor, as
// `exec sandlock-exec …` in a shell with background jobs leaves behind.
type family struct {
	before []int
	scoped bool // the supervisor's thread is in a Landlock domain that scopes signals
}

// owns reports whether a process belongs to the sandbox. The kernel knows: a domain with a signal scope reaches the
// processes of nested domains, which are the sandbox's, and no others (landlock(7)). It must be asked on the supervisor's
// thread. Without the scope, what every process of a sandbox has and few others do must serve.
func (f *family) owns(pid int) bool {
	if f.scoped {
		return unix.Kill(pid, 0) == nil
	}
	return kernel.Sandboxed(pid)
}

// existingChildren lists the children of this process; asking the kernel whether there are any costs one call.
func existingChildren() ([]int, error) {
	err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if errors.Is(err, unix.ECHILD) {
		return nil, nil
	}
	return kernel.Children(os.Getpid())
}

// members lists the children of this process that belong to the sandbox. As subreaper it is the ancestor of every one
// of them, and what loses its parent becomes its child.
func (f *family) members() ([]int, error) {
	pids, err := kernel.Children(os.Getpid())
	if err != nil || len(f.before) == 0 {
		return pids, err
	}
	return slices.DeleteFunc(pids, func(pid int) bool {
		return slices.Contains(f.before, pid) || !f.owns(pid)
	}), nil
}

// endPatience bounds the wait for killed processes; one that sits in an uninterruptible call may outlast it.
const endPatience = 10 * time.Second

// end kills and reaps every descendant, and returns how many processes it had to kill. Only direct children are
// killed: as long as they are not reaped their pids cannot mean anyone else. Their children become ours in turn, so
// the loop ends when there are none, whatever double forks and sessions the command made.
func (f *family) end() (killed int) {
	deadline := time.Now().Add(endPatience)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		if !f.reap() {
			return killed
		}
		pids, err := f.members()
		if err == nil && len(pids) == 0 && len(f.before) > 0 || time.Now().After(deadline) {
			return killed
		}
		for _, pid := range pids {
			if st, err := kernel.ReadStat(pid); err == nil && st.State != 'Z' && unix.Kill(pid, unix.SIGKILL) == nil {
				killed++
			}
		}
		time.Sleep(pause)
	}
}

// reap collects every child that has ended, once the command itself has been reaped; more reports whether any is left.
func (f *family) reap() (more bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false // ECHILD
		case pid == 0:
			return true
		}
	}
}

// reapOrphans collects those ended children that are not the command: what lost its parent inside the sandbox. Called
// whenever a process is about to be created, it keeps the executor's own dead children from piling up.
func (f *family) reapOrphans(command int) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		pid := kernel.ChildPID(&info)
		if err != nil || pid == 0 || pid == command || kernel.Trapped(&info) {
			return
		}
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil); err != nil {
			return
		}
	}
}
