package machine

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func TestFirst(t *testing.T) {
	for _, tc := range []struct {
		mask []byte
		n    int
		want []byte
	}{
		{[]byte{0xff, 0xff}, 3, []byte{7, 0}},
		{[]byte{0xf0, 0x01}, 5, []byte{0xf0, 0x01}},
		{[]byte{0xf0, 0x03}, 5, []byte{0xf0, 0x01}},
		{[]byte{0x80, 0x80}, 1, []byte{0x80, 0}},
		{[]byte{1}, 100, []byte{1}},
		{nil, 1, nil},
	} {
		got := slices.Clone(tc.mask)
		First(got, tc.n)
		if !slices.Equal(got, tc.want) {
			t.Errorf("first %d of %x: %x, want %x", tc.n, tc.mask, got, tc.want)
		}
	}
}

func call(t *testing.T, name string, g supervise.Guest, args ...uint64) *supervise.Call {
	t.Helper()
	nr, ok := abi.SyscallNumber(abi.AMD64, name)
	if !ok {
		t.Fatal(name)
	}
	var all [6]uint64
	copy(all[:], args)
	return supervise.NewCall(unix.Gettid(), nr, all, g)
}

func TestAffinity(t *testing.T) {
	h := New(abi.AMD64, Config{CPUs: 1})
	g := &supervisetest.Memory{Bytes: make([]byte, 4096)}
	for _, tc := range []struct {
		size uint64
		addr uint64
		fail string
	}{
		{1024, supervisetest.Base, ""},
		{1 << 31, supervisetest.Base, ""},
		{0xffffffff_00000400, supervisetest.Base, ""}, // the kernel takes 32 bits
		{7, supervisetest.Base, "errno EINVAL"},
		{0, supervisetest.Base, "errno EINVAL"},
		{1024, 1, "errno EFAULT"},
	} {
		got := h.Handle(call(t, "sched_getaffinity", g, 0, tc.size, tc.addr)).String()
		if tc.fail != "" {
			if got != tc.fail {
				t.Errorf("size %#x at %#x: %s, want %s", tc.size, tc.addr, got, tc.fail)
			}
			continue
		}
		if got == "return 0" || got[:6] != "return" {
			t.Errorf("size %#x: %s, want the mask's size", tc.size, got)
		}
		ones := 0
		for _, b := range g.Bytes {
			for ; b != 0; b &= b - 1 {
				ones++
			}
		}
		if ones != 1 {
			t.Errorf("size %#x: %d CPUs, want 1", tc.size, ones)
		}
	}
}

func TestSysinfo(t *testing.T) {
	h := New(abi.AMD64, Config{Memory: 64 << 20, Charged: func() (uint64, int) { return 70 << 20, 3 }})
	g := &supervisetest.Memory{Bytes: make([]byte, 4096)}
	if got := h.Handle(call(t, "sysinfo", g, supervisetest.Base)).String(); got != "return 0" {
		t.Fatal(got)
	}
	word := func(at int) uint64 { return binary.NativeEndian.Uint64(g.Bytes[at:]) }
	if word(32) != 64<<20 || word(40) != 0 || word(64) != 0 || g.Bytes[80] != 3 || g.Bytes[104] != 1 {
		t.Errorf("total %d, free %d, swap %d, processes %d, unit %d", word(32), word(40), word(64), g.Bytes[80], g.Bytes[104])
	}
	for _, b := range g.Bytes[112:] {
		if b != 0 {
			t.Fatal("more than struct sysinfo was written")
		}
	}
	if got := h.Handle(call(t, "sysinfo", g, 1)).String(); got != "errno EFAULT" {
		t.Error(got)
	}
}
