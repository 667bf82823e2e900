// Package network decides where a sandbox connects and sends to, and does so in its place.
//
// It answers connect, sendto, sendmsg and sendmmsg. An address lies in the caller's memory, where another thread can change
// it after it was looked at, and so can what a descriptor means. So each call is carried out here: the address is copied
// once, the socket duplicated once, the copy decided on by ir/query, and the duplicate connected or sent on. Nothing is
// continued. The sandbox itself may not connect anywhere (Landlock).
//
// Nothing blocks the loop: whatever would wait, waits for its descriptor (supervise.WaitFD), and an alarm ends a system call
// that a caller has made block by changing its socket at the same time.
//
// What is sent here is sent by the executor. Peers on unix sockets that ask for credentials (SCM_CREDENTIALS, SO_PEERCRED) are
// told its pid, and the uid and gid that it and the sandbox have; a program cannot send other ones.
//
// Read next: exec/socket (what the caller wrote, and what it wrote it to), connect.go, send.go, message.go (what
// messages are made of), transfer.go (how they are sent), known.go, unix.go, redirect.go, intercept.go.
package network

import (
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Policy is what the handler asks; the executor answers from ir/query.
type Policy struct {
	// Decide says whether a destination may be reached. It is asked for every call and must not allocate.
	Decide func(protocol ir.Protocols, to netip.AddrPort) bool
	// Held has the dynamic rules look at a call before it has any effect; nil where there are none. What does not narrow is
	// for Decide to decide.
	Held func(c *supervise.Call, syscall string, event ir.Events, protocol ir.Protocols, to netip.AddrPort) ir.Outcome
	// Explain says the same in words, for what Decide has refused.
	Explain func(protocol ir.Protocols, to netip.AddrPort) query.Ruling
	// Refusal is what calls with a refused destination fail with.
	Refusal unix.Errno
	// Redirect leads some destinations elsewhere, whatever Decide says; nil: none.
	Redirect *Redirect
	// Intercept leads some connections elsewhere that Decide allows; nil: none.
	Intercept *Intercept
	// Unix says whether the unix socket at a path may be reached. nil: none may.
	Unix func(path string) query.Ruling
	// Translate returns where an allowed destination really is, if that is another port of the own host. nil: nowhere else.
	Translate func(protocol ir.Protocols, to netip.AddrPort) (netip.AddrPort, bool)
	// Describe names the rule of a ruling and its place in the policy.
	Describe func(query.Ruling) (rule, origin string)
	// Root is where the command's paths begin.
	Root kernel.Root
}

// Handler carries out the calls of one sandbox.
type Handler struct {
	policy  Policy
	journal supervise.Journal
	calls   map[abi.Sysno]call
	alarm   *kernel.Alarm // of the loop's thread
	refusal unix.Errno    // what a rule has refused last is refused with
	kill    bool          // a rule has the caller killed
	known
	outbox
}

// call is how one system call is answered.
type call struct {
	name   string
	handle func(*Handler, *supervise.Call) supervise.Verdict
}

var calls = map[string]func(*Handler, *supervise.Call) supervise.Verdict{
	"connect":  (*Handler).connect,
	"sendto":   (*Handler).sendto,
	"sendmsg":  (*Handler).sendmsg,
	"sendmmsg": (*Handler).sendmmsg,
}

// New makes the handler. It must be called on the thread of the loop.
func New(arch abi.Arch, p Policy, j supervise.Journal) (*Handler, error) {
	alarm, err := kernel.NewAlarm()
	if err != nil {
		return nil, err
	}
	h := &Handler{policy: p, journal: j, alarm: alarm, calls: map[abi.Sysno]call{}}
	h.discard = h.closer.Close
	for name, handle := range calls {
		if nr, ok := abi.SyscallNumber(arch, name); ok {
			h.calls[nr] = call{name, handle}
		}
	}
	return h, nil
}

// Name is the concern.
func (h *Handler) Name() string { return "network" }

// Syscalls lists the calls that name a destination.
func (h *Handler) Syscalls() []abi.Sysno {
	return slices.Collect(maps.Keys(h.calls))
}

// Close releases what the handler holds.
func (h *Handler) Close() {
	h.alarm.Close()
	h.known.close()
}

// Handle carries a call out, or refuses it.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	return h.unlessKilled(func() supervise.Verdict { return h.calls[c.Nr].handle(h, c) })
}

// unlessKilled has the caller killed if a rule said so while its call was carried out.
func (h *Handler) unlessKilled(f func() supervise.Verdict) supervise.Verdict {
	h.kill = false
	if v := f(); !h.kill {
		return v
	}
	return supervise.Kill()
}

// lead decides about a destination, and has to, its address, lead where it really is; redirected is true where that is a
// process of ours, whatever rules say. The error is what the call fails with.
func (h *Handler) lead(c *supervise.Call, s *socket.Socket, to *socket.Address, destination netip.AddrPort) (redirected bool, err error) {
	protocol := s.Transport()
	if h.refusedByRule(c, protocol, destination) {
		return false, h.refusal
	}
	instead, ok, err := h.instead(c, s, destination)
	if ok {
		*to = instead
		return true, err
	}
	if !h.allowed(c, protocol, destination) {
		return false, h.policy.Refusal
	}
	h.translate(protocol, to, destination)
	to.Specify()
	return false, nil
}

// allowed asks the policy about a destination, and records a refusal.
func (h *Handler) allowed(c *supervise.Call, protocol ir.Protocols, to netip.AddrPort) bool {
	if h.policy.Decide(protocol, to) {
		return true
	}
	r := h.policy.Explain(protocol, to)
	rule, origin := h.policy.Describe(r)
	h.journal.Record(supervise.Event{
		Kind: "denied", PID: c.TID, Syscall: h.calls[c.Nr].name, Address: protocol.String() + " " + to.String(),
		Verdict: unix.ErrnoName(h.policy.Refusal), Reason: r.Reason, Rule: rule, Origin: origin,
	})
	return false
}

// translate has an address that was decided about lead to the port that it really means.
func (h *Handler) translate(protocol ir.Protocols, to *socket.Address, destination netip.AddrPort) {
	if h.policy.Translate == nil {
		return
	}
	if real, ok := h.policy.Translate(protocol, destination); ok {
		to.SetPort(real.Port())
	}
}

// refusedByRule has the dynamic rules look at the call. They record what they decide themselves.
func (h *Handler) refusedByRule(c *supervise.Call, protocol ir.Protocols, to netip.AddrPort) bool {
	if h.policy.Held == nil {
		return false
	}
	name, event := h.calls[c.Nr].name, ir.EventSend
	if name == "connect" {
		event = ir.EventConnect
	}
	o := h.policy.Held(c, name, event, protocol, to)
	h.refusal, h.kill = unix.Errno(o.Errno), o.Kind == ir.OutcomeKill
	if h.kill {
		h.refusal = unix.EPERM
	}
	return o.Narrows()
}

// refuse records why a call fails that no rule decides about.
func (h *Handler) refuse(c *supervise.Call, address string, e unix.Errno, reason string) supervise.Verdict {
	h.journal.Record(supervise.Event{
		Kind: "denied", PID: c.TID, Syscall: h.calls[c.Nr].name, Address: address, Verdict: unix.ErrnoName(e), Reason: reason,
	})
	return supervise.Errno(e)
}
