package ir

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

func TestValidateAccepts(t *testing.T) {
	stripped := sample()
	stripped.Strip()
	small := &Program{
		Name:    "x",
		Target:  Target{Arches: []abi.Arch{abi.ARM64}, LandlockABI: 1, Backend: "notify"},
		Process: Process{Start: StartInPlace, PassEnv: []string{"*"}},
		Seccomp: Seccomp{Filters: []ArchFilter{{Arch: abi.ARM64, Table: []SyscallEntry{{Action: Kill}}, Program: sampleFilter(abi.ARM64, 0, bpf.RetKillProcess)}}},
	}
	for name, p := range map[string]*Program{"sample": sample(), "stripped": stripped, "small": small, "large": large()} {
		if err := p.Validate(); err != nil {
			t.Errorf("%s: got %v, want no error", name, err)
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	firstFilter := func(p *Program) *ArchFilter { return &p.Seccomp.Filters[0] }
	clause := func(p *Program) *Clause { return &p.Seccomp.Filters[1].Table[1].Clauses[0] }
	inPlace := func(p *Program) {
		p.Process.Start, p.Limits, p.Determinism, p.Rules, p.HTTP, p.Net.Intercepted = StartInPlace, Limits{}, Determinism{}, nil, HTTP{}, nil
		p.View, p.Branch = View{}, Branch{}
		for i := range p.Seccomp.Filters {
			f := &p.Seccomp.Filters[i]
			f.Table[2].Action, f.Observe, f.ObserveCalls = Allow, nil, nil
			f.Program = sampleFilter(f.Arch, 1, bpf.RetAllow)
		}
	}
	for _, tc := range []struct {
		name  string
		spoil func(*Program)
		want  string
	}{
		{"empty name", func(p *Program) { p.Name = "" }, `name "" is not a file name`},
		{"dot dot", func(p *Program) { p.Name = ".." }, "not a file name"},
		{"slash in name", func(p *Program) { p.Name = "a/b" }, "not a file name"},
		{"long name", func(p *Program) { p.Name = strings.Repeat("ü", 65) }, "65 characters, at most 64"},
		{"escape in name", func(p *Program) { p.Name = "a\x1b[2J" }, "control character"},
		{"escape in description", func(p *Program) { p.Description = "a\x1b" }, "control character"},
		{"long description", func(p *Program) { p.Description = strings.Repeat("a", maxDescription+1) }, "at most 16384"},

		{"no arch", func(p *Program) { p.Target.Arches = nil }, "no architecture"},
		{"unknown arch", func(p *Program) { p.Target.Arches[1] = 9 }, "architecture 9 is unknown"},
		{"arch twice", func(p *Program) { p.Target.Arches[1] = abi.AMD64 }, "amd64 after amd64"},
		{"landlock 0", func(p *Program) { p.Target.LandlockABI = 0 }, "landlock ABI 0"},
		{"landlock 12", func(p *Program) { p.Target.LandlockABI = 12 }, "landlock ABI 12"},
		{"backend", func(p *Program) { p.Target.Backend = "" }, `backend "" is unknown`},

		{"unknown feature", func(p *Program) { p.Requires[0].Feature = 77 }, "feature 77 is unknown"},
		{"features unsorted", func(p *Program) { slices.Reverse(p.Requires) }, "not ascending"},
		{"landlock without ABI", func(p *Program) { p.Requires[0].Min = 0 }, "landlock with minimum 0"},
		{"seccomp with ABI", func(p *Program) { p.Requires[1].Min = 1 }, "seccomp-filter with minimum 1"},
		{"fields unsorted", func(p *Program) { slices.Reverse(p.Requires[0].Fields) }, "not ascending"},

		{"start", func(p *Program) { p.Process.Start = 0 }, "start 0 is unknown"},
		{"relative exec", func(p *Program) { p.Process.Exec = "bin/sh" }, "not absolute and lexically clean"},
		{"unclean cwd", func(p *Program) { p.Process.Cwd = "/a/../b" }, "not absolute and lexically clean"},
		{"cwd slash", func(p *Program) { p.Process.Cwd = "/a/" }, "lexically clean"},
		{"cwd from a string", func(p *Program) { p.Process.Cwd = "${tool}/x" }, "does not start with a slash or a parameter that is a path"},
		{"cwd from uid", func(p *Program) { p.Process.Cwd = "${uid}" }, "does not start with"},
		{"undeclared name", func(p *Program) { p.Process.Args[0] = "${nobody}" }, `"nobody", which is not declared`},
		{"open template", func(p *Program) { p.Process.Args[0] = "${work" }, `"${" without "}"`},
		{"NUL in argument", func(p *Program) { p.Process.Args[0] = "a\x00b" }, "NUL byte"},
		{"long argument", func(p *Program) { p.Process.Args[0] = strings.Repeat("a", maxArgument+1) }, "at most 131072"},
		{"many arguments", func(p *Program) { p.Process.Args = make([]string, maxArgs+1) }, "4097 elements"},
		{"env unsorted", func(p *Program) { p.Process.Env[1].Name = "A" }, "not ascending"},
		{"env twice", func(p *Program) { p.Process.Env[1].Name = "HOME" }, "not ascending"},
		{"env name", func(p *Program) { p.Process.Env[0].Name = "A=B" }, "not a variable name"},
		{"env origin", func(p *Program) { p.Process.Env[0].Origin = 3 }, "origin 3, the table has 2"},
		{"glob inside", func(p *Program) { p.Process.PassEnv[0] = "A*B" }, "not a variable name"},
		{"glob unsorted", func(p *Program) { slices.Reverse(p.Process.PassEnv) }, "not ascending"},
		{"capability", func(p *Program) { p.Process.Capabilities[1] = 64 }, "capability 64"},
		{"capabilities unsorted", func(p *Program) { slices.Reverse(p.Process.Capabilities) }, "capability 10 after 25"},

		{"unknown right", func(p *Program) { p.Landlock.Handled.FS |= 1 << 40 }, "unknown rights"},
		{"unknown scope", func(p *Program) { p.Landlock.Handled.Scoped |= 1 << 2 }, "unknown rights"},
		{"degrade unhandled", func(p *Program) { p.Landlock.Degrade.FS = abi.FSRefer }, "not handled"},
		{"access unhandled", func(p *Program) { p.Landlock.Paths[0].Access |= abi.FSMakeDir }, "not part of the handled"},
		{"access none", func(p *Program) { p.Landlock.Paths[0].Access = 0 }, "is empty"},
		{"path kind", func(p *Program) { p.Landlock.Paths[0].Kind = 4 }, "kind 4 is unknown"},
		{"relative path", func(p *Program) { p.Landlock.Paths[0].Path = "usr" }, "not absolute and lexically clean"},
		{"empty path", func(p *Program) { p.Landlock.Paths[0].Path = "" }, "does not start with a slash"},
		{"newline in path", func(p *Program) { p.Landlock.Paths[0].Path = "/a\n/b" }, "control character"},
		{"long path", func(p *Program) { p.Landlock.Paths[0].Path = "/" + strings.Repeat("a", MaxPath) }, "at most 4096"},
		{"path origin", func(p *Program) { p.Landlock.Paths[0].Origin = 1 << 31 }, "origin 2147483648"},
		{"many paths", func(p *Program) { p.Landlock.Paths = make([]PathRule, maxList+1) }, "65537 elements"},
		{"port access", func(p *Program) { p.Landlock.Ports[0].Access = abi.NetBindUDP }, "not part of the handled"},
		{"connect to 0", func(p *Program) { p.Landlock.Ports[1].Port = 0 }, "ephemeral"},
		{"port and parameter", func(p *Program) { p.Landlock.Ports[2].Port = 1 }, `port 1 and parameter "listen"`},
		{"port from a string", func(p *Program) { p.Landlock.Ports[2].Param = "tool" }, "not a parameter of type port"},
		{"port undeclared", func(p *Program) { p.Landlock.Ports[2].Param = "nobody" }, "not a parameter of type port"},

		{"filter missing", func(p *Program) { p.Seccomp.Filters = p.Seccomp.Filters[:1] }, "1 filters for 2"},
		{"filter arch", func(p *Program) { p.Seccomp.Filters[1].Arch = abi.AMD64 }, "is for amd64, the target has arm64"},
		{"no program", func(p *Program) { firstFilter(p).Program = nil }, "BPF program"},
		{"program of the other arch", func(p *Program) { firstFilter(p).Program = p.Seccomp.Filters[1].Program }, "architecture"},
		{"observe of the other arch", func(p *Program) { firstFilter(p).Observe = p.Seccomp.Filters[1].Observe }, "observe: "},
		{"observe without notify", func(p *Program) { firstFilter(p).Observe = sampleFilter(abi.AMD64, 3, bpf.RetAllow) }, "notifies nothing"},
		{"observe without calls", func(p *Program) { firstFilter(p).ObserveCalls = nil }, "notifies nothing"},
		{"calls without observe", func(p *Program) { firstFilter(p).Observe = nil }, "without a program that observes"},
		{"calls unsorted", func(p *Program) { slices.Reverse(firstFilter(p).ObserveCalls) }, "observed call 41 after 42"},
		{"x32 call observed", func(p *Program) { firstFilter(p).ObserveCalls[1] = abi.X32Bit }, "observed call 1073741824"},
		{"no table", func(p *Program) { firstFilter(p).Table = nil }, "does not start at call 0"},
		{"table start", func(p *Program) { firstFilter(p).Table[0].First = 1 }, "does not start at call 0"},
		{"table unsorted", func(p *Program) { firstFilter(p).Table[2].First = 41 }, "call 41 after 41"},
		{"action", func(p *Program) { firstFilter(p).Table[0].Action.Kind = 0 }, "action 0 is unknown"},
		{"errno 0", func(p *Program) { firstFilter(p).Table[3].Action.Errno = 0 }, "errno 0"},
		{"errno 4096", func(p *Program) { firstFilter(p).Table[3].Action.Errno = 4096 }, "errno 4096"},
		{"allow with errno", func(p *Program) { firstFilter(p).Table[0].Action.Errno = 1 }, "which has none"},
		{"reason", func(p *Program) { firstFilter(p).Table[3].Reason = "a\nb" }, "control character"},
		{"entry origin", func(p *Program) { firstFilter(p).Table[3].Origin = 3 }, "origin 3"},
		{"clause action", func(p *Program) { clause(p).Action.Kind = 5 }, "action 5 is unknown"},
		{"clause origin", func(p *Program) { clause(p).Origin = 3 }, "origin 3"},
		{"no conditions", func(p *Program) { clause(p).Conds = nil }, "0 conditions"},
		{"condition argument", func(p *Program) { clause(p).Conds[0].Arg = 6 }, "argument 6"},
		{"condition op", func(p *Program) { clause(p).Conds[0].Op = 8 }, "comparison 8"},
		{"many conditions", func(p *Program) { clause(p).Conds = make([]Cond, maxConds+1) }, "65 conditions"},
		{"many clauses", func(p *Program) { firstFilter(p).Table[1].Clauses = make([]Clause, maxClauses+1) }, "1025 elements"},

		{"time", func(p *Program) { p.Limits.TimeMS = 1 << 63 }, "time of 9223372036854775808 ms"},
		{"cpu", func(p *Program) { p.Limits.CPUCores[1] = 8192 }, "CPU 8192"},
		{"cpus unsorted", func(p *Program) { slices.Reverse(p.Limits.CPUCores) }, "CPU 0 after 2"},
		{"gpu mode", func(p *Program) { p.Limits.GPU.Mode = 3 }, "GPU mode 3 is unknown"},
		{"gpu devices", func(p *Program) { p.Limits.GPU.Mode = GPUAll }, "GPU mode 1 with 1 devices"},
		{"gpu none listed", func(p *Program) { p.Limits.GPU.Devices = nil }, "GPU mode 2 with 0 devices"},
		{"limit backend", func(p *Program) { p.Limits.Backend = 2 }, "backend 2 is unknown"},
		{"nothing for a control group", func(p *Program) { p.Limits.Memory, p.Limits.CPUPercent = 0, 0 }, "no limit that it keeps"},
		{"limit origin", func(p *Program) { p.Limits.TimeOrigin = 9 }, "origin 9"},

		{"no event", func(p *Program) { p.Rules[0].On = 0 }, "events 0x0"},
		{"unknown event", func(p *Program) { p.Rules[0].On = 1 << 15 }, "events 0x8000"},
		{"arguments of an open", func(p *Program) { p.Rules[0].On = EventOpen }, "condition on arguments"},
		{"path of a program", func(p *Program) { p.Rules[1].On |= EventExec }, "condition on a path"},
		{"NUL in an argument", func(p *Program) { p.Rules[0].Argv = "a\x00b" }, "no argument can contain"},
		{"relative program", func(p *Program) { p.Rules[0].Exe = "git" }, "not absolute"},
		{"malformed pattern", func(p *Program) { p.Rules[1].Path = "**/[a" }, "malformed pattern"},
		{"climbing pattern", func(p *Program) { p.Rules[1].Path = "**/../a" }, `has a ".." element`},
		{"pattern of an unknown parameter", func(p *Program) { p.Rules[1].Path = "${nobody}/*" }, "not declared"},
		{"scope", func(p *Program) { p.Rules[0].Scope = 0 }, "scope 0 is unknown"},
		{"outcome", func(p *Program) { p.Rules[0].Then.Kind = 5 }, "outcome 5 is unknown"},
		{"outcome without errno", func(p *Program) { p.Rules[0].Then.Errno = 0 }, "outcome 3 with errno 0"},
		{"rule without effect", func(p *Program) { p.Rules[2].Do = nil }, "neither an outcome nor a change"},
		{"change", func(p *Program) { p.Rules[2].Do[0].Kind = 5 }, "kind 5 is unknown"},
		{"address of a file", func(p *Program) { p.Rules[1].Port = 1 }, "condition on an address"},
		{"two protocols", func(p *Program) { p.Rules[3].Protocol = TCP | UDP }, "protocols 0x3, want one"},
		{"host of a rule", func(p *Program) { p.Rules[3].Host = "10.0.0.1/8" }, "not a CIDR block in canonical form"},
		{"name of a rule", func(p *Program) { p.Rules[3].Host = "A.example" }, "not a host name in lower case"},
		{"wildcard of a rule", func(p *Program) { p.Rules[3].Host, p.Net, p.HTTP = "*.example", Net{}, HTTP{} }, "need the resolver"},
		{"restricted to a wildcard", func(p *Program) { p.Rules[3].Do[0].Net[0].Target, p.Net, p.HTTP = "*.example", Net{}, HTTP{} }, "need the resolver"},
		{"restricted to no protocol", func(p *Program) { p.Rules[3].Do[0].Net[0].Protocols = 0 }, "destination 0: protocols "},
		{"restricted by a number", func(p *Program) { p.Rules[3].Do[0].Value = 1 }, "a number or a path for destinations"},
		{"destinations for a path", func(p *Program) { p.Rules[1].Do[0].Net = p.Rules[3].Do[0].Net }, "destinations for something else"},
		{"wider processes", func(p *Program) { p.Rules[2].Do[0].Value = 65 }, "a rule can only narrow"},
		{"wider memory", func(p *Program) { p.Limits.Memory = 1 << 20 }, "a rule can only narrow"},
		{"memory without a limit", func(p *Program) { p.Limits.Memory = 0 }, "a rule can only narrow"},
		{"limit of one process", func(p *Program) { p.Rules[2].Scope, p.Rules[2].Do[0].Value = ScopeProcess, 65 }, "can only narrow"},
		{"one process of a control group", func(p *Program) { p.Rules[2].Scope, p.Rules[2].Do = ScopeProcess, p.Rules[2].Do[1:] }, "one limit of memory"},
		{"path in a number", func(p *Program) { p.Rules[2].Do[0].Path = "/a" }, "a path for a number"},
		{"number in a path", func(p *Program) { p.Rules[1].Do[0].Value = 1 }, "a number for a path"},
		{"relative denied path", func(p *Program) { p.Rules[1].Do[0].Path = "a" }, "not absolute"},
		{"rule reason", func(p *Program) { p.Rules[0].Reason = "a\nb" }, "control character"},
		{"rule origin", func(p *Program) { p.Rules[0].Origin = 3 }, "origin 3"},
		{"many rules", func(p *Program) { p.Rules = make([]DynamicRule, MaxRules+1) }, "65 elements"},
		{"in place, rules", func(p *Program) { r := p.Rules[:1]; inPlace(p); p.Rules = r }, "rules need a supervisor"},

		{"in place, processes", func(p *Program) { inPlace(p); p.Limits.Processes = 1 }, "need a supervisor"},
		{"in place, time", func(p *Program) { inPlace(p); p.Limits.TimeMS = 1 }, "need a supervisor"},
		{"in place, entry", func(p *Program) { inPlace(p); p.Seccomp.Filters[1].Table[0].Action = Notify }, "filter for arm64 notifies"},
		{"in place, clause", func(p *Program) { inPlace(p); clause(p).Action = Notify }, "filter for arm64 notifies"},
		{"in place, program", func(p *Program) { inPlace(p); firstFilter(p).Program = sampleFilter(abi.AMD64, 1, bpf.RetUserNotif) }, "filter for amd64 notifies"},
		{"in place, observe", func(p *Program) {
			inPlace(p)
			firstFilter(p).Observe, firstFilter(p).ObserveCalls = sampleFilter(abi.AMD64, 1, bpf.RetUserNotif), []uint32{1}
		}, "filter for amd64 notifies"},

		{"parameter name", func(p *Program) { p.Params[1].Name = "a b" }, "not allowed"},
		{"parameter built in", func(p *Program) { p.Params[1].Name = "home" }, "name is built in"},
		{"parameter twice", func(p *Program) { p.Params[2].Name = "tool" }, "declared twice"},
		{"parameter type", func(p *Program) { p.Params[0].Type = 7 }, "type 7 is unknown"},
		{"pattern", func(p *Program) { p.Params[1].Pattern = "a)|(b" }, "unexpected )"},
		{"long pattern", func(p *Program) { p.Params[1].Pattern = strings.Repeat("a", maxPattern+1) }, "pattern of 4097 bytes"},
		{"default against type", func(p *Program) { p.Params[2].Default = "0" }, "not a port"},
		{"default against pattern", func(p *Program) { p.Params[1].Default = "make install" }, "does not match pattern"},
		{"default without flag", func(p *Program) { p.Params[1].HasDefault = false }, "default value without a default"},
		{"under of a string", func(p *Program) { p.Params[1].Under = []Template{"/"} }, "under is for paths"},
		{"under names a parameter", func(p *Program) { p.Params[0].Under[0] = "${work}" }, `uses "work"`},
		{"under relative", func(p *Program) { p.Params[0].Under[0] = "src" }, "under[0]"},
		{"parameter origin", func(p *Program) { p.Params[0].Origin = 3 }, "origin 3"},

		{"HTTP without ports", func(p *Program) { p.Net.Intercepted = nil }, "no ports are intercepted"},
		{"ports without HTTP", func(p *Program) { p.HTTP = HTTP{} }, "there are no rules"},
		{"settings without HTTP", func(p *Program) { p.HTTP.Allow, p.HTTP.Deny, p.Net.Intercepted = nil, nil, nil }, "a proxy that is not there"},
		{"intercepted ports", func(p *Program) { p.Net.Intercepted = []uint16{443, 80} }, "not ascending"},
		{"in place, HTTP", func(p *Program) { h := p.HTTP; inPlace(p); p.HTTP, p.Net.Intercepted = h, []uint16{80} }, "rules need a supervisor"},
		{"HTTP method", func(p *Program) { p.HTTP.Allow[0].Method = "get" }, `method "get"`},
		{"HTTP host", func(p *Program) { p.HTTP.Allow[0].Host = "A.test" }, "not a host name"},
		{"HTTP address", func(p *Program) { p.HTTP.Allow[2].Host = "2001:DB8::1" }, "canonical form"},
		{"HTTP path", func(p *Program) { p.HTTP.Allow[0].Path = "v1" }, `path "v1"`},
		{"HTTP path that is not clean", func(p *Program) { p.HTTP.Deny[0].Path = "/a/../b" }, "not clean"},
		{"opaque path", func(p *Program) { p.HTTP.Allow[1].Path = "/v1" }, "all of a named host"},
		{"opaque deny", func(p *Program) { p.HTTP.Deny[0] = p.HTTP.Allow[1] }, "only allows"},
		{"HTTP reason", func(p *Program) { p.HTTP.Deny[0].Reason = "a\nb" }, "control character"},
		{"own authority without key", func(p *Program) { p.HTTP.Key = "" }, "authority 1"},
		{"no authority", func(p *Program) { p.HTTP.Authority, p.HTTP.CA, p.HTTP.Key = AuthorityNone, "", "" }, "there is no authority"},
		{"certificate path", func(p *Program) { p.HTTP.CA = "ca.pem" }, "ca: "},
		{"credential order", func(p *Program) { p.HTTP.Credentials[1].Name = "api" }, "not ascending"},
		{"credential descriptor", func(p *Program) { p.HTTP.Credentials[2].Source = "1" }, `descriptor "1"`},
		{"unknown credential", func(p *Program) { p.HTTP.Auth[0].Credential = "x" }, `no credential "x"`},
		{"header of a credential", func(p *Program) { p.HTTP.Auth[0].Scheme, p.HTTP.Auth[0].Name = AuthHeader, "a b" }, `header "a b"`},
		{"credential for opaque", func(p *Program) { p.HTTP.Auth[0].Rule = p.HTTP.Allow[1] }, "opaque"},
		{"credential for every host", func(p *Program) { p.HTTP.Auth[0].Rule.Host = "*" }, "every host"},
		{"user with colon", func(p *Program) { p.HTTP.Auth[1].Name = "a:b" }, `user "a:b"`},
		{"HTTP limits", func(p *Program) { p.HTTP.Limits.Connections = 0 }, "out of bounds"},

		{"view, other start", func(p *Program) { p.Process.Start = StartDirect }, "view: start 1, and namespaces asked for: true"},
		{"no view", func(p *Program) { p.View = View{} }, "start 3, and namespaces asked for: false"},
		{"ids without mapping", func(p *Program) { p.View.MapIDs = false }, "ids without a mapping"},
		{"no such id", func(p *Program) { p.View.UID = 1<<32 - 1 }, "at most 4294967294"},
		{"no mount namespace", func(p *Program) { p.View.Mount = false }, "no mount namespace"},
		{"origin without mounts", func(p *Program) { p.View = View{MapIDs: true, TmpOrigin: 1} }, "no mount namespace"},
		{"proc", func(p *Program) { p.View.Proc = 3 }, "proc 3 is unknown"},
		{"own proc without PID namespace", func(p *Program) { p.View.PID = false }, "and there is none"},
		{"sys without root", func(p *Program) { p.View.Root = "" }, "/sys for another root"},
		{"root of the host", func(p *Program) { p.View.Root = "/" }, "is to replace"},
		{"relative root", func(p *Program) { p.View.Root = "srv" }, "root: path"},
		{"network in a namespace", func(p *Program) { p.View.Net = true }, "without a network"},
		{"mount target", func(p *Program) { p.View.Mounts[0].Target = "/a/../b" }, "mounts: [0]: path"},
		{"mount source", func(p *Program) { p.View.Mounts[0].Source = "" }, "mounts: [0]: path"},
		{"mount over the root", func(p *Program) { p.View.Mounts[1].Target = "/" }, "over the whole root"},
		{"mounts at one path", func(p *Program) { p.View.Mounts[1].Target = "/data" }, `another mount at "/data"`},
		{"mount origin", func(p *Program) { p.View.Mounts[1].Origin = 3 }, "origin 3"},
		{"many mounts", func(p *Program) { p.View.Mounts = make([]ViewMount, maxList+1) }, "65537 elements"},
		{"denied everything", func(p *Program) { p.View.Deny[0].Path = "/" }, "everything is denied"},
		{"denied path", func(p *Program) { p.View.Deny[0].Path = "**/x" }, "not absolute and lexically clean"},
		{"deny origin", func(p *Program) { p.View.Deny[0].Origin = 3 }, "origin 3"},
		{"many denied", func(p *Program) { p.View.Deny = make([]ViewPath, maxList+1) }, "65537 elements"},
		{"protected pattern", func(p *Program) { p.View.Protect[0].Path = "a/../b" }, `has a ".." element`},
		{"protected by a text", func(p *Program) { p.View.Protect[1].Path = "${tool}/x" }, "a parameter that is a path"},
		{"protected beside a path", func(p *Program) { p.View.Protect[1].Path = "${work}x" }, "a parameter that is a path"},
		{"protected by nobody", func(p *Program) { p.View.Protect[1].Path = "**/${nobody}" }, "not declared"},
		{"protected control character", func(p *Program) { p.View.Protect[1].Path = "a\x1b" }, "control character"},
		{"long pattern to protect", func(p *Program) { p.View.Protect[1].Path = strings.Repeat("a", MaxPath+1) }, "at most 4096"},
		{"mask", func(p *Program) { p.View.Masks[0] = "proc" }, "masks: path \"proc\": not absolute"},
		{"mask with a parameter", func(p *Program) { p.View.Masks[0] = "/${work}" }, "not absolute"},
		{"masks unsorted", func(p *Program) { slices.Reverse(p.View.Masks) }, "not ascending"},
		{"read-only root", func(p *Program) { p.View.ReadOnly[0] = "/" }, "not absolute"},
		{"view origin", func(p *Program) { p.View.ProcOrigin = 3 }, "proc: origin 3"},

		{"branch of no kind", func(p *Program) { p.Branch.Kind = BranchNone }, "branch: of no kind"},
		{"disk without a branch", func(p *Program) { p.Branch = Branch{Disk: 1} }, "branch: of no kind"},
		{"branch kind", func(p *Program) { p.Branch.Kind = 3 }, "kind 3 is unknown"},
		{"BranchFS with a storage", func(p *Program) { p.Branch.Kind, p.Branch.Disk = BranchFS, 0 }, "a storage or a bound of ours"},
		{"BranchFS with a bound", func(p *Program) { p.Branch.Kind, p.Branch.Storage = BranchFS, "" }, "a storage or a bound of ours"},
		{"BranchFS, shown elsewhere", func(p *Program) {
			p.Branch.Kind, p.Branch.Storage, p.Branch.Disk, p.Branch.Workdir = BranchFS, "", 0, "/srv"
			p.View.Root, p.View.Dev, p.View.Sys = "", false, false
		}, "leads around the branch"},
		{"branch of nothing", func(p *Program) { p.Branch.Workdir = "" }, "no working directory"},
		{"branch, direct start", func(p *Program) { p.Process.Start, p.View = StartDirect, View{} }, "without a mount and a PID namespace"},
		{"branch without PID namespace", func(p *Program) { p.View.PID, p.View.Proc = false, ProcHost }, "without a mount and a PID namespace"},
		{"branch that may be left out", func(p *Program) { p.View = View{Mount: true, PID: true, Optional: true} }, "may be left out"},
		{"branch on exit", func(p *Program) { p.Branch.OnExit = 0 }, "on_exit: action 0 is unknown"},
		{"branch on error", func(p *Program) { p.Branch.OnError = 4 }, "on_error: action 4 is unknown"},
		{"relative workdir", func(p *Program) { p.Branch.Workdir = "src" }, "branch: path"},
		{"unclean storage", func(p *Program) { p.Branch.Storage = "/var/" }, "branch: path"},
		{"branch of the root", func(p *Program) { p.Branch.Workdir = "/" }, "is the root"},
		{"branch of the kernel's", func(p *Program) { p.Branch.Workdir = "/sys/fs" }, "lies in /sys"},
		{"branch in an empty /tmp", func(p *Program) { p.Branch.Workdir = "/tmp/x" }, "/tmp that is empty"},
		{"branch on a read-only mount", func(p *Program) { p.Branch.Workdir = "/data/x" }, "which is read-only: a commit would change"},
		{"branch on a mount of what is granted", func(p *Program) {
			p.View.Root, p.View.Sys, p.Branch.Workdir, p.Branch.Storage = "", false, "/out/out", "/var/b"
			p.View.Mounts = []ViewMount{{Target: "/out", Source: "${work}"}}
		}, "leads around the branch"},
		{"BranchFS beneath a mount", func(p *Program) {
			p.Branch.Kind, p.Branch.Storage, p.Branch.Disk, p.Branch.Workdir = BranchFS, "", 0, "/out/x"
		}, "covers the working directory"},
		{"mount of the branch's files", func(p *Program) { p.Branch.Workdir, p.View.Root, p.View.Sys = "${home}/out", "", false }, "leads around"},
		{"mount above the branch's files", func(p *Program) { p.View.Mounts[1].Source = "/" }, "leads around"},
		{"storage is the workdir", func(p *Program) { p.Branch.Storage = "${work}/root${work}/src" }, "is the working directory"},
		{"storage is the workdir without a root", func(p *Program) { p.View.Root, p.View.Sys, p.Branch.Storage = "", false, "${work}/src" }, "is the working directory"},
		{"storage in a grant", func(p *Program) { p.View.Root, p.View.Sys, p.Branch.Storage = "", false, "${work}/out/x" }, "which the command may change"},
		{"storage in a mount", func(p *Program) { p.Branch.Storage = "${home}/out/x" }, "is mounted at /out"},
		{"branch origin", func(p *Program) { p.Branch.DiskOrigin = 3 }, "disk: origin 3"},

		{"mechanism", func(p *Program) { p.Mechanisms[0].Reason = "a\nb" }, "control character"},
		{"origin kind", func(p *Program) { p.Origins[0].Kind = 5 }, "kind 5 is unknown"},
		{"origin absolute", func(p *Program) { p.Origins[0].File = "/home/u/p.cue" }, "not a relative path"},
		{"origin file", func(p *Program) { p.Origins[0].File = "a\nb" }, "control character"},
		{"test kind", func(p *Program) { p.Tests[0].Kind = 0 }, "kind 0 is unknown"},
		{"test for", func(p *Program) { p.Tests[0].For = "list" }, `for "list"`},
		{"test for without open", func(p *Program) { p.Tests[1].For = "read" }, "opens nothing"},
		{"test arguments", func(p *Program) { p.Tests[1].Args = make([]uint64, 7) }, "7 arguments"},
		{"test target", func(p *Program) { p.Tests[1].Target = "" }, "target of 0 bytes"},
		{"test origin", func(p *Program) { p.Tests[1].Origin = 3 }, "origin 3"},
	} {
		p := sample()
		tc.spoil(p)
		if err := p.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want ErrInvalid with %q", tc.name, err, tc.want)
		}
	}

	p := sample()
	p.View.Mounts[1] = ViewMount{Target: "/orig", Source: "${work}/root", ReadOnly: true}
	p.Branch.Storage = "/tmp" // another than the command's
	if err := p.Validate(); err != nil {
		t.Errorf("the branch's files read-only elsewhere, and storage in the host's /tmp: got %v, want no error", err)
	}
	p = sample()
	inPlace(p)
	if err := p.Validate(); err != nil {
		t.Errorf("in place without notification: got %v, want no error", err)
	}
}
