package query_test

import (
	"errors"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

func TestPath(t *testing.T) {
	fs, _, _ := abi.Supported(6)
	l := &ir.Landlock{Handled: ir.Rights{FS: fs}, Paths: []ir.PathRule{
		{Path: "${cwd}", Access: ir.WriteRights(fs), Kind: ir.PathRequired, Origin: 1},
		{Path: "/dev/nvidia", Access: abi.FSReadFile | abi.FSWriteFile, Kind: ir.PathNumbered, Origin: 2},
		{Path: "/srv", Access: abi.FSReadFile, Kind: ir.PathRequired, Origin: 3},
		{Path: "/srv/log", Access: abi.FSWriteFile, Kind: ir.PathRequired, Origin: 4},
		{Path: "/usr", Access: ir.ReadRights(fs), Kind: ir.PathRequired, Origin: 5},
	}}
	for _, tc := range []struct {
		path   string
		want   uint64
		allow  bool
		origin ir.OriginRef // of the rule that decides or comes closest
	}{
		{"/usr", abi.FSReadFile, true, 5},
		{"/usr/bin/env", abi.FSExecute, true, 5},
		{"/usr/bin/env", abi.FSWriteFile, false, 5},
		{"/usrlocal", abi.FSReadFile, false, 0},
		{"/", abi.FSReadFile, false, 0},
		{"${cwd}/a", abi.FSWriteFile, true, 1},
		{"${cwd}x", abi.FSWriteFile, false, 0},
		{"/dev/nvidia0", abi.FSWriteFile, true, 2},
		{"/dev/nvidia10", abi.FSReadFile, true, 2},
		{"/dev/nvidia", abi.FSReadFile, false, 0},
		{"/dev/nvidiactl", abi.FSReadFile, false, 0},
		{"/dev/nvidia0/x", abi.FSReadFile, false, 0},
		{"/srv/log/a", abi.FSReadFile | abi.FSWriteFile, true, 4}, // rules add up
		{"/srv/log/a", abi.FSExecute, false, 4},
		{"/srv/a", abi.FSWriteFile, false, 3},
		{"/anything", abi.FSResolveUnix, true, 0}, // not handled
	} {
		got := query.Path(l, tc.path, tc.want)
		if got.Allowed != tc.allow || got.Origin != tc.origin {
			t.Errorf("%s for %v: got %+v, want allowed %v by origin %d", tc.path, abi.FSRightNames(tc.want), got, tc.allow, tc.origin)
		}
		if !got.Allowed && got.Reason == "" {
			t.Errorf("%s: denied without a reason", tc.path)
		}
	}
}

// program allows TCP sockets on both families, refuses datagrams, and has no openat on arm64.
func program() *ir.Program {
	tcp := ir.Clause{Conds: []ir.Cond{{Arg: 1, Op: ir.OpEq, Mask: 0xf, Value: 1}}, Action: ir.Allow}
	table := func(a abi.Arch, refuse ...string) []ir.SyscallEntry {
		var entries []ir.SyscallEntry
		for nr := range uint32(512) {
			e := ir.SyscallEntry{First: nr, Action: ir.Allow}
			switch name, _ := abi.SyscallName(a, nr); {
			case name == "socket":
				e.Action, e.Clauses, e.Reason = ir.Errno(abi.EPERM), []ir.Clause{tcp}, "default deny"
			case name == "clone":
				e.Action = ir.Notify
			default:
				for _, r := range refuse {
					if name == r {
						e.Action, e.Reason = ir.Errno(abi.EPERM), "syscalls.extra_deny"
					}
				}
			}
			entries = append(entries, e)
		}
		return entries
	}
	return &ir.Program{
		Landlock: ir.Landlock{
			Handled: ir.Rights{FS: abi.FSRead, Net: abi.NetBindTCP | abi.NetConnectTCP},
			Paths:   []ir.PathRule{{Path: "/usr", Access: abi.FSRead, Kind: ir.PathRequired}},
			Ports: []ir.PortRule{
				{Access: abi.NetConnectTCP, Port: 443, Origin: 7},
				{Access: abi.NetBindTCP, Port: 8080},
				{Access: abi.NetBindTCP, Param: "port"},
			},
		},
		Seccomp: ir.Seccomp{Filters: []ir.ArchFilter{
			{Arch: abi.AMD64, Table: table(abi.AMD64)},
			{Arch: abi.ARM64, Table: table(abi.ARM64, "openat", "listen")},
		}},
	}
}

func TestEvent(t *testing.T) {
	p := program()
	for _, tc := range []struct {
		name         string
		test         ir.Test
		amd64, arm64 bool
	}{
		{"read", ir.Test{Kind: ir.TestOpen, Target: "/usr/x", For: "read"}, true, false},
		{"execute", ir.Test{Kind: ir.TestOpen, Target: "/usr/x", For: "execute"}, true, true},
		{"read elsewhere", ir.Test{Kind: ir.TestOpen, Target: "/etc/shadow", For: "read"}, false, false},
		{"listed port", ir.Test{Kind: ir.TestConnect, Target: "tcp 10.0.0.1:443"}, true, true},
		{"listed port, v6", ir.Test{Kind: ir.TestConnect, Target: "tcp [::1]:443"}, true, true},
		{"other port", ir.Test{Kind: ir.TestConnect, Target: "tcp 10.0.0.1:80"}, false, false},
		{"bind right is no connect right", ir.Test{Kind: ir.TestConnect, Target: "tcp 10.0.0.1:8080"}, false, false},
		{"a parameter's port is not 0", ir.Test{Kind: ir.TestBind, Target: "tcp *:0"}, false, false},
		{"datagram", ir.Test{Kind: ir.TestConnect, Target: "udp 10.0.0.1:443"}, false, false},
		{"bind, listen refused on one", ir.Test{Kind: ir.TestBind, Target: "tcp *:8080"}, true, false},
		{"call", ir.Test{Kind: ir.TestSyscall, Target: "getpid"}, true, true},
		{"notified call", ir.Test{Kind: ir.TestSyscall, Target: "clone"}, true, true},
		{"call by argument", ir.Test{Kind: ir.TestSyscall, Target: "socket", Args: []uint64{2, 1}}, true, true},
		{"call by argument, refused", ir.Test{Kind: ir.TestSyscall, Target: "socket", Args: []uint64{2, 2}}, false, false},
	} {
		for arch, want := range map[abi.Arch]bool{abi.AMD64: tc.amd64, abi.ARM64: tc.arm64} {
			got, err := query.Event(p, arch, &tc.test)
			if err != nil || got.Allowed != want {
				t.Errorf("%s on %s: got %+v (%v), want allowed %v", tc.name, arch, got, err, want)
			}
		}
	}
}

func TestEventErrors(t *testing.T) {
	p := program()
	for _, bad := range []ir.Test{
		{},
		{Kind: ir.TestOpen, Target: "/usr", For: "all"},
		{Kind: ir.TestConnect, Target: "10.0.0.1:443"},
		{Kind: ir.TestConnect, Target: "sctp 10.0.0.1:443"},
		{Kind: ir.TestConnect, Target: "tcp 10.0.0.1"},
		{Kind: ir.TestConnect, Target: "tcp 10.0.0.1:65536"},
		{Kind: ir.TestSyscall, Target: "no_such_call"},
	} {
		if got, err := query.Event(p, abi.AMD64, &bad); err == nil {
			t.Errorf("%+v: got %+v, want an error", bad, got)
		}
	}
	if _, err := query.Event(p, abi.ARM64, &ir.Test{Kind: ir.TestSyscall, Target: "open"}); !errors.Is(err, query.ErrNoCall) {
		t.Errorf("open on arm64: got %v, want ErrNoCall", err)
	}
}
