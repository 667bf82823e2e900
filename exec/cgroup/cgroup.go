// Package cgroup keeps limits.memory and limits.cpu by control groups of the kernel (cgroups(7), version 2; in the kernel
// Documentation/admin-guide/cgroup-v2.rst), where the policy asks for that (limits.backend: "cgroup").
//
// In: a directory of the hierarchy that is delegated to this user, by default the one that this process is in. Out: a
// group for each sandbox, made beneath it, in which the command is born (CLONE_INTO_CGROUP); what the kernel killed
// there; and nothing left at the end. Without such a directory it says what is missing and changes nothing.
//
// The kernel has a group distribute a resource to the groups beneath it only if no process is in the group itself. A
// process that is alone in its group therefore moves to a leaf beneath it (leafName) first, and stays there. Processes
// other than this one are never moved.
//
// All files of a group are opened when it is made, before the executor is confined. The package must never lift a limit:
// a controller that is taken away while the sandbox runs is an error, after which the sandbox is ended.
//
// Read next: find.go (where groups can be made), group.go (one group), probe.go (whether it works here).
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Controller is a resource that groups can limit, by its name in cgroup.controllers.
type Controller string

// Controllers that limits are kept by. The number of processes is no such limit: pids.max counts threads, limits.processes
// does not.
const (
	Memory Controller = "memory"
	CPU    Controller = "cpu"
)

// leafName is the group that an executor moves to when it is alone in the group that it shall make others in.
const leafName = "sandlock-executor"

// groupPrefix begins the names of the sandboxes' groups.
const groupPrefix = "sandlock-"

// Parent is a group that other groups can be made in, with limits.
type Parent struct {
	dir  string
	host host
}

// Dir is its directory.
func (p *Parent) Dir() string { return p.dir }

// host is the machine as this package sees it. Tests make their own out of files.
type host struct {
	proc string // where /proc is
	pid  int
	// isGroup tells whether a directory is one of a cgroup v2 hierarchy.
	isGroup func(dir string) bool
}

func thisHost() host { return host{proc: "/proc", pid: os.Getpid(), isGroup: isGroup} }

func isGroup(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// moving is held while this process looks where it is, and moves.
var moving sync.Mutex

// Find returns the group that groups with these controllers can be made in: the one at dir or, if dir is "", the one
// that this process is in. It turns the controllers on, and may move this process for that, see the package comment.
// The error says what is missing.
func Find(dir string, controllers []Controller) (*Parent, error) {
	return thisHost().find(dir, controllers)
}

func (h host) find(dir string, controllers []Controller) (*Parent, error) {
	moving.Lock()
	defer moving.Unlock()
	mounts, err := h.mounts()
	if err != nil {
		return nil, err
	}
	if dir == "" {
		if dir, err = h.own(mounts); err != nil {
			return nil, err
		}
	} else if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if !h.isGroup(dir) {
		return nil, fmt.Errorf("%s is no directory of a cgroup v2 hierarchy", dir)
	}
	offered, err := readWords(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	for _, c := range controllers {
		if !slices.Contains(offered, string(c)) {
			return nil, lacks(dir, c, mounts)
		}
	}
	p := &Parent{dir, h}
	if err := p.delegated(); err != nil {
		return nil, err
	}
	return p, p.enable(controllers)
}

// lacks says that a group does not have a controller, and where that is if it can be told.
func lacks(dir string, c Controller, mounts []mount) error {
	for _, m := range mounts {
		if m.kind == "cgroup" && slices.Contains(strings.Split(m.options, ","), string(c)) {
			return fmt.Errorf("%s has no %s controller: it is bound to the cgroup v1 hierarchy at %s", dir, c, m.point)
		}
	}
	return fmt.Errorf("%s has no %s controller: the group above does not pass it on, or the kernel lacks it", dir, c)
}

// delegated tells whether this user owns the group, so that it may make others in it and turn controllers on. What only
// capabilities would allow does not count: the executor gives them up before it removes the sandbox's group.
func (p *Parent) delegated() error {
	uid := os.Geteuid()
	for _, name := range []string{".", "cgroup.subtree_control", "cgroup.procs"} {
		path := filepath.Join(p.dir, name)
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return &fs.PathError{Op: "stat", Path: path, Err: err}
		}
		if int(st.Uid) != uid || st.Mode&unix.S_IWUSR == 0 {
			return fmt.Errorf("%s is not delegated to uid %d: %s belongs to uid %d, mode %#o", p.dir, uid, path, st.Uid, st.Mode&0o777)
		}
	}
	return nil
}

// enable has the group pass controllers on to those beneath it.
func (p *Parent) enable(controllers []Controller) error {
	control := filepath.Join(p.dir, "cgroup.subtree_control")
	enabled, err := readWords(control)
	if err != nil {
		return err
	}
	var missing []string
	for _, c := range controllers {
		if !slices.Contains(enabled, string(c)) {
			missing = append(missing, "+"+string(c))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := p.vacate(); err != nil {
		return err
	}
	if err := write(control, strings.Join(missing, " ")); err != nil {
		return fmt.Errorf("turn on controllers: %w", err)
	}
	return nil
}

// vacate leaves no process in the group. The root of the hierarchy, which has no type, may hold some.
func (p *Parent) vacate() error {
	kind, err := readWords(filepath.Join(p.dir, "cgroup.type"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !slices.Equal(kind, []string{"domain"}):
		return fmt.Errorf("%s is a group of threads (%s)", p.dir, strings.Join(kind, " "))
	}
	pids, err := readWords(filepath.Join(p.dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	self := strconv.Itoa(p.host.pid)
	if others := slices.DeleteFunc(slices.Clone(pids), func(pid string) bool { return pid == self }); len(others) > 0 {
		return fmt.Errorf("%s holds %d other processes, and a group that holds processes can have no limited groups beneath it: "+
			"start this program in a delegated group of its own (systemd-run --user --scope -p Delegate=yes …), or name an empty one", p.dir, len(others))
	}
	if len(pids) == 0 {
		return nil
	}
	leaf := filepath.Join(p.dir, leafName)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a group for this process: %w", err)
	}
	if err := write(filepath.Join(leaf, "cgroup.procs"), "0"); err != nil { // 0 is the writer itself
		return fmt.Errorf("move this process: %w", err)
	}
	return nil
}

// write writes a value in one call, as the files of groups want it. It does not create what is not there.
func write(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &fs.PathError{Op: "write " + strconv.Quote(value), Path: path, Err: err}
	}
	return nil
}

func readWords(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	return strings.Fields(string(b)), err
}
