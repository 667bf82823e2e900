package netlink

import (
	"bytes"
	"fmt"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const port = 4711

// request encodes a message.
func request(kind, flags uint16, body ...byte) []byte {
	out := header(nil, message{sequence: 9}, 0, kind, flags|unix.NLM_F_REQUEST)
	return sized(append(out, body...), 0)
}

// linkRequest asks about one interface.
func linkRequest(index uint32, name string) []byte {
	body := make([]byte, ifinfoSize)
	native.PutUint32(body[4:], index)
	if name != "" {
		body = attribute(body, unix.IFLA_MTU, []byte{0, 0, 0, 0}) // something else before
		body = attribute(body, unix.IFLA_IFNAME, []byte(name))
	}
	return request(unix.RTM_GETLINK, 0, body...)
}

// summary reads replies with the parser of Go's standard library, and says what they hold.
func summary(t *testing.T, replies [][]byte) string {
	t.Helper()
	var out []byte
	for i, r := range replies {
		if i > 0 {
			out = append(out, "; "...)
		}
		messages, err := syscall.ParseNetlinkMessage(r)
		if err != nil {
			t.Fatalf("reply %d does not parse: %v", i, err)
		}
		for j, m := range messages {
			if j > 0 {
				out = append(out, ", "...)
			}
			if m.Header.Pid != port || m.Header.Seq != 9 {
				t.Errorf("message to %d about %d, want %d and 9", m.Header.Pid, m.Header.Seq, port)
			}
			out = fmt.Appendf(out, "%s", describe(t, &m))
		}
	}
	return string(out)
}

func describe(t *testing.T, m *syscall.NetlinkMessage) string {
	t.Helper()
	multi := ""
	if m.Header.Flags&unix.NLM_F_MULTI != 0 {
		multi = "+"
	}
	switch m.Header.Type {
	case unix.NLMSG_DONE:
		return "done" + multi
	case unix.NLMSG_ERROR:
		return fmt.Sprintf("error %d about %d bytes", int32(native.Uint32(m.Data)), len(m.Data)-4)
	}
	attributes, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		t.Fatal(err)
	}
	find := func(kind uint16) []byte {
		for _, a := range attributes {
			if a.Attr.Type == kind {
				return a.Value
			}
		}
		return nil
	}
	if m.Header.Type == unix.RTM_NEWLINK {
		return fmt.Sprintf("link%s %d %q", multi, native.Uint32(m.Data[4:]), find(unix.IFLA_IFNAME))
	}
	return fmt.Sprintf("address%s %v/%d on %d", multi, net.IP(find(unix.IFA_ADDRESS)), m.Data[1], native.Uint32(m.Data[4:]))
}

func TestAnswer(t *testing.T) {
	const (
		lo    = `link 1 "lo\x00"`
		links = `link+ 1 "lo\x00", done+`
		v4    = "address+ 127.0.0.1/8 on 1"
		v6    = "address+ ::1/128 on 1"
		dump  = unix.NLM_F_DUMP
	)
	for _, tc := range []struct {
		name string
		in   []byte
		want string
	}{
		{"links", request(unix.RTM_GETLINK, dump, unix.AF_UNSPEC), links},
		{"links, padded", request(unix.RTM_GETLINK, dump, make([]byte, 4)...), links},
		{"addresses", request(unix.RTM_GETADDR, dump, unix.AF_UNSPEC), v4 + ", " + v6 + ", done+"},
		{"addresses of IPv4", request(unix.RTM_GETADDR, dump, unix.AF_INET), v4 + ", done+"},
		{"addresses of IPv6", request(unix.RTM_GETADDR, dump, unix.AF_INET6), v6 + ", done+"},
		{"addresses of no family", request(unix.RTM_GETADDR, dump, unix.AF_BRIDGE), "done+"},
		{"link by index", linkRequest(1, ""), lo},
		{"link by name", linkRequest(0, "lo\x00"), lo},
		{"link by name without end", linkRequest(0, "lo"), lo},
		{"other index", linkRequest(2, ""), "error -19 about 32 bytes"},
		{"index before name", linkRequest(2, "lo"), "error -19 about 48 bytes"},
		{"other name", linkRequest(0, "eth0"), "error -19 about 48 bytes"},
		{"link without index and name", linkRequest(0, ""), "error -22 about 32 bytes"},
		{"short link", request(unix.RTM_GETLINK, 0, 0), "error -22 about 17 bytes"},
		{"routes", request(unix.RTM_GETROUTE, dump, 0), "error -95 about 17 bytes"},
		{"neighbours", request(unix.RTM_GETNEIGH, dump, 0), "error -95 about 17 bytes"},
		{"one address", request(unix.RTM_GETADDR, 0, 0), "error -95 about 17 bytes"},
		{"new address", request(unix.RTM_NEWADDR, unix.NLM_F_CREATE, make([]byte, 8)...), "error -1 about 24 bytes"},
		{"delete link", request(unix.RTM_DELLINK, 0, make([]byte, 16)...), "error -1 about 32 bytes"},
		{"set link", request(unix.RTM_SETLINK, 0, make([]byte, 16)...), "error -1 about 32 bytes"},
		{"new rule of traffic control", request(unix.RTM_NEWQDISC, 0, make([]byte, 20)...), "error -1 about 36 bytes"},
		{"unknown", request(unix.RTM_MAX+1, 0, 0), "error -95 about 17 bytes"},
		{"no request", header(nil, message{sequence: 9}, 0, unix.RTM_GETLINK, 0)[:headerSize], ""},
		{"control message", request(unix.NLMSG_NOOP, 0), ""},
		{"acknowledged control message", request(unix.NLMSG_NOOP, unix.NLM_F_ACK), "error 0 about 16 bytes"},
		{"two requests", append(request(unix.RTM_GETLINK, dump, 0), request(unix.RTM_GETADDR, dump, unix.AF_INET)...), links + "; " + v4 + ", done+"},
		{"nothing", nil, ""},
		{"less than a header", make([]byte, 15), ""},
		{"length 0", make([]byte, 64), ""},
		{"length beyond the end", append(request(unix.RTM_GETLINK, dump, 0), 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), links},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := summary(t, answer(tc.in, port)); got != tc.want {
				t.Errorf("got %s\nwant %s", got, tc.want)
			}
		})
	}
}

// A request is unpadded at its end: Go asks with 17 bytes.
func TestUnpadded(t *testing.T) {
	b := request(unix.RTM_GETLINK, unix.NLM_F_DUMP, 0)
	native.PutUint32(b, 17)
	if got := summary(t, answer(b[:17], port)); got != `link+ 1 "lo\x00", done+` {
		t.Errorf("got %s", got)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(request(unix.RTM_GETLINK, unix.NLM_F_DUMP, 0))
	f.Add(append(request(unix.RTM_GETADDR, unix.NLM_F_DUMP, 0), linkRequest(0, "eth0")...))
	f.Add(request(unix.RTM_NEWLINK, unix.NLM_F_ACK, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		given := bytes.Clone(b)
		replies := answer(b, port)
		if !bytes.Equal(b, given) {
			t.Fatal("the request was changed")
		}
		if len(replies) > len(b)/headerSize {
			t.Fatalf("%d replies to %d bytes", len(replies), len(b))
		}
		for _, r := range replies {
			if _, err := syscall.ParseNetlinkMessage(r); err != nil {
				t.Fatalf("reply %x: %v", r, err)
			}
		}
	})
}
