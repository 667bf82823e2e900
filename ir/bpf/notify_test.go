package bpf

import (
	"testing"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// sampleDecisions allows 5, 6 with argument 1 and everything from 10 up, and refuses the rest.
func sampleDecisions() []Insn {
	return programX32(
		Insn{Code: Jeq, K: 5, JF: 1}, ret(RetAllow),
		Insn{Code: Jeq, K: 6, JF: 3},
		Insn{Code: LdAbs, K: OffArgs}, Insn{Code: Jeq, K: 1, JF: 1}, ret(RetAllow),
		Insn{Code: LdAbs, K: OffNr},
		Insn{Code: Jge, K: 10, JT: 1}, ret(RetErrno|1), ret(RetAllow),
	)
}

func TestNotifyAllowed(t *testing.T) {
	old := sampleDecisions()
	numbers := []uint32{6, 3, 12, 6, 1 << 20}
	prog, err := NotifyAllowed(Encode(old), numbers)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(prog, abi.AMD64); err != nil {
		t.Fatal(err)
	}
	rewritten, _ := Decode(prog)
	before, after := NewMachine(old), NewMachine(rewritten)
	notified := map[uint32]bool{6: true, 3: true, 12: true, 1 << 20: true}
	for _, nr := range []uint32{0, 3, 5, 6, 7, 10, 11, 12, 13, 1 << 20, abi.X32Bit, abi.X32Bit | 12, ^uint32(0)} {
		for _, arg := range []uint64{0, 1} {
			for _, arch := range []uint32{abi.AMD64.Audit(), abi.ARM64.Audit(), 0} {
				d := Data{Nr: nr, Arch: arch, Args: [6]uint64{arg}}
				want, err := before.Run(&d)
				if err != nil {
					t.Fatal(err)
				}
				if want == RetAllow && notified[nr] {
					want = RetUserNotif
				}
				if got, err := after.Run(&d); err != nil || got != want {
					t.Errorf("number %d, argument %d, architecture %#x: %#x (%v), want %#x", nr, arg, arch, got, err, want)
				}
			}
		}
	}
	if left := after.Uncovered(); len(left) > 0 {
		t.Errorf("instructions %v never ran", left)
	}
}

func TestNotifyAllowedRefuses(t *testing.T) {
	prog := Encode(sampleDecisions())
	for name, numbers := range map[string][]uint32{"none": nil, "too many": make([]uint32, 0)} {
		if name == "too many" {
			for nr := range uint32(MaxNotified + 1) {
				numbers = append(numbers, nr)
			}
		}
		if _, err := NotifyAllowed(prog, numbers); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	full := make([]Insn, MaxInsns)
	for i := range full {
		full[i] = ret(RetAllow)
	}
	if _, err := NotifyAllowed(Encode(full), []uint32{1}); err == nil {
		t.Error("a program of the greatest length grew")
	}
	if _, err := NotifyAllowed([]byte{1}, []uint32{1}); err == nil {
		t.Error("no program was rewritten")
	}
}

// The longest list still jumps right.
func TestNotifyAllowedLongest(t *testing.T) {
	var numbers []uint32
	for nr := range uint32(MaxNotified) {
		numbers = append(numbers, 100+nr)
	}
	prog, err := NotifyAllowed(Encode(programX32(ret(RetAllow))), numbers)
	if err != nil {
		t.Fatal(err)
	}
	insns, _ := Decode(prog)
	m := NewMachine(insns)
	for nr := range uint32(400) {
		want := RetAllow
		if nr >= 100 && nr < 100+MaxNotified {
			want = RetUserNotif
		}
		if got, err := m.Run(&Data{Nr: nr, Arch: abi.AMD64.Audit()}); err != nil || got != want {
			t.Fatalf("number %d: %#x (%v), want %#x", nr, got, err, want)
		}
	}
}
