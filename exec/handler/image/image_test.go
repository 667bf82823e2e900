package image

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// The standard library's reader must see what ours does.
func TestFunctionsOfOwnVDSO(t *testing.T) {
	image := ownVDSO(t)
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	exported, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var want []symbol
	for _, s := range exported {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			want = append(want, symbol{s.Name, s.Value, s.Size})
		}
	}
	got, err := functions(image)
	if err != nil || len(got) == 0 || !slices.Equal(got, want) {
		t.Errorf("functions = %v, %v\nwant %v", got, err, want)
	}
	// Without the older hash table the newer one tells as much.
	newer := bytes.Clone(image)
	dynamic := f.SectionByType(elf.SHT_DYNAMIC)
	for at := dynamic.Offset; at < dynamic.Offset+dynamic.Size; at += dynamicSize {
		if newer[at] == dtHash && newer[at+1]|newer[at+2]|newer[at+3] == 0 {
			newer[at+1] = 0xff // a tag that nobody knows
		}
	}
	if got, err := functions(newer); err != nil || !slices.Equal(got, want) {
		t.Errorf("by the newer hash table: %v, %v\nwant %v", got, err, want)
	}
}

func ownVDSO(t testing.TB) []byte {
	t.Helper()
	image, _, err := kernel.OwnVDSO()
	if err != nil {
		t.Fatal(err)
	}
	if image == nil {
		t.Skip("this kernel maps no vDSO")
	}
	return image
}

// The image is the kernel's, but no image may make the executor read elsewhere, or not end.
func FuzzFunctions(f *testing.F) {
	f.Add([]byte{})
	f.Add(ownVDSO(f))
	f.Fuzz(func(t *testing.T, image []byte) {
		list, err := functions(image)
		for _, s := range list {
			if _, ok := slice(image, s.at, s.size); !ok || err != nil {
				t.Fatalf("%+v lies outside of %d bytes, or in spite of %v", s, len(image), err)
			}
		}
	})
}

// The bytes are those of an assembler.
func TestStubs(t *testing.T) {
	shift := Shift{0x1122334455667788, 0x11223344}
	for _, tc := range []struct {
		name string
		code []byte
		want string
	}{
		{"amd64 clock_gettime", amd64Call(228), "b8e4000000 0f05 c3"},
		{"amd64 getrandom", amd64Random(), "4983f8ff 7408 b83e010000 0f05 c3 48c7c0daffffff c3"},
		{"amd64 clock_gettime, shifted", amd64ClockGettime(shift), `85ff 740d 83ff05 7408 b8e4000000 0f05 c3 bf07000000 b8e4000000 0f05 4885c0 752d
			48b98877665544332211 ba44332211 48035608 4881fa00ca9a3b 720a 4881ea00ca9a3b 48ffc1 48010e 48895608 c3`},
		{"amd64 gettimeofday, shifted", amd64Gettimeofday(shift), `4885ff 7450 4885f6 754b 4889fe bf07000000 b8e4000000 0f05 4885c0 7536
			48b98877665544332211 b844332211 48034608 483d00ca9a3b 7209 482d00ca9a3b 48ffc1 48010e 31d2 b9e8030000 f7f1 48894608 31c0 c3
			b860000000 0f05 c3`},
		{"amd64 time, shifted", amd64Time(Shift{-0x55667788 - 1, second - 0x11223344}), `57 4883ec10 4889e6 bf07000000 b8e4000000 0f05 58 5a 5f
			81fa44332211 481d88776655 4885ff 7403 488907 c3`},
		{"amd64 time, shifted by more than fits", amd64Time(Shift{1 << 31, 0}), ""},
		{"arm64 clock_gettime, shifted", arm64ClockGettime(shift), `5f2403d5 c0000034 1f140071 80000054 280e80d2 010000d4 c0035fd6 e00080d2 280e80d2
			010000d4 200200b5 220c40a9 04f18ed2 c4acaaf2 8468c6f2 4424e2f2 856886d2 4524a2f2 064099d2 4673a7f2 4200048b 6300058b 7f0006eb
			63000054 630006cb 42040091 220c00a9 c0035fd6`},
		{"arm64 gettimeofday, shifted", arm64Gettimeofday(shift), `5f2403d5 400300b4 210300b5 e10300aa e00080d2 280e80d2 010000d4 600200b5 220c40a9
			04f18ed2 c4acaaf2 8468c6f2 4424e2f2 856886d2 4524a2f2 064099d2 4673a7f2 4200048b 6300058b 7f0006eb 63000054 630006cb 42040091
			067d80d2 6308c69a 220c00a9 c0035fd6 281580d2 010000d4 c0035fd6`},
		{"arm64 clock_gettime", arm64Call(113), "5f2403d5 280e80d2 010000d4 c0035fd6"},
		{"arm64 getrandom", arm64Random(), "5f2403d5 9f0400b1 80000054 c82280d2 010000d4 c0035fd6 a0048092 c0035fd6"},
	} {
		if got, want := hex.EncodeToString(tc.code), strings.Join(strings.Fields(tc.want), ""); got != want {
			t.Errorf("%s: got %s, want %s", tc.name, got, want)
		}
	}
}

func TestRoom(t *testing.T) {
	image := []byte("\xc3\xc3\xc3\xc3\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\x90\x90\x90\x90\xc3\xc3\xc3")
	list := []symbol{{"a", 0, 4}, {"b", 16, 2}, {"c", 18, 1}}
	for _, tc := range []struct {
		name string
		f    symbol
		want uint64
	}{
		{"padding behind it", list[0], 16},
		{"a neighbour that is not exported", symbol{"d", 0, 2}, 2},
		{"an exported neighbour", symbol{"b", 16, 3}, 2},
		{"at the end of the image", list[2], 1},
	} {
		if got := room(image, list, tc.f); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestPlaceInOwnVDSO(t *testing.T) {
	image := ownVDSO(t)
	arch, _ := abi.ParseArch(runtime.GOARCH)
	patches, err := place(image, slices.Concat(randomStubs(arch), clockStubs(arch, Shift{})))
	if err != nil || len(patches) == 0 {
		t.Errorf("place = %v, %v; want somewhere for the stubs", patches, err)
	}
	if _, err := place(image, []stub{{clockStubs(arch, Shift{})[0].names, [][]byte{make([]byte, len(image))}}}); err == nil {
		t.Error("a stub as large as the image has found a place")
	}
}

type notes []supervise.Event

func (n *notes) Record(e supervise.Event) { *n = append(*n, e) }

// guest is a process whose memory is its vDSO and, behind it, its random bytes.
func guest(vdso []byte) *supervisetest.Memory {
	return &supervisetest.Memory{Bytes: append(bytes.Clone(vdso), "0123456789abcdef"...), ReadOnly: true}
}

func TestHandle(t *testing.T) {
	vdso := ownVDSO(t)
	arch, _ := abi.ParseArch(runtime.GOARCH)
	seeded := func(*supervise.Call) ([16]byte, error) { return [16]byte([]byte("SEEDED  RANDOM  ")), nil }
	for _, tc := range []struct {
		name       string
		config     Config
		spoil      func(*supervisetest.Memory)
		auxv       error
		wantRandom string
		wantVDSO   bool // changed
		verdict    supervise.Verdict
		reason     string
	}{
		{"random", Config{Random: seeded}, nil, nil, "SEEDED  RANDOM  ", true, supervise.Pass(supervise.KernelDecides), ""},
		{"time", Config{Clock: &Shift{}}, nil, nil, "0123456789abcdef", true, supervise.Pass(supervise.KernelDecides), ""},
		{"both", Config{Random: seeded, Clock: &Shift{}}, nil, nil, "SEEDED  RANDOM  ", true, supervise.Pass(supervise.KernelDecides), ""},
		{"memory that cannot be opened", Config{Clock: &Shift{}}, func(m *supervisetest.Memory) { m.Sealed = unix.EACCES }, nil,
			"0123456789abcdef", false, supervise.Kill(), "permission denied"},
		{"another vDSO", Config{Clock: &Shift{}}, func(m *supervisetest.Memory) { clear(m.Bytes[:len(m.Bytes)-16]) }, nil,
			"0123456789abcdef", true, supervise.Kill(), "not the one"},
		{"no auxiliary vector", Config{Clock: &Shift{}}, nil, unix.EACCES, "0123456789abcdef", false, supervise.Kill(), "permission denied"},
		{"no stream", Config{Random: func(*supervise.Call) (b [16]byte, err error) { return b, errors.New("who is it") }}, nil, nil,
			"0123456789abcdef", false, supervise.Kill(), "who is it"},
		{"caller is gone", Config{Clock: &Shift{}}, func(m *supervisetest.Memory) { m.Gone = true }, nil,
			"0123456789abcdef", false, supervise.Errno(unix.ESRCH), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.config.VDSO = vdso
			tc.config.Auxv = func(int) (kernel.Auxv, error) {
				return kernel.Auxv{VDSO: supervisetest.Base, Random: supervisetest.Base + uint64(len(vdso))}, tc.auxv
			}
			var j notes
			h, err := New(arch, tc.config, &j, supervise.Event{Rule: "a rule"})
			if err != nil {
				t.Fatal(err)
			}
			m := guest(vdso)
			if tc.spoil != nil {
				tc.spoil(m)
			}
			call := func() supervise.Verdict { return h.Handle(supervise.NewCall(1, h.Syscalls()[0], [6]uint64{}, m)) }
			if got := call(); got.String() != tc.verdict.String() {
				t.Errorf("verdict %v, want %v", got, tc.verdict)
			}
			if got := string(m.Bytes[len(vdso):]); got != tc.wantRandom {
				t.Errorf("AT_RANDOM %q, want %q", got, tc.wantRandom)
			}
			if got := !bytes.Equal(m.Bytes[:len(vdso)], vdso); got != tc.wantVDSO {
				t.Errorf("vDSO changed: %v, want %v", got, tc.wantVDSO)
			}
			if (len(j) > 0) != (tc.reason != "") || len(j) > 0 && (!strings.Contains(j[0].Reason, tc.reason) || j[0].Rule != "a rule") {
				t.Errorf("journal %+v, want a reason with %q", j, tc.reason)
			}
		})
	}
}

// The calls that are trapped can come again; an image is prepared once.
func TestImageIsPreparedOnce(t *testing.T) {
	vdso := ownVDSO(t)
	arch, _ := abi.ParseArch(runtime.GOARCH)
	var n byte
	h, err := New(arch, Config{
		VDSO:   vdso,
		Random: func(*supervise.Call) ([16]byte, error) { n++; return [16]byte{n}, nil },
		Auxv: func(int) (kernel.Auxv, error) {
			return kernel.Auxv{VDSO: supervisetest.Base, Random: supervisetest.Base + uint64(len(vdso))}, nil
		},
	}, &notes{}, supervise.Event{})
	if err != nil {
		t.Fatal(err)
	}
	m := guest(vdso)
	for range 2 {
		h.Handle(supervise.NewCall(1, h.Syscalls()[0], [6]uint64{}, m))
	}
	if n != 1 {
		t.Errorf("prepared %d times, want once", n)
	}
	h.Handle(supervise.NewCall(1, h.Syscalls()[0], [6]uint64{}, guest(vdso))) // the next execve
	if n != 2 {
		t.Errorf("prepared %d times after an execve, want 2", n)
	}
}
