package seccomp

import (
	"math"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// gates holds the calls that are decided by their arguments. The kernel takes most of them as 32-bit int, whatever
// stands in the upper half of the register: such a condition is written with low, or a garbage upper half would pass
// it (the way around TIOCSTI filters of CVE-2019-7303).
var gates = map[string]func(*builder) ir.SyscallEntry{
	"clone": (*builder).clone,
	"fork":  (*builder).fork,
	"vfork": (*builder).fork,

	"rt_sigaction": (*builder).sigaction,

	"socket":     (*builder).socket,
	"socketpair": (*builder).socketpair,
	"listen":     (*builder).listen,
	"setsockopt": (*builder).setsockopt,

	"bind":        (*builder).bind,
	"getsockname": (*builder).getsockname,

	"sendto":   fastOpen(3),
	"sendmsg":  fastOpen(2),
	"sendmmsg": fastOpen(3),

	"ioctl": (*builder).ioctl,
	"prctl": (*builder).prctl,

	"open":    creates(1, 2),
	"openat":  creates(2, 3),
	"openat2": (*builder).openat2,
	"creat":   createsAlways(1),
	"mknod":   createsAlways(1),
	"mknodat": createsAlways(2),

	"prlimit64":          (*builder).onlySelf,
	"sched_setaffinity":  (*builder).onlySelf,
	"sched_setattr":      (*builder).onlySelf,
	"sched_setparam":     (*builder).onlySelf,
	"sched_setscheduler": (*builder).onlySelf,
	"setpriority":        (*builder).setpriority,
	"ioprio_set":         (*builder).ioprioSet,
}

// low is the mask of a 32-bit argument.
const low = math.MaxUint32

// is is the condition that a 32-bit argument has a value.
func is(arg uint8, value uint32) ir.Cond {
	return ir.Cond{Arg: arg, Op: ir.OpEq, Mask: low, Value: uint64(value)}
}

// when makes a clause.
func when(action ir.Action, reason string, conds ...ir.Cond) ir.Clause {
	return ir.Clause{Conds: conds, Action: action, Reason: reason}
}

// Flags of clone. CLONE_NEWTIME (0x80) is a flag of clone3 only: clone reads that bit as part of the exit signal.
const (
	cloneThread     = 0x00010000
	cloneNamespaces = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
)

const (
	reasonProcesses = "limits.processes"
	reasonRules     = "rules"
)

func (b *builder) clone() ir.SyscallEntry {
	e := b.fork()
	e.Clauses = []ir.Clause{
		when(b.deny(abi.EPERM), "default deny: namespaces", ir.Cond{Arg: 0, Op: ir.OpSet, Mask: low, Value: cloneNamespaces}),
	}
	if e.Action == ir.Notify {
		thread := ir.Cond{Arg: 0, Op: ir.OpSet, Mask: low, Value: cloneThread}
		e.Clauses = append(e.Clauses, when(ir.Allow, "threads are not counted", thread))
	}
	return e
}

func (b *builder) fork() ir.SyscallEntry {
	if b.req.ProcessLimit && !b.req.NoSupervisor {
		return ir.SyscallEntry{Action: ir.Notify, Reason: reasonProcesses, Origin: b.req.ProcessOrigin}
	}
	if b.req.HoldForks && !b.req.NoSupervisor {
		return ir.SyscallEntry{Action: ir.Notify, Reason: reasonRules, Origin: b.req.HoldOrigin}
	}
	return ir.SyscallEntry{Action: ir.Allow}
}

const sigchld = 17

// sigaction has the supervisor look at handlers of SIGCHLD wherever it answers forks. A child that ends in the moment
// before the supervisor has taken up its parent's next fork interrupts that call; where the handler does not ask for
// restarts the parent would see EINTR, which fork(2) never returns (see exec/handler/restart).
func (b *builder) sigaction() ir.SyscallEntry {
	e := ir.SyscallEntry{Action: ir.Allow}
	reason, origin := "limits.processes: a child that ends must not interrupt fork", b.req.ProcessOrigin
	if fork := b.fork(); fork.Reason == reasonRules || fork.Action != ir.Notify && b.req.HoldCalls {
		reason, origin = "rules: a child that ends must not interrupt a held call", b.req.HoldOrigin
	} else if _, denied := b.deniedByPolicy("clone"); denied || fork.Action != ir.Notify {
		return e
	}
	e.Clauses = []ir.Clause{{
		Conds:  []ir.Cond{is(0, sigchld), {Arg: 1, Op: ir.OpNe, Mask: math.MaxUint64, Value: 0}},
		Action: ir.Notify, Reason: reason, Origin: origin,
	}}
	return e
}

// Requests of ioctl (asm-generic/ioctls.h, linux/sockios.h, linux/fs.h).
const (
	tiocsti         = 0x5412 // types into the terminal's input (CVE-2017-5226)
	tioclinux       = 0x541c // selects and pastes on a console
	tioccons        = 0x541d // redirects the console
	siocaddrt       = 0x890b
	siocoutqnsd     = 0x894b
	wirelessFirst   = 0x8b00
	fsSetFlags      = 0x40086602
	fsSetFlags32    = 0x40046602
	fsSetVersion    = 0x40087602
	fsSetXattr      = 0x401c5820
	fsSetEncryption = 0x800c6613
	fsEnableVerity  = 0x40806685
	branchCreate    = 0x80806200 // BranchFS: on its control files
	branchCommit    = 0x6201
	branchAbort     = 0x6202
)

// ioctl refuses the terminal requests that inject input, everything that reads or changes network interfaces, and
// the requests that change a file's metadata, for which an owner needs a read-only descriptor only. Those of BranchFS are
// made on files that the command does not see; this holds for any that it comes by all the same.
func (b *builder) ioctl() ir.SyscallEntry {
	eperm := b.deny(abi.EPERM)
	e := ir.SyscallEntry{Action: ir.Allow}
	for _, cmd := range []uint32{tiocsti, tioclinux, tioccons} {
		e.Clauses = append(e.Clauses, when(eperm, "default deny: terminal injection", is(1, cmd)))
	}
	// Of the socket requests 0x8900 to 0x89ff, those about one socket come first (owner, mark, timestamp), and
	// SIOCOUTQNSD later. All others read or change routes and interfaces (SIOCGIFCONF, SIOCGIFHWADDR, SIOCETHTOOL,
	// …); a range refuses also those that kernels will add.
	e.Clauses = append(e.Clauses,
		when(eperm, "default deny: network interfaces",
			ir.Cond{Arg: 1, Op: ir.OpEq, Mask: 0xffffff00, Value: 0x8900},
			ir.Cond{Arg: 1, Op: ir.OpGe, Mask: low, Value: siocaddrt},
			ir.Cond{Arg: 1, Op: ir.OpNe, Mask: low, Value: siocoutqnsd}),
		when(eperm, "default deny: wireless interfaces",
			ir.Cond{Arg: 1, Op: ir.OpEq, Mask: 0xffffff00, Value: wirelessFirst}))
	if b.req.BranchFS {
		for _, cmd := range []uint32{branchCreate, branchCommit, branchAbort} {
			clause := when(eperm, "filesystem.isolation: the branch is the executor's to settle", is(1, cmd))
			clause.Origin = b.req.BranchFSOrigin
			e.Clauses = append(e.Clauses, clause)
		}
	}
	if _, lifted := b.allowed(groupFileMetadata); !lifted {
		for _, cmd := range []uint32{fsSetFlags, fsSetFlags32, fsSetVersion, fsSetXattr, fsSetEncryption, fsEnableVerity} {
			e.Clauses = append(e.Clauses, when(eperm, "default deny: file metadata (group file_metadata)", is(1, cmd)))
		}
	}
	return e
}

// Operations of prctl (linux/prctl.h).
const (
	prSetPdeathsig  = 1
	prSetDumpable   = 4
	prSetSecurebits = 28
	prSetMM         = 35
	prSetPtracer    = 0x59616d61

	sigkill = 9
)

func (b *builder) prctl() ir.SyscallEntry {
	eperm, deathSignal := b.deny(abi.EPERM), ir.Notify
	var clauses []ir.Clause
	if b.req.NoSupervisor {
		deathSignal = eperm
		// A supervisor that is started inside hides itself; no supervisor outside needs to look in.
		clauses = append(clauses, when(ir.Allow, "a nested supervisor hides itself", is(0, prSetDumpable),
			ir.Cond{Arg: 1, Op: ir.OpEq, Mask: math.MaxUint64, Value: 0}))
	}
	return ir.SyscallEntry{Action: ir.Allow, Clauses: append(clauses,
		// The death of the supervisor must kill the command, and any other value would clear that. What other processes
		// set is their own (exec/handler/parentdeath).
		when(deathSignal, "parent-death signal: the command keeps its own", is(0, prSetPdeathsig),
			ir.Cond{Arg: 1, Op: ir.OpNe, Mask: math.MaxUint64, Value: sigkill}),
		when(eperm, "default deny: process attributes", is(0, prSetDumpable)),
		when(eperm, "default deny: process attributes", is(0, prSetSecurebits)),
		when(eperm, "default deny: process attributes", is(0, prSetMM)),
		when(eperm, "default deny: process attributes", is(0, prSetPtracer)),
	)}
}

// Landlock has no hook for limits and scheduling of another process of the same user, so the filter keeps these calls
// from naming one, above all the supervisor.
const reasonOther = "default deny: limits and scheduling of other processes"

// onlySelf gates the calls whose first argument is a process, 0 being the caller.
func (b *builder) onlySelf() ir.SyscallEntry {
	return ir.SyscallEntry{Action: ir.Allow, Clauses: []ir.Clause{
		when(b.deny(abi.EPERM), reasonOther, ir.Cond{Arg: 0, Op: ir.OpNe, Mask: low, Value: 0}),
	}}
}

func (b *builder) setpriority() ir.SyscallEntry { return b.ownProcess(0) }

func (b *builder) ioprioSet() ir.SyscallEntry { return b.ownProcess(1) }

// ownProcess gates the calls that take a kind of target and its number, 0 being the caller. Groups are refused even if
// they are the caller's own: a process can join the supervisor's.
func (b *builder) ownProcess(process uint32) ir.SyscallEntry {
	return ir.SyscallEntry{Action: b.deny(abi.EPERM), Reason: reasonOther, Clauses: []ir.Clause{
		when(ir.Allow, "own process", is(0, process), is(1, 0)),
	}}
}
