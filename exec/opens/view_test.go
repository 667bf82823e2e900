package opens

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func TestRequestsBeneathAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	var inside, outside unix.Stat_t
	if err := unix.Stat(v.Dir+"/etc/data", &inside); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(v.Outside, &outside); err != nil {
		t.Fatal(err)
	}
	sub, above := int32(v.Open(t, "/sub")), int32(v.Open(t, "/.."))
	for _, r := range []Request{
		{Dir: kernel.AtCWD, Path: "/etc/data"}, {Dir: kernel.AtCWD, Path: "/absolute"}, {Dir: sub, Path: "up"}, {Dir: sub, Path: "etc/data"},
		{Dir: sub, Path: "../../../etc/data"},
	} {
		r.TID = os.Getpid()
		st, err := r.Look(v.Root, true)
		pin, err2 := r.Pin(v.Root, true)
		if err != nil || err2 != nil || st.Ino != inside.Ino || pin.Path != "/etc/data" {
			t.Errorf("%+v: inode %d, pin %+v, %v, %v", r, st.Ino, pin, err, err2)
		}
		pin.Close()
	}
	hostile := []Request{{Dir: above, Path: "outside"}, {Dir: above, Path: "root/etc/data"}, {Dir: sub, Path: "../../outside"}, {Dir: kernel.AtCWD, Path: "opens.go"}}
	for _, path := range v.Out() {
		hostile = append(hostile, Request{Dir: kernel.AtCWD, Path: path})
	}
	for _, r := range hostile {
		r.TID = os.Getpid()
		if st, err := r.Look(v.Root, true); err == nil {
			t.Errorf("%+v: inode %d", r, st.Ino)
		}
		if pin, err := r.Pin(v.Root, true); err == nil {
			t.Errorf("%+v: %+v", r, pin)
			pin.Close()
		}
	}
	// The link itself is the view's, wherever it leads.
	r := Request{TID: os.Getpid(), Dir: kernel.AtCWD, Path: "/out"}
	if st, err := r.Look(v.Root, false); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("a link: mode %o, %v", st.Mode, err)
	}
}

type silent struct{}

func (silent) Record(supervise.Event) {}

// What is answered is decided by the view's file.
func TestFilesOfAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	for _, path := range append(v.In(), v.Out()...) {
		var found []string
		f := Files{
			Name: "test", Root: v.Root, Journal: silent{}, Maybe: func(*unix.Stat_t) bool { return true },
			For:    func(p kernel.Pin) *Substitute { found = append(found, p.Path); return nil },
			Grants: func(string, uint64) bool { return true },
		}
		nr, _ := abi.SyscallNumber(abi.AMD64, "open")
		f.Open(supervise.NewCall(os.Getpid(), nr, [6]uint64{supervisetest.Base}, &supervisetest.Memory{Bytes: append([]byte(path), 0)}), Named("open"))
		for _, p := range found {
			if p != "/etc/data" {
				t.Errorf("%s led to %s", path, p)
			}
		}
	}
}
