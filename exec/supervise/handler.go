// Package supervise answers the system calls that a sandbox's filter notifies.
//
// In: a listener, a table of handlers, a [Journal] for denials. Out: exactly one answer to each notification. It holds
// no policy: handlers ask ir/query. It runs on one thread, the one that cloned the command: that thread alone is in
// an ancestor of the command's Landlock domain, so the kernel lets it, and no other thread of the executor, read the
// command's memory.
//
// To add a handler: 1. package exec/handler/<noun> with a type that implements [Handler]; 2. its calls as a Trap in
// compiler/lower, so that the filter notifies them; 3. a line in exec/wire.go; 4. tests with a fake [Call]; 5. an
// acceptance test with the real kernel.
//
// Read next: call.go (arguments and guest memory), verdict.go, dispatch.go, loop.go.
package supervise

import "github.com/sandlock-go/sandlock/ir/abi"

// Handler answers one concern's notifications. It may keep state and needs no locks: calls come one at a time. It
// must not block on anything that a guest controls.
type Handler interface {
	// Name is the concern, for the audit stream.
	Name() string
	// Syscalls lists the numbers that it answers on this architecture. Start refuses a handler whose calls the
	// filter does not notify.
	Syscalls() []abi.Sysno
	// Handle decides. A program can have calls notified beyond the policy (exec.Cmd.Handle): a handler leaves to Next what
	// the filter would not have handed to it. Next hands the call to the following handler; a call that nobody takes is refused.
	Handle(c *Call) Verdict
}

// Journal receives what the supervisor denies or wants noted. It is used by the loop and by deferred calls, at the same
// time.
type Journal interface {
	Record(Event)
}

// Event is one denied or notable call.
type Event struct {
	Kind    string // "denied", "observed", "limit", "error"
	PID     int    // thread id of the caller
	Parent  int    // process id of its parent, where it is known
	Command string // the caller's argv[0]; the journal fills it in
	Syscall string
	Path    string // what the call named, if a path
	Path2   string // the second path of a call that names two
	Argv    []string
	Address string // what the call named, if a network address
	Verdict string // "EPERM", "allowed", …
	Reason  string
	Rule    string // policy path of the deciding or closest rule
	Origin  string // file:line:col of that rule
	Closest bool   // the rule did not decide: none grants it, and this one comes closest, which Reason does not say
	HTTP    *HTTP  // of a request
}

// HTTP is a request of the sandbox that the proxy has answered or passed on. PID is then who made its connection; who used
// it is not known.
type HTTP struct {
	Protocol   string `json:"protocol,omitempty"` // "http/1.0", "http/1.1", "h2"; "tls" for what was not decrypted
	Method     string `json:"method,omitempty"`
	Authority  string `json:"authority,omitempty"`
	Path       string `json:"path,omitempty"`       // with the query, unless http.redact_query
	Status     uint16 `json:"status,omitempty"`     // of the answer
	Credential string `json:"credential,omitempty"` // that was added, by its name
	Received   uint64 `json:"bytes_received"`       // of the request's body
	Sent       uint64 `json:"bytes_sent"`           // of the answer's body
	Upstream   string `json:"upstream,omitempty"`   // that the request went to
	Micros     uint64 `json:"duration_us"`
}

// String is what was asked for.
func (h *HTTP) String() string {
	if h.Method == "" {
		return h.Protocol + " " + h.Authority
	}
	return "http " + h.Method + " " + h.Authority + h.Path
}
