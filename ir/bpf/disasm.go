package bpf

import (
	"fmt"
	"strings"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// Disassemble writes a program as text, one instruction a line: number, mnemonic, operand, and for a branch where
// it goes ("L3" or "next"). Targets carry their label on a line of its own. Where a number is compared, the system
// call's name follows as a comment.
func Disassemble(insns []Insn, arch abi.Arch) string {
	labels := label(insns)
	held := make([]int64, len(insns))
	if inRange(insns) {
		held = accumulator(insns)
	}
	var b strings.Builder
	for i, in := range insns {
		if name, ok := labels[int64(i)]; ok {
			fmt.Fprintf(&b, "%s:\n", name)
		}
		line := fmt.Sprintf("%5d  %s", i, in.text(i, labels))
		if in.Code == Jeq || in.Code == Jge || in.Code == Jgt {
			if name, ok := abi.SyscallName(arch, in.K); ok && held[i] == OffNr {
				line = fmt.Sprintf("%-52s ; %s", line, name)
			}
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String()
}

func inRange(insns []Insn) bool {
	for i, in := range insns {
		to, n := in.successors(i)
		for _, next := range to[:n] {
			if next >= int64(len(insns)) {
				return false
			}
		}
	}
	return len(insns) > 0
}

// label names the targets of all jumps, in program order.
func label(insns []Insn) map[int64]string {
	isTarget := make(map[int64]bool)
	for i, in := range insns {
		to, n := in.successors(i)
		for _, next := range to[:n] {
			if next != int64(i)+1 {
				isTarget[next] = true
			}
		}
	}
	labels := make(map[int64]string, len(isTarget))
	for i := range insns {
		if isTarget[int64(i)] {
			labels[int64(i)] = fmt.Sprintf("L%d", len(labels)+1)
		}
	}
	return labels
}

var mnemonics = map[uint16]string{
	LdAbs: "ld", Ja: "ja", Jeq: "jeq", Jgt: "jgt", Jge: "jge", Jset: "jset", And: "and", Ret: "ret",
}

func (in Insn) text(i int, labels map[int64]string) string {
	target := func(to int64) string {
		if to == int64(i)+1 {
			return "next"
		}
		if name, ok := labels[to]; ok {
			return name
		}
		return fmt.Sprintf("outside(%d)", to)
	}
	op, ok := mnemonics[in.Code]
	if !ok {
		return fmt.Sprintf("code %#x jt %d jf %d k %#x", in.Code, in.JT, in.JF, in.K)
	}
	next, _ := in.successors(i)
	switch in.Code {
	case LdAbs:
		return fmt.Sprintf("%-4s %s", op, wordName(in.K))
	case And:
		return fmt.Sprintf("%-4s %#x", op, in.K)
	case Ja:
		return fmt.Sprintf("%-4s %s", op, target(next[0]))
	case Ret:
		return fmt.Sprintf("%-4s %s", op, Return(in.K))
	}
	return fmt.Sprintf("%-4s %-12s %s, %s", op, operand(in.K), target(next[0]), target(next[1]))
}

// operand writes small values, which are mostly numbers of something, in decimal and large ones, which are mostly
// masks, in hexadecimal.
func operand(k uint32) string {
	if k < 4096 {
		return fmt.Sprint(k)
	}
	return fmt.Sprintf("%#x", k)
}

func wordName(off uint32) string {
	switch {
	case off == OffNr:
		return "nr"
	case off == OffArch:
		return "arch"
	case off%4 != 0 || off >= offEnd:
		return fmt.Sprintf("offset(%d)", off)
	}
	name := "ip"
	if off >= OffArgs {
		name = fmt.Sprintf("arg%d", (off-OffArgs)/8)
	}
	if off%8 == 4 {
		return name + ".hi"
	}
	return name + ".lo"
}

// String returns the action as disassemblies and test messages print it: "allow", "errno EPERM", "notify", "kill".
func (r Return) String() string {
	switch r {
	case RetAllow:
		return "allow"
	case RetUserNotif:
		return "notify"
	case RetKillProcess:
		return "kill"
	}
	e, ok := r.Errno()
	if !ok {
		return fmt.Sprintf("action(%#x)", uint32(r))
	}
	if name, ok := abi.ErrnoName(abi.Errno(e)); ok {
		return "errno " + name
	}
	return fmt.Sprintf("errno %d", e)
}
