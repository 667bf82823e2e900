package bpf

import (
	"slices"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// prologue is the architecture check that every program starts with.
func prologue(a abi.Arch) []Insn {
	return []Insn{
		{Code: LdAbs, K: OffArch},
		{Code: Jeq, K: a.Audit(), JT: 1},
		{Code: Ret, K: uint32(RetKillProcess)},
	}
}

// x32Check follows the prologue on amd64.
var x32Check = []Insn{
	{Code: LdAbs, K: OffNr},
	{Code: Jge, K: abi.X32Bit, JF: 1},
	{Code: Ret, K: uint32(RetErrno) | 38},
}

func ret(r Return) Insn { return Insn{Code: Ret, K: uint32(r)} }

func program(a abi.Arch, rest ...Insn) []Insn { return append(prologue(a), rest...) }

func programX32(rest ...Insn) []Insn { return append(program(abi.AMD64, x32Check...), rest...) }

func TestDecodeEncode(t *testing.T) {
	insns := programX32(Insn{Code: Jset, JT: 0, JF: 255, K: 0xdeadbeef}, ret(RetAllow))
	got, err := Decode(Encode(insns))
	if err != nil || !slices.Equal(got, insns) {
		t.Errorf("Decode(Encode(p)): got %v, %v, want %v", got, err, insns)
	}
	for _, size := range []int{0, 1, 7, 9, (MaxInsns + 1) * InsnSize} {
		if _, err := Decode(make([]byte, size)); err == nil {
			t.Errorf("Decode of %d bytes: got no error", size)
		}
	}
	if _, err := Decode(make([]byte, MaxInsns*InsnSize)); err != nil {
		t.Errorf("Decode of %d instructions: %v", MaxInsns, err)
	}
}

func TestMachineLoads(t *testing.T) {
	d := Data{Nr: 7, Arch: 8, IP: 0x2222222211111111}
	for i := range d.Args {
		d.Args[i] = uint64(0xA0+i)<<32 | uint64(0xB0+i)
	}
	want := map[uint32]uint32{0: 7, 4: 8, 8: 0x11111111, 12: 0x22222222}
	for i := range uint32(6) {
		want[16+8*i], want[20+8*i] = 0xB0+i, 0xA0+i
	}
	for off := range uint32(80) {
		w, known := want[off]
		// The program allows exactly when the word at off is w.
		m := NewMachine([]Insn{{Code: LdAbs, K: off}, {Code: Jeq, K: w, JF: 1}, ret(RetAllow), ret(RetKillProcess)})
		got, err := m.Run(&d)
		if known != (err == nil) || known && got != RetAllow {
			t.Errorf("load of offset %d: got %v, %v, want word %#x: %v", off, got, err, w, known)
		}
	}
}

func TestMachineJumps(t *testing.T) {
	const k = 0x80000001
	for _, tc := range []struct {
		code uint16
		nr   uint32
		want bool
	}{
		{Jeq, k, true}, {Jeq, k - 1, false}, {Jeq, 1, false},
		{Jgt, k, false}, {Jgt, k + 1, true}, {Jgt, 5, false},
		{Jge, k, true}, {Jge, k - 1, false}, {Jge, 0xffffffff, true},
		{Jset, 1, true}, {Jset, 2, false}, {Jset, 0x80000000, true}, {Jset, 0, false},
	} {
		m := NewMachine([]Insn{{Code: LdAbs}, {Code: tc.code, K: k, JF: 1}, ret(RetAllow), ret(RetKillProcess)})
		got, err := m.Run(&Data{Nr: tc.nr})
		if err != nil || (got == RetAllow) != tc.want {
			t.Errorf("code %#x, A=%#x, K=%#x: got %v, %v, want taken %v", tc.code, tc.nr, uint32(k), got, err, tc.want)
		}
	}
}

func TestMachineReportsBadPrograms(t *testing.T) {
	for name, insns := range map[string][]Insn{
		"empty":           nil,
		"no return":       {{Code: LdAbs}},
		"jump outside":    {{Code: Ja, K: 1}, ret(RetAllow)},
		"huge jump":       {{Code: Ja, K: 0xffffffff}, ret(RetAllow)},
		"unknown code":    {{Code: 0x16}, ret(RetAllow)},
		"unaligned load":  {{Code: LdAbs, K: 2}, ret(RetAllow)},
		"load behind end": {{Code: LdAbs, K: 64}, ret(RetAllow)},
	} {
		if got, err := NewMachine(insns).Run(&Data{}); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func TestUncovered(t *testing.T) {
	m := NewMachine([]Insn{{Code: LdAbs}, {Code: Jeq, K: 1, JF: 1}, ret(RetAllow), ret(RetKillProcess)})
	for _, step := range []struct {
		nr   uint32
		want []int
	}{{0, []int{2}}, {0, []int{2}}, {1, nil}} {
		if _, err := m.Run(&Data{Nr: step.nr}); err != nil {
			t.Fatal(err)
		}
		if got := m.Uncovered(); !slices.Equal(got, step.want) {
			t.Errorf("after number %d: got uncovered %v, want %v", step.nr, got, step.want)
		}
	}
}

func TestConstAllow(t *testing.T) {
	// Number 1 is allowed, 2 only with argument 0 == 0, other even numbers are allowed, other odd ones notified.
	insns := programX32(
		Insn{Code: Jeq, K: 1, JT: 3},
		Insn{Code: Jeq, K: 2, JF: 4},
		Insn{Code: LdAbs, K: OffArgs},
		Insn{Code: Jeq, K: 0, JF: 1},
		ret(RetAllow),
		ret(RetErrno|1),
		Insn{Code: And, K: 1},
		Insn{Code: Jeq, K: 1, JF: 1},
		ret(RetUserNotif),
		ret(RetAllow),
	)
	if err := verify(insns, abi.AMD64); err != nil {
		t.Fatalf("verify: %v", err)
	}
	for _, tc := range []struct {
		arch, nr uint32
		want     bool
	}{
		{abi.AMD64.Audit(), 1, true},
		{abi.AMD64.Audit(), 2, false}, // allowed for argument 0 only
		{abi.AMD64.Audit(), 3, false}, // notified
		{abi.AMD64.Audit(), 4, true},
		{abi.AMD64.Audit(), abi.X32Bit | 4, false},
		{abi.ARM64.Audit(), 4, false},
	} {
		if got := ConstAllow(insns, tc.arch, tc.nr); got != tc.want {
			t.Errorf("ConstAllow(arch %#x, nr %d): got %v, want %v", tc.arch, tc.nr, got, tc.want)
		}
	}
}

func TestDisassemble(t *testing.T) {
	insns := programX32(
		Insn{Code: Jge, K: 59, JT: 2},
		Insn{Code: LdAbs, K: OffArgs + 12},
		Insn{Code: And, K: 0xffff0000},
		Insn{Code: Jset, K: 59, JT: 0, JF: 1},
		Insn{Code: Ja, K: 1},
		ret(RetErrno|4000),
		ret(RetUserNotif),
	)
	want := `
    0  ld   arch
    1  jeq  0xc000003e   L1, next
    2  ret  kill
L1:
    3  ld   nr
    4  jge  0x40000000   next, L2
    5  ret  errno ENOSYS
L2:
    6  jge  59           L3, next                    ; execve
    7  ld   arg1.hi
    8  and  0xffff0000
L3:
    9  jset 59           next, L4
   10  ja   L5
L4:
   11  ret  errno 4000
L5:
   12  ret  notify
`
	if got := Disassemble(insns, abi.AMD64); got != want[1:] {
		t.Errorf("got:\n%s\nwant:%s", got, want)
	}
}

func TestDisassembleTakesBadPrograms(t *testing.T) {
	got := Disassemble([]Insn{{Code: 0x99}, {Code: Ja, K: 9}, {Code: LdAbs, K: 3}, ret(0x7ff00000)}, abi.ARM64)
	for _, want := range []string{"code 0x99", "outside(11)", "offset(3)", "action(0x7ff00000)"} {
		if !strings.Contains(got, want) {
			t.Errorf("got:\n%s\nwant it to contain %q", got, want)
		}
	}
}
