package lower

import (
	"math"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

var determinismFields = []string{"determinism.random_seed"}

// Determinism lowers what programs are told instead of the truth, and has the calls notified that would tell it.
func Determinism(u *Unit) {
	src, d := &u.Policy.Determinism, &u.Program.Determinism
	if src.RandomSeed.Set {
		d.Random, d.Seed, d.RandomOrigin = true, src.RandomSeed.V, u.ref(src.RandomSeed.Origin)
		trapRandom(u, d.RandomOrigin)
		trapImages(u, "determinism.random_seed", d.RandomOrigin)
	}
}

// trapImages has each program image held before it uses what no call passes: by the call with which C libraries and Go
// set up their first thread (see exec/handler/image).
func trapImages(u *Unit, field string, origin ir.OriginRef) {
	const archSetFS = 0x1002
	reason := field + ": a program is prepared before it starts"
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
	u.Filter.Traps = append(u.Filter.Traps,
		seccomp.Trap{Names: []string{"getrandom"}, Reason: reason, Origin: origin},
		seccomp.Trap{Names: []string{"openat2"}, Reason: opens, Origin: origin})
	for _, arch := range []struct {
		arch      abi.Arch
		directory uint64 // O_DIRECTORY
	}{{abi.AMD64, 0x10000}, {abi.ARM64, 0x4000}} {
		const path = 0x200000 // O_PATH
		for _, call := range []struct {
			name  string
			flags uint8
		}{{"open", 1}, {"openat", 2}} {
			u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{
				Arch: arch.arch, Names: []string{call.name}, Reason: opens, Origin: origin, Clauses: []ir.Clause{
					settled("nothing is read", cond(call.flags, ir.OpSet, low, path|arch.directory)),
				},
			})
		}
	}
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
