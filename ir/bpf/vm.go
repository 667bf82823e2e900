package bpf

import "fmt"

// Data is what a filter sees of a system call (struct seccomp_data). Its layout is little-endian whatever the host
// is, because the architectures that programs are compiled for are.
type Data struct {
	Nr   uint32
	Arch uint32
	IP   uint64
	Args [6]uint64
}

// word returns the 32-bit word at a byte offset.
func (d *Data) word(off uint32) (w uint32, ok bool) {
	if off%4 != 0 || off >= offEnd {
		return 0, false
	}
	switch off {
	case OffNr:
		return d.Nr, true
	case OffArch:
		return d.Arch, true
	}
	quad := d.IP
	if off >= OffArgs {
		quad = d.Args[(off-OffArgs)/8]
	}
	if off%8 == 4 {
		quad >>= 32
	}
	return uint32(quad), true
}

// Machine runs one program and remembers which of its instructions were executed.
type Machine struct {
	insns   []Insn
	covered []bool
}

// NewMachine returns a machine for a program. The program need not be verified: what it does wrong, [Machine.Run]
// reports.
func NewMachine(insns []Insn) *Machine {
	return &Machine{insns: insns, covered: make([]bool, len(insns))}
}

// Run evaluates the program. It ends for every program, since no instruction jumps backward.
func (m *Machine) Run(d *Data) (Return, error) {
	var a uint32
	for pc := int64(0); pc < int64(len(m.insns)); {
		in := m.insns[pc]
		m.covered[pc] = true
		pc++
		switch in.Code {
		case LdAbs:
			w, ok := d.word(in.K)
			if !ok {
				return 0, fmt.Errorf("run BPF program: instruction %d loads offset %d", pc-1, in.K)
			}
			a = w
		case And:
			a &= in.K
		case Ja:
			pc += int64(in.K)
		case Jeq, Jgt, Jge, Jset:
			if in.holds(a) {
				pc += int64(in.JT)
			} else {
				pc += int64(in.JF)
			}
		case Ret:
			return Return(in.K), nil
		default:
			return 0, fmt.Errorf("run BPF program: instruction %d has unknown code %#x", pc-1, in.Code)
		}
	}
	return 0, fmt.Errorf("run BPF program: control leaves the program's %d instructions", len(m.insns))
}

// holds evaluates the condition of a conditional jump.
func (in Insn) holds(a uint32) bool {
	switch in.Code {
	case Jeq:
		return a == in.K
	case Jgt:
		return a > in.K
	case Jge:
		return a >= in.K
	}
	return a&in.K != 0
}

// Uncovered returns the indices of the instructions that no run has executed.
func (m *Machine) Uncovered() []int {
	var missed []int
	for i, c := range m.covered {
		if !c {
			missed = append(missed, i)
		}
	}
	return missed
}

// ConstAllow tells whether the kernel will put a system call into its allow bitmap and skip the program for it
// (since Linux 5.11; kernel/seccomp.c, seccomp_is_const_allow): the program must allow the call having read nothing
// but number and architecture.
func ConstAllow(insns []Insn, arch, nr uint32) bool {
	var a uint32
	for pc := int64(0); pc < int64(len(insns)); {
		in := insns[pc]
		pc++
		switch in.Code {
		case LdAbs:
			switch in.K {
			case OffNr:
				a = nr
			case OffArch:
				a = arch
			default:
				return false
			}
		case And:
			a &= in.K
		case Ja:
			pc += int64(in.K)
		case Jeq, Jgt, Jge, Jset:
			if in.holds(a) {
				pc += int64(in.JT)
			} else {
				pc += int64(in.JF)
			}
		case Ret:
			return Return(in.K) == RetAllow
		default:
			return false
		}
	}
	return false
}
