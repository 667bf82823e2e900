package socket_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
)

func TestTell(t *testing.T) {
	name := []byte("0123456789abcdef")
	for _, tc := range []struct {
		desc        string
		addr, sizeP uint64
		room        int32
		want        error
		text        string
		size        int32
	}{
		{"room", supervisetest.Base + 4, supervisetest.Base, 28, nil, "0123456789abcdef............", 16},
		{"exact", supervisetest.Base + 4, supervisetest.Base, 16, nil, "0123456789abcdef............", 16},
		{"truncated", supervisetest.Base + 4, supervisetest.Base, 5, nil, "01234.......................", 16},
		{"no room", 0, supervisetest.Base, 0, nil, "............................", 16},
		{"negative", supervisetest.Base + 4, supervisetest.Base, -1, unix.EINVAL, "............................", -1},
		{"no size", supervisetest.Base + 4, 0, 16, unix.EFAULT, "............................", 16},
		{"no address", 0, supervisetest.Base, 16, unix.EFAULT, "............................", 16},
		{"address half mapped", supervisetest.Base + 20, supervisetest.Base, 16, unix.EFAULT, "................0123456789ab", 16},
	} {
		m := &supervisetest.Memory{Bytes: append(make([]byte, 4), bytes.Repeat([]byte("."), 28)...)}
		binary.NativeEndian.PutUint32(m.Bytes, uint32(tc.room))
		err := socket.Tell(supervise.NewCall(1, 0, [6]uint64{}, m), tc.addr, tc.sizeP, name)
		size := int32(binary.NativeEndian.Uint32(m.Bytes))
		if err != tc.want || string(m.Bytes[4:]) != tc.text || size != tc.size {
			t.Errorf("%s: %v, %q, size %d; want %v, %q, %d", tc.desc, err, m.Bytes[4:], size, tc.want, tc.text, tc.size)
		}
	}
}
