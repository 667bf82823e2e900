package dirs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// A record of getdents64(2) is: inode (8 bytes), position of what follows (8), length (2), type (1), name, NUL, and zeros
// up to a multiple of 8. Numbers are in the machine's byte order.
const (
	atNext   = 8
	atLength = 16
	atType   = 18
	atName   = 19
)

// A record of getdents(2) has the name where getdents64 has the type, and the type in its last byte. Both happen to
// have the same length: the type takes the place of one byte either way.
const atLegacyName = 18

// position is an offset as it is kept in the caller's open file: which snapshot, and which entry is next. Zero is the
// start of a listing that has not been made yet. All bits fit the smallest offset that any file system bounds
// directories with (2³¹−1, procfs and sysfs among others).
type position int64

const (
	indexBits      = 19
	maxEntries     = 1<<indexBits - 1
	maxGenerations = 1<<12 - 1
)

func (p position) start() bool { return p == 0 }

// ours reports whether this handler can have set the offset. The kernel's own are smaller or, being hashes, greater,
// unless a directory was half read before the sandbox started; then the listing goes on at some place, but it ends.
func (p position) ours() bool { return p>>indexBits >= 1 && p>>indexBits <= maxGenerations }

func (p position) generation() int { return int(p >> indexBits) }
func (p position) index() int      { return int(p & maxEntries) }

// directory is what a snapshot is of.
type directory struct{ device, inode uint64 }

// snapshot is the sorted content of a directory at one moment, as the records that callers receive.
type snapshot struct {
	dir        directory
	generation int
	sequence   uint64 // order of creation
	bytes      []byte
	starts     []uint32 // of each record in bytes, and the end
}

// newSnapshot sorts raw, records as the kernel wrote them. It has no generation yet.
func newSnapshot(dir directory, raw []byte) *snapshot {
	var dots []entry
	entries := make([]entry, 0, count(raw))
	var common []byte // what the names begin with
	total := 0
	for at := 0; at < len(raw); {
		length, name, ok := parse(raw[at:])
		if !ok {
			break // not from this kernel: what follows cannot be told
		}
		e := entry{at: uint32(at)}
		if isDot(name) {
			dots = append(dots, e)
		} else {
			if len(entries) == 0 {
				common = name
			}
			common = common[:commonLength(common, name)]
			entries = append(entries, e)
		}
		total += recordLength(name)
		at += length
	}
	nameAt := func(e entry) []byte {
		_, name, _ := parse(raw[e.at:])
		return name
	}
	byName := func(a, b entry) int {
		if c := cmp.Compare(a.head, b.head); c != 0 {
			return c
		}
		return bytes.Compare(nameAt(a), nameAt(b))
	}
	for i := range entries {
		entries[i].head = head(nameAt(entries[i])[len(common):])
	}
	slices.SortFunc(dots, byName)
	slices.SortFunc(entries, byName)
	s := &snapshot{dir: dir, bytes: make([]byte, 0, total), starts: make([]uint32, 1, len(dots)+len(entries)+1)}
	for _, list := range [][]entry{dots, entries} {
		for _, e := range list {
			s.bytes = appendRecord(s.bytes, raw[e.at:e.at+8], raw[e.at+atType], nameAt(e))
			s.starts = append(s.starts, uint32(len(s.bytes)))
		}
	}
	return s
}

// entry is a record that is being sorted: most comparisons are decided by head, the eight bytes after what all names
// begin with.
type entry struct {
	head uint64
	at   uint32 // where the record is
}

func isDot(name []byte) bool { return string(name) == "." || string(name) == ".." }

func commonLength(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// head is comparable as the bytes are. No name contains a NUL, so a short one can be filled up with zeros.
func head(rest []byte) uint64 {
	if len(rest) >= 8 {
		return binary.BigEndian.Uint64(rest)
	}
	var b [8]byte
	copy(b[:], rest)
	return binary.BigEndian.Uint64(b[:])
}

// parse splits the first record off.
func parse(raw []byte) (length int, name []byte, ok bool) {
	if len(raw) < atName {
		return 0, nil, false
	}
	length = int(binary.NativeEndian.Uint16(raw[atLength:]))
	if length <= atName || length > len(raw) {
		return 0, nil, false
	}
	name, _, ok = bytes.Cut(raw[atName:length], []byte{0})
	return length, name, ok && len(name) > 0
}

func recordLength(name []byte) int { return (atName + len(name) + 1 + 7) &^ 7 }

// appendRecord leaves the position empty. Whatever the kernel had in the padding is not handed on.
func appendRecord(b, inode []byte, kind byte, name []byte) []byte {
	start, length := len(b), recordLength(name)
	b = slices.Grow(b, length)[:start+length]
	r := b[start:]
	clear(r)
	copy(r, inode)
	binary.NativeEndian.PutUint16(r[atLength:], uint16(length))
	r[atType] = kind
	copy(r[atName:], name)
	return b
}

// stamp gives the snapshot its generation, and each record the position of the next.
func (s *snapshot) stamp(generation int) {
	s.generation = generation
	for i := range s.entries() {
		binary.NativeEndian.PutUint64(s.bytes[s.starts[i]+atNext:], uint64(s.position(i+1)))
	}
}

func (s *snapshot) entries() int { return len(s.starts) - 1 }

func (s *snapshot) position(index int) position {
	return position(s.generation)<<indexBits | position(index)
}

// fitting is how many records from first on fit in room bytes, which may be negative.
func (s *snapshot) fitting(first, room int) int {
	end := int(s.starts[first]) + room
	i, found := slices.BinarySearchFunc(s.starts[first:], end, func(start uint32, end int) int { return cmp.Compare(int(start), end) })
	if !found {
		i--
	}
	return max(i, 0)
}

func (s *snapshot) records(first, n int) []byte { return s.bytes[s.starts[first]:s.starts[first+n]] }

// legacyRecords turns records of getdents64 into those of getdents.
func legacyRecords(records []byte) []byte {
	out := bytes.Clone(records)
	for at := 0; at < len(out); {
		length := int(binary.NativeEndian.Uint16(out[at+atLength:]))
		r := out[at : at+length]
		kind := r[atType]
		copy(r[atLegacyName:], r[atName:])
		r[length-1] = kind
		at += length
	}
	return out
}

// size is what a snapshot counts for in the cache.
func (s *snapshot) size() int { return cap(s.bytes) + 4*cap(s.starts) }
