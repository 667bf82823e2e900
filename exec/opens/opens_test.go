package opens

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Each call's arguments, and whether it opens a file to be read.
func TestRead(t *testing.T) {
	const at = supervisetest.Base
	memory := &supervisetest.Memory{Bytes: append([]byte("/a\x00"), make([]byte, 64)...)}
	how := func(flags, mode, resolve uint64) {
		for i, v := range []uint64{flags, mode, resolve} {
			binary.NativeEndian.PutUint64(memory.Bytes[8+8*i:], v)
		}
	}
	how(unix.O_RDWR, 0, unix.RESOLVE_BENEATH)
	for _, tc := range []struct {
		call  string
		args  [6]uint64
		want  Request
		reads bool
		fail  error
	}{
		{"open", [6]uint64{at, unix.O_RDONLY | 1<<40, 0o600}, Request{1, kernel.AtCWD, "/a", unix.O_RDONLY, 0o600, 0}, true, nil},
		{"open", [6]uint64{at, unix.O_WRONLY}, Request{1, kernel.AtCWD, "/a", unix.O_WRONLY, 0, 0}, false, nil},
		{"openat", [6]uint64{5, at, unix.O_RDWR, 0o644}, Request{1, 5, "/a", unix.O_RDWR, 0o644, 0}, true, nil},
		{"openat", [6]uint64{1<<32 - 100, at, unix.O_PATH}, Request{1, kernel.AtCWD, "/a", unix.O_PATH, 0, 0}, false, nil},
		{"openat", [6]uint64{5, at, unix.O_DIRECTORY}, Request{1, 5, "/a", unix.O_DIRECTORY, 0, 0}, false, nil},
		{"openat", [6]uint64{5, at, unix.O_CREAT | unix.O_EXCL}, Request{1, 5, "/a", unix.O_CREAT | unix.O_EXCL, 0, 0}, false, nil},
		{"openat", [6]uint64{5, at, unix.O_CREAT}, Request{1, 5, "/a", unix.O_CREAT, 0, 0}, true, nil},
		{"openat", [6]uint64{5, 1, 0}, Request{}, false, unix.EFAULT},
		{"openat2", [6]uint64{5, at, at + 8, 24}, Request{1, 5, "/a", unix.O_RDWR, 0, unix.RESOLVE_BENEATH}, true, nil},
		{"openat2", [6]uint64{5, at, at + 8, 23}, Request{}, false, unix.EINVAL},
		{"openat2", [6]uint64{5, at, at + 8, 4097}, Request{}, false, unix.E2BIG},
		{"openat2", [6]uint64{5, at, at, 24}, Request{}, false, unix.EINVAL}, // flags that nobody knows
		{"openat2", [6]uint64{5, at, 1, 24}, Request{}, false, unix.EFAULT},
		{"creat", [6]uint64{at, 0o600}, Request{1, kernel.AtCWD, "/a", unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC, 0o600, 0}, false, nil},
	} {
		spec := Named(tc.call)
		c := supervise.NewCall(1, 0, tc.args, memory)
		got, err := spec.Read(c)
		if err == nil {
			err = spec.ReadPath(c, &got)
		}
		if err != tc.fail || err == nil && (got != tc.want || got.Reads() != tc.reads) {
			t.Errorf("%s %x: %+v, %v, reads %v; want %+v, %v, %v", tc.call, tc.args, got, err, got.Reads(), tc.want, tc.fail, tc.reads)
		}
	}
	if got := len(Readers(abi.AMD64)) - len(Readers(abi.ARM64)); got != 1 {
		t.Errorf("amd64 has %d calls more than arm64, want open", got)
	}
}

func TestSeen(t *testing.T) {
	for _, tc := range []struct {
		dir        int32
		name, want string
	}{
		{unix.AT_FDCWD, "/dev/urandom", "/dev/urandom"},
		{unix.AT_FDCWD, "x/y", "/proc/7/cwd/x/y"},
		{5, "x", "/proc/7/fd/5/x"},
		{5, "/proc/self/fd/3", "/proc/7/fd/3"},
		{5, "/proc/thread-self/fd/3", "/proc/7/fd/3"},
		{5, "/dev/fd/3", "/proc/7/fd/3"},
		{5, "/dev/stdin", "/proc/7/fd/0"},
		{5, "/proc/selfish", "/proc/selfish"},
	} {
		if got := (&Request{TID: 7, Dir: tc.dir, Path: tc.name}).seen(); got != tc.want {
			t.Errorf("%d %s: got %s, want %s", tc.dir, tc.name, got, tc.want)
		}
	}
}

// The caller's memory is hostile: whatever stands there is checked as the kernel does.
func FuzzOpenHow(f *testing.F) {
	f.Add(append([]byte("/etc/passwd\x00"), make([]byte, 24)...), uint64(12), uint64(24))
	f.Fuzz(func(t *testing.T, memory []byte, how, size uint64) {
		c := supervise.NewCall(1, 437, [6]uint64{0, supervisetest.Base, supervisetest.Base + how, size}, &supervisetest.Memory{Bytes: memory})
		r, err := Named("openat2").Read(c)
		if err != nil {
			return
		}
		if r.Flags&^Known != 0 || r.Mode&^0o7777 != 0 || size < 24 || size > 4096 {
			t.Errorf("accepted %+v of %d bytes", r, size)
		}
	})
}
