package peers

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// This process is the caller: its connections are told of as what they stand for, if they were led to us.
func TestPeerName(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	own, peer := conn.LocalAddr().(*net.TCPAddr).AddrPort(), listener.Addr().(*net.TCPAddr).AddrPort()
	meant := netip.MustParseAddrPort("192.0.2.1:443")
	led := true
	h, err := New(abi.AMD64, func(o, p netip.AddrPort) (netip.AddrPort, bool) {
		if o != own || p != peer {
			t.Errorf("asked about %v to %v, want %v to %v", o, p, own, peer)
		}
		return meant, led
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	nr, _ := abi.SyscallNumber(abi.AMD64, "getpeername")
	const at, length = supervisetest.Base + 4, supervisetest.Base
	ask := func(fd uint64) (string, []byte) {
		m := &supervisetest.Memory{Bytes: make([]byte, 32)}
		binary.NativeEndian.PutUint32(m.Bytes, 28)
		v := h.Handle(supervise.NewCall(os.Getpid(), nr, [6]uint64{fd, at, length}, m))
		return v.String(), m.Bytes
	}
	got, b := ask(uint64(file.Fd()))
	if size := binary.NativeEndian.Uint32(b); got != supervise.Return(0).String() || size != 16 || string(b[6:12]) != "\x01\xbb\xc0\x00\x02\x01" {
		t.Errorf("led to us: %s, %d bytes % x", got, size, b[4:])
	}
	led = false
	others := supervise.Pass(supervise.DecidedOnRegisters).String()
	for fd, what := range map[uint64]string{uint64(file.Fd()): "not led to us", 0xffffffff: "no descriptor"} {
		if got, _ := ask(fd); got != others {
			t.Errorf("%s: %s, want %s", what, got, others)
		}
	}
}
