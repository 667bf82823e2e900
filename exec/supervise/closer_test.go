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

// However long closing takes, the loop goes on, and no more than maxClosing threads wait.
func TestCloserIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var c Closer
	var peers []net.Conn
	for range maxClosing {
		if c.Busy() {
			t.Fatal("busy before its bound")
		}
		fd, peer := lingering(t, l)
		peers = append(peers, peer)
		c.Close(fd)
	}
	if !c.Busy() {
		t.Error("not busy although every close waits")
	}
	for _, p := range peers {
		_ = p.(*net.TCPConn).SetLinger(0) // resets: what waits for it gives up
		_ = p.Close()
	}
	for end := time.Now().Add(20 * time.Second); c.open() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d closes still wait", c.open())
		}
	}
}
