package exec

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/cgroup"
	"github.com/sandlock-go/sandlock/exec/handler/memory"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// groups is what a run that chose control groups has of them.
type groups struct {
	parent *cgroup.Parent
	group  *cgroup.Group
}

// groupLimits are the limits that the program has a control group keep.
func groupLimits(p *ir.Program) cgroup.Limits {
	if p.Limits.Backend != ir.BackendCgroup {
		return cgroup.Limits{}
	}
	return cgroup.Limits{Memory: p.Limits.Memory, CPUPercent: p.Limits.CPUPercent}
}

// Probe tries what this machine offers a sandbox; dir is where control groups can be made, see [Options.Cgroup].
func Probe(dir string) kernel.Host {
	h := kernel.Probe()
	reason := func(c cgroup.Controller) (bool, string) {
		if err := cgroup.Probe(dir, c); err != nil {
			return false, err.Error()
		}
		return true, ""
	}
	h.CgroupMemory, h.CgroupMemoryReason = reason(cgroup.Memory)
	h.CgroupCPU, h.CgroupCPUReason = reason(cgroup.CPU)
	return h
}

// findGroups looks for a place for the sandbox's group, if it needs one, and says in h what there is. It may move this
// process, so it is done only for programs that ask for it.
func (s *sandbox) findGroups(h *kernel.Host) {
	controllers := groupLimits(s.program).Controllers()
	if len(controllers) == 0 {
		return
	}
	for _, c := range controllers {
		parent, err := cgroup.Find(s.options.Cgroup, []cgroup.Controller{c})
		ok, reason := err == nil, ""
		if err != nil {
			reason = err.Error()
		}
		switch c {
		case cgroup.Memory:
			h.CgroupMemory, h.CgroupMemoryReason = ok, reason
		case cgroup.CPU:
			h.CgroupCPU, h.CgroupCPUReason = ok, reason
		}
		s.groups.parent = parent
	}
	s.needsRealPaths = true
}

// makeGroup makes the sandbox's group. It is removed by removeGroup.
func (s *sandbox) makeGroup() (err error) {
	if s.groups.parent != nil {
		s.groups.group, err = s.groups.parent.New(groupLimits(s.program))
	}
	return err
}

func (s *sandbox) removeGroup() error {
	if s.groups.group == nil {
		return nil
	}
	return s.groups.group.Remove()
}

// changesGroups are rights that let a command change a limit, or move to another group.
const changesGroups = abi.FSWriteFile | abi.FSMakeDir | abi.FSRemoveDir

// sparesGroups refuses grants that reach control groups while one of them limits the sandbox: files of a group belong to
// the user, so nothing but the policy keeps the command from them.
func (s *sandbox) sparesGroups(fd int, real string, access uint64) error {
	if s.groups.parent == nil || access&changesGroups == 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	reaches := st.Type == unix.CGROUP2_SUPER_MAGIC
	points, err := cgroup.Mounts()
	if err != nil {
		return err
	}
	reaches = reaches || slices.ContainsFunc(points, func(p string) bool { return beneath(p, real) })
	if reaches {
		return fmt.Errorf("%s holds control groups, which the policy lets the command write: it could lift its own limits (limits.backend: \"cgroup\")", real)
	}
	return nil
}

// groupCheck is how often a group is looked at.
const groupCheck = 100 * time.Millisecond

// watchedGroup is a group while its sandbox runs. It is for the supervisor's thread only.
type watchedGroup struct {
	*cgroup.Group
	journal supervise.Journal
	rule    supervise.Event
	limit   uint64
	killed  uint64
	fail    func(error)
	timer   *supervise.Timer
}

// watchGroup looks at the sandbox's group from time to time: whether the kernel has killed for it, and whether it is in
// force still.
func (s *sandbox) watchGroup(w *wired, rules *lowered, loop *supervise.Loop, j supervise.Journal, fail func(error)) error {
	if s.groups.group == nil {
		return nil
	}
	limits := &s.program.Limits
	g := &watchedGroup{
		Group: s.groups.group, journal: j, limit: limits.Memory, fail: fail,
		rule: supervise.Event{Rule: "limits.memory", Origin: where(s.program, limits.MemoryOrigin)},
	}
	var err error
	if g.timer, err = supervise.NewTimer(loop, g.look); err != nil {
		return err
	}
	g.timer.Set(groupCheck)
	if limits.Memory > 0 {
		w.groupKills = g.kills
		rules.lowerMemory = g.lower
	}
	return nil
}

func (g *watchedGroup) look() {
	if err := g.Check(); err != nil {
		g.fail(err)
		return
	}
	g.kills()
	g.timer.Set(groupCheck)
}

// kills records what the kernel has killed since the last look, and returns how many it were in all. The kernel does not
// say which.
func (g *watchedGroup) kills() int {
	killed, err := g.Killed()
	if err != nil {
		g.fail(fmt.Errorf("the limit of the control group is gone: %w", err))
		return int(g.killed)
	}
	if killed > g.killed {
		e := g.rule
		e.Kind, e.Verdict = "limit", "SIGKILL"
		e.Reason = fmt.Sprintf("the control group reached limits.memory (%s): the kernel killed %d of its processes", memory.Size(g.limit), killed-g.killed)
		g.journal.Record(e)
		g.killed = killed
	}
	return int(g.killed)
}

func (g *watchedGroup) lower(n uint64) {
	if err := g.LowerMemory(n); err != nil {
		g.fail(fmt.Errorf("lower limits.memory: %w", err))
		return
	}
	g.limit = min(g.limit, n)
}
