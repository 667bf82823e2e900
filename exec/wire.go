package exec

import (
	"slices"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/handler/dirs"
	"github.com/sandlock-go/sandlock/exec/handler/disk"
	"github.com/sandlock-go/sandlock/exec/handler/explain"
	"github.com/sandlock-go/sandlock/exec/handler/listen"
	"github.com/sandlock-go/sandlock/exec/handler/memory"
	"github.com/sandlock-go/sandlock/exec/handler/metadata"
	"github.com/sandlock-go/sandlock/exec/handler/netlink"
	"github.com/sandlock-go/sandlock/exec/handler/parentdeath"
	"github.com/sandlock-go/sandlock/exec/handler/processes"
	"github.com/sandlock-go/sandlock/exec/handler/restart"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// wired is the result of wiring: the handlers in order and what else of them the run needs.
type wired struct {
	list        []supervise.Handler
	stops       *stops
	refuseForks func()
	denied      func() []Denial
	// memory is the handler of limits.memory, nil without.
	memory *memory.Handler
	// groupKills tells how many were killed for it by a control group, nil without one.
	groupKills func() int
	tracer     tracer
	close      func()
}

// handlers is THE table of handlers: which concern answers which calls, in which order. A handler is wired if and only
// if the filter notifies one of its calls.
//
//	rules      first: what they refuse must have no effect at all
//	explain    it only watches, or answers what the filter would have refused without asking
//	throttle   the fork family: it only notes that the tree is about to grow
//	processes  the fork family
//	parentdeath  prctl(PR_SET_PDEATHSIG)
//	restart    rt_sigaction of SIGCHLD
//	clock      the time of day, and waits until one
//	random     getrandom, and opens of the random devices; all other opens are passed on
//	image      what each C library and Go call once a program: AT_RANDOM and the vDSO are made ready; the call is passed on
//	memory     mmap, brk and the other calls that ask for memory
//	machine    sched_getaffinity, sysinfo, and opens of files that tell of the machine; all other opens are passed on
//	hosts      opens of /etc/hosts; all other opens are passed on
//	certificates  opens of files that show the proxy's certificate; all other opens are passed on
//	metadata   chmod, chown, utime, xattr families
//	disk       truncate and ftruncate to a length; those for which there is room, or that are of other files, are passed on
//	peers      getpeername of connections that the proxy has; all others are passed on
//	ports      bind; where ports are virtual also getsockname, getpeername, and opens of files that list sockets; all other opens are passed on
//	netlink    socket of netlink, and bind and getsockname of such sockets; all others are passed on
//	network    connect, sendto, sendmsg, sendmmsg
//	listen     listen
//	dirs       getdents family
//	program    what a Go program has asked for (Cmd.Handle)
//	rules      last: the kernel carries out what rules hold and nobody has taken
func (s *sandbox) handlers(child *stage.Child, f *family, loop *supervise.Loop, j supervise.Journal, fail func(error)) (w wired, err error) {
	w = wired{refuseForks: func() {}, denied: func() []Denial { return nil }, close: func() {}}
	observed, report := j, &explain.Report{}
	if s.options.Explain {
		j = report.Journal(j)
		w.denied = func() []Denial { return denials(report) }
	}
	dynamic, limits, err := s.dynamicRules(child, loop, j)
	if err != nil {
		return w, err
	}
	grants := s.grants
	if dynamic != nil {
		w.list = append(w.list, dynamic)
		w.tracer, w.close = dynamic, dynamic.Close
		grants = s.grantsUnless(dynamic.Closed)
	}
	if s.options.Explain {
		h := explain.New(s.arch, s.filter.Table, s.filter.ObserveCalls, explain.Policy{
			Path: s.grants, Covered: s.coveredFor, Kept: s.keptInPlace, Connect: s.connectPort, Bind: s.bindPort, Describe: s.describeAt,
			Where: func(ref ir.OriginRef) (rule, origin string) { return rulePath(s.program, ref), where(s.program, ref) },
			Root:  s.root,
		}, report, observed)
		w.list = append(w.list, h)
	}
	if w.stops, err = s.stops(child, f, loop, j, fail); err != nil {
		return w, err
	}
	if w.stops.cpu != nil {
		w.list = append(w.list, w.stops.cpu)
	}
	if limit := s.program.Limits.Processes; limit > 0 && s.notifies("clone") {
		ref := s.program.Limits.ProcessesOrigin
		h := processes.New(s.arch, limit, processes.Process{PID: child.PID, PIDFD: child.PIDFD}, f.current(child.PID), j,
			supervise.Event{Rule: "limits.processes", Origin: where(s.program, ref)})
		w.list = append(w.list, h)
		w.refuseForks, limits.processes = h.Close, h
		loop.AtEnd(h.Release)
	}
	if s.notifies("prctl") {
		w.list = append(w.list, parentdeath.New(s.arch, child.PID))
	}
	if s.notifies("rt_sigaction") {
		w.list = append(w.list, restart.New(s.arch))
	}
	if err := s.watchGroup(&w, limits, loop, j, fail); err != nil {
		return w, err
	}
	if err := s.determinism(&w, loop, j); err != nil {
		return w, err
	}
	if err := s.memory(&w, limits, child, f, loop, j); err != nil {
		return w, err
	}
	s.hostsFile(&w, limits, j)
	s.bundles(&w, limits, j)
	if s.notifies("fchmodat") {
		w.list = append(w.list, metadata.New(s.arch, metadata.Config{Grants: grants, Root: s.root, IDs: s.ids()}, j))
	}
	if b, ok := s.branch.(overlayBranch); ok && s.program.Branch.Disk > 0 && s.notifies("ftruncate") {
		h, err := disk.New(s.arch, disk.Config{Root: s.root, Workdir: b.target, Origin: where(s.program, s.program.Branch.DiskOrigin)}, j)
		if err != nil {
			return w, err
		}
		w.list = append(w.list, h)
	}
	if s.notifies("socket") {
		h := netlink.New(s.arch, s.root, loop, j, s.notifies("getsockname"))
		w.list = append(w.list, h)
		loop.AtEnd(h.Close)
	}
	if err := s.peers(&w); err != nil {
		return w, err
	}
	ports, err := s.ports(&w, limits, grants, dynamic, j)
	if err != nil {
		return w, err
	}
	if err := s.network(&w, ports, dynamic, loop, j); err != nil {
		return w, err
	}
	if s.notifies("listen") {
		h, err := listen.New(s.arch, s.listens(ports), j)
		if err != nil {
			return w, err
		}
		w.list = append(w.list, h)
		before := w.close
		w.close = func() { before(); h.Close() }
	}
	if s.notifies("getdents64") || s.notifies("getdents") {
		w.list = append(w.list, dirs.New(s.arch, loop.CanDefer))
	}
	w.list = append(w.list, s.options.hooks.list()...)
	if dynamic != nil {
		w.list = append(w.list, dynamic.Last())
	}
	// A handler may know calls that this filter settles by itself.
	for i, h := range w.list {
		w.list[i] = only{h, slices.DeleteFunc(h.Syscalls(), func(nr abi.Sysno) bool { return !s.isNotified(nr) })}
	}
	return w, nil
}

// only is a handler for those of its calls that the filter notifies.
type only struct {
	supervise.Handler
	calls []abi.Sysno
}

func (o only) Syscalls() []abi.Sysno { return o.calls }

// isNotified reports whether the installed filter can notify a call.
func (s *sandbox) isNotified(nr abi.Sysno) bool {
	if s.options.Explain {
		return true // the observing filter notifies whatever is refused or watched
	}
	return notified(s.filter.Table, nr) || s.options.hooks.answers(nr)
}

// notifies reports whether the policy itself has a call notified.
func (s *sandbox) notifies(name string) bool {
	nr, ok := abi.SyscallNumber(s.arch, name)
	return ok && (notified(s.filter.Table, nr) || s.options.hooks.answers(nr))
}

func notified(table []ir.SyscallEntry, nr abi.Sysno) bool {
	i := query.Syscall(table, nr, [6]uint64{}).Entry
	if i < 0 {
		return false
	}
	if table[i].Action.Kind == ir.ActNotify {
		return true
	}
	return slices.ContainsFunc(table[i].Clauses, func(c ir.Clause) bool { return c.Action.Kind == ir.ActNotify })
}

// journal sends the supervisor's events to the audit stream.
type journal struct{ log *audit.Log }

// Record adds the caller's name, which is looked up only if somebody is listening: the caller waits for its answer, so
// its pid is still its own.
func (j *journal) Record(e supervise.Event) {
	if j.log == nil {
		return
	}
	if e.HTTP == nil {
		e.Command = kernel.CommandName(e.PID)
	}
	j.log.Record(e)
}
