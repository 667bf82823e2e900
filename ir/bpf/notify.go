package bpf

import (
	"fmt"
	"slices"
)

// MaxNotified bounds the numbers of [NotifyAllowed]: a jump skips 255 instructions at most.
const MaxNotified = 128

// NotifyAllowed returns a program that decides as prog does, except that calls with one of the numbers are notified where
// prog allows them. It can only narrow: what prog refuses stays refused. Every "return allow" becomes a jump to a common
// end that looks at the number once more.
func NotifyAllowed(prog []byte, numbers []uint32) ([]byte, error) {
	insns, err := Decode(prog)
	if err != nil {
		return nil, err
	}
	numbers = slices.Compact(slices.Sorted(slices.Values(numbers)))
	if n := len(numbers); n == 0 || n > MaxNotified {
		return nil, fmt.Errorf("notify %d system calls, want 1 to %d", n, MaxNotified)
	}
	end := len(insns)
	for i, in := range insns {
		if in.Code == Ret && Return(in.K) == RetAllow {
			insns[i] = Insn{Code: Ja, K: uint32(end - i - 1)}
		}
	}
	insns = append(insns, Insn{Code: LdAbs, K: OffNr})
	for i, nr := range numbers {
		insns = append(insns, Insn{Code: Jeq, K: nr, JT: uint8(len(numbers) - i)})
	}
	insns = append(insns, Insn{Code: Ret, K: uint32(RetAllow)}, Insn{Code: Ret, K: uint32(RetUserNotif)})
	if len(insns) > MaxInsns {
		return nil, fmt.Errorf("notify %d system calls: %d instructions, at most %d are allowed", len(numbers), len(insns), MaxInsns)
	}
	return Encode(insns), nil
}
