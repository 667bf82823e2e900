package image

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// symbol is a function that a vDSO exports.
type symbol struct {
	name string
	at   uint64 // offset from the image's first byte
	size uint64
}

// What is read of an ELF file of 64 bits in native byte order (elf(5)).
const (
	headerSize  = 64
	programSize = 56
	dynamicSize = 16
	symbolSize  = 24

	ptLoad    = 1
	ptDynamic = 2

	dtNull    = 0
	dtHash    = 4
	dtStrtab  = 5
	dtSymtab  = 6
	dtStrsz   = 10
	dtGNUHash = 0x6ffffef5

	sttFunc    = 2
	maxSymbols = 256
)

var errELF = errors.New("the vDSO is not an ELF image as it is known")

// functions lists the functions that a vDSO image exports. The kernel wrote the image, so what is wrong in it is no
// attack; still nothing is looked at that lies outside of it.
func functions(image []byte) ([]symbol, error) {
	if len(image) < headerSize || !bytes.HasPrefix(image, []byte("\x7fELF\x02")) {
		return nil, errELF
	}
	le := binary.NativeEndian
	var dynamic []byte
	var bias uint64
	loaded := false
	count := int(le.Uint16(image[56:]))
	for i := range count {
		h, ok := slice(image, le.Uint64(image[32:])+uint64(i)*programSize, programSize)
		if !ok {
			return nil, errELF
		}
		offset, addr, size := le.Uint64(h[8:]), le.Uint64(h[16:]), le.Uint64(h[32:])
		switch le.Uint32(h) {
		case ptLoad:
			if !loaded {
				bias, loaded = offset-addr, true
			}
		case ptDynamic:
			if dynamic, ok = slice(image, offset, size); !ok {
				return nil, errELF
			}
		}
	}
	tags := map[uint64]uint64{}
	for ; len(dynamic) >= dynamicSize; dynamic = dynamic[dynamicSize:] {
		tag := le.Uint64(dynamic)
		if tag == dtNull {
			break
		}
		tags[tag] = le.Uint64(dynamic[8:])
	}
	names, ok := slice(image, tags[dtStrtab]+bias, tags[dtStrsz])
	number, okNumber := symbols(image, tags, bias)
	table, okTable := slice(image, tags[dtSymtab]+bias, number*symbolSize)
	if !loaded || !ok || !okNumber || !okTable {
		return nil, errELF
	}
	var list []symbol
	for ; len(table) > 0; table = table[symbolSize:] {
		start := uint64(le.Uint32(table))
		if table[4]&0xf != sttFunc || start >= uint64(len(names)) {
			continue
		}
		name := names[start:]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		s := symbol{name: string(name), at: le.Uint64(table[8:]) + bias, size: le.Uint64(table[16:])}
		if _, ok := slice(image, s.at, s.size); !ok {
			return nil, errELF
		}
		list = append(list, s)
	}
	return list, nil
}

// symbols returns how many symbols there are, which only the hash tables tell: the older one outright, the newer one by
// its last chain.
func symbols(image []byte, tags map[uint64]uint64, bias uint64) (n uint64, ok bool) {
	le := binary.NativeEndian
	if at, found := tags[dtHash]; found {
		h, ok := slice(image, at+bias, 8)
		if !ok {
			return 0, false
		}
		n = uint64(le.Uint32(h[4:]))
		return n, n <= maxSymbols
	}
	at, found := tags[dtGNUHash]
	h, ok := slice(image, at+bias, 16)
	if !found || !ok {
		return 0, false
	}
	buckets, first, bloom := uint64(le.Uint32(h)), uint64(le.Uint32(h[4:])), uint64(le.Uint32(h[8:]))
	starts, ok := slice(image, at+bias+16+8*bloom, 4*buckets)
	if !ok {
		return 0, false
	}
	last := uint64(0)
	for ; len(starts) >= 4; starts = starts[4:] {
		last = max(last, uint64(le.Uint32(starts)))
	}
	if last < first {
		return first, first <= maxSymbols
	}
	for chains := at + bias + 16 + 8*bloom + 4*buckets; last < maxSymbols; last++ {
		link, ok := slice(image, chains+4*(last-first), 4)
		if !ok {
			return 0, false
		}
		if le.Uint32(link)&1 == 1 {
			return last + 1, true
		}
	}
	return 0, false
}

// slice returns size bytes of b from offset at, if they are there.
func slice(b []byte, at, size uint64) ([]byte, bool) {
	if at > uint64(len(b)) || size > uint64(len(b))-at {
		return nil, false
	}
	return b[at : at+size], true
}
