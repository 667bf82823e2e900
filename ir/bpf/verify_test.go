package bpf

import (
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir/abi"
)

func TestVerifyAccepts(t *testing.T) {
	for name, tc := range map[string]struct {
		arch  abi.Arch
		insns []Insn
	}{
		"arm64, allow all":    {abi.ARM64, program(abi.ARM64, ret(RetAllow))},
		"arm64, notify all":   {abi.ARM64, program(abi.ARM64, ret(RetUserNotif))},
		"amd64, allow all":    {abi.AMD64, programX32(ret(RetAllow))},
		"amd64, deny all":     {abi.AMD64, program(abi.AMD64, ret(RetErrno|1))},
		"amd64, one number":   {abi.AMD64, program(abi.AMD64, Insn{Code: LdAbs}, Insn{Code: Jeq, K: 5, JF: 1}, ret(RetAllow), ret(RetErrno|1))},
		"amd64, upper bound":  {abi.AMD64, program(abi.AMD64, Insn{Code: LdAbs}, Insn{Code: Jgt, K: abi.X32Bit - 1, JT: 1}, ret(RetAllow), ret(RetKillProcess))},
		"largest errno":       {abi.ARM64, program(abi.ARM64, ret(RetErrno|4095))},
		"shared kill":         {abi.ARM64, []Insn{{Code: LdAbs, K: OffArch}, {Code: Jeq, K: abi.ARM64.Audit(), JF: 1}, ret(RetAllow), ret(RetKillProcess)}},
		"arm64, large number": {abi.ARM64, program(abi.ARM64, Insn{Code: LdAbs}, Insn{Code: Jge, K: abi.X32Bit, JF: 1}, ret(RetAllow), ret(RetErrno|1))},
	} {
		if err := Verify(Encode(tc.insns), tc.arch); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	long := program(abi.ARM64)
	for len(long) < MaxInsns {
		long = append(long, Insn{Code: LdAbs})
	}
	for name, tc := range map[string]struct {
		arch  abi.Arch
		insns []Insn
		want  string
	}{
		"no return":             {abi.ARM64, long, "behind the end"},
		"jump behind the end":   {abi.ARM64, program(abi.ARM64, Insn{Code: Jeq, JF: 1}, ret(RetAllow)), "behind the end"},
		"wrapping jump":         {abi.ARM64, program(abi.ARM64, Insn{Code: Ja, K: 0xffffffff}, ret(RetAllow)), "behind the end"},
		"load of the pointer":   {abi.ARM64, program(abi.ARM64, Insn{Code: LdAbs, K: OffIP}, ret(RetAllow)), "offset 8"},
		"load of its high half": {abi.ARM64, program(abi.ARM64, Insn{Code: LdAbs, K: OffIP + 4}, ret(RetAllow)), "offset 12"},
		"unaligned load":        {abi.ARM64, program(abi.ARM64, Insn{Code: LdAbs, K: 17}, ret(RetAllow)), "offset 17"},
		"load behind the data":  {abi.ARM64, program(abi.ARM64, Insn{Code: LdAbs, K: 64}, ret(RetAllow)), "offset 64"},
		"network offset":        {abi.ARM64, program(abi.ARM64, Insn{Code: LdAbs, K: 0xfffff000}, ret(RetAllow)), "offset"},
		"return of A":           {abi.ARM64, program(abi.ARM64, Insn{Code: 0x16}, ret(RetAllow)), "unknown code"},
		"half-word load":        {abi.ARM64, program(abi.ARM64, Insn{Code: 0x28}, ret(RetAllow)), "unknown code"},
		"store":                 {abi.ARM64, program(abi.ARM64, Insn{Code: 0x02}, ret(RetAllow)), "unknown code"},
		"jump on X":             {abi.ARM64, program(abi.ARM64, Insn{Code: 0x1d}, ret(RetAllow)), "unknown code"},
		"trace":                 {abi.ARM64, program(abi.ARM64, ret(0x7ff00000)), "unknown action"},
		"trap":                  {abi.ARM64, program(abi.ARM64, ret(0x00030000)), "unknown action"},
		"log":                   {abi.ARM64, program(abi.ARM64, ret(0x7ffc0000)), "unknown action"},
		"kill thread":           {abi.ARM64, program(abi.ARM64, ret(0)), "unknown action"},
		"allow with data":       {abi.ARM64, program(abi.ARM64, ret(RetAllow|1)), "unknown action"},
		"errno 0":               {abi.ARM64, program(abi.ARM64, ret(RetErrno)), "unknown action"},
		"errno 4096":            {abi.ARM64, program(abi.ARM64, ret(RetErrno|4096)), "unknown action"},
		"load with offsets":     {abi.ARM64, program(abi.ARM64, Insn{Code: LdAbs, JT: 1}, ret(RetAllow)), "branch offsets"},
		"return with offsets":   {abi.ARM64, program(abi.ARM64, Insn{Code: Ret, K: uint32(RetAllow), JF: 9}), "branch offsets"},

		"no check at all":        {abi.ARM64, []Insn{ret(RetAllow)}, "load the architecture"},
		"number loaded first":    {abi.ARM64, []Insn{{Code: LdAbs}, ret(RetAllow)}, "load the architecture"},
		"architecture unused":    {abi.ARM64, []Insn{{Code: LdAbs, K: OffArch}, ret(RetAllow)}, "does not compare"},
		"program of amd64":       {abi.ARM64, programX32(ret(RetAllow)), "does not compare"},
		"program of arm64":       {abi.AMD64, program(abi.ARM64, ret(RetAllow)), "does not compare"},
		"compared by bits":       {abi.ARM64, []Insn{{Code: LdAbs, K: OffArch}, {Code: Jset, K: abi.ARM64.Audit(), JT: 1}, ret(RetKillProcess), ret(RetAllow)}, "does not compare"},
		"others allowed":         {abi.ARM64, []Insn{{Code: LdAbs, K: OffArch}, {Code: Jeq, K: abi.ARM64.Audit(), JF: 1}, ret(RetKillProcess), ret(RetAllow)}, "does not kill"},
		"others get an error":    {abi.ARM64, []Insn{{Code: LdAbs, K: OffArch}, {Code: Jeq, K: abi.ARM64.Audit(), JF: 1}, ret(RetAllow), ret(RetErrno | 1)}, "does not kill"},
		"check without effect":   {abi.ARM64, []Insn{{Code: LdAbs, K: OffArch}, {Code: Jeq, K: abi.ARM64.Audit()}, ret(RetKillProcess)}, "own calls are killed"},
		"unknown architecture":   {abi.Arch(9), program(abi.ARM64, ret(RetAllow)), "unknown architecture"},
		"x32 unchecked":          {abi.AMD64, program(abi.AMD64, ret(RetAllow)), "x32"},
		"x32 notified":           {abi.AMD64, program(abi.AMD64, ret(RetUserNotif)), "x32"},
		"x32 check off by one":   {abi.AMD64, program(abi.AMD64, Insn{Code: LdAbs}, Insn{Code: Jgt, K: abi.X32Bit, JT: 1}, ret(RetAllow), ret(RetErrno|38)), "0x40000000 to 0x40000000"},
		"one x32 number":         {abi.AMD64, program(abi.AMD64, Insn{Code: LdAbs}, Insn{Code: Jeq, K: abi.X32Bit | 59, JF: 1}, ret(RetAllow), ret(RetErrno|1)), "x32"},
		"x32 by its bit only":    {abi.AMD64, program(abi.AMD64, Insn{Code: LdAbs}, Insn{Code: Jset, K: abi.X32Bit, JT: 1}, ret(RetAllow), ret(RetErrno|38)), "x32"},
		"number masked away":     {abi.AMD64, program(abi.AMD64, Insn{Code: LdAbs}, Insn{Code: And, K: 0xff}, Insn{Code: Jge, K: abi.X32Bit, JT: 1}, ret(RetAllow), ret(RetErrno|38)), "x32"},
		"argument for a number":  {abi.AMD64, program(abi.AMD64, Insn{Code: LdAbs, K: OffArgs}, Insn{Code: Jge, K: abi.X32Bit, JT: 1}, ret(RetAllow), ret(RetErrno|38)), "x32"},
		"number on one path":     {abi.AMD64, program(abi.AMD64, Insn{Code: LdAbs, K: OffArgs}, Insn{Code: Jeq, JT: 1}, Insn{Code: LdAbs}, Insn{Code: Jge, K: abi.X32Bit, JT: 1}, ret(RetAllow), ret(RetErrno|38)), "x32"},
		"negative number passes": {abi.AMD64, program(abi.AMD64, Insn{Code: LdAbs}, Insn{Code: Jge, K: 0x80000000, JT: 3}, Insn{Code: Jge, K: abi.X32Bit, JF: 1}, ret(RetErrno|38), ret(RetAllow), ret(RetAllow)), "x32"},
	} {
		err := Verify(Encode(tc.insns), tc.arch)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, tc.want)
		}
	}
	if err := Verify(make([]byte, 12), abi.AMD64); err == nil {
		t.Error("12 bytes: got no error")
	}
}

// FuzzVerify: whatever Verify accepts runs to a known action for every call, and lets no foreign call through.
func FuzzVerify(f *testing.F) {
	f.Add(Encode(programX32(ret(RetAllow))), uint32(1), uint64(2), uint64(3))
	f.Add(Encode(programX32(Insn{Code: Jeq, K: 5, JF: 1}, ret(RetUserNotif), Insn{Code: And, K: 1}, Insn{Code: Ja}, ret(RetErrno|1))),
		uint32(abi.X32Bit), uint64(1)<<40, uint64(0))
	f.Add(Encode(program(abi.ARM64, Insn{Code: LdAbs, K: OffArgs + 12}, Insn{Code: Jset, K: 9, JT: 1}, ret(RetAllow), ret(RetKillProcess))),
		uint32(0xffffffff), uint64(0), uint64(9)<<32)
	f.Add([]byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f}, uint32(0), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, prog []byte, nr uint32, arg0, arg1 uint64) {
		insns, err := Decode(prog)
		if err == nil {
			Disassemble(insns, abi.AMD64)
		}
		for _, a := range abi.Arches {
			if Verify(prog, a) != nil {
				continue
			}
			m := NewMachine(insns)
			for _, n := range []uint32{nr, nr | abi.X32Bit, 0, 59, 1023, abi.X32Bit, 0x80000000, 0xffffffff} {
				d := Data{Nr: n, Arch: a.Audit(), Args: [6]uint64{arg0, arg1, arg0, arg1, arg0, arg1}}
				got, err := m.Run(&d)
				if err != nil || !got.Known() {
					t.Fatalf("%s, number %#x: got %v, %v, want a known action", a, n, got, err)
				}
				lets := got == RetAllow || got == RetUserNotif
				if a == abi.AMD64 && n >= abi.X32Bit && lets {
					t.Fatalf("x32 number %#x: got %v", n, got)
				}
				if ConstAllow(insns, a.Audit(), n) && got != RetAllow {
					t.Fatalf("%s, number %#x: the kernel's allow cache applies, but the program returns %v", a, n, got)
				}
				d.Arch ^= 0x80000000
				if got, err := m.Run(&d); err != nil || got != RetKillProcess {
					t.Fatalf("architecture %#x on a program for %s: got %v, %v, want kill", d.Arch, a, got, err)
				}
			}
		}
	})
}
