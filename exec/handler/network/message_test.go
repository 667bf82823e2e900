package network

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/socket"
)

// cmsg is a control message as a C library writes it, with a length of the test's own where size is not 0.
func cmsg(size uint64, level, kind uint32, data ...byte) []byte {
	if size == 0 {
		size = uint64(controlHead + len(data))
	}
	b := binary.NativeEndian.AppendUint64(nil, size)
	b = binary.NativeEndian.AppendUint32(b, level)
	b = binary.NativeEndian.AppendUint32(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, -len(b)&7)...)
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

func TestParseSegments(t *testing.T) {
	iov := func(words ...uint64) (b []byte) {
		for _, w := range words {
			b = binary.NativeEndian.AppendUint64(b, w)
		}
		return b
	}
	for _, tc := range []struct {
		name  string
		b     []byte
		sizes []int
		total int
		err   error
	}{
		{"none", nil, nil, 0, nil},
		{"two", iov(1, 2, 3, 4), []int{2, 4}, 6, nil},
		{"empty", iov(0, 0), []int{0}, 0, nil},
		{"negative", iov(1, 2, 3, 1<<63), []int{2}, 0, unix.EINVAL},
		{"too much", iov(1, 1, 2, math.MaxInt64, 3, 5), []int{1, maxTransfer - 1, 0}, maxTransfer, nil},
	} {
		list, total, err := parseSegments(nil, tc.b)
		var sizes []int
		for _, s := range list {
			sizes = append(sizes, s.Len)
		}
		if !slices.Equal(sizes, tc.sizes) || total != tc.total || err != tc.err {
			t.Errorf("%s: %v, %d, %v, want %v, %d, %v", tc.name, sizes, total, err, tc.sizes, tc.total, tc.err)
		}
	}
}

func TestParseRights(t *testing.T) {
	one, two := []byte{1, 0, 0, 0}, []byte{2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}
	for _, tc := range []struct {
		name string
		b    []byte
		want []int32
		err  error
	}{
		{"nothing", nil, nil, nil},
		{"less than a header", make([]byte, 15), nil, nil},
		{"two messages", join(cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, one...), cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, two...)), []int32{1, 2, -1}, nil},
		{"other levels are ignored", join(cmsg(0, 41, 2), cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, one...)), []int32{1}, nil},
		{"credentials", cmsg(0, unix.SOL_SOCKET, unix.SCM_CREDENTIALS, make([]byte, 12)...), nil, unix.EPERM},
		{"unknown", cmsg(0, unix.SOL_SOCKET, 4), nil, unix.EINVAL},
		{"part of a descriptor", cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, 1, 0, 0, 0, 9), []int32{1}, nil},
		{"size below the header", cmsg(15, unix.SOL_SOCKET, unix.SCM_RIGHTS, one...), nil, unix.EINVAL},
		{"size beyond the end", cmsg(25, unix.SOL_SOCKET, unix.SCM_RIGHTS, one...), nil, unix.EINVAL},
		{"size that overflows", cmsg(math.MaxUint64, unix.SOL_SOCKET, unix.SCM_RIGHTS, one...), nil, unix.EINVAL},
		{"size that overflows when aligned", join(cmsg(0, 0, 0), cmsg(math.MaxUint64-6, 0, 0)), nil, unix.EINVAL},
		{"as many as there may be", cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, make([]byte, 4*maxRights)...), make([]int32, maxRights), nil},
		{"too many", cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, make([]byte, 4*maxRights+4)...), nil, unix.EINVAL},
		{"too many together", join(cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, make([]byte, 4*maxRights)...), cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, one...)),
			make([]int32, maxRights), unix.EINVAL},
	} {
		got, err := parseRights(nil, tc.b)
		if !slices.Equal(got, tc.want) || err != tc.err {
			t.Errorf("%s: %v, %v, want %v, %v", tc.name, got, err, tc.want, tc.err)
		}
	}
	if want := cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, two...); !bytes.Equal(appendRights(nil, []int{2, -1}), want) {
		t.Error("appendRights writes something else than a C library")
	}
}

func TestCheckInternetControl(t *testing.T) {
	tos := cmsg(0, unix.IPPROTO_IP, unix.IP_TOS, 1, 0, 0, 0)
	for _, tc := range []struct {
		name string
		b    []byte
		err  error
	}{
		{"nothing", nil, nil},
		{"known", join(tos, cmsg(0, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 1, 0, 0, 0), cmsg(0, unix.IPPROTO_UDP, udpSegment, 0, 4)), nil},
		{"source route", cmsg(0, unix.IPPROTO_IP, unix.IP_RETOPTS, make([]byte, 8)...), unix.EPERM},
		{"source route after another", join(tos, cmsg(0, unix.IPPROTO_IP, unix.IP_RETOPTS, make([]byte, 8)...)), unix.EPERM},
		{"routing header", cmsg(0, unix.IPPROTO_IPV6, unix.IPV6_RTHDR, make([]byte, 24)...), unix.EPERM},
		{"old routing header", cmsg(0, unix.IPPROTO_IPV6, 5, make([]byte, 24)...), unix.EPERM},
		{"hop options", cmsg(0, unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS), unix.EPERM},
		{"destination options", cmsg(0, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS), unix.EPERM},
		{"flow label", cmsg(0, unix.IPPROTO_IPV6, 11, make([]byte, 4)...), unix.EPERM},
		{"mark", cmsg(0, unix.SOL_SOCKET, unix.SO_MARK, make([]byte, 4)...), unix.EPERM},
		{"malformed", cmsg(8, unix.IPPROTO_IP, unix.IP_TOS), unix.EINVAL},
	} {
		if err := checkInternetControl(tc.b); err != tc.err {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.err)
		}
	}
}

// request is struct nlmsghdr with data, with a length of the test's own where size is not 0.
func request(size uint32, kind uint16, data ...byte) []byte {
	if size == 0 {
		size = uint32(unix.NLMSG_HDRLEN + len(data))
	}
	b := binary.NativeEndian.AppendUint32(nil, size)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, 8)...)
	b = append(b, data...)
	return append(b, make([]byte, -len(b)&3)...)
}

func TestCheckNetlink(t *testing.T) {
	get := request(0, unix.RTM_GETLINK, 0)
	for _, tc := range []struct {
		name string
		b    []byte
		err  error
	}{
		{"nothing", nil, nil},
		{"links", get, nil},
		{"several", join(get, request(0, unix.RTM_GETADDR, 0), request(0, unix.RTM_GETROUTE), request(0, unix.RTM_GETNEIGH), request(0, unix.RTM_GETRULE)), nil},
		{"trailing bytes", join(get, make([]byte, 15)), nil},
		{"new link", request(0, unix.RTM_NEWLINK), unix.EPERM},
		{"set link", request(0, unix.RTM_SETLINK), unix.EPERM},
		{"delete after a question", join(get, request(0, unix.RTM_DELADDR)), unix.EPERM},
		{"namespace ids", request(0, unix.RTM_GETNSID), unix.EPERM},
		{"control message", request(0, unix.NLMSG_NOOP), unix.EPERM},
		{"size below the header", request(15, unix.RTM_GETLINK), unix.EPERM},
		{"size beyond the end", request(17, unix.RTM_GETLINK), unix.EPERM},
		{"size that overflows when aligned", request(math.MaxUint32, unix.RTM_GETLINK), unix.EPERM},
	} {
		if err := checkNetlink(tc.b); err != tc.err {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.err)
		}
	}
}

func TestSpecify(t *testing.T) {
	v4 := func(ip ...byte) []byte { return append(append([]byte{2, 0, 0, 53}, ip...), make([]byte, 8)...) }
	v6 := func(ip [16]byte) []byte {
		return append(append([]byte{10, 0, 0, 53, 1, 2, 3, 4}, ip[:]...), 5, 0, 0, 0)
	}
	for _, tc := range []struct{ in, want []byte }{
		{v4(0, 0, 0, 0), v4(127, 0, 0, 1)},
		{v4(1, 0, 0, 0), v4(1, 0, 0, 0)},
		{v6([16]byte{}), v6([16]byte{15: 1})},
		{v6([16]byte{0: 0x20}), v6([16]byte{0: 0x20})},
		{v6([16]byte{10: 0xff, 11: 0xff}), v6([16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1})},
	} {
		var a socket.Address
		a.Set(tc.in)
		if a.Specify(); !bytes.Equal(a.Bytes(), tc.want) {
			t.Errorf("%v becomes %v, want %v", tc.in, a.Bytes(), tc.want)
		}
	}
}

// FuzzControl: whatever control data holds, nothing outside of it is read, and what is let through is what was looked at.
func FuzzControl(f *testing.F) {
	f.Add(cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, 1, 0, 0, 0))
	f.Add(join(cmsg(0, unix.IPPROTO_IP, unix.IP_TTL, 1, 0, 0, 0), cmsg(0, unix.IPPROTO_IPV6, unix.IPV6_RTHDR)))
	f.Add(cmsg(math.MaxUint64, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		for rest := b; ; {
			m, next, ok, err := nextControl(rest)
			if err != nil || !ok {
				break
			}
			if len(next) >= len(rest) || len(m.data)+controlHead > len(rest) {
				t.Fatal("a message of no size, or of more than there is")
			}
			if size += controlHead + len(m.data); checkInternetControl(b) == nil && !harmless[[2]int32{m.level, m.kind}] {
				t.Fatalf("message %d of level %d is let through", m.kind, m.level)
			}
			rest = next
		}
		fds, err := parseRights(nil, b)
		if len(fds) > maxRights || 4*len(fds) > size {
			t.Fatalf("%d descriptors in %d bytes", len(fds), len(b))
		}
		if err != nil {
			return
		}
		own := make([]int, len(fds))
		for i, fd := range fds {
			own[i] = int(fd)
		}
		if again, err := parseRights(nil, appendRights(nil, own)); err != nil || !slices.Equal(again, fds) {
			t.Fatalf("%v becomes %v, %v", fds, again, err)
		}
	})
}

// FuzzMessage: no header and no vector makes more of a message than there is.
func FuzzMessage(f *testing.F) {
	f.Add(make([]byte, headerSize+segmentSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		_ = parseHeader(b)
		list, total, err := parseSegments(nil, b[headerSize:])
		sum := 0
		for _, s := range list {
			if s.Len < 0 {
				t.Fatal("a segment of negative size")
			}
			sum += s.Len
		}
		if len(list) > len(b)/segmentSize || err == nil && (sum != total || total > maxTransfer) {
			t.Fatalf("%d segments, sum %d, total %d", len(list), sum, total)
		}
	})
}

// FuzzNetlink: what is let through holds questions only, as the kernel takes it apart.
func FuzzNetlink(f *testing.F) {
	f.Add(request(0, unix.RTM_GETLINK, 0))
	f.Add(join(request(0, unix.RTM_GETADDR, 0), request(0, unix.RTM_NEWADDR)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkNetlink(b) != nil {
			return
		}
		for len(b) >= 16 { // netlink_rcv_skb
			size := binary.NativeEndian.Uint32(b)
			if size < 16 || int(size) > len(b) {
				break
			}
			if kind := binary.NativeEndian.Uint16(b[4:]); kind < 16 || kind&3 != 2 {
				t.Fatalf("type %d is let through", kind)
			}
			b = b[min(int(size+3)&^3, len(b)):]
		}
	})
}
