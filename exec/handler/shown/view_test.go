package shown

import (
	"encoding/binary"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// The file is the view's, under the names that it has there.
func TestFileOfAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	grants := func(path string, _ uint64) bool { return path == "/etc/data" }
	for _, file := range []string{"/etc/data", "/absolute"} {
		h := New(abi.AMD64, Config{Name: "hosts", File: file, Content: []byte("pinned"), Grants: grants, Journal: &notes{}, Root: v.Root})
		for _, path := range v.In() {
			if got := open(t, h, unix.AT_FDCWD, path, 0); got != shown {
				t.Errorf("%s as %s: %s, want %s", file, path, got, shown)
			}
		}
		for _, path := range append(v.Out(), v.Dir+"/etc/data", "data") {
			if got := open(t, h, unix.AT_FDCWD, path, 0); got != pass {
				t.Errorf("%s as %s: %s, want %s", file, path, got, pass)
			}
		}
	}
	// What the view does not have is shown where it would be.
	if err := os.Remove(v.Dir + "/etc/data"); err != nil {
		t.Fatal(err)
	}
	h := New(abi.AMD64, Config{Name: "hosts", File: "/etc/data", Content: []byte("pinned"), Grants: grants, Journal: &notes{}, Root: v.Root})
	for path, want := range map[string]string{"/etc/data": shown, "/sub/etc/data": shown, "/../etc/data": shown, "/sub/data": pass, v.Dir + "/etc/data": pass} {
		if got := open(t, h, unix.AT_FDCWD, path, 0); got != want {
			t.Errorf("%s, which is not there: %s, want %s", path, got, want)
		}
	}
}

// A mapped command sees its own ids.
func TestStatShowsMappedIDs(t *testing.T) {
	v := supervisetest.NewView(t)
	h := New(abi.AMD64, Config{
		Name: "hosts", File: "/etc/data", Content: []byte("pinned"), Grants: func(string, uint64) bool { return true }, Journal: &notes{}, Root: v.Root,
		IDs: kernel.IDs{Mapped: true, UID: 1234, GID: 5678},
	})
	const buffer = 512
	m := &supervisetest.Memory{Bytes: append([]byte("/absolute\x00"), make([]byte, 2*buffer)...)}
	for _, call := range []struct {
		name     string
		args     [6]uint64
		uid, gid uintptr // offsets in struct stat of this machine, and struct statx
	}{
		{"stat", [6]uint64{supervisetest.Base, supervisetest.Base + buffer}, unsafe.Offsetof(unix.Stat_t{}.Uid), unsafe.Offsetof(unix.Stat_t{}.Gid)},
		{"statx", [6]uint64{1<<32 - 100, supervisetest.Base, 0, unix.STATX_BASIC_STATS, supervisetest.Base + buffer}, 20, 24},
	} {
		nr, _ := abi.SyscallNumber(abi.AMD64, call.name)
		got := h.Handle(supervise.NewCall(os.Getpid(), nr, call.args, m)).String()
		uid, gid := binary.NativeEndian.Uint32(m.Bytes[buffer+call.uid:]), binary.NativeEndian.Uint32(m.Bytes[buffer+call.gid:])
		if got != "return 0" || uid != 1234 || gid != 5678 {
			t.Errorf("%s: %s, %d:%d; want 1234:5678", call.name, got, uid, gid)
		}
	}
}
