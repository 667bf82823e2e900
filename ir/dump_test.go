package ir

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir/abi"
)

func eq(arg uint8, mask, value uint64) Cond {
	return Cond{Arg: arg, Op: OpEq, Mask: mask, Value: value}
}

func TestDescribeEntry(t *testing.T) {
	const low, all = 0xffffffff, ^uint64(0)
	eperm := Errno(abi.EPERM)
	for _, tc := range []struct {
		name  string
		call  string
		entry SyscallEntry
		want  []string
	}{
		{"plain", "read", SyscallEntry{Action: Allow}, []string{"allow"}},
		{"reason", "mount", SyscallEntry{Action: eperm, Reason: "default deny"}, []string{"deny EPERM  # default deny"}},
		{"unknown errno", "x", SyscallEntry{Action: Errno(4000)}, []string{"deny errno 4000"}},
		{"values are folded", "socket", SyscallEntry{Action: Kill, Clauses: []Clause{
			{Conds: []Cond{eq(0, low, 2), eq(2, low, 0)}, Action: Allow, Reason: "TCP"},
			{Conds: []Cond{eq(0, low, 2), eq(2, low, 6)}, Action: Allow, Reason: "TCP"},
		}}, []string{"allow if domain == AF_INET and protocol in {default, IPPROTO_TCP}  # TCP", "kill otherwise"}},
		{"not across another reason, mask, argument or action", "x", SyscallEntry{Action: Allow, Clauses: []Clause{
			{Conds: []Cond{eq(0, low, 1)}, Action: eperm, Reason: "a"},
			{Conds: []Cond{eq(0, low, 2)}, Action: eperm, Reason: "b"},
			{Conds: []Cond{eq(0, all, 3)}, Action: eperm, Reason: "b"},
			{Conds: []Cond{eq(1, all, 3)}, Action: eperm, Reason: "b"},
			{Conds: []Cond{eq(1, all, 4)}, Action: Notify, Reason: "b"},
		}}, []string{
			"deny EPERM if arg0 == 1  # a", "deny EPERM if arg0 == 2  # b", "deny EPERM if (64 bits) arg0 == 3  # b",
			"deny EPERM if (64 bits) arg1 == 3  # b", "notify if (64 bits) arg1 == 4  # b", "allow otherwise",
		}},
		{"an inequality is not folded", "x", SyscallEntry{Action: Allow, Clauses: []Clause{
			{Conds: []Cond{{Arg: 0, Op: OpGe, Mask: low, Value: 1000}}, Action: eperm},
			{Conds: []Cond{{Arg: 0, Op: OpGe, Mask: low, Value: 2000}}, Action: eperm},
		}}, []string{"deny EPERM if arg0 >= 0x3e8", "deny EPERM if arg0 >= 0x7d0", "allow otherwise"}},
		{"flags by name, the rest as a number", "clone", SyscallEntry{Action: Allow, Clauses: []Clause{
			{Conds: []Cond{{Arg: 0, Op: OpSet, Mask: low, Value: 0x10000000 | 0x800}}, Action: eperm},
		}}, []string{"deny EPERM if flags has any of CLONE_NEWUSER|0x800", "allow otherwise"}},
		{"a mask is shown", "socket", SyscallEntry{Action: Allow, Clauses: []Clause{
			{Conds: []Cond{eq(1, 0xf, 3)}, Action: eperm},
		}}, []string{"deny EPERM if type&0xf == SOCK_RAW", "allow otherwise"}},
	} {
		if got := tc.entry.describe(tc.call); strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.name, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
		}
	}
}

func TestClassOf(t *testing.T) {
	for v := 1; v <= abi.LatestLandlock; v++ {
		fs, _, _ := abi.Supported(v)
		l := &Landlock{Handled: Rights{FS: fs}}
		for access, want := range map[uint64]Class{
			ReadRights(fs):                     ClassRead,
			WriteRights(fs):                    ClassWrite,
			fs:                                 ClassExact,
			abi.FSReadFile:                     ClassExact,
			WriteRights(fs) &^ abi.FSRemoveDir: ClassExact,
			WriteRights(fs) | abi.FSMakeChar:   ClassExact,
		} {
			if got := l.ClassOf(access); got != want {
				t.Errorf("ABI %d, %v: got %s, want %s", v, abi.FSRightNames(access), got, want)
			}
		}
		if grants := WriteRights(fs) & (abi.FSMakeChar | abi.FSMakeBlock | abi.FSResolveUnix); grants != 0 {
			t.Errorf("ABI %d: write grants %v", v, abi.FSRightNames(grants))
		}
		if ReadRights(fs)&^WriteRights(fs) != 0 {
			t.Errorf("ABI %d: read is not part of write", v)
		}
	}
}

// TestDumpHidesNothing: texts of a policy cannot forge lines of a golden.
func TestDumpHidesNothing(t *testing.T) {
	p := &Program{Name: "x", Process: Process{
		Start: StartDirect,
		Args:  []string{"a\n  write  /"},
		Env:   []EnvVar{{Name: "A", Value: "1\nsystem calls"}, {Name: "B", Value: " spaces "}},
	}}
	text := p.Dump(DumpOptions{})
	if strings.Contains(text, "\n  write  /") || strings.Contains(text, "\nsystem calls\n") {
		t.Errorf("a value forged a line:\n%s", text)
	}
	if !strings.Contains(text, `B=" spaces "`) {
		t.Errorf("spaces are not visible:\n%s", text)
	}
}

func TestDumpJSON(t *testing.T) {
	p := &Program{Name: "x", Target: Target{Arches: abi.Arches}, Landlock: Landlock{Ports: []PortRule{
		{Access: abi.NetBindTCP, Port: 0}, {Access: abi.NetConnectTCP, Param: "web"},
	}}}
	var b bytes.Buffer
	if err := p.DumpJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Name     string
		Landlock struct {
			Ports []struct {
				Access []string
				Port   *int
				Param  string
			}
		}
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	ports := got.Landlock.Ports
	if got.Name != "x" || len(ports) != 2 || ports[0].Port == nil || *ports[0].Port != 0 || ports[1].Port != nil || ports[1].Param != "web" {
		t.Errorf("got %s", b.Bytes())
	}
}
