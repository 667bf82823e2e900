package ports

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir"
)

// listing is a handler that knows some sockets, whose descriptors stay open.
func listing(t *testing.T, sockets ...Port) *Handler {
	t.Helper()
	table, err := newTable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.close)
	for _, p := range sockets {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := table.enter(fd, &bound{Port: p}); err != nil {
			t.Fatal(err)
		}
	}
	return &Handler{table: table, policy: Policy{IDs: kernel.IDs{}}}
}

const (
	head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	rest = " 00000000:00000000 00:00000000 00000000  1000        0 54321 1 %s 100 0 0 10 0                      \n"
)

func line(number, ends, pointer string) string {
	return number + ": " + ends + fmt.Sprintf(rest, pointer)
}

func TestSockets(t *testing.T) {
	any4, loopback := netip.IPv4Unspecified(), netip.MustParseAddr("127.0.0.1")
	const pointer, none = "00000000deadbeef", "0000000000000000"
	for _, tc := range []struct {
		name     string
		ours     []Port
		protocol ir.Protocols
		host     string
		want     string // of the lines; "!" for an error
	}{
		{"nothing is bound", nil, ir.TCP, line("   0", "0100007F:1F90 00000000:0000 0A", pointer), ""},
		{"one by its virtual port", []Port{{ir.TCP, loopback, 8080, 40000}}, ir.TCP,
			line("   0", "0100007F:1F90 00000000:0000 0A", pointer) + line("   1", "0100007F:9C40 00000000:0000 0A", pointer),
			line("   0", "0100007F:1F90 00000000:0000 0A", none)},
		{"another address of the port", []Port{{ir.TCP, loopback, 8080, 8080}}, ir.TCP,
			line("   0", "00000000:1F90 00000000:0000 0A", pointer) + line("   1", "0200007F:1F90 00000000:0000 0A", pointer), ""},
		{"accepted from one for all addresses", []Port{{ir.TCP, any4, 8080, 40000}}, ir.TCP,
			line("   7", "0200007F:9C40 0200007F:C000 01", pointer), line("   0", "0200007F:1F90 0200007F:C000 01", none)},
		{"both ends", []Port{{ir.TCP, loopback, 8080, 40000}, {ir.TCP, loopback, 81, 40001}}, ir.TCP,
			line("   0", "0100007F:9C41 0100007F:9C40 01", pointer), line("   0", "0100007F:0051 0100007F:1F90 01", none)},
		{"the same port elsewhere", []Port{{ir.TCP, any4, 8080, 40000}}, ir.TCP,
			line("   0", "0100007F:9C40 08080808:9C40 01", pointer), line("   0", "0100007F:1F90 08080808:9C40 01", none)},
		{"another protocol", []Port{{ir.TCP, any4, 53, 53}}, ir.UDP, line("  123", "00000000:0035 00000000:0000 07", pointer), ""},
		{"a large number", []Port{{ir.UDP, any4, 53, 53}}, ir.UDP, line("123456", "00000000:0035 00000000:0000 07", pointer), line("     0", "00000000:0035 00000000:0000 07", none)},
		{"IPv6", []Port{{ir.TCP, netip.IPv6Unspecified(), 80, 40000}}, ir.TCP,
			line("   0", strings.Repeat("0", 32)+":9C40 "+strings.Repeat("0", 32)+":0000 0A", pointer) +
				line("   1", "0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:C000 01", pointer),
			line("   0", strings.Repeat("0", 32)+":0050 "+strings.Repeat("0", 32)+":0000 0A", none) +
				line("   1", "0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000100007F:C000 01", none)},
		{"no socket", nil, ir.TCP, "   0: what is this\n", "!"},
		{"no address", nil, ir.TCP, line("   0", "0100007G:1F90 00000000:0000 0A", pointer), "!"},
		{"no port", nil, ir.TCP, line("   0", "0100007F:1F9 00000000:0000 0A", pointer), "!"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := listing(t, tc.ours...)
			got, err := h.sockets(strings.NewReader(head+tc.host), tc.protocol, true)
			if (err != nil) != (tc.want == "!") || err == nil && string(got) != head+tc.want {
				t.Errorf("%v\n%swant\n%s", err, got, head+tc.want)
			}
			if got, err := h.sockets(strings.NewReader(head+tc.host), tc.protocol, false); err != nil || string(got) != head {
				t.Errorf("of another namespace: %q, %v", got, err)
			}
		})
	}
}

// Users are those of the command, in the same columns where there is room.
func TestRewrite(t *testing.T) {
	for _, tc := range []struct {
		text   string
		change map[int]string
		want   string
	}{
		{"   0: a  1000  b\n", map[int]string{2: "65534"}, "   0: a 65534  b\n"},
		{"   0: a 65534  b\n", map[int]string{2: "0"}, "   0: a     0  b\n"},
		{"   0: a 1 b\n", map[int]string{2: "4294967295"}, "   0: a 4294967295 b\n"},
		{" 999: a  \n", map[int]string{0: "1:"}, "   1: a  \n"},
		{"9: a", map[int]string{0: "10:", 1: "b"}, "10: b"},
		{"", nil, ""},
	} {
		if got := string(rewrite([]byte(tc.text), tc.change)); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.text, got, tc.want)
		}
	}
}

// The kernel's own lists are understood.
func TestListsOfThisHost(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String())
	h := listing(t, Port{ir.TCP, port.Addr(), 1, port.Port()})
	for _, list := range lists {
		host, err := os.ReadFile("/proc/net/" + list.name)
		if err != nil {
			t.Logf("%v", err)
			continue
		}
		got, err := h.sockets(bytes.NewReader(host), list.protocol, true)
		if want := map[bool]int{true: 2, false: 1}[list.name == "tcp"]; err != nil || bytes.Count(got, []byte("\n")) != want {
			t.Errorf("%s: %v\n%s", list.name, err, got)
		}
	}
}

// Whatever a list says, nothing is told of a port that is not the sandbox's.
func FuzzSockets(f *testing.F) {
	f.Add(head + line("   0", "0100007F:9C40 00000000:0000 0A", "0000000000000000"))
	f.Fuzz(func(t *testing.T, host string) {
		h := &Handler{table: &table{real: map[key][]*bound{}}}
		got, err := h.sockets(strings.NewReader(host), ir.TCP, true)
		first, _, _ := strings.Cut(host, "\n")
		if err == nil && strings.TrimSuffix(string(got), "\n") != first {
			t.Errorf("%q became %q", host, got)
		}
	})
}
