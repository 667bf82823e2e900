// Package seccomp decides which system calls a sandbox may make, and compiles that decision to a seccomp filter.
//
// In: a [Request], the part of a validated policy that bears on system calls, in plain words. Out, for one
// architecture: the decision table ([Table]), which covers every number and is what reviewers read; its variant for
// --explain-denials ([ObserveTable]); and the BPF program of either ([Assemble]), verified by ir/bpf and proven equal
// to its table in tests (seccomptest). The package knows neither CUE nor the policy tree, installs nothing, and does
// not depend on the machine it runs on. It must never let a call through because it does not know it: unknown
// numbers fail with ENOSYS.
//
// To add a rule about system calls: a call that is always refused goes to denylist.go, a condition on its arguments
// to gates.go (sockets: socket.go), a call that a feature hands to the supervisor comes as a [Trap] from the feature's
// lowering pass.
//
// Read next: table.go (how rules combine), assemble.go (search tree), condition.go (64-bit compares), labels.go
// (jumps).
package seccomp

import (
	"fmt"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Request is what a policy asks of the filter.
type Request struct {
	// NoSupervisor selects the filter without notification. It denies less, so that a sandbox can be started inside.
	NoSupervisor bool

	// ProcessLimit hands each new process to the supervisor, which counts them.
	ProcessLimit  bool
	ProcessOrigin ir.OriginRef

	// HoldForks hands each new process to the supervisor for a rule, HoldCalls tells that rules hold other calls.
	HoldForks, HoldCalls bool
	HoldOrigin           ir.OriginRef

	// WriteGrants tells that some path may be written: then metadata changes are done by the supervisor.
	WriteGrants bool

	// BranchFS refuses the requests that settle its branches, which are the supervisor's to make.
	BranchFS       bool
	BranchFSOrigin ir.OriginRef

	AllowGroups []Named // groups to lift, see Groups
	Deny        []Named // calls and groups to deny
	Args        []ArgRule
	OnDeny      OnDeny

	UDP, ICMP   bool // datagram and ping sockets can be created; what they reach is decided elsewhere
	UnixSockets bool // AF_UNIX sockets can be created; what they reach is decided elsewhere
	// Destinations tells that the supervisor decides where sockets connect and send to: packets must go there directly.
	Destinations bool
	// UsesNetwork tells that the policy grants something of the network: then netlink sockets also tell their own names, which
	// takes a notification of every getsockname.
	UsesNetwork bool
	BindPorts   BindPorts
	BindOrigin  ir.OriginRef

	Traps []Trap
}

// Named is a system call or group that the policy names.
type Named struct {
	Name   string
	Origin ir.OriginRef
	Reason string // why a feature denies the call; "" = the policy names it in syscalls.extra_deny
}

// OnDeny is what happens to a call that the policy denies. Answers that programs take as "not available here"
// (ENOSYS, EAFNOSUPPORT, EPROTONOSUPPORT, EOPNOTSUPP) are no denials and stay errors.
type OnDeny uint8

// Reactions to a denied call.
const (
	OnDenyErrno OnDeny = 0
	OnDenyKill  OnDeny = 1
)

// BindPorts says which TCP ports may be listened on.
type BindPorts uint8

// Kinds of bind grant.
const (
	BindNone   BindPorts = 0
	BindListed BindPorts = 1
	BindAny    BindPorts = 2
)

// ArgRule narrows a system call by one argument. Where a call has rules that allow, one of them must match; a rule
// that denies and matches always wins. No rule lifts a denial that the filter makes anyway.
type ArgRule struct {
	Syscall string
	Arg     uint8
	Op      ir.Op
	Value   uint64
	Mask    uint64    // 0 means all bits
	And     []ir.Cond // further conditions of a rule that denies; all must hold
	Then    Then
	Origin  ir.OriginRef
	Reason  string // why a feature denies; "" = the policy says so in syscalls.args
}

// Then is the effect of an [ArgRule].
type Then uint8

// Effects of an argument rule.
const (
	ThenDeny  Then = 1
	ThenAllow Then = 2
)

// Trap hands system calls to the supervisor for a feature. A trap changes allowed calls only: what is denied, by
// default or by the policy, stays denied.
type Trap struct {
	Arch   abi.Arch // 0: every architecture
	Names  []string // calls; one that the architecture does not have is skipped
	Reason string
	Origin ir.OriginRef
	// Clauses settle calls whose registers already decide, such as sendto without an address; they are tried before
	// the trap.
	Clauses []ir.Clause
}

// RequestError is a rule of a request that cannot be honoured. [Table] returns all of them, joined.
type RequestError struct {
	Name    string // system call or group
	Origin  ir.OriginRef
	Message string
}

func (e *RequestError) Error() string {
	return fmt.Sprintf("system call rule %q: %s", e.Name, e.Message)
}
