package exec

import (
	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/handler/machine"
	"github.com/sandlock-go/sandlock/exec/handler/memory"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// memory wires limits.memory, and what programs are told of the machine's memory and CPUs.
func (s *sandbox) memory(w *wired, rules *lowered, child *stage.Child, f *family, loop *supervise.Loop, j supervise.Journal) error {
	charged := func() (uint64, int) { return 0, 1 }
	limits := &s.program.Limits
	switch {
	case s.groups.group != nil && limits.Memory > 0:
		charged = s.groups.group.Charged
	case limits.Memory > 0:
		o := memory.Options{
			Arch: s.arch, Limit: limits.Memory, Command: child.PID, Processes: supervise.NewIndex(loop), Roots: f.members,
			Watch: loop.Watch, Journal: j, Rule: supervise.Event{Rule: "limits.memory", Origin: where(s.program, limits.MemoryOrigin)},
		}
		if rules.processes != nil {
			o.Scopes = rules.processes.Scopes
		}
		h, err := memory.New(o)
		if err != nil {
			return err
		}
		w.list = append(w.list, h)
		w.memory, charged = h, h.Charged
		rules.memory = h
		if rules.processes != nil {
			rules.processes.OnEnd(h.End)
		}
	}
	if limits.Memory > 0 || limits.CPUCount > 0 {
		h := machine.New(s.arch, machine.Config{
			CPUs: int(limits.CPUCount), Memory: limits.Memory, Charged: charged, Files: limits.MachineFiles && !s.mountsFiles(), Journal: j,
			Grants: s.granted, Root: s.root,
		})
		rules.instead = append(rules.instead, h.Instead)
		w.list = append(w.list, h)
	}
	return s.refreshFiles(child, loop, charged)
}

// limited adds to a result what the memory limits did. ended says that the executor itself has killed the command.
func (s *sandbox) limited(w *wired, r *Result, ended bool) {
	switch {
	case w.groupKills != nil:
		if n := w.groupKills(); n > 0 {
			r.Limit, r.LimitKills = "limits.memory ("+memory.Size(s.program.Limits.Memory)+")", n
			r.LimitedCommand = r.Signal == int(unix.SIGKILL) && !ended // the kernel does not say whom it killed
		}
	case w.memory != nil:
		if n, command := w.memory.Kills(); n > 0 {
			r.Limit, r.LimitKills, r.LimitedCommand = w.memory.Reached(), n, command
		}
	}
}
