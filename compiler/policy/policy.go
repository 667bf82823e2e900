// Package policy is the plain Go tree of a validated policy.
//
// In: compiler/load decodes a CUE value that the embedded schema accepted. Out: compiler/check and compiler/lower read
// it. Every leaf is a [Val], every list a [List] of Vals, so each value knows the line that wrote it; the `policy` tag
// of a field is its name in the language, and the path of a value is the tags joined by dots, with list indices in
// brackets ("network.allow[2]") and map entries by name ("params.workspace.type"). Texts with a grammar of their own
// (network rules, bind ports, sizes, durations, HTTP rules, paths) are already parsed; their parsers are here too.
//
// The package holds no CUE types, reads no files and decides nothing about the kernel. An enumeration is a string
// whose values the schema lists; Set and defaults follow the rules of [Val].
//
// Read next: origin.go (Val, List, Origin), netrule.go, bind.go, httprule.go, path.go, template.go (grammars), walk.go.
package policy

import (
	"net/netip"
	"time"
)

// Policy is a validated policy.
type Policy struct {
	Name        Val[string]       `policy:"name"` // never empty: the file's base name where absent (Set is then false)
	Description Val[string]       `policy:"description"`
	Target      Target            `policy:"target"`
	Protections Protections       `policy:"protections"`
	Params      List[Param]       `policy:"params"`
	Program     Program           `policy:"program"`
	Filesystem  Filesystem        `policy:"filesystem"`
	Network     Network           `policy:"network"`
	HTTP        HTTP              `policy:"http"`
	Syscalls    Syscalls          `policy:"syscalls"`
	Limits      Limits            `policy:"limits"`
	Determinism Determinism       `policy:"determinism"`
	Rules       List[DynamicRule] `policy:"rules"`
	Tests       List[Test]        `policy:"tests"`
}

// Target is what the artifact is compiled for.
type Target struct {
	Arch     List[string] `policy:"arch"`     // "amd64", "arm64"; never empty
	Landlock Val[int]     `policy:"landlock"` // ABI floor, 1 to 11
	Backend  Val[string]  `policy:"backend"`  // "auto", "namespace", "notify"
}

// Protections says for each Landlock protection what to do where the host lacks it: "strict", "degrade" or "off".
type Protections struct {
	FSRefer           Val[string] `policy:"fs_refer"`
	FSTruncate        Val[string] `policy:"fs_truncate"`
	FSIoctlDev        Val[string] `policy:"fs_ioctl_dev"`
	NetTCP            Val[string] `policy:"net_tcp"`
	SignalScope       Val[string] `policy:"signal_scope"`
	AbstractUnixScope Val[string] `policy:"abstract_unix_scope"`
	UnixPath          Val[string] `policy:"unix_path"`
	NetUDP            Val[string] `policy:"net_udp"`
}

// Param is a parameter that is bound when the sandbox starts.
type Param struct {
	Name        string
	Type        Val[string]  `policy:"type"` // "dir", "file", "path", "port", "string", "int"
	Default     Val[string]  `policy:"default"`
	Pattern     Val[string]  `policy:"pattern"` // RE2, compiles
	Under       List[string] `policy:"under"`   // paths
	Description Val[string]  `policy:"description"`
}

// Program is the process that is started.
type Program struct {
	Exec           Val[string]  `policy:"exec"` // path; Set false: no default command
	Args           List[string] `policy:"args"`
	Env            List[EnvVar] `policy:"env"`
	PassEnv        List[string] `policy:"pass_env"` // names, or prefixes ending in "*"
	CleanEnv       Val[bool]    `policy:"clean_env"`
	Cwd            Val[string]  `policy:"cwd"` // path
	UID            Val[uint32]  `policy:"uid"`
	GID            Val[uint32]  `policy:"gid"`
	Capabilities   List[string] `policy:"capabilities"` // names that abi.CapabilityByName knows
	NoCoredump     Val[bool]    `policy:"no_coredump"`
	NoHugePages    Val[bool]    `policy:"no_huge_pages"`
	NoSupervisor   Val[bool]    `policy:"no_supervisor"`
	StrictLifetime Val[string]  `policy:"strict_lifetime"` // "false", "true", "prefer"
}

// EnvVar is one variable of program.env; its value is a template.
type EnvVar struct {
	Name  string
	Value string
}

// String returns the value, as policies write it.
func (e EnvVar) String() string { return e.Value }

// Filesystem is what may be reached, and how changes are kept.
type Filesystem struct {
	Read      List[PathRule]   `policy:"read"`
	Write     List[PathRule]   `policy:"write"`
	Deny      List[PathRule]   `policy:"deny"`
	Rules     List[AccessRule] `policy:"rules"`
	Chroot    Val[string]      `policy:"chroot"` // path
	Mount     List[Mount]      `policy:"mount"`
	Tmp       Val[string]      `policy:"tmp"`       // "host", "private"
	Proc      Val[string]      `policy:"proc"`      // "auto", "host", "private", "none"
	Workdir   Val[string]      `policy:"workdir"`   // path
	Isolation Val[string]      `policy:"isolation"` // "auto", "none", "overlayfs", "branchfs", "notify"
	Storage   Val[string]      `policy:"storage"`   // path
	OnExit    Val[string]      `policy:"on_exit"`   // "commit", "abort", "keep"
	OnError   Val[string]      `policy:"on_error"`  // "abort", "commit", "keep"
	Protect   List[string]     `policy:"protect"`   // globs
}

// PathRule is a path of filesystem.read, write or deny.
type PathRule struct {
	Path     Val[string] `policy:"path"`
	Optional Val[bool]   `policy:"optional"` // a missing path grants nothing instead of stopping the start
}

// AccessRule grants exact Landlock rights beneath a path.
type AccessRule struct {
	Path     Val[string]  `policy:"path"`
	Access   List[string] `policy:"access"` // names that abi.FSRightByName knows; never empty
	Optional Val[bool]    `policy:"optional"`
}

// Mount shows Source at Target.
type Mount struct {
	Target Val[string] `policy:"target"` // path
	Source Val[string] `policy:"source"` // path
	Mode   Val[string] `policy:"mode"`   // "rw", "ro"
}

// Network is what may be reached over sockets.
type Network struct {
	Allow     List[NetRule]    `policy:"allow"`
	Deny      List[NetRule]    `policy:"deny"`       // no host names
	AllowBind List[PortSet]    `policy:"allow_bind"` // an All element is the only kind of element
	DenyBind  List[PortSet]    `policy:"deny_bind"`  // never All
	Unix      UnixSockets      `policy:"unix"`
	PortRemap Val[bool]        `policy:"port_remap"`
	Hosts     List[PinnedHost] `policy:"hosts"`
	Resolve   Val[string]      `policy:"resolve"` // "start", "compile"
	Private   Val[bool]        `policy:"private"`
	Resolver  Val[bool]        `policy:"resolver"`
}

// UnixSockets is network.unix: "granted", "none" or a list of paths.
type UnixSockets struct {
	Mode  Val[string]  `policy:""` // "granted", "none", "paths"
	Paths List[string] `policy:""` // for "paths": sockets at or beneath these, and those beneath write grants
}

// PinnedHost is one name of network.hosts.
type PinnedHost struct {
	Name      string
	Addresses List[netip.Addr] `policy:""` // never empty
}

// HTTP is what the proxy lets through.
type HTTP struct {
	Allow       List[HTTPAllow]  `policy:"allow"`
	Deny        List[HTTPEntry]  `policy:"deny"`
	Ports       List[uint16]     `policy:"ports"` // Set false: the compiler chooses
	CA          Val[string]      `policy:"ca"`    // path
	Key         Val[string]      `policy:"key"`   // path
	InjectCA    List[string]     `policy:"inject_ca"`
	CAOut       Val[string]      `policy:"ca_out"`      // path
	UpstreamCA  Val[string]      `policy:"upstream_ca"` // path
	Credentials List[Credential] `policy:"credentials"`
	Auth        List[HTTPAuth]   `policy:"auth"`
	RedactQuery Val[bool]        `policy:"redact_query"`
	Limits      HTTPLimits       `policy:"limits"`
}

// HTTPEntry is one item of http.deny.
type HTTPEntry struct {
	Rule   Val[HTTPRule] `policy:"rule"`
	Reason Val[string]   `policy:"reason"`
}

// HTTPAllow is one item of http.allow.
type HTTPAllow struct {
	HTTPEntry `policy:""`
	TLS       Val[string] `policy:"tls"` // "intercept", "passthrough"; Set false: "intercept"
}

// Opaque reports whether TLS to the rule's host is not decrypted.
func (a *HTTPAllow) Opaque() bool { return a.TLS.V == "passthrough" }

// Origin is where the first rule about requests was written; nowhere if there is none.
func (h *HTTP) Origin() Origin {
	if rules := h.Rules(); len(rules) > 0 {
		return rules[0].Origin
	}
	return Origin{}
}

// Rules returns what both lists are about, allow first.
func (h *HTTP) Rules() []Val[HTTPRule] {
	var rules []Val[HTTPRule]
	for _, it := range h.Allow.Items {
		rules = append(rules, Val[HTTPRule]{V: it.V.Rule.V, Set: true, Origin: it.Origin})
	}
	for _, it := range h.Deny.Items {
		rules = append(rules, Val[HTTPRule]{V: it.V.Rule.V, Set: true, Origin: it.Origin})
	}
	return rules
}

// On reports whether there are rules about requests.
func (h *HTTP) On() bool { return len(h.Allow.Items)+len(h.Deny.Items) > 0 }

// Reached returns the rules whose hosts must be reached, and must be known to be where they are, for them to mean anything.
// A rule that refuses requests needs no connection, unless everything else passes.
func (h *HTTP) Reached() []Val[HTTPRule] {
	rules := h.Rules()
	if n := len(h.Allow.Items); n > 0 {
		rules = rules[:n]
	}
	for _, it := range h.Auth.Items {
		rules = append(rules, Val[HTTPRule]{V: it.V.Rule.V, Set: true, Origin: it.V.Rule.Origin})
	}
	return rules
}

// Credential is a named secret; the policy holds only where it is read from.
type Credential struct {
	Name   string
	Source Val[string] `policy:"source"` // "env:NAME", "file:/path", "fd:N"
}

// HTTPAuth adds a credential to requests.
type HTTPAuth struct {
	Rule       Val[HTTPRule] `policy:"rule"`
	Credential Val[string]   `policy:"credential"`
	As         Val[string]   `policy:"as"`   // "bearer", "basic:USER", "header:NAME", "query:NAME"
	Mode       Val[string]   `policy:"mode"` // "replace", "add-only"
	Plain      Val[bool]     `policy:"plain"`
}

// HTTPLimits bounds the proxy.
type HTTPLimits struct {
	HeaderBytes Val[uint64]        `policy:"header_bytes"`
	BodyBytes   Val[uint64]        `policy:"body_bytes"` // Set false: unlimited
	Connections Val[uint32]        `policy:"connections"`
	HeaderTime  Val[time.Duration] `policy:"header_time"`
	Idle        Val[time.Duration] `policy:"idle"`
}

// Syscalls widens and narrows the built-in system call policy.
type Syscalls struct {
	ExtraAllow List[string]     `policy:"extra_allow"` // group names
	ExtraDeny  List[string]     `policy:"extra_deny"`  // system call or group names
	Args       List[SyscallArg] `policy:"args"`
	OnDeny     Val[string]      `policy:"on_deny"` // "errno", "kill", "log"
}

// SyscallArg decides a call by one register argument.
type SyscallArg struct {
	Syscall Val[string] `policy:"syscall"`
	Arg     Val[int]    `policy:"arg"` // 0 to 5
	Op      Val[string] `policy:"op"`  // "==", "!=", "<", "<=", ">", ">=", "&"
	Value   Val[uint64] `policy:"value"`
	Then    Val[string] `policy:"then"` // "deny", "allow"
}

// Limits bounds resources. Every field but Processes and MachineFiles is absent (Set false) unless written.
type Limits struct {
	Memory       Val[uint64]        `policy:"memory"` // bytes
	Processes    Val[uint32]        `policy:"processes"`
	OpenFiles    Val[uint32]        `policy:"open_files"`
	CPU          Val[int]           `policy:"cpu"`  // percent of one core, 1 to 100
	Disk         Val[uint64]        `policy:"disk"` // bytes
	Time         Val[time.Duration] `policy:"time"` // whole milliseconds, at least one
	CPUCores     List[uint16]       `policy:"cpu_cores"`
	NumCPUs      Val[uint32]        `policy:"num_cpus"`
	MachineFiles Val[string]        `policy:"machine_files"` // "limited", "host"
	GPUDevices   GPUDevices         `policy:"gpu_devices"`
	Backend      Val[string]        `policy:"backend"` // "supervisor", "cgroup"
}

// GPUDevices is limits.gpu_devices: "all" or indices; Mode.Set is false when no GPU was asked for.
type GPUDevices struct {
	Mode    Val[string]  `policy:""` // "none" (absent), "all", "indices"
	Indices List[uint16] `policy:""` // for "indices"; never empty
}

// Determinism makes runs repeatable.
type Determinism struct {
	RandomSeed        Val[uint64]    `policy:"random_seed"`
	TimeStart         Val[time.Time] `policy:"time_start"` // in UTC
	DeterministicDirs Val[bool]      `policy:"deterministic_dirs"`
	NoRandomizeMemory Val[bool]      `policy:"no_randomize_memory"`
}

// DynamicRule is one element of the rules section.
type DynamicRule struct {
	On     List[string]  `policy:"on"` // never empty
	If     RuleCondition `policy:"if"`
	Then   RuleOutcome   `policy:"then"`
	Do     List[RuleDo]  `policy:"do"`
	Scope  Val[string]   `policy:"scope"` // "sandbox", "process"
	Reason Val[string]   `policy:"reason"`
}

// RuleCondition holds the tests of a dynamic rule; all that are Set must hold.
type RuleCondition struct {
	ArgvContains Val[string] `policy:"argv_contains"`
	Exe          Val[string] `policy:"exe"`  // path
	Host         Val[string] `policy:"host"` // name, address or CIDR
	Port         Val[uint16] `policy:"port"`
	Path         Val[string] `policy:"path"`     // path or glob
	Protocol     Val[string] `policy:"protocol"` // "tcp", "udp", "icmp"
	After        Val[string] `policy:"after"`    // "exec"
	Count        Val[uint32] `policy:"count"`    // from the count-th event on
}

// RuleOutcome is what a dynamic rule decides.
type RuleOutcome struct {
	Action Val[string] `policy:""`      // "allow", "deny", "audit", "kill", "errno"; Set false: only Do applies
	Errno  Val[string] `policy:"errno"` // for "errno": a name that abi.ErrnoByName knows
}

// RuleDo is one change that a dynamic rule makes; exactly one field is Set.
type RuleDo struct {
	RestrictNetwork   List[NetRule] `policy:"restrict_network"`
	RestrictMemory    Val[uint64]   `policy:"restrict_memory"` // bytes
	RestrictProcesses Val[uint32]   `policy:"restrict_processes"`
	DenyPath          Val[string]   `policy:"deny_path"`
}

// Test is one assertion about the policy.
type Test struct {
	Name   Val[string] `policy:"name"`
	Expect Val[string] `policy:"expect"` // "allow", "deny"
	Case   TestCase    `policy:"case"`
}

// TestCase is the event that a test asks about; exactly one of Open, Connect, Bind, HTTP and Syscall is Set.
type TestCase struct {
	Open    Val[string]  `policy:"open"`    // path
	For     Val[string]  `policy:"for"`     // with Open: "read", "write", "execute"
	Connect Val[string]  `policy:"connect"` // network rule text of one address and port, such as "tcp://10.0.0.1:80"
	Bind    Val[string]  `policy:"bind"`    // port, or address and port
	HTTP    Val[string]  `policy:"http"`    // "METHOD host/path"
	Syscall Val[string]  `policy:"syscall"`
	Args    List[uint64] `policy:"args"` // with Syscall: up to six
}
