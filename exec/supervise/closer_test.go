package supervise

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lingering returns a socket whose close waits for a peer that reads nothing, and the peer.
func lingering(t *testing.T, l net.Listener) (fd int, peer net.Conn) {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if peer, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if fd, err = unix.Dup(int(file.Fd())); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 60}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 1<<16); ; {
		if _, err := unix.Write(fd, b); err != nil {
			break // the buffers of both sides are full
		}
	}
	return fd, peer
}

// However long closing would take, it is over soon, and so are the descriptors that come after.
func TestCloserEndsWaits(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var c Closer
	for range 3 * maxClosing {
		fd, peer := lingering(t, l)
		defer peer.Close()
		c.Close(fd)
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	c.Close(p[1])
	for end := time.Now().Add(20 * time.Second); c.open() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d closes still wait", c.open())
		}
	}
	if n, err := unix.Read(p[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the last descriptor is not closed: %d, %v", n, err)
	}
}
