package rules

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Network decides about an address that a call on a socket names, for the handler that carries the call out: that has read
// the address, and asks before the call has any effect. What is not refused is still the static policy's to decide.
func (h *Handler) Network(c *supervise.Call, syscall string, event ir.Events, protocol ir.Protocols, to netip.AddrPort) ir.Outcome {
	if h.policy.Held&event == 0 {
		return ir.Outcome{}
	}
	p, err := h.index.Of(c.TID)
	if err != nil {
		return errnoOutcome(unix.EPERM)
	}
	w := &held{call: c, spec: call{name: syscall, event: event}, process: p, who: h.state.of(p)}
	w.facts = query.Held{Kind: event, AfterExec: h.executions > 1, Protocol: protocol, To: to, Names: h.policy.Names}
	return h.network(w)
}

func (h *Handler) network(w *held) ir.Outcome {
	h.callersProgram(w)
	if !w.call.Valid() {
		return errnoOutcome(unix.ESRCH)
	}
	d := h.decide(w)
	if !d.refuses() {
		h.refuseRestricted(w, &d)
	}
	return h.conclude(w, d).outcome
}

// refuseRestricted refuses destinations that a rule has left out when it narrowed the network for the caller.
func (h *Handler) refuseRestricted(w *held, d *decision) {
	if w.facts.Kind == ir.EventBind {
		return // the lists are of destinations
	}
	applied := h.state.applied(w.who)
	for rule, lists := range h.policy.Networks {
		if applied>>rule&1 == 0 {
			continue
		}
		for _, list := range lists {
			if !list.Leaves(w.facts.Protocol, w.facts.To, h.policy.Names) {
				d.outcome, d.rule, d.restricted = errnoOutcome(unix.ECONNREFUSED), rule, true
				return
			}
		}
	}
}

// address writes the address that a call names, "" where it names none.
func (w *held) address() string {
	if !w.facts.To.IsValid() {
		return ""
	}
	return w.facts.Protocol.String() + " " + w.facts.To.String()
}
