package rules

import (
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Lists of several rules intersect, bind who has met the rule, and say nothing of what is bound.
func TestNetwork(t *testing.T) {
	list := func(rules ...ir.NetRule) []*query.Network {
		n := &ir.Net{Destinations: ir.DestinationsAllowed, Rules: rules}
		return []*query.Network{query.NewNetwork(n, func(string) []netip.Addr { return nil }, nil)}
	}
	block := ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "10.0.0.0/8"}
	ports := ir.NetRule{Protocols: ir.TCP | ir.UDP, Kind: ir.TargetAny, Ports: []ir.NetPort{{Lo: 80, Hi: 90}}}
	var journal notes
	rules := []ir.DynamicRule{
		{On: ir.EventExec, Do: []ir.Change{{Kind: ir.ChangeNetwork}}, Scope: ir.ScopeSandbox, Reason: "block only"},
		{On: ir.EventConnect, Port: 1, Do: []ir.Change{{Kind: ir.ChangeNetwork}}, Scope: ir.ScopeSandbox},
		{On: ir.EventNetwork, Port: 2, Then: ir.Outcome{Kind: ir.OutcomeKill}, Scope: ir.ScopeSandbox},
	}
	h := &Handler{
		policy: Policy{
			Rules: rules, Held: ir.EventNetwork, Audited: true, Networks: [][]*query.Network{list(block), list(ports), nil},
			Name: func(int) string { return "rule" }, Where: func(int) string { return "" },
		},
		journal: &journal, state: newState(os.Getpid(), nil),
	}
	self := &supervise.Process{PID: os.Getpid()}
	c := supervise.NewCall(os.Getpid(), 0, [6]uint64{}, &supervisetest.Memory{})
	ask := func(event ir.Events, protocol ir.Protocols, to string) ir.Outcome {
		w := &held{call: c, spec: call{name: "call", event: event}, process: self, who: h.state.of(self)}
		w.facts = query.Held{Kind: event, Protocol: protocol, To: netip.MustParseAddrPort(to)}
		return h.network(w)
	}
	allow, refused := ir.Outcome{Kind: ir.OutcomeAllow}, errnoOutcome(unix.ECONNREFUSED)
	step := func(name string, event ir.Events, protocol ir.Protocols, to string, want ir.Outcome) {
		t.Helper()
		if got := ask(event, protocol, to); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	step("at first", ir.EventConnect, ir.TCP, "192.0.2.1:80", allow)
	h.state.apply(h.state.of(self), 0, ir.ScopeSandbox)
	step("outside of the block", ir.EventConnect, ir.TCP, "192.0.2.1:80", refused)
	step("another protocol", ir.EventSend, ir.UDP, "10.0.0.1:80", refused)
	step("inside", ir.EventConnect, ir.TCP, "10.0.0.1:443", allow)
	step("bound", ir.EventBind, ir.TCP, "192.0.2.1:80", allow)
	step("the event that narrows", ir.EventConnect, ir.TCP, "10.0.0.1:1", refused)
	step("another port", ir.EventConnect, ir.TCP, "10.0.0.1:443", refused)
	step("in both lists", ir.EventConnect, ir.TCP, "10.0.0.1:80", allow)
	step("killed", ir.EventSend, ir.UDP, "10.0.0.1:2", ir.Outcome{Kind: ir.OutcomeKill})
	step("killed for what it binds", ir.EventBind, ir.UDP, "0.0.0.0:2", ir.Outcome{Kind: ir.OutcomeKill})
	h.policy.Held = ir.EventConnect
	if got := h.Network(c, "bind", ir.EventBind, ir.UDP, netip.MustParseAddrPort("0.0.0.0:2")); got != (ir.Outcome{}) {
		t.Errorf("not held: %v", got)
	}
	if e := journal[1]; e.Kind != "denied" || e.Address != "tcp 192.0.2.1:80" || e.Verdict != "ECONNREFUSED" || e.Reason != "block only" || e.Rule != "rule" {
		t.Errorf("journal %+v", e)
	}
	if e := journal[5]; e.Reason != "a rule has narrowed the network, and left this destination out" {
		t.Errorf("journal %+v", e)
	}
	if len(journal) != 10 {
		t.Errorf("%d lines in the journal, want 10", len(journal))
	}
}
