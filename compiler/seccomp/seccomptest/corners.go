package seccomptest

import (
	"math"
	"slices"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Bounds on the argument tuples tried for one number. Up to the bound, all combinations of the corners are tried;
// beyond, those that decide clauses, and a fixed pseudo-random sample.
const (
	thorough = 20000
	brief    = 2000
)

// forArguments calls try with up to bound argument tuples that matter to some clauses, and always with one that
// satisfies each clause and two that are far from everything.
func forArguments(clauses []ir.Clause, bound int, try func([6]uint64)) {
	try([6]uint64{})
	try([6]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)})
	if len(clauses) == 0 {
		return
	}
	var values [6][]uint64
	total := 1
	for arg := range values {
		values[arg] = corners(clauses, uint8(arg))
		if total <= bound {
			total *= len(values[arg])
		}
	}
	if total <= bound {
		product(values, [6]uint64{}, 0, try)
		return
	}
	directed(clauses, values, bound > 0, try)
	sample(values, bound, try)
}

// corners returns the values of one argument at which a condition can change its mind: at, below and above its value,
// with one bit changed, with the bits outside the mask set, and with the upper half of the register dirty.
func corners(clauses []ir.Clause, arg uint8) []uint64 {
	const dirty, low = 0xdeadbeef << 32, math.MaxUint32
	v := []uint64{0}
	for _, clause := range clauses {
		for _, c := range clause.Conds {
			if c.Arg != arg {
				continue
			}
			v = append(v, c.Value, c.Value-1, c.Value+1, c.Value^1<<31, c.Value|^c.Mask, c.Value&low|dirty, 1<<31, 1<<63)
			if c.Op == ir.OpSet {
				for bits := c.Value & c.Mask; bits != 0; bits &= bits - 1 {
					v = append(v, bits&-bits)
				}
			}
			if c.Mask > low {
				// The halves of a 64-bit comparison, each on either side.
				hi, lo := c.Value>>32, c.Value&low
				for _, h := range []uint64{hi - 1, hi, hi + 1, hi ^ 1<<31} {
					for _, l := range []uint64{0, lo - 1, lo, lo + 1, low} {
						v = append(v, h<<32|l&low)
					}
				}
			}
		}
	}
	slices.Sort(v)
	return slices.Compact(v)
}

// product tries all combinations.
func product(values [6][]uint64, args [6]uint64, from int, try func([6]uint64)) {
	if from == len(args) {
		try(args)
		return
	}
	for _, v := range values[from] {
		args[from] = v
		product(values, args, from+1, try)
	}
}

// directed tries, for each clause, a tuple that satisfies it, and if asked those that differ from that in one argument
// by a corner of the clause.
func directed(clauses []ir.Clause, values [6][]uint64, neighbours bool, try func([6]uint64)) {
	for _, clause := range clauses {
		base, ok := satisfy(clause, values)
		if !ok {
			continue
		}
		try(base)
		if !neighbours {
			continue
		}
		for arg := range base {
			for _, v := range corners([]ir.Clause{clause}, uint8(arg)) {
				args := base
				args[arg] = v
				try(args)
			}
		}
	}
}

func satisfy(clause ir.Clause, values [6][]uint64) (args [6]uint64, ok bool) {
	for arg := range args {
		i := slices.IndexFunc(values[arg], func(v uint64) bool {
			return !slices.ContainsFunc(clause.Conds, func(c ir.Cond) bool {
				return int(c.Arg) == arg && !query.Holds(c, v)
			})
		})
		if i < 0 {
			return args, false
		}
		args[arg] = values[arg][i]
	}
	return args, true
}

// sample tries combinations chosen by a fixed linear congruential sequence, so that a failure repeats.
func sample(values [6][]uint64, tuples int, try func([6]uint64)) {
	state := uint64(1)
	for range tuples {
		var args [6]uint64
		for arg := range args {
			state = state*6364136223846793005 + 1442695040888963407
			args[arg] = values[arg][int(state>>33)%len(values[arg])]
		}
		try(args)
	}
}
