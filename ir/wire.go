package ir

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Major types of CBOR (RFC 8949 §3.1), and the two simple values that are used.
const (
	cborUint  = 0
	cborBytes = 2
	cborText  = 3
	cborArray = 4
	cborMap   = 5

	cborFalse = 0xf4
	cborTrue  = 0xf5
)

var cborNames = [8]string{
	"an unsigned integer", "a negative integer", "a byte string", "text", "an array", "a map", "a tag", "a simple value",
}

// wire writes a program or reads one. One description of each type (codec.go) serves both directions, so that they
// cannot differ, and reading accepts only what writing produces: types in their order, keys ascending, integers
// and lengths in their shortest form, no key for an empty optional field. How deep reading recurses is given by our
// types, never by the input.
//
// The first error stays; after it nothing more is read and every value reads as zero.
type wire struct {
	encoding bool
	out      []byte // when encoding
	in       string // when decoding; texts are cut out of it without a copy
	pos      int
	err      error
}

func (w *wire) fail(format string, args ...any) {
	if w.err != nil {
		return
	}
	w.err = fmt.Errorf(format, args...)
	if !w.encoding {
		w.err = fmt.Errorf("payload byte %d: %w", w.pos, w.err)
	}
	w.in, w.pos = "", 0
}

// head writes a major type with its argument, or reads one of that type and returns the argument.
func (w *wire) head(major byte, n uint64) uint64 {
	if w.encoding {
		w.out = appendHead(w.out, major, n)
		return n
	}
	if w.pos < len(w.in) {
		if b := w.in[w.pos] ^ major<<5; b < 24 { // the right type, and short: nine of ten items
			w.pos++
			return uint64(b)
		}
	}
	return w.readHead(major)
}

func appendHead(out []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(out, major|byte(n))
	case n < 1<<8:
		return append(out, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(out, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(out, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(out, major|27), n)
}

// leastLong is the smallest argument that may be written in 1, 2, 4 and 8 bytes.
var leastLong = [4]uint64{24, 1 << 8, 1 << 16, 1 << 32}

func (w *wire) readHead(major byte) uint64 {
	if w.pos >= len(w.in) {
		w.fail("ends where %s is expected", cborNames[major])
		return 0
	}
	first := w.in[w.pos]
	if first>>5 != major {
		w.fail("%s where %s is expected", cborNames[first>>5], cborNames[major])
		return 0
	}
	info := first & 0x1f
	if info < 24 {
		w.pos++
		return uint64(info)
	}
	if info > 27 {
		w.fail("initial byte %#02x: indefinite or reserved length", first)
		return 0
	}
	size := 1 << (info - 24)
	if len(w.in)-w.pos-1 < size {
		w.fail("ends within %s", cborNames[major])
		return 0
	}
	var n uint64
	for _, b := range []byte(w.in[w.pos+1 : w.pos+1+size]) {
		n = n<<8 | uint64(b)
	}
	if n < leastLong[info-24] {
		w.fail("%d is not written in its shortest form", n)
		return 0
	}
	w.pos += 1 + size
	return n
}

// unsigned is an unsigned integer of T's size.
func unsigned[T ~uint8 | ~uint16 | ~uint32 | ~uint64](w *wire, v *T) {
	n := w.head(cborUint, uint64(*v))
	if w.encoding {
		return // and leave the program alone: others may read it
	}
	*v = T(n)
	if uint64(*v) != n {
		w.fail("%d is out of range, at most %d is allowed", n, ^T(0))
	}
}

func (w *wire) boolean(v *bool) {
	if w.encoding {
		b := byte(cborFalse)
		if *v {
			b = cborTrue
		}
		w.out = append(w.out, b)
		return
	}
	if w.pos >= len(w.in) || w.in[w.pos]&^1 != cborFalse {
		w.fail("no boolean where one is expected")
		return
	}
	*v = w.in[w.pos] == cborTrue
	w.pos++
}

func (w *wire) text(v *string) {
	if s := w.str(cborText, *v); !w.encoding {
		*v = s
	}
	if !utf8.ValidString(*v) {
		w.fail("text %q is not valid UTF-8", *v)
	}
}

func (w *wire) bytes(v *[]byte) {
	if w.encoding {
		w.out = append(appendHead(w.out, cborBytes, uint64(len(*v))), *v...)
		return
	}
	if s := w.str(cborBytes, ""); s != "" {
		*v = []byte(s)
	}
}

// octets is a short list of numbers that each fit a byte, written as a byte string.
func octets[T ~uint8](w *wire, v *[]T) {
	var b []byte
	for _, n := range *v {
		b = append(b, byte(n))
	}
	w.bytes(&b)
	if !w.encoding {
		for _, n := range b {
			*v = append(*v, T(n))
		}
	}
}

// str is a string of either type. Reading returns a piece of the input.
func (w *wire) str(major byte, s string) string {
	n := w.head(major, uint64(len(s)))
	if w.encoding {
		w.out = append(w.out, s...)
		return s
	}
	if rest := len(w.in) - w.pos; n > uint64(rest) {
		w.fail("string of %d bytes, only %d follow", n, rest)
		return ""
	}
	start := w.pos
	w.pos += int(n)
	return w.in[start:w.pos]
}

// list is an array of any length whose elements all have one form. An empty list reads as nil.
func list[T any](w *wire, v *[]T, element func(*wire, *T)) {
	n := w.head(cborArray, uint64(len(*v)))
	if !w.encoding {
		// Every element takes a byte at least. So what is allocated stays in proportion to what follows.
		if rest := len(w.in) - w.pos; n > uint64(rest) || n > maxList {
			w.fail("list of %d elements; at most %d are allowed, and %d bytes follow", n, maxList, rest)
			return
		}
		if n == 0 {
			return
		}
		*v = make([]T, n)
	}
	for i := range *v {
		if w.err != nil {
			return
		}
		element(w, &(*v)[i])
	}
}

// tuple begins an array whose n elements are the fields of a struct.
func (w *wire) tuple(n uint64) {
	if got := w.head(cborArray, n); got != n {
		w.fail("%d fields where %d are expected", got, n)
	}
}

// fields is a map whose keys are the tags of a struct's fields. Keys are below 24, one byte each.
type fields struct {
	w     *wire
	what  string
	left  uint64 // reading: fields still to come
	begin int    // writing: where the map's initial byte stands, which counts the fields
}

func (w *wire) fields(what string) *fields {
	m := &fields{w: w, what: what, begin: len(w.out)}
	m.left = w.head(cborMap, 0)
	return m
}

// has begins the field with a key. Writing, it does so if the field is to be present; reading, it returns whether
// the field is there.
func (m *fields) has(key byte, present bool) bool {
	w := m.w
	if w.encoding {
		if present {
			w.out[m.begin]++
			w.out = append(w.out, key)
		}
		return present
	}
	if m.left == 0 || w.pos >= len(w.in) || w.in[w.pos] != key {
		return false
	}
	m.left--
	w.pos++
	return true
}

// must begins a field that is always present.
func (m *fields) must(key byte) *wire {
	if !m.has(key, true) {
		m.w.fail("%s: key %d is missing, or not in its place", m.what, key)
	}
	return m.w
}

// filled ends an optional field: were it empty, it would have been left out.
func (m *fields) filled(key byte, nonEmpty bool) {
	if !nonEmpty {
		m.w.fail("%s: key %d is present and empty", m.what, key)
	}
}

// end holds the map to the keys that were asked for.
func (m *fields) end() {
	if !m.w.encoding && m.left > 0 {
		m.w.fail("%s: %d keys too many: unknown, twice, or not ascending", m.what, m.left)
	}
}

func optUnsigned[T ~uint8 | ~uint16 | ~uint32 | ~uint64](m *fields, key byte, v *T) {
	if m.has(key, *v != 0) {
		unsigned(m.w, v)
		m.filled(key, *v != 0)
	}
}

func (m *fields) optBoolean(key byte, v *bool) {
	if m.has(key, *v) {
		m.w.boolean(v)
		m.filled(key, *v)
	}
}

func (m *fields) optText(key byte, v *string) {
	if m.has(key, *v != "") {
		m.w.text(v)
		m.filled(key, *v != "")
	}
}

func (m *fields) optBytes(key byte, v *[]byte) {
	if m.has(key, len(*v) > 0) {
		m.w.bytes(v)
		m.filled(key, len(*v) > 0)
	}
}

func optList[T any](m *fields, key byte, v *[]T, element func(*wire, *T)) {
	if m.has(key, len(*v) > 0) {
		list(m.w, v, element)
		m.filled(key, len(*v) > 0)
	}
}
