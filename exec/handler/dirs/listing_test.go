package dirs

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// item is a record in words.
type item struct {
	inode, next uint64
	kind        byte
	name        string
}

// encode writes records as the kernel does, with rubbish in the padding.
func encode(items ...item) []byte {
	var b []byte
	for _, e := range items {
		length := (atName + len(e.name) + 1 + 7) / 8 * 8
		b = binary.NativeEndian.AppendUint64(b, e.inode)
		b = binary.NativeEndian.AppendUint64(b, e.next)
		b = binary.NativeEndian.AppendUint16(b, uint16(length))
		b = append(b, e.kind)
		b = append(append(b, e.name...), 0)
		for len(b)%8 != 0 {
			b = append(b, 0xee)
		}
	}
	return b
}

// decode reads records as a C library does.
func decode(t *testing.T, b []byte, legacy bool) (items []item) {
	t.Helper()
	for len(b) > 0 {
		length := int(binary.NativeEndian.Uint16(b[16:]))
		if length%8 != 0 || length > len(b) {
			t.Fatalf("record of %d bytes where %d are left", length, len(b))
		}
		e := item{inode: binary.NativeEndian.Uint64(b), next: binary.NativeEndian.Uint64(b[8:])}
		text := b[19:length]
		e.kind = b[18]
		if legacy {
			text, e.kind = b[18:length-1], b[length-1]
		}
		name, rest, ok := bytes.Cut(text, []byte{0})
		if !ok || len(bytes.Trim(rest, "\x00")) > 0 && !legacy {
			t.Fatalf("record % x: no end, or something in the padding", b[:length])
		}
		e.name = string(name)
		items = append(items, e)
		b = b[length:]
	}
	return items
}

func names(items []item) (list []string) {
	for _, e := range items {
		list = append(list, e.name)
	}
	return list
}

func TestOrder(t *testing.T) {
	long := strings.Repeat("n", 255)
	want := []string{
		".", "..", "\x01", "!", "+x", "-", "...", ".a", "0", "10", "2", "A", "B", "a", "aaaaaaaa", "aaaaaaaaa", "aaaaaaaab", "ab",
		long[:254], long, "\xc3\xa4", "\xff",
	}
	var raw []item
	for i, name := range want {
		raw = append(raw, item{inode: uint64(i) + 1, next: 77, kind: byte(i), name: name})
	}
	slices.Reverse(raw)
	s := newSnapshot(directory{1, 2}, encode(raw...))
	s.stamp(5)
	got := decode(t, s.bytes, false)
	if !slices.Equal(names(got), want) {
		t.Errorf("order %q, want %q", names(got), want)
	}
	for i, e := range got {
		if e.inode != uint64(i)+1 || e.kind != byte(i) || e.next != 5<<indexBits|uint64(i+1) {
			t.Errorf("%q: inode %d, type %d, next %#x", e.name, e.inode, e.kind, e.next)
		}
	}
	if legacy := decode(t, legacyRecords(s.bytes), true); !slices.Equal(legacy, got) {
		t.Errorf("getdents has %v, want %v", legacy, got)
	}
}

func TestFitting(t *testing.T) {
	s := newSnapshot(directory{}, encode(item{name: "a"}, item{name: "b"}, item{name: strings.Repeat("c", 255)})) // 24, 24, 280
	for _, tc := range []struct{ first, room, want int }{
		{0, 0, 0}, {0, -1, 0}, {0, -1 << 31, 0}, {0, 23, 0}, {0, 24, 1}, {0, 47, 1}, {0, 48, 2}, {0, 327, 2}, {0, 328, 3}, {0, 1 << 20, 3},
		{1, 24, 1}, {2, 279, 0}, {2, 280, 1}, {3, 100, 0},
	} {
		if got := s.fitting(tc.first, tc.room); got != tc.want {
			t.Errorf("from %d in %d bytes: %d records, want %d", tc.first, tc.room, got, tc.want)
		}
	}
}

func TestPositionsFitEveryFileSystem(t *testing.T) {
	last := (&snapshot{generation: maxGenerations}).position(maxEntries)
	if last > 1<<31-1 || !last.ours() || last.index() != maxEntries || last.generation() != maxGenerations {
		t.Errorf("last position %#x", int64(last))
	}
	for _, p := range []position{1, maxEntries, last + 1, 1 << 40, 1<<63 - 1, -1} {
		if p.ours() {
			t.Errorf("%#x is taken for an offset of ours", int64(p))
		}
	}
}

func TestCache(t *testing.T) {
	var c cache
	dir := directory{1, 1}
	snap := func(d directory, list ...string) *snapshot {
		var raw []item
		for _, name := range list {
			raw = append(raw, item{inode: 9, name: name})
		}
		return newSnapshot(d, encode(raw...))
	}
	first := c.add(snap(dir, "a", "b"))
	if again := c.add(snap(dir, "b", "a")); again != first {
		t.Error("an unchanged directory has new positions")
	}
	second := c.add(snap(dir, "a", "b", "c"))
	if second.generation == first.generation {
		t.Error("a changed directory has the old positions")
	}
	if c.find(dir, first.position(1)) != first || c.find(dir, second.position(1)) != second {
		t.Error("a position does not lead to its listing")
	}
	if c.find(directory{1, 2}, first.position(1)) != nil || c.find(dir, 0) != nil {
		t.Error("a position leads to the listing of another directory, or the start to an old listing")
	}
	for i := range 3 * maxGenerations {
		name := string(rune('a' + i%2))
		s := c.add(snap(dir, name))
		if got := c.find(dir, s.position(0)); got != s || !s.position(0).ours() {
			t.Fatalf("listing %d: generation %d is not found or belongs to two", i, s.generation)
		}
	}
	size := 0
	for _, s := range c.list {
		size += s.size()
	}
	if len(c.list) > maxSnapshots || size != c.size {
		t.Errorf("%d listings of %d bytes, counted as %d", len(c.list), size, c.size)
	}
	big := func(n uint64) *snapshot {
		return &snapshot{dir: directory{2, n}, bytes: make([]byte, 0, maxCachedBytes/4), starts: []uint32{0}}
	}
	for n := range uint64(10) {
		c.add(big(n))
	}
	if c.size > maxCachedBytes || len(c.list) > 4 {
		t.Errorf("%d listings of %d bytes are kept", len(c.list), c.size)
	}
}

// What comes from the kernel is trusted to be a directory, not to be well formed.
func FuzzListing(f *testing.F) {
	f.Add(encode(item{1, 2, 4, "."}, item{3, 4, 4, ".."}, item{5, 6, 8, "name"}))
	f.Add(encode(item{1, 2, 8, strings.Repeat("x", 255)}, item{1, 2, 8, "\xff\xfe"})[:290])
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<16 {
			return
		}
		s := newSnapshot(directory{}, raw)
		s.stamp(1)
		got := decode(t, s.bytes, false)
		if len(got) != s.entries() || len(got) != count(raw) {
			t.Fatalf("%d records, says %d, read %d", len(got), s.entries(), count(raw))
		}
		if legacy := decode(t, legacyRecords(s.bytes), true); !slices.Equal(legacy, got) {
			t.Fatalf("getdents has %v, want %v", legacy, got)
		}
		if !slices.IsSortedFunc(got, func(a, b item) int {
			dots := func(name string) string {
				if name == "." || name == ".." {
					return "\x00" + name
				}
				return name
			}
			return strings.Compare(dots(a.name), dots(b.name))
		}) {
			t.Fatalf("not sorted: %q", names(got))
		}
		for i, e := range got {
			if e.next != uint64(s.position(i+1)) {
				t.Fatalf("record %d leads to %#x", i, e.next)
			}
		}
		// Sorting what is sorted changes nothing.
		again := newSnapshot(directory{}, s.bytes)
		again.stamp(1)
		if !bytes.Equal(again.bytes, s.bytes) {
			t.Fatal("a sorted listing sorts differently")
		}
	})
}
