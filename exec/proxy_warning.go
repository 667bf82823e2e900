package exec

import (
	"fmt"
	"os"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// warn says, once, that a credential is sent unencrypted, which the policy allows: to whoever started sandlock-exec, and in the
// audit stream. What the helper says of names is less trusted than what stands in the policy.
func (p *proxy) warn(m *protocol.Plain) {
	if p.warned {
		return
	}
	p.warned = true
	e := supervise.Event{Kind: "warning", Reason: "credential " + m.Credential + " is sent unencrypted to " + m.Authority}
	for i := range p.s.program.HTTP.Auth {
		if a := &p.s.program.HTTP.Auth[i]; a.Plain && a.Credential == m.Credential {
			e.Rule, e.Origin = rulePath(p.s.program, a.Origin), where(p.s.program, a.Origin)
			break
		}
	}
	p.journal.Record(e)
	if p.s.shared {
		return
	}
	text := "warning: " + e.Reason
	if e.Origin != "" {
		text += " (" + e.Origin + ": plain)"
	}
	go fmt.Fprintln(os.Stderr, "sandlock-exec: "+printable(text)) // nobody need be reading it
}
