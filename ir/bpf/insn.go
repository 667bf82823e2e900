// Package bpf reads, runs and proves the classic BPF programs of seccomp filters.
//
// In: the program bytes of an artifact (struct sock_filter, little-endian). Out: [Verify], which the executor asks
// before the kernel sees a program; [Machine], an interpreter that tests compare with the reference decision; and
// [Disassemble], the text that reviewers read. The package never emits a program (compiler/seccomp does) and knows
// only the instructions that a filter of ours is made of: what it does not know, it refuses.
//
// Read next: verify.go (what is proven), vm.go (the interpreter), compiler/seccomp (where programs come from).
package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// MaxInsns is the kernel's limit on the length of one program (linux/bpf_common.h, BPF_MAXINSNS).
const MaxInsns = 4096

// InsnSize is the size of an encoded instruction.
const InsnSize = 8

// Insn is one instruction, as struct sock_filter has it.
type Insn struct {
	Code   uint16
	JT, JF uint8
	K      uint32
}

// The instructions that a filter is made of. A is the accumulator.
const (
	LdAbs uint16 = 0x20 // A = the 32-bit word of seccomp_data at offset K
	Ja    uint16 = 0x05 // skip K instructions
	Jeq   uint16 = 0x15 // skip JT instructions if A == K, else JF; the other three likewise
	Jgt   uint16 = 0x25
	Jge   uint16 = 0x35
	Jset  uint16 = 0x45 // if A & K is not zero
	And   uint16 = 0x54 // A &= K
	Ret   uint16 = 0x06 // return K
)

// Offsets into struct seccomp_data; the low half of argument i lies at OffArgs + 8*i, its high half 4 further.
const (
	OffNr   = 0
	OffArch = 4
	OffIP   = 8
	OffArgs = 16
	offEnd  = 64
)

// Return is the value that a filter returns: an action, with an errno in the low half for [RetErrno].
type Return uint32

// Return actions (linux/seccomp.h).
const (
	RetKillProcess Return = 0x80000000
	RetErrno       Return = 0x00050000
	RetUserNotif   Return = 0x7fc00000
	RetAllow       Return = 0x7fff0000

	retDataMask = 0x0000ffff
)

// Known tells whether r is one of the four outcomes that an artifact can ask for.
func (r Return) Known() bool {
	switch r {
	case RetAllow, RetUserNotif, RetKillProcess:
		return true
	}
	_, ok := r.Errno()
	return ok
}

// Errno returns the error number that the call fails with; ok is false for the other actions, and for number 0,
// which would skip the call and report success.
func (r Return) Errno() (e uint16, ok bool) {
	e = uint16(r & retDataMask)
	return e, r&^retDataMask == RetErrno && e >= 1 && e <= abi.MaxErrno
}

// Decode splits a program into instructions. It checks the length only.
func Decode(prog []byte) ([]Insn, error) {
	if len(prog)%InsnSize != 0 {
		return nil, fmt.Errorf("decode BPF program: length %d is not a multiple of %d", len(prog), InsnSize)
	}
	n := len(prog) / InsnSize
	if n < 1 || n > MaxInsns {
		return nil, fmt.Errorf("decode BPF program: %d instructions, want 1 to %d", n, MaxInsns)
	}
	insns := make([]Insn, n)
	for i := range insns {
		b := prog[i*InsnSize:]
		insns[i] = Insn{
			Code: binary.LittleEndian.Uint16(b),
			JT:   b[2],
			JF:   b[3],
			K:    binary.LittleEndian.Uint32(b[4:]),
		}
	}
	return insns, nil
}

// Encode is the inverse of [Decode].
func Encode(insns []Insn) []byte {
	prog := make([]byte, 0, len(insns)*InsnSize)
	for _, in := range insns {
		prog = binary.LittleEndian.AppendUint16(prog, in.Code)
		prog = append(prog, in.JT, in.JF)
		prog = binary.LittleEndian.AppendUint32(prog, in.K)
	}
	return prog
}

// successors returns the n indices that control can reach from instruction i, in 64 bits so that no skip wraps; for
// a branch first the one taken when its condition holds.
func (in Insn) successors(i int) (to [2]int64, n int) {
	next := int64(i) + 1
	switch in.Code {
	case Ret:
		return to, 0
	case Ja:
		return [2]int64{next + int64(in.K)}, 1
	case Jeq, Jgt, Jge, Jset:
		return [2]int64{next + int64(in.JT), next + int64(in.JF)}, 2
	}
	return [2]int64{next}, 1
}
