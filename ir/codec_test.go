package ir

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// The struct tags of our types, read by a CBOR library, are the second description of the format. The library is
// the judge of the first (codec.go); it is linked into tests only.
func tagEncode(t testing.TB, p *Program) []byte {
	t.Helper()
	o := cbor.CoreDetEncOptions()
	o.NilContainers = cbor.NilContainerAsEmpty
	mode, err := o.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mode.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tagDecode accepts what is in canonical form, fits the tags, and is encoded again to the same bytes.
func tagDecode(t testing.TB, b []byte) (*Program, error) {
	t.Helper()
	if err := checkForm(b); err != nil {
		return nil, err
	}
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   maxDepth,
		MaxArrayElements:  maxList,
	}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	p := new(Program)
	if err := mode.Unmarshal(b, p); err != nil {
		return nil, err
	}
	if !bytes.Equal(tagEncode(t, p), b) {
		return nil, errors.New("encodes to other bytes")
	}
	return p, nil
}

func wireEncode(t testing.TB, p *Program) []byte {
	t.Helper()
	w := &wire{encoding: true}
	w.program(p)
	if w.err != nil {
		t.Fatal(w.err)
	}
	return w.out
}

func TestEncodeAgreesWithTags(t *testing.T) {
	check := func(p *Program) {
		t.Helper()
		want, got := tagEncode(t, p), wireEncode(t, p)
		if !bytes.Equal(got, want) {
			t.Fatalf("encode %+v:\n got %x\nwant %x", p, got, want)
		}
		decoded, err := unmarshal(got)
		if err != nil {
			t.Fatalf("unmarshal %x: %v", got, err)
		}
		if again := wireEncode(t, decoded); !bytes.Equal(again, want) {
			t.Fatalf("encode after decode:\n got %x\nwant %x", again, want)
		}
	}
	check(new(Program))
	check(sample())
	check(large())

	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		p := new(Program)
		fill(reflect.ValueOf(p).Elem(), random.Uint64)
		check(p)
	}
	p := new(Program)
	fill(reflect.ValueOf(p).Elem(), func() uint64 { return 1 << 40 })
	zeroEach(reflect.ValueOf(p).Elem(), func() { check(p) })
}

func TestDecodeReturnsWhatWasEncoded(t *testing.T) {
	for _, want := range []*Program{sample(), large()} {
		b, err := Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("decode(encode(p)):\n got %+v\nwant %+v", got, want)
		}
	}
}

func TestDecodeKeepsNothingOfItsInput(t *testing.T) {
	b, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] = 0xff
	}
	if want := sample(); !reflect.DeepEqual(p, want) {
		t.Errorf("after the input changed:\n got %+v\nwant %+v", p, want)
	}
}

func TestEncodeRefusesInvalid(t *testing.T) {
	p := sample()
	p.Name = ""
	if b, err := Encode(p); !errors.Is(err, ErrInvalid) || b != nil {
		t.Errorf("encode program without a name: got %x, %v, want no bytes and ErrInvalid", b, err)
	}
	p = sample()
	p.Process.Args[0] = "\xff"
	if b, err := Encode(p); err == nil || b != nil {
		t.Errorf("encode text that is not UTF-8: got %x, %v, want no bytes and an error", b, err)
	}
}

// hostile are payloads in hexadecimal and a part of the error that each must give.
var hostile = []struct{ name, hex, want string }{
	{"empty", "", "ends where a map is expected"},
	{"array", "80", "an array where a map is expected"},
	{"indefinite map", "bf", "indefinite"},
	{"reserved length", "bc", "reserved"},
	{"long map length", "b8080000", "shortest"},
	{"map ends", "b8", "ends within"},
	{"empty map", "a0", "key 1 is missing"},
	{"long key", "a8180161610361", "key 1 is missing"},
	{"text key", "a8616161", "key 1 is missing"},
	{"number for text", "a80101", "unsigned integer where text"},
	{"bytes for text", "a8014161", "byte string where text"},
	{"null for text", "a801f6", "simple value where text"},
	{"tag before text", "a801c06161", "a tag where text"},
	{"indefinite text", "a8017f6161ff", "indefinite"},
	{"long text length", "a801780161", "shortest"},
	{"text of 2^64-1 bytes", "a8017bffffffffffffffff", "only 0 follow"},
	{"text behind the end", "a8016361", "only 1 follow"},
	{"invalid UTF-8", "a80161ff", "not valid UTF-8"},
	{"surrogate", "a80163eda080", "not valid UTF-8"},
	{"overlong UTF-8", "a80162c0af", "not valid UTF-8"},
	{"empty optional", "a80161610260", "key 2 is present and empty"},
	{"key twice", "a8016161016161", "key 3 is missing"},
	{"keys descending", "a8026161016161", "key 1 is missing"},
	{"byte out of range", "a801616103a30141010219ffff", "65535 is out of range, at most 255"},
	{"negative", "a801616103a301410102" + "20", "negative integer where an unsigned"},
	{"float", "a801616103a301410102" + "f93c00", "simple value where an unsigned"},
	{"list of 2^63 elements", "a801616103a3014101020603646175746f" + "049b8000000000000000", "list of 9223372036854775808 elements"},
	{"long tuple", "a801616103a3014101020603646175746f" + "048184", "4 fields where 3"},
}

func TestDecodeRefuses(t *testing.T) {
	for _, tc := range hostile {
		b, err := hex.DecodeString(tc.hex)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := Decode(b); p != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: decode %s: got %v, %v, want an error with %q", tc.name, tc.hex, p, err, tc.want)
		}
	}
}

func TestDecodeRefusesSize(t *testing.T) {
	if _, err := Decode(make([]byte, MaxPayload+1)); err == nil || !strings.Contains(err.Error(), "at most 8388608") {
		t.Errorf("decode %d bytes: got %v, want a refusal that names the bound", MaxPayload+1, err)
	}
}

func TestDecodeRefusesTruncationAndTrailing(t *testing.T) {
	b, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if _, err := Decode(b[:n]); err == nil {
			t.Fatalf("decode the first %d of %d bytes: got no error", n, len(b))
		}
	}
	if _, err := Decode(append(b, 0)); err == nil || !strings.Contains(err.Error(), "after the end") {
		t.Errorf("decode with a byte more: got %v, want bytes after the end", err)
	}
}

// A flipped bit gives an error or a program that encodes to exactly the flipped bytes.
func TestFlippedBitsStayCanonical(t *testing.T) {
	b, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			checkAgainstTags(t, b)
			b[i] ^= 1 << bit
		}
	}
}

// checkAgainstTags holds unmarshal to accept exactly what the independent decoder accepts, with the same result.
func checkAgainstTags(t *testing.T, b []byte) {
	t.Helper()
	got, err := unmarshal(b)
	want, wantErr := tagDecode(t, b)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("unmarshal %x: got error %v, the tags say %v", b, err, wantErr)
	}
	if err != nil {
		return
	}
	if again := wireEncode(t, got); !bytes.Equal(again, b) {
		t.Fatalf("accepted bytes are encoded again as others:\n got %x\nwant %x", again, b)
	}
	if !bytes.Equal(tagEncode(t, got), tagEncode(t, want)) {
		t.Fatalf("unmarshal %x:\n got %+v\nwant %+v", b, got, want)
	}
}

func FuzzDecode(f *testing.F) {
	b, err := Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(wireEncode(f, new(Program)))
	for _, tc := range hostile {
		seed, err := hex.DecodeString(tc.hex)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkAgainstTags(t, b)
		p, err := Decode(b)
		if err != nil {
			if p != nil {
				t.Fatalf("decode %x: got a program with error %v", b, err)
			}
			return
		}
		again, err := Encode(p)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted bytes are encoded again as others:\n got %x, %v\nwant %x", again, err, b)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	payload, err := Encode(large())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("whole", func(b *testing.B) {
		b.SetBytes(int64(len(payload)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(payload); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unmarshal", func(b *testing.B) {
		for b.Loop() {
			if _, err := unmarshal(payload); err != nil {
				b.Fatal(err)
			}
		}
	})
	p := large()
	b.Run("validate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := p.Validate(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			if _, err := Encode(p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("oracle", func(b *testing.B) {
		for b.Loop() {
			if _, err := tagDecode(b, payload); err != nil {
				b.Fatal(err)
			}
		}
	})
}
