package random

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
)

// A device is looked for beneath the command's root only.
func TestFilesOfAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	if err := os.Symlink("/dev/urandom", v.Dir+"/device"); err != nil {
		t.Fatal(err)
	}
	f := newFiles(v.Root)
	request := func(path string) *opens.Request {
		return &opens.Request{TID: os.Getpid(), Dir: kernel.AtCWD, Path: path}
	}
	for _, path := range append(v.Out(), "/dev/urandom", "/device", "/dev/../dev/random") {
		r := request(path)
		if st, err := f.stat(r); err == nil {
			t.Errorf("%s has inode %d", path, st.Ino)
		}
		if at := f.where(r); at != "" {
			t.Errorf("%s is at %s", path, at)
		}
		if pin, err := f.pin(r); err == nil {
			t.Errorf("%s is %+v", path, pin)
			pin.Close()
		}
	}
	for _, path := range v.In() {
		r := request(path)
		pin, err := f.pin(r)
		if st, err2 := f.stat(r); err != nil || err2 != nil || isDevice(&st) || pin.Path != "/etc/data" || f.where(r) != "/etc/data" {
			t.Errorf("%s is %+v, %v, %v", path, pin, err, err2)
		}
		pin.Close()
	}
	// Its own device is one, whatever it is called there.
	if os.Getuid() != 0 {
		return
	}
	if err := unix.Mknod(v.Dir+"/etc/numbers", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 9))); err != nil {
		t.Skipf("no device can be made here: %v", err)
	}
	if st, err := f.stat(request("/sub/etc/numbers")); err != nil || !isDevice(&st) {
		t.Errorf("a device of the view's: mode %o, %v", st.Mode, err)
	}
}
