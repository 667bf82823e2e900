package bpf

import (
	"errors"
	"fmt"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// Verify proves what the executor relies on before it hands a program to the kernel:
//
//   - its length is one that the kernel takes, and it holds only instructions of this package;
//   - every load is an aligned word of struct seccomp_data, every jump stays inside, and every path returns;
//   - it returns only allow, errno, user notification or kill process;
//   - a call of another architecture kills the process: numbers mean something else there (int 0x80 on amd64);
//   - on amd64 no number from 0x40000000 up is allowed or notified: the x32 calls share the architecture's value.
//
// That the program decides what the artifact's table says is proven where it is compiled (compiler/seccomp).
func Verify(prog []byte, arch abi.Arch) error {
	insns, err := Decode(prog)
	if err != nil {
		return err
	}
	if err := verify(insns, arch); err != nil {
		return fmt.Errorf("verify BPF program for %s: %w", arch, err)
	}
	return nil
}

func verify(insns []Insn, arch abi.Arch) error {
	for i, in := range insns {
		if err := in.check(); err != nil {
			return fmt.Errorf("instruction %d: %w", i, err)
		}
		to, n := in.successors(i)
		for _, next := range to[:n] {
			if next >= int64(len(insns)) {
				return fmt.Errorf("instruction %d: control reaches %d, behind the end at %d", i, next, len(insns))
			}
		}
	}
	if err := checkArch(insns, arch); err != nil {
		return err
	}
	if arch == abi.AMD64 {
		return checkX32(insns)
	}
	return nil
}

// check examines one instruction by itself. Operands that the kernel ignores must be zero, so that there is one
// encoding of each program and nothing hides in it.
func (in Insn) check() error {
	isBranch := false
	switch in.Code {
	case LdAbs:
		if in.K%4 != 0 || in.K >= offEnd || in.K == OffIP || in.K == OffIP+4 {
			return fmt.Errorf("load of offset %d, want number, architecture or an argument half", in.K)
		}
	case Ret:
		if !Return(in.K).Known() {
			return fmt.Errorf("return of unknown action %#x", in.K)
		}
	case Jeq, Jgt, Jge, Jset:
		isBranch = true
	case Ja, And:
	default:
		return fmt.Errorf("unknown code %#x", in.Code)
	}
	if !isBranch && (in.JT != 0 || in.JF != 0) {
		return fmt.Errorf("code %#x has branch offsets %d and %d, want none", in.Code, in.JT, in.JF)
	}
	return nil
}

// checkArch wants the architecture to be decided first, in the one form that the compiler emits.
func checkArch(insns []Insn, arch abi.Arch) error {
	audit := arch.Audit()
	if audit == 0 {
		return errors.New("unknown architecture")
	}
	if insns[0] != (Insn{Code: LdAbs, K: OffArch}) {
		return errors.New("instruction 0 does not load the architecture")
	}
	// Instruction 0 is no return, so control reaches 1, and verify has checked that 1 and its targets exist.
	test := insns[1]
	if test.Code != Jeq || test.K != audit {
		return fmt.Errorf("instruction 1 does not compare the architecture with %#x", audit)
	}
	mismatch := 2 + int(test.JF)
	if other := insns[mismatch]; other.Code != Ret || Return(other.K) != RetKillProcess {
		return fmt.Errorf("another architecture reaches instruction %d, which does not kill the process", mismatch)
	}
	if test.JT == test.JF {
		return errors.New("the architecture's own calls are killed")
	}
	return nil
}

// span is a range of system call numbers, both ends included. It is 64 bits wide so that no bound wraps.
type span struct{ lo, hi int64 }

func (s span) empty() bool { return s.lo > s.hi }

// hull returns the smallest span that holds both.
func (s span) hull(o span) span {
	switch {
	case s.empty():
		return o
	case o.empty():
		return s
	}
	return span{min(s.lo, o.lo), max(s.hi, o.hi)}
}

// split returns the parts of s for which a jump on the number is taken and not taken. A JSET splits nothing; both
// parts are then larger than need be, which can only make checkX32 refuse.
func (s span) split(in Insn) (taken, not span) {
	k := int64(in.K)
	switch in.Code {
	case Jeq:
		taken, not = span{max(s.lo, k), min(s.hi, k)}, s
		if s.lo == k {
			not.lo++
		}
		if s.hi == k {
			not.hi--
		}
		return taken, not
	case Jgt:
		return span{max(s.lo, k+1), s.hi}, span{s.lo, min(s.hi, k)}
	case Jge:
		return span{max(s.lo, k), s.hi}, span{s.lo, min(s.hi, k-1)}
	}
	return s, s
}

// checkX32 is an abstract interpretation over the system call number: for each instruction it keeps a span that
// holds every x32 number which can arrive there, whatever the arguments are. No span may arrive at a return that
// lets the call through. All jumps go forward, so one pass in program order sees each instruction after everything
// that leads to it.
func checkX32(insns []Insn) error {
	held := accumulator(insns)
	reach := make([]span, len(insns))
	for i := range reach {
		reach[i] = span{1, 0}
	}
	reach[0] = span{abi.X32Bit, 0xffffffff}
	for i, in := range insns {
		s := reach[i]
		if s.empty() {
			continue
		}
		if r := Return(in.K); in.Code == Ret && (r == RetAllow || r == RetUserNotif) {
			return fmt.Errorf("instruction %d lets an x32 number from %#x to %#x through", i, s.lo, s.hi)
		}
		to, n := in.successors(i)
		parts := [2]span{s, s}
		if held[i] == OffNr && n == 2 {
			parts[0], parts[1] = s.split(in)
		}
		for j, next := range to[:n] {
			reach[next] = reach[next].hull(parts[j])
		}
	}
	return nil
}

// unknown marks an accumulator whose content is masked, or depends on the path taken.
const unknown = -1

// accumulator returns, for each instruction of a program whose jumps are in range, the offset of the word that the
// accumulator holds unchanged before it, or unknown.
func accumulator(insns []Insn) []int64 {
	const unreached = -2
	held := make([]int64, len(insns))
	for i := range held {
		held[i] = unreached
	}
	held[0] = unknown
	for i, in := range insns {
		if held[i] == unreached {
			continue
		}
		after := held[i]
		switch in.Code {
		case LdAbs:
			after = int64(in.K)
		case And:
			after = unknown
		}
		to, n := in.successors(i)
		for _, next := range to[:n] {
			if held[next] == unreached {
				held[next] = after
			} else if held[next] != after {
				held[next] = unknown
			}
		}
	}
	return held
}
