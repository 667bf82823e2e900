package ir

import "github.com/sandlock-go/sandlock/ir/abi"

// Template is text in which ${name} stands for a parameter that is bound when the sandbox starts: one of
// [Program.Params] or a built-in (cwd, home, tmp, uid). "$" followed by anything but "{" is literal.
type Template = string

// Start says how the executor starts the command.
type Start uint8

// Ways to start.
const (
	StartDirect     Start = 1 // supervised: raw clone, confine, execve
	StartInPlace    Start = 2 // no_supervisor: the executor confines itself and becomes the command
	StartNamespaced Start = 3 // as StartDirect, in the namespaces of [View]
)

// Process is the state that the command starts with.
type Process struct {
	Start             Start      `cbor:"1,keyasint"`
	Exec              Template   `cbor:"2,keyasint,omitempty"` // command when none is given; "" = none
	Args              []Template `cbor:"3,keyasint,omitempty"`
	Env               []EnvVar   `cbor:"4,keyasint,omitempty"` // set last; sorted by name
	CleanEnv          bool       `cbor:"5,keyasint,omitempty"` // inherit nothing but PassEnv
	PassEnv           []string   `cbor:"6,keyasint,omitempty"` // names, or prefixes ending in "*"; sorted
	Cwd               Template   `cbor:"7,keyasint,omitempty"` // "" = inherit
	Capabilities      []uint8    `cbor:"8,keyasint,omitempty"` // capability numbers kept; sorted
	NoCoredump        bool       `cbor:"9,keyasint,omitempty"`
	NoHugePages       bool       `cbor:"10,keyasint,omitempty"`
	NoRandomizeMemory bool       `cbor:"11,keyasint,omitempty"`
}

// EnvVar is one environment variable that the policy sets.
type EnvVar struct {
	_      struct{} `cbor:",toarray"`
	Name   string
	Value  Template
	Origin OriginRef
}

// Limits bounds what the sandbox may use. Zero means no limit.
type Limits struct {
	Processes uint32   `cbor:"1,keyasint,omitempty"` // live processes (thread groups), the command itself included
	OpenFiles uint32   `cbor:"2,keyasint,omitempty"` // RLIMIT_NOFILE, soft and hard
	TimeMS    uint64   `cbor:"3,keyasint,omitempty"` // wall clock, milliseconds
	CPUCores  []uint16 `cbor:"4,keyasint,omitempty"` // CPU affinity; sorted
	GPU       GPU      `cbor:"5,keyasint,omitempty"`

	ProcessesOrigin OriginRef `cbor:"6,keyasint,omitempty"`
	TimeOrigin      OriginRef `cbor:"7,keyasint,omitempty"`

	Memory       uint64    `cbor:"8,keyasint,omitempty"`  // bytes, of all processes together
	CPUPercent   uint8     `cbor:"9,keyasint,omitempty"`  // of one core, 1 to 99
	CPUCount     uint32    `cbor:"10,keyasint,omitempty"` // how many CPUs programs are told of
	MemoryOrigin OriginRef `cbor:"11,keyasint,omitempty"`
	CPUOrigin    OriginRef `cbor:"12,keyasint,omitempty"`

	MachineFiles bool         `cbor:"13,keyasint,omitempty"` // files such as /proc/meminfo show Memory and CPUCount
	Backend      LimitBackend `cbor:"14,keyasint,omitempty"`
}

// LimitBackend says what enforces limits of memory and CPU time.
type LimitBackend uint8

// Backends.
const (
	BackendSupervisor LimitBackend = 0
	BackendCgroup     LimitBackend = 1 // a control group of its own
)

// Determinism makes runs repeatable: what programs are told instead of the truth. It is no security boundary.
type Determinism struct {
	Random     bool   `cbor:"1,keyasint,omitempty"` // randomness comes from Seed
	Seed       uint64 `cbor:"2,keyasint,omitempty"`
	ShiftTime  bool   `cbor:"3,keyasint,omitempty"` // the wall clock starts at TimeStart
	TimeStart  uint64 `cbor:"4,keyasint,omitempty"` // seconds since 1970, in two's complement
	SortedDirs bool   `cbor:"5,keyasint,omitempty"` // directories are listed in the order of their entries' bytes

	RandomOrigin OriginRef `cbor:"6,keyasint,omitempty"`
	TimeOrigin   OriginRef `cbor:"7,keyasint,omitempty"`
	DirsOrigin   OriginRef `cbor:"8,keyasint,omitempty"`
}

// GPU selects the graphics devices; what it grants is lowered to Landlock path rules and environment variables.
type GPU struct {
	_       struct{} `cbor:",toarray"`
	Mode    GPUMode
	Devices []uint16 // for GPUIndices; sorted
}

// GPUMode is the kind of GPU selection.
type GPUMode uint8

// Kinds of GPU selection.
const (
	GPUNone    GPUMode = 0
	GPUAll     GPUMode = 1
	GPUIndices GPUMode = 2
)

// Landlock is one ruleset (Documentation/userspace-api/landlock.rst).
type Landlock struct {
	Handled Rights     `cbor:"1,keyasint"`
	Degrade Rights     `cbor:"2,keyasint"` // subset of Handled that may be dropped where the host's ABI lacks it
	Paths   []PathRule `cbor:"3,keyasint,omitempty"`
	Ports   []PortRule `cbor:"4,keyasint,omitempty"`
}

// Rights is a set of Landlock access rights; bits as in linux/landlock.h, names in ir/abi.
type Rights struct {
	_      struct{} `cbor:",toarray"`
	FS     uint64
	Net    uint64
	Scoped uint64
}

// PathRule grants Access beneath Path. Where Path turns out not to be a directory, the executor grants
// Access & abi.FSFileMask (the kernel refuses directory rights on files).
type PathRule struct {
	_      struct{} `cbor:",toarray"`
	Path   Template // absolute, lexically clean; symbolic links are followed when the sandbox starts
	Access uint64   // subset of Handled.FS
	Kind   PathKind
	Origin OriginRef
}

// PathKind says what to do about a path that is not there.
type PathKind uint8

// Kinds of path rule.
const (
	PathRequired PathKind = 1 // a missing path stops the start
	PathOptional PathKind = 2 // a missing path grants nothing
	PathNumbered PathKind = 3 // Path followed by decimal digits, each one that exists (device nodes)
)

// PortRule grants Access (bind or connect, TCP) on one port, or on the value of a parameter of type port.
type PortRule struct {
	_      struct{} `cbor:",toarray"`
	Access uint64   // subset of Handled.Net
	Port   uint16   // 0 with bind: an ephemeral port
	Param  string   // when not empty: name of the parameter, and Port is 0
	Origin OriginRef
}

// Seccomp holds the filter of each architecture.
type Seccomp struct {
	LogDenied bool         `cbor:"1,keyasint,omitempty"` // SECCOMP_FILTER_FLAG_LOG
	Filters   []ArchFilter `cbor:"2,keyasint"`           // sorted by Arch
}

// ArchFilter is the seccomp filter for one architecture: the decision table and the programs that it was
// compiled to.
type ArchFilter struct {
	Arch abi.Arch `cbor:"1,keyasint"`
	// Table covers every system call number: entry i holds for numbers from First up to the next entry's First.
	// The first entry has First 0. It is what reviewers read and ir/query evaluates; Program is proven equal to it.
	Table []SyscallEntry `cbor:"2,keyasint"`
	// Program is the classic BPF program: 8 bytes an instruction (struct sock_filter), little-endian.
	Program []byte `cbor:"3,keyasint"`
	// Observe is a variant that also notifies the calls of ObserveCalls where Program allows them. The executor
	// installs it for --explain-denials; it allows nothing that Program does not.
	Observe      []byte   `cbor:"4,keyasint,omitempty"`
	ObserveCalls []uint32 `cbor:"5,keyasint,omitempty"` // sorted
}

// SyscallEntry is the decision for a range of system call numbers. Clauses are tried in order, the first whose
// conditions all hold decides; otherwise Action does.
type SyscallEntry struct {
	_       struct{} `cbor:",toarray"`
	First   uint32
	Clauses []Clause
	Action  Action
	Reason  string // why: "default deny", "extra_deny", "limits.processes", "unknown", …; "" for a plain allow
	Origin  OriginRef
}

// Clause is a conjunction of conditions on the register arguments.
type Clause struct {
	_      struct{} `cbor:",toarray"`
	Conds  []Cond
	Action Action
	Reason string
	Origin OriginRef
}

// Cond compares one register argument: (arg & Mask) Op Value, unsigned, on all 64 bits. A kernel interface that
// takes only the low 32 bits is written with Mask 0xffffffff.
type Cond struct {
	_     struct{} `cbor:",toarray"`
	Arg   uint8    // 0 to 5
	Op    Op
	Mask  uint64
	Value uint64
}

// Op is a comparison.
type Op uint8

// Comparisons. OpSet holds when (arg & Mask & Value) is not zero.
const (
	OpEq  Op = 1
	OpNe  Op = 2
	OpLt  Op = 3
	OpLe  Op = 4
	OpGt  Op = 5
	OpGe  Op = 6
	OpSet Op = 7
)

// Action is the outcome for a system call.
type Action struct {
	_     struct{} `cbor:",toarray"`
	Kind  ActionKind
	Errno uint16 // for ActErrno
}

// ActionKind is the kind of outcome.
type ActionKind uint8

// Kinds of outcome, and the seccomp return action behind each.
const (
	ActAllow  ActionKind = 1 // SECCOMP_RET_ALLOW
	ActErrno  ActionKind = 2 // SECCOMP_RET_ERRNO
	ActNotify ActionKind = 3 // SECCOMP_RET_USER_NOTIF
	ActKill   ActionKind = 4 // SECCOMP_RET_KILL_PROCESS
)

// Common outcomes.
var (
	Allow  = Action{Kind: ActAllow}
	Notify = Action{Kind: ActNotify}
	Kill   = Action{Kind: ActKill}
)

// Errno is the outcome "fail with errno e".
func Errno(e abi.Errno) Action { return Action{Kind: ActErrno, Errno: uint16(e)} }

// Param is a declared parameter.
type Param struct {
	_           struct{} `cbor:",toarray"`
	Name        string
	Type        ParamType
	HasDefault  bool
	Default     string
	Pattern     string     // RE2 that the whole value must match; "" = any
	Under       []Template // for path types: the value must lie beneath one of these after resolving links
	Description string
	Origin      OriginRef
}

// ParamType is the type of a parameter's value.
type ParamType uint8

// Types of parameter.
const (
	ParamDir    ParamType = 1 // an existing directory
	ParamFile   ParamType = 2 // an existing file that is not a directory
	ParamPath   ParamType = 3 // an absolute path, existing or not
	ParamPort   ParamType = 4 // 1 to 65535
	ParamString ParamType = 5 // no "/" and no NUL
	ParamInt    ParamType = 6 // decimal integer
)

// Test is one assertion of the policy's `tests` section.
type Test struct {
	_      struct{} `cbor:",toarray"`
	Name   string
	Allow  bool // expected verdict
	Kind   TestKind
	Target string   // path, address ("tcp 127.0.0.1:80"), system call name, or request ("GET example.com/path")
	For    string   // for TestOpen: "read", "write" or "execute"
	Args   []uint64 // for TestSyscall
	Origin OriginRef
}

// TestKind is the kind of event that a test asks about.
type TestKind uint8

// Kinds of test event.
const (
	TestOpen    TestKind = 1
	TestConnect TestKind = 2
	TestBind    TestKind = 3
	TestSyscall TestKind = 4
	TestHTTP    TestKind = 5
)
