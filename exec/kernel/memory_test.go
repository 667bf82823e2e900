package kernel

import (
	"os"
	"testing"
)

func TestParseStatm(t *testing.T) {
	page := uint64(os.Getpagesize())
	for _, tc := range []struct {
		text string
		want Statm
		ok   bool
	}{
		{"3564 1351 571 691 0 1258 0\n", Statm{3564 * page, 1258 * page, 780 * page}, true},
		{"0 0 0 0 0 0 0\n", Statm{}, true},
		{"10 1 2 0 0 3 0", Statm{10 * page, 3 * page, 0}, true},
		{"10 1 2 0 0 3", Statm{}, false},
		{"10 1 2 0 0 3 0 9", Statm{}, false},
		{"10 1 2 0 0 -3 0", Statm{}, false},
		{"18446744073709551615 1 2 0 0 3 0", Statm{}, false},
		{"", Statm{}, false},
	} {
		got, err := parseStatm([]byte(tc.text))
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%q: got %+v, %v; want %+v, ok %v", tc.text, got, err, tc.want, tc.ok)
		}
	}
}

func TestParseImage(t *testing.T) {
	const tail = " S 21986 21983 2256 0 -1 %s 67 0 0 0 0 0 0 0 20 0 1 0 253646 14598144 1322 18446744073709551615 4321280 7148169 140720381839200 0 0 0 0 16781312 2 1 0 0 17 0 0 0 0 0 0 9723336 11027064 578826240 140720381840050 140720381840077 140720381840077 140720381841383 0\n"
	for _, tc := range []struct {
		name, flags string
		want        Image
		ok          bool
	}{
		{"(python3)", "4194368", Image{Forked: true, BrkStart: 578826240, Threads: 1, Faults: 67}, true},
		{"(python3)", "4194304", Image{BrkStart: 578826240, Threads: 1, Faults: 67}, true},
		{"(a) S 1 2 3 ) )", "4194304", Image{BrkStart: 578826240, Threads: 1, Faults: 67}, true},
		{"(a)", "x", Image{}, false},
		{"a", "1", Image{}, false},
	} {
		text := "21987 " + tc.name
		if tc.name[0] == '(' {
			text += replaceFlags(tail, tc.flags)
		}
		got, err := parseImage([]byte(text))
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%q: got %+v, %v; want %+v, ok %v", text, got, err, tc.want, tc.ok)
		}
	}
}

func replaceFlags(tail, flags string) string {
	const hole = "%s"
	for i := range tail {
		if tail[i:i+2] == hole {
			return tail[:i] + flags + tail[i+2:]
		}
	}
	return tail
}

func TestParseMapping(t *testing.T) {
	for _, tc := range []struct {
		line string
		want Mapping
		ok   bool
	}{
		{"00400000-0041f000 r--p 00000000 fe:00 123                              /usr/bin/x", Mapping{Start: 0x400000, End: 0x41f000, Inode: Inode{0xfe00, 123}}, true},
		{"7f0000000000-7f0000001000 rw-p 00000000 00:00 0 ", Mapping{Start: 0x7f0000000000, End: 0x7f0000001000, Writable: true}, true},
		{"7f0000000000-7f0000001000 rw-p 00000000 00:00 0", Mapping{Start: 0x7f0000000000, End: 0x7f0000001000, Writable: true}, true},
		{"1000-2000 rw-p 00000000 00:00 0      [heap]", Mapping{Start: 0x1000, End: 0x2000, Writable: true, Heap: true}, true},
		{"1000-2000 rw-s 00000000 00:01 77     /dev/zero (deleted)", Mapping{Start: 0x1000, End: 0x2000, Writable: true, Shared: true, Inode: Inode{1, 77}, Anonymous: true}, true},
		{"1000-2000 rw-p 00000000 00:01 77     /dev/zero (deleted)", Mapping{Start: 0x1000, End: 0x2000, Writable: true, Inode: Inode{1, 77}}, true},
		{"1000-2000 rw-s 00000000 00:01 77     /tmp/a [heap]", Mapping{Start: 0x1000, End: 0x2000, Writable: true, Shared: true, Inode: Inode{1, 77}}, true},
		{"2000-1000 rw-p 00000000 00:00 0", Mapping{}, false},
		{"1000-2000 rw 00000000 00:00 0", Mapping{}, false},
		{"1000 rw-p 00000000 00:00 0", Mapping{}, false},
		{"", Mapping{}, false},
	} {
		got, err := parseMapping([]byte(tc.line))
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%q: got %+v, %v; want %+v, ok %v", tc.line, got, err, tc.want, tc.ok)
		}
	}
}

// What the kernel says of this process can be read.
func TestReadOwnMemory(t *testing.T) {
	statm, err := ReadStatm(os.Getpid())
	if err != nil || statm.Data == 0 || statm.Anon == 0 || statm.Total < statm.Data {
		t.Errorf("statm %+v, %v", statm, err)
	}
	share, err := AnonymousShare(os.Getpid())
	if err != nil || share == 0 || share > statm.Total {
		t.Errorf("share %d of %+v, %v", share, statm, err)
	}
	image, err := ReadImage(os.Getpid())
	if err != nil || image.Forked || image.BrkStart == 0 {
		t.Errorf("image %+v, %v", image, err)
	}
	var data uint64
	if err := Mappings(os.Getpid(), func(m Mapping) bool {
		if m.Writable && !m.Shared {
			data += m.End - m.Start
		}
		return true
	}); err != nil || data == 0 {
		t.Errorf("mappings hold %d writable bytes, %v", data, err)
	}
	self, parent := os.Getpid(), os.Getppid()
	if CompareMemory(self, self) != 0 || CompareMemory(self, parent) != -CompareMemory(parent, self) || CompareMemory(self, parent) == 0 {
		t.Error("CompareMemory cannot tell this process from its parent")
	}
}

func FuzzParseMapping(f *testing.F) {
	f.Add([]byte("1000-2000 rw-s 00000000 00:01 77     /dev/zero (deleted)"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if m, err := parseMapping(line); err == nil && m.Start > m.End {
			t.Errorf("%q: %+v", line, m)
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) S 1 1 1 0 -1 64 0"), []byte("1 2 3 4 5 6 7"))
	f.Fuzz(func(_ *testing.T, stat, statm []byte) {
		_, _ = parseImage(stat)
		_, _ = parseStatm(statm)
	})
}
