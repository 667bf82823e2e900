package restart_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/sandlock-go/sandlock/exec/handler/restart"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func action(handler, flags uint64) []byte {
	b := binary.NativeEndian.AppendUint64(nil, handler)
	return binary.NativeEndian.AppendUint64(b, flags)
}

func TestHandle(t *testing.T) {
	const nocldstop, restarts = 0x1, 0x10000000
	h := restart.New(abi.AMD64)
	for _, tc := range []struct {
		name       string
		signal     uint64
		memory     []byte
		want       []byte
		gone, read bool
		next       bool
	}{
		{name: "a handler without the flag", signal: 17, memory: action(0x4000, nocldstop), want: action(0x4000, nocldstop|restarts)},
		{name: "a dirty upper half of the number", signal: 17 | 1<<32, memory: action(0x4000, 0), want: action(0x4000, restarts)},
		{name: "with the flag", signal: 17, memory: action(0x4000, restarts), want: action(0x4000, restarts)},
		{name: "default", signal: 17, memory: action(0, 0), want: action(0, 0)},
		{name: "ignored", signal: 17, memory: action(1, 0), want: action(1, 0)},
		{name: "another signal", signal: 14, memory: action(0x4000, 0), want: action(0x4000, 0), next: true},
		{name: "cut off", signal: 17, memory: action(0x4000, 0)[:12], want: action(0x4000, 0)[:12]},
		{name: "unmapped", signal: 17},
		{name: "read-only", signal: 17, memory: action(0x4000, 0), want: action(0x4000, 0), read: true},
		{name: "caller is gone", signal: 17, memory: action(0x4000, 0), want: action(0x4000, 0), gone: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &supervisetest.Memory{Bytes: bytes.Clone(tc.memory), Gone: tc.gone, ReadOnly: tc.read}
			c := supervise.NewCall(1, h.Syscalls()[0], [6]uint64{tc.signal, supervisetest.Base}, m)
			want := supervise.Continue(supervise.KernelDecides)
			if tc.next {
				want = supervise.Next()
			}
			if got := h.Handle(c); got.String() != want.String() {
				t.Errorf("verdict %v, want %v", got, want)
			}
			if !bytes.Equal(m.Bytes, tc.want) {
				t.Errorf("action % x, want % x", m.Bytes, tc.want)
			}
		})
	}
}
