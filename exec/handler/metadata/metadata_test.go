package metadata

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

type notes []supervise.Event

func (n *notes) Record(e supervise.Event) { *n = append(*n, e) }

// handler grants writing in /etc and on the whole view but nothing else.
func handler(v supervisetest.View, ids kernel.IDs) *Handler {
	grants := func(path string, _ uint64) (bool, string, string) { return strings.HasPrefix(path, "/etc/"), "", "" }
	return New(abi.AMD64, Config{Grants: grants, Root: v.Root, IDs: ids}, &notes{})
}

// ask has this process call with a path in its memory at the argument where.
func ask(h *Handler, call, path string, where int, args ...uint64) string {
	nr, _ := abi.SyscallNumber(abi.AMD64, call)
	m := &supervisetest.Memory{Bytes: append([]byte(path), 0)}
	var all [6]uint64
	copy(all[:], args)
	if where >= 0 {
		all[where] = supervisetest.Base
	}
	return h.Handle(supervise.NewCall(os.Getpid(), nr, all, m)).String()
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Mode().Perm()
}

func TestPathsOfAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	h := handler(v, kernel.IDs{})
	for i, path := range v.In() {
		want := os.FileMode(0o600 + i)
		if got := ask(h, "chmod", path, 0, 0, uint64(want)); got != "return 0" || mode(t, v.Dir+"/etc/data") != want {
			t.Errorf("chmod %s: %s, mode %o; want %o", path, got, mode(t, v.Dir+"/etc/data"), want)
		}
	}
	sub := v.Open(t, "/sub")
	if got := ask(h, "fchmodat", "etc/data", 1, uint64(sub), 0, 0o640); got != "return 0" || mode(t, v.Dir+"/etc/data") != 0o640 {
		t.Errorf("relative: %s", got)
	}
	for _, path := range v.Out() {
		if got := ask(h, "chmod", path, 0, 0, 0o777); got == "return 0" || mode(t, v.Outside) != 0o644 {
			t.Errorf("chmod %s: %s, mode %o", path, got, mode(t, v.Outside))
		}
	}
	host, err := unix.Open(v.Outside, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(host)
	if got := ask(h, "fchmod", "", -1, uint64(host), 0o777); got == "return 0" || mode(t, v.Outside) != 0o644 {
		t.Errorf("fchmod of a file of the host's: %s", got)
	}
}

func TestOwners(t *testing.T) {
	v := supervisetest.NewView(t)
	uid, gid := uint64(os.Geteuid()), uint64(os.Getegid())
	none := uint64(1<<32 - 1)
	for _, tc := range []struct {
		ids      kernel.IDs
		uid, gid uint64
		want     string
	}{
		{kernel.IDs{}, uid, gid, "return 0"},
		{kernel.IDs{}, none, none, "return 0"},
		{kernel.IDs{Mapped: true, UID: 1000, GID: 100}, 1000, 100, "return 0"},
		{kernel.IDs{Mapped: true, UID: 1000, GID: 100}, none, 100, "return 0"},
		{kernel.IDs{Mapped: true, UID: 1000, GID: 100}, none, none, "return 0"},
		{kernel.IDs{Mapped: true, UID: 1000, GID: 100}, 1001, none, "errno EINVAL"},
		{kernel.IDs{Mapped: true, UID: 1000, GID: 100}, 1000, 0, "errno EINVAL"},
		{kernel.IDs{Mapped: true, UID: 1000, GID: 100}, 100, 1000, "errno EINVAL"},
	} {
		h := handler(v, tc.ids)
		if got := ask(h, "chown", "/etc/data", 0, 0, tc.uid, tc.gid); got != tc.want {
			t.Errorf("%+v: chown %d:%d: %s, want %s", tc.ids, tc.uid, tc.gid, got, tc.want)
		}
		var st unix.Stat_t
		if err := unix.Stat(v.Dir+"/etc/data", &st); err != nil || uint64(st.Uid) != uid || uint64(st.Gid) != gid {
			t.Errorf("%+v: the file belongs to %d:%d", tc.ids, st.Uid, st.Gid)
		}
	}
}

func TestAttributes(t *testing.T) {
	m := kernel.IDs{Mapped: true, UID: 1000, GID: 100}
	for _, name := range []string{"security.capability", "trusted.overlay.opaque"} {
		if err := mayAttribute(m, name); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v", name, err)
		}
		if err := mayAttribute(kernel.IDs{}, name); err != nil {
			t.Errorf("%s unmapped: %v", name, err)
		}
	}
	acl := func(entries ...uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, 2)
		for i := 0; i < len(entries); i += 2 {
			b = binary.LittleEndian.AppendUint32(b, entries[i]|7<<16)
			b = binary.LittleEndian.AppendUint32(b, entries[i+1])
		}
		return b
	}
	const object, none = 0x01, 1<<32 - 1
	own, group := uint32(os.Geteuid()), uint32(os.Getegid())
	for _, tc := range []struct {
		in, want []byte // nil: refused
	}{
		{acl(object, none, aclUser, 1000, aclGroup, 100), acl(object, none, aclUser, own, aclGroup, group)},
		{acl(aclUser, 4711), nil},
		{acl(aclGroup, 1000), nil},
		{acl(aclUser, none), nil},
		{acl()[:3], acl()[:3]},
		{acl(aclUser, 1000)[:9], acl(aclUser, 1000)[:9]}, // cut off: the kernel refuses it
	} {
		got := append([]byte(nil), tc.in...)
		err := translateAttribute(m, "system.posix_acl_access", got)
		if (err != nil) != (tc.want == nil) || err == nil && string(got) != string(tc.want) {
			t.Errorf("%x: %x, %v; want %x", tc.in, got, err, tc.want)
		}
	}
	b := acl(aclUser, 4711)
	if err := translateAttribute(kernel.IDs{}, "system.posix_acl_access", b); err != nil || string(b) != string(acl(aclUser, 4711)) {
		t.Errorf("unmapped: %x, %v", b, err)
	}
}
