package lower

import (
	"math"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

var determinismFields = []string{"determinism.random_seed", "determinism.time_start", "determinism.deterministic_dirs"}

// Determinism lowers what programs are told instead of the truth, and has the calls notified that would tell it.
func Determinism(u *Unit) {
	src, d := &u.Policy.Determinism, &u.Program.Determinism
	if src.RandomSeed.Set {
		d.Random, d.Seed, d.RandomOrigin = true, src.RandomSeed.V, u.ref(src.RandomSeed.Origin)
		trapRandom(u, d.RandomOrigin)
	}
	if src.TimeStart.Set {
		d.ShiftTime, d.TimeStart, d.TimeOrigin = true, uint64(src.TimeStart.V.Unix()), u.ref(src.TimeStart.Origin)
		trapClock(u, d.TimeOrigin)
	}
	switch {
	case d.Random:
		trapImages(u, d.RandomOrigin)
	case d.ShiftTime:
		trapImages(u, d.TimeOrigin)
	}
	dirs(u)
}

// trapImages has each program image held before it uses what no call passes: by the call with which C libraries and Go
// set up their first thread (see exec/handler/image).
func trapImages(u *Unit, origin ir.OriginRef) {
	const (
		archSetFS = 0x1002
		reason    = "determinism: a program is prepared before it starts"
	)
	u.Filter.Traps = append(u.Filter.Traps,
		seccomp.Trap{Arch: abi.AMD64, Names: []string{"arch_prctl"}, Reason: reason, Origin: origin, Clauses: []ir.Clause{
			settled("no thread pointer is set", cond(0, ir.OpNe, low, archSetFS)),
		}},
		seccomp.Trap{Arch: abi.ARM64, Names: []string{"set_tid_address", "sched_getaffinity"}, Reason: reason, Origin: origin})
}

// trapRandom has getrandom notified, and opens that may be of a random device.
func trapRandom(u *Unit, origin ir.OriginRef) {
	const (
		reason = "determinism.random_seed"
		opens  = "determinism.random_seed: a random device may be opened"
	)
	u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{Names: []string{"getrandom"}, Reason: reason, Origin: origin})
	trapOpens(u, opens, origin, false)
}

// trapOpens has the calls notified that may open a file to be read; with onlyRead not those that may write it as well.
// creat only writes. One trap serves all who look at opens: that for random devices, else the first.
func trapOpens(u *Unit, reason string, origin ir.OriginRef, onlyRead bool) {
	if onlyRead && (u.opensTrapped || u.Policy.Determinism.RandomSeed.Set) {
		return
	}
	u.opensTrapped = true
	u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{Names: []string{"openat2"}, Reason: reason, Origin: origin})
	for _, arch := range []struct {
		arch      abi.Arch
		directory uint64 // O_DIRECTORY
	}{{abi.AMD64, 0x10000}, {abi.ARM64, 0x4000}} {
		const path, accessMode, readOnly = 0x200000, 3, 0 // O_PATH, O_ACCMODE, O_RDONLY
		for _, call := range []struct {
			name  string
			flags uint8
		}{{"open", 1}, {"openat", 2}} {
			clauses := []ir.Clause{settled("nothing is read", cond(call.flags, ir.OpSet, low, path|arch.directory))}
			if onlyRead {
				clauses = append(clauses, settled("more than read", cond(call.flags, ir.OpNe, accessMode, readOnly)))
			}
			u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{
				Arch: arch.arch, Names: []string{call.name}, Reason: reason, Origin: origin, Clauses: clauses,
			})
		}
	}
}

// trapClock has the calls notified that read the time of day, and those that wait until one. Clocks that measure spans of
// time are left to the kernel.
func trapClock(u *Unit, origin ir.OriginRef) {
	const (
		reads     = "determinism.time_start: the time of day is read"
		waits     = "determinism.time_start: a deadline in the time of day is corrected"
		absolute  = 1     // TIMER_ABSTIME, TFD_TIMER_ABSTIME
		realtime  = 0x100 // FUTEX_CLOCK_REALTIME
		futexCall = 0x7f  // what is left of a futex operation without its flags
	)
	trap := func(reason, name string, clauses ...ir.Clause) {
		u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{Names: []string{name}, Reason: reason, Origin: origin, Clauses: clauses})
	}
	// CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_REALTIME_ALARM, CLOCK_TAI
	another := settled("not the time of day", notIn(0, low, 0, 5, 8, 11)...)
	span := settled("a span of time", cond(1, ir.OpEq, absolute, 0))
	trap(reads, "clock_gettime", another)
	trap(reads, "gettimeofday")
	trap(reads, "time")
	trap(waits, "clock_nanosleep", span, another)
	trap(waits, "timer_settime", span)
	trap(waits, "timerfd_settime", span)
	// FUTEX_LOCK_PI always waits until a time of day; FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI and FUTEX_LOCK_PI2 do with
	// the flag.
	trap(waits, "futex",
		settled("no deadline", cond(3, ir.OpEq, all, 0)),
		settled("not the time of day", cond(1, ir.OpNe, futexCall, 6), cond(1, ir.OpEq, realtime, 0)),
		settled("no deadline", notIn(1, futexCall, 6, 9, 11, 13)...))
	trap(waits, "futex_waitv",
		settled("no deadline", cond(3, ir.OpEq, all, 0)),
		settled("not the time of day", cond(4, ir.OpNe, low, 0)))
	for _, name := range []string{"mq_timedsend", "mq_timedreceive"} {
		trap(waits, name, settled("no deadline", cond(4, ir.OpEq, all, 0)))
	}
}

// notIn holds when an argument is none of some values.
func notIn(arg uint8, mask uint64, values ...uint64) (conds []ir.Cond) {
	for _, v := range values {
		conds = append(conds, cond(arg, ir.OpNe, mask, v))
	}
	return conds
}

// low is the mask of a 32-bit argument, all that of a pointer.
const (
	low = math.MaxUint32
	all = math.MaxUint64
)

func cond(arg uint8, op ir.Op, mask, value uint64) ir.Cond {
	return ir.Cond{Arg: arg, Op: op, Mask: mask, Value: value}
}

// settled is a clause for calls that need no supervisor.
func settled(reason string, conds ...ir.Cond) ir.Clause {
	return ir.Clause{Conds: conds, Action: ir.Allow, Reason: reason}
}
