package kernel

import (
	"maps"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWatchSeesTheLastClose(t *testing.T) {
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	numbers := []uint64{7, 1<<40 + 9}
	var fds []int
	for _, n := range numbers {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(fd, n); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	want := func(want ...uint64) {
		t.Helper()
		open, err := w.Open()
		if got := slices.Sorted(maps.Keys(open)); err != nil || !slices.Equal(got, want) {
			t.Errorf("open: %v, %v; want %v", got, err, want)
		}
	}
	want(numbers...)
	dup, err := unix.Dup(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fds[0])
	want(numbers...) // the duplicate keeps it
	unix.Close(dup)
	want(numbers[1])
	unix.Close(fds[1])
	want()
}

func TestParseWatch(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []uint64
		fails      bool
	}{
		{"none", "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1057\n", nil, false},
		{"two", "pos:\t0\ntfd:        5 events:       1d data:        5  pos:0 ino:7 sdev:9\ntfd: 6 events: 1d data: ffffffff00000001  pos:0 ino:7 sdev:9\n",
			[]uint64{5, 0xffffffff00000001}, false},
		{"older kernels", "tfd:        5 events:       1d data:       2a\n", []uint64{0x2a}, false},
		{"no data", "tfd: 5 events: 1d\n", nil, true},
		{"no value", "tfd: 5 data:\n", nil, true},
		{"no number", "tfd: 5 data: x\n", nil, true},
	} {
		got, err := parseWatch([]byte(tc.text))
		if (err != nil) != tc.fails || !slices.Equal(slices.Sorted(maps.Keys(got)), tc.want) {
			t.Errorf("%s: %v, %v; want %v, error %v", tc.name, got, err, tc.want, tc.fails)
		}
	}
}
