package network

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Sockets are found where the command sees them, and decided about by where they are for it.
func TestUnixSocketsOfAnotherRoot(t *testing.T) {
	v := supervisetest.NewView(t)
	listen := func(path string) {
		t.Helper()
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Skipf("listen at %s: %v", path, err) // a path of a test can be too long for a socket
		}
		t.Cleanup(func() { l.Close() })
	}
	listen(v.Dir + "/etc/s")
	listen(v.Outside + ".s")
	for path, target := range map[string]string{"/link": "/etc/s", "/outside": v.Outside + ".s"} {
		if err := os.Symlink(target, v.Dir+path); err != nil {
			t.Fatal(err)
		}
	}
	g := newGuest(t)
	g.h.policy.Root = v.Root
	asked := ""
	g.h.policy.Unix = func(path string) query.Ruling {
		asked = path
		return query.Ruling{Allowed: strings.HasPrefix(path, "/etc/")}
	}
	c := supervise.NewCall(os.Getpid(), 42, [6]uint64{}, g.memory)
	for _, path := range []string{"/etc/s", "/link", "/sub/etc/s", "/../etc/s"} {
		var to socket.Address
		to.SetPath(path)
		pin, through, err := g.h.unixTarget(c, &to)
		if err != nil || pin.Path != "/etc/s" || asked != "/etc/s" {
			t.Errorf("%s is %+v, %v; asked about %s", path, pin, err, asked)
			continue
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		at, _ := through.Path()
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: at}); err != nil {
			t.Errorf("connect through %s: %v", at, err)
		}
		unix.Close(fd)
		pin.Close()
	}
	for _, path := range []string{v.Outside + ".s", "/outside", "/../outside.s", "/proc/self/root" + v.Outside + ".s"} {
		var to socket.Address
		to.SetPath(path)
		if pin, _, err := g.h.unixTarget(c, &to); err == nil {
			t.Errorf("%s is %+v", path, pin)
			pin.Close()
		} else if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
