package ir

import (
	"fmt"
	"reflect"

	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

// sampleFilter returns a program that refuses n numbers, ends in last, and that [bpf.Verify] accepts.
func sampleFilter(a abi.Arch, n int, last bpf.Return) []byte {
	insns := []bpf.Insn{
		{Code: bpf.LdAbs, K: bpf.OffArch},
		{Code: bpf.Jeq, K: a.Audit(), JT: 1},
		{Code: bpf.Ret, K: uint32(bpf.RetKillProcess)},
		{Code: bpf.LdAbs, K: bpf.OffNr},
		{Code: bpf.Jge, K: abi.X32Bit, JF: 1},
		{Code: bpf.Ret, K: uint32(bpf.RetKillProcess)},
	}
	for i := range n {
		insns = append(insns,
			bpf.Insn{Code: bpf.Jeq, K: uint32(2 * i), JF: 1},
			bpf.Insn{Code: bpf.Ret, K: uint32(bpf.RetErrno) | 1})
	}
	return bpf.Encode(append(insns, bpf.Insn{Code: bpf.Ret, K: uint32(last)}))
}

// sample returns a valid program that uses every section.
func sample() *Program {
	p := &Program{
		Name:        "agent",
		Description: "An agent\nwith a workspace.",
		Target:      Target{Arches: []abi.Arch{abi.AMD64, abi.ARM64}, LandlockABI: 6, Backend: "auto"},
		Requires: []Requirement{
			{Feature: FeatureLandlock, Min: 6, Fields: []string{"filesystem", "network.allow_bind"}},
			{Feature: FeatureSeccompFilter},
			{Feature: FeatureSeccompNotify, Fields: []string{"limits.processes"}},
		},
		Process: Process{
			Start: StartNamespaced, Exec: "/usr/bin/${tool}", Args: []Template{"--dir=${work}", ""},
			Env:      []EnvVar{{Name: "HOME", Value: "${home}", Origin: 1}, {Name: "LANG", Value: "C.UTF-8"}},
			CleanEnv: true, PassEnv: []string{"LC_*", "TERM"}, Cwd: "${work}", Capabilities: []uint8{10, 25}, NoCoredump: true,
		},
		Landlock: Landlock{
			Handled: Rights{FS: abi.FSRead | abi.FSWriteFile | abi.FSTruncate, Net: abi.NetBindTCP | abi.NetConnectTCP, Scoped: abi.ScopeSignal},
			Degrade: Rights{Scoped: abi.ScopeSignal},
			Paths: []PathRule{
				{Path: "/usr", Access: abi.FSRead, Kind: PathRequired, Origin: 2},
				{Path: "${work}/out", Access: abi.FSWriteFile, Kind: PathOptional},
				{Path: "/dev/nvidia", Access: abi.FSReadFile, Kind: PathNumbered},
			},
			Ports: []PortRule{{Access: abi.NetBindTCP, Port: 0}, {Access: abi.NetConnectTCP, Port: 443, Origin: 2}, {Access: abi.NetBindTCP, Param: "listen"}},
		},
		Limits:      Limits{Processes: 64, OpenFiles: 1024, TimeMS: 60_000, CPUCores: []uint16{0, 2}, GPU: GPU{Mode: GPUIndices, Devices: []uint16{0}}, ProcessesOrigin: 1, Memory: 512 << 20, CPUPercent: 50, CPUCount: 2, MemoryOrigin: 2, Backend: BackendCgroup, MachineFiles: true},
		Determinism: Determinism{Random: true, Seed: 1 << 60, ShiftTime: true, TimeStart: ^uint64(0), SortedDirs: true, TimeOrigin: 1},
		Rules: []DynamicRule{
			{On: EventExec, Argv: "--force", Exe: "/usr/bin/git", Count: 3, Then: Outcome{Kind: OutcomeErrno, Errno: 1}, Scope: ScopeSandbox, Reason: "no force", Origin: 1},
			{On: EventFile, Path: "**/.git/hooks/**", AfterExec: true, Then: Outcome{Kind: OutcomeAudit}, Do: []Change{{Kind: ChangeDenyPath, Path: "${work}/.git"}}, Scope: ScopeProcess},
			{On: EventClone | EventExec, Then: Outcome{Kind: OutcomeNone}, Do: []Change{{Kind: ChangeProcesses, Value: 4}, {Kind: ChangeMemory, Value: 64 << 20}}, Scope: ScopeSandbox},
			{On: EventConnect | EventSend, Host: "10.0.0.0/8", Port: 443, Protocol: UDP, Then: Outcome{Kind: OutcomeNone}, Scope: ScopeProcess, Do: []Change{
				{Kind: ChangeNetwork, Net: []NetRule{{Protocols: TCP, Kind: TargetHost, Target: "db.internal", Ports: []NetPort{{Lo: 1, Hi: 5}, {Param: "listen"}}, Origin: 1}}},
				{Kind: ChangeNetwork},
			}},
		},
		Net: Net{
			Destinations: DestinationsAllowed, Private: true, Resolver: true, Unix: UnixGranted, PortRemap: true, Origin: 1, UnixOrigin: 2,
			Rules: []NetRule{
				{Protocols: TCP | UDP, Kind: TargetHost, Target: "*.example.com", Ports: []NetPort{{Lo: 443, Hi: 443}, {Param: "listen"}}, Origin: 1},
				{Protocols: TCP, Kind: TargetPrefix, Target: "10.0.0.0/8"},
				{Protocols: UDP, Kind: TargetPrefix, Target: "2001:db8::1/128", Ports: []NetPort{{Lo: 53, Hi: 53}}},
				{Protocols: ICMP, Kind: TargetAny},
			},
			Hosts:     []NetHost{{Name: "db.internal", Addresses: []string{"10.0.0.5", "fd00::5"}, Origin: 2}},
			DenyBind:  []NetPort{{Lo: 22, Hi: 80}},
			UnixPaths: []UnixPath{{Path: "${work}/sock", Origin: 1}}, Intercepted: []uint16{80, 443},
		},
		HTTP: HTTP{
			Allow: []HTTPRule{
				{Method: "GET", Host: "api.example.com", Path: "/v1/", Prefix: true, Origin: 1},
				{Method: "*", Host: "pinned.example.com", Path: "/", Prefix: true, Opaque: true},
				{Method: "*", Host: "2001:db8::1", Path: "/a b"},
			},
			Deny:      []HTTPRule{{Method: "*", Host: "*", Path: "/admin/", Prefix: true, Reason: "not for agents", Origin: 2}},
			Authority: AuthorityOwn, CA: "/etc/ca.pem", Key: "${home}/ca.key", InjectCA: []HTTPFile{{Path: "/etc/ssl/certs/ca-certificates.crt", Origin: 1}},
			CAOut: "${work}/ca.pem", UpstreamCA: "/etc/internal.pem",
			Credentials: []Credential{
				{Name: "api", Kind: CredentialEnv, Source: "API_TOKEN", Origin: 1}, {Name: "db", Kind: CredentialFile, Source: "${home}/db"},
				{Name: "pipe", Kind: CredentialFD, Source: "3"},
			},
			Auth: []HTTPAuth{
				{Rule: HTTPRule{Method: "*", Host: "api.example.com", Path: "/", Prefix: true}, Credential: "api", Scheme: AuthBearer, Origin: 1},
				{Rule: HTTPRule{Method: "GET", Host: "2001:db8::1", Path: "/a b"}, Credential: "db", Scheme: AuthBasic, Name: "me", AddOnly: true, Plain: true},
			},
			Limits:      HTTPLimits{HeaderBytes: 64 << 10, BodyBytes: 1 << 30, Connections: 1024, HeaderMS: 10_000, IdleMS: 300_000},
			RedactQuery: true, Origin: 1, CAOrigin: 1, OutOrigin: 2,
		},
		View: View{
			MapIDs: true, UID: 1000, GID: maxID, Mount: true, PID: true, Root: "${work}/root", Proc: ProcAuto, Tmp: true, Dev: true, Sys: true,
			Mounts:   []ViewMount{{Target: "/data", Source: "/srv/a:b", ReadOnly: true, Origin: 1}, {Target: "/out", Source: "${home}/out"}},
			Deny:     []ViewPath{{Path: "${work}/secret", Origin: 2}},
			Protect:  []ViewPath{{Path: "**/.git/hooks/**", Origin: 1}, {Path: "${work}/*.key"}},
			Masks:    []string{"/proc/kcore", "/sys/firmware"},
			ReadOnly: []string{"/proc/sys"}, RootOrigin: 1, TmpOrigin: 2, ProcOrigin: 1, MapOrigin: 2,
		},
		Branch: Branch{
			Workdir: "${work}/src", Kind: BranchOverlay, Storage: "${home}/branches", OnExit: BranchCommit, OnError: BranchKeep, Disk: 1 << 30,
			Origin: 1, DiskOrigin: 2,
		},
		Params: []Param{
			{Name: "work", Type: ParamDir, Under: []Template{"${home}/src", "/srv"}, Origin: 1},
			{Name: "tool", Type: ParamString, HasDefault: true, Default: "make", Pattern: "[a-z]+"},
			{Name: "listen", Type: ParamPort, HasDefault: true, Default: "8080"},
		},
		Mechanisms: []Mechanism{{Feature: "filesystem.read", Choice: "landlock", Reason: "kernel rule"}},
		Origins: []Origin{
			{File: "policies/agent.cue", Line: 3, Col: 9, Path: "filesystem.read[0]", Kind: OriginUser},
			{File: "sandlock.dev/policy/base.cue", Line: 14, Col: 2, Path: "filesystem.read[1]", Kind: OriginPreset},
		},
		Tests: []Test{
			{Name: "reads usr", Allow: true, Kind: TestOpen, Target: "/usr/bin", For: "read", Origin: 1},
			{Name: "no admin", Kind: TestHTTP, Target: "GET api.example.com/admin/x"},
			{Name: "no ptrace", Kind: TestSyscall, Target: "ptrace", Args: []uint64{16, 1 << 40}},
		},
	}
	for _, a := range p.Target.Arches {
		p.Seccomp.Filters = append(p.Seccomp.Filters, ArchFilter{
			Arch: a,
			Table: []SyscallEntry{
				{First: 0, Action: Allow},
				{First: 41, Clauses: []Clause{{Conds: []Cond{{Arg: 0, Op: OpEq, Mask: 0xffffffff, Value: 16}}, Action: Errno(97), Reason: "socket families", Origin: 2}}, Action: Allow},
				{First: 56, Action: Notify, Reason: "limits.processes", Origin: 1},
				{First: 400, Action: Errno(38), Reason: "unknown"},
			},
			Program: sampleFilter(a, 3, bpf.RetUserNotif), Observe: sampleFilter(a, 4, bpf.RetUserNotif), ObserveCalls: []uint32{41, 42},
		})
	}
	return p
}

// large returns a program of the size that the agent policy compiles to: per architecture a filter of 700
// instructions, its observing variant and a table of 500 ranges.
func large() *Program {
	p := sample()
	p.Landlock.Paths, p.Origins = nil, nil
	for i := range 30 {
		p.Landlock.Paths = append(p.Landlock.Paths, PathRule{Path: fmt.Sprintf("/usr/lib/%d", i), Access: abi.FSRead, Kind: PathRequired, Origin: OriginRef(i + 1)})
		p.Origins = append(p.Origins, Origin{File: "policies/agent.cue", Line: uint32(i), Col: 3, Path: fmt.Sprintf("filesystem.read[%d]", i), Kind: OriginUser})
	}
	for fi := range p.Seccomp.Filters {
		f := &p.Seccomp.Filters[fi]
		f.Program, f.Observe = sampleFilter(f.Arch, 347, bpf.RetUserNotif), sampleFilter(f.Arch, 347, bpf.RetUserNotif)
		f.Table = nil
		for i := range 500 {
			e := SyscallEntry{First: uint32(i), Action: Allow, Origin: OriginRef(i%30 + 1)}
			if i%2 == 0 {
				e.Action, e.Reason = Errno(1), "default deny"
			}
			for j := range 2 * (i % 8 / 7) { // 60 entries with two clauses
				e.Clauses = append(e.Clauses, Clause{Conds: []Cond{{Arg: 1, Op: OpEq, Mask: 0xffffffff, Value: uint64(i * j)}}, Action: Errno(38), Reason: "flags", Origin: 2})
			}
			f.Table = append(f.Table, e)
		}
	}
	return p
}

// fill sets every field below v, lists to two elements, from the bytes of next. What it builds is seldom valid; it
// serves to see that no field is forgotten.
func fill(v reflect.Value, next func() uint64) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "_" {
				fill(v.Field(i), next)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), next)
		fill(v.Index(1), next)
	case reflect.String:
		v.SetString(fmt.Sprint("s", next()))
	case reflect.Bool:
		v.SetBool(true)
	default:
		v.SetUint(next()>>(64-v.Type().Bits()) | 1)
	}
}

// zeroEach calls f with v and with v after each of its parts was set to zero in turn.
func zeroEach(v reflect.Value, f func()) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "_" {
				zeroEach(v.Field(i), f)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			zeroEach(v.Index(i), f)
		}
	}
	if v.CanSet() {
		old := reflect.New(v.Type()).Elem()
		old.Set(v)
		v.SetZero()
		f()
		v.Set(old)
	}
}
