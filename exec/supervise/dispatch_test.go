package supervise

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

type handlerFunc struct {
	calls []abi.Sysno
	f     func(*Call) Verdict
}

func (h handlerFunc) Name() string           { return "test" }
func (h handlerFunc) Syscalls() []abi.Sysno  { return h.calls }
func (h handlerFunc) Handle(c *Call) Verdict { return h.f(c) }

type notes []Event

func (n *notes) Record(e Event) { *n = append(*n, e) }

func TestDecide(t *testing.T) {
	read := func(c *Call) { _, _ = c.Path(0) }
	tests := []struct {
		name     string
		handlers []func(*Call) Verdict
		want     Verdict
		reason   string // in the journal
	}{
		{"first verdict wins", []func(*Call) Verdict{
			func(*Call) Verdict { return Next() }, func(*Call) Verdict { return Return(7) }, func(*Call) Verdict { return Return(8) },
		}, Return(7), ""},
		{"nobody takes it", []func(*Call) Verdict{func(*Call) Verdict { return Next() }}, Errno(unix.EPERM), "no handler"},
		{"panic", []func(*Call) Verdict{func(*Call) Verdict { panic("boom") }}, Errno(unix.EPERM), "boom"},
		{"continue on registers", []func(*Call) Verdict{func(*Call) Verdict { return Continue(DecidedOnRegisters) }}, Continue(DecidedOnRegisters), ""},
		{"continue without a reason", []func(*Call) Verdict{func(*Call) Verdict { return Continue(0) }}, Errno(unix.EPERM), "continue"},
		{"continue after reading memory", []func(*Call) Verdict{
			func(c *Call) Verdict { read(c); return Continue(DecidedOnRegisters) },
		}, Errno(unix.EPERM), "after reading"},
		{"continue where the kernel decides", []func(*Call) Verdict{
			func(c *Call) Verdict { read(c); return Continue(KernelDecides) },
		}, Continue(KernelDecides), ""},
		{"a passed call is the next handler's", []func(*Call) Verdict{
			func(c *Call) Verdict { read(c); return Pass(KernelDecides) }, func(*Call) Verdict { return Return(7) },
		}, Return(7), ""},
		{"a passed call that nobody takes continues", []func(*Call) Verdict{
			func(c *Call) Verdict { read(c); return Pass(KernelDecides) }, func(*Call) Verdict { return Next() },
		}, Continue(KernelDecides), ""},
		{"a call passed on its registers before memory was read", []func(*Call) Verdict{
			func(*Call) Verdict { return Pass(DecidedOnRegisters) }, func(c *Call) Verdict { read(c); return Next() },
		}, Errno(unix.EPERM), "no handler"},
		{"memory read by an earlier handler counts", []func(*Call) Verdict{
			func(c *Call) Verdict { read(c); return Next() }, func(*Call) Verdict { return Continue(DecidedOnRegisters) },
		}, Errno(unix.EPERM), "after reading"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var list []Handler
			for _, f := range tc.handlers {
				list = append(list, handlerFunc{[]abi.Sysno{90}, f})
			}
			var j notes
			d, err := NewDispatcher(abi.AMD64, list, func(abi.Sysno) bool { return true }, &j)
			if err != nil {
				t.Fatal(err)
			}
			got := d.Decide(NewCall(1, 90, [6]uint64{0x1000}, &supervisetest.Memory{Bytes: []byte("/x\x00")}))
			if got.String() != tc.want.String() {
				t.Errorf("Decide = %v, want %v", got, tc.want)
			}
			if (len(j) > 0) != (tc.reason != "") || len(j) > 0 && !strings.Contains(j[0].Reason, tc.reason) {
				t.Errorf("journal %+v, want a reason with %q", j, tc.reason)
			}
		})
	}
}

func TestHandlerOfUnnotifiedCallIsRefused(t *testing.T) {
	h := handlerFunc{[]abi.Sysno{90}, func(*Call) Verdict { return Next() }}
	_, err := NewDispatcher(abi.AMD64, []Handler{h}, func(abi.Sysno) bool { return false }, &notes{})
	if err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("NewDispatcher = %v, want an error that names chmod", err)
	}
}

func TestPath(t *testing.T) {
	long := strings.Repeat("a", maxPath)
	tests := []struct {
		name, memory string
		addr         uint64
		gone         bool
		want         string
		err          error
	}{
		{"plain", "/etc/passwd\x00rest", 0x1000, false, "/etc/passwd", nil},
		{"bytes that are no text", "/a\xff\xfe\x00", 0x1000, false, "/a\xff\xfe", nil},
		{"across a page", strings.Repeat("b", 4090) + "/across\x00", 0x1000 + 4090, false, "/across", nil},
		{"longest", long[1:] + "\x00", 0x1000, false, long[1:], nil},
		{"too long", long + "\x00", 0x1000, false, "", unix.ENAMETOOLONG},
		{"unmapped", "", 0x1000, false, "", unix.EFAULT},
		{"not terminated before unmapped", "/abc", 0x1000, false, "", unix.EFAULT},
		{"caller is gone", "/etc\x00", 0x1000, true, "", unix.ESRCH},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := NewCall(1, 0, [6]uint64{tc.addr}, &supervisetest.Memory{Bytes: []byte(tc.memory), Gone: tc.gone})
			got, err := c.Path(0)
			if got != tc.want || err != tc.err {
				t.Errorf("Path = %.20q, %v; want %.20q, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

func TestWrite(t *testing.T) {
	for _, tc := range []struct {
		name   string
		memory supervisetest.Memory
		addr   uint64
		want   string
		err    error
	}{
		{"plain", supervisetest.Memory{Bytes: []byte("abcd")}, supervisetest.Base + 1, "aXYd", nil},
		{"partly unmapped", supervisetest.Memory{Bytes: []byte("abcd")}, supervisetest.Base + 3, "abcX", unix.EFAULT},
		{"read-only", supervisetest.Memory{Bytes: []byte("abcd"), ReadOnly: true}, supervisetest.Base, "abcd", unix.EFAULT},
		{"caller is gone", supervisetest.Memory{Bytes: []byte("abcd"), Gone: true}, supervisetest.Base, "abcd", unix.ESRCH},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := NewCall(1, 0, [6]uint64{}, &tc.memory).Write(tc.addr, []byte("XY"))
			if err != tc.err || string(tc.memory.Bytes) != tc.want {
				t.Errorf("Write = %v, memory %q; want %v, %q", err, tc.memory.Bytes, tc.err, tc.want)
			}
		})
	}
}

func TestResumeIsHeldToTheSameRules(t *testing.T) {
	tests := []struct {
		name   string
		then   func(*Call) Verdict
		want   Verdict
		reason string // in the journal
	}{
		{"answer", func(*Call) Verdict { return Return(7) }, Return(7), ""},
		{"panic", func(*Call) Verdict { panic("boom") }, Errno(unix.EPERM), "boom"},
		{"continue after reading memory", func(c *Call) Verdict { _, _ = c.Path(0); return Continue(DecidedOnRegisters) }, Errno(unix.EPERM), "after reading"},
		{"no answer", func(*Call) Verdict { return Next() }, Errno(unix.EPERM), "no answer"},
		{"resumed again", func(*Call) Verdict { return Resume(nil) }, Errno(unix.EPERM), "no answer"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var j notes
			d, err := NewDispatcher(abi.AMD64, nil, nil, &j)
			if err != nil {
				t.Fatal(err)
			}
			c := NewCall(1, 90, [6]uint64{supervisetest.Base}, &supervisetest.Memory{Bytes: []byte("path\x00")})
			if got := d.resume(c, tc.then); got.String() != tc.want.String() {
				t.Errorf("verdict %v, want %v", got, tc.want)
			}
			if tc.reason == "" && len(j) > 0 || tc.reason != "" && (len(j) != 1 || !strings.Contains(j[0].Reason, tc.reason)) {
				t.Errorf("journal %v, want %q", j, tc.reason)
			}
		})
	}
}

func TestOverwrite(t *testing.T) {
	for _, tc := range []struct {
		name   string
		memory supervisetest.Memory
		want   string
		err    error
	}{
		{"read-only", supervisetest.Memory{Bytes: []byte("abcdef"), ReadOnly: true}, "aXYdeZ", nil},
		{"cannot be opened", supervisetest.Memory{Bytes: []byte("abcdef"), Sealed: unix.EACCES}, "abcdef", unix.EACCES},
		{"caller is gone", supervisetest.Memory{Bytes: []byte("abcdef"), Gone: true}, "abcdef", unix.ESRCH},
		{"partly unmapped", supervisetest.Memory{Bytes: []byte("abc")}, "aXY", unix.EIO},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := NewCall(1, 0, [6]uint64{}, &tc.memory).Overwrite([]Patch{
				{supervisetest.Base + 1, []byte("XY")}, {supervisetest.Base + 5, []byte("Z")},
			})
			if err != tc.err || string(tc.memory.Bytes) != tc.want {
				t.Errorf("Overwrite = %v, memory %q; want %v, %q", err, tc.memory.Bytes, tc.err, tc.want)
			}
		})
	}
}
