package exec

import (
	"errors"
	"fmt"

	"github.com/sandlock-go/sandlock/exec/handler/listen"
	"github.com/sandlock-go/sandlock/exec/handler/metadata"
	"github.com/sandlock-go/sandlock/exec/handler/ports"
	"github.com/sandlock-go/sandlock/exec/handler/rules"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Port is a port that a sandbox has bound under network.port_remap: by the number that the sandbox knows, and by the one
// that the host knows, which is another where the first was taken.
type Port = ports.Port

// OnBind has f called for each TCP and UDP port that the sandbox binds; the policy must have network.port_remap. f runs on
// the supervisor's thread while the caller waits: it must not block. Set it before Start.
func (c *Cmd) OnBind(f func(Port)) error {
	if !c.artifact.Program.Net.PortRemap {
		return errors.New("the policy does not set network.port_remap, so ports are bound without the supervisor")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != isNew {
		return ErrStarted
	}
	c.hooks.bound = f
	return nil
}

// bindsInPlace reports whether the supervisor binds the sockets of the command.
func bindsInPlace(p *ir.Program) bool {
	return p.Net.PortRemap || len(p.Net.DenyBind) > 0 || p.HeldEvents()&ir.EventBind != 0
}

// makesSockets reports whether some of them become files.
func makesSockets(p *ir.Program) bool { return bindsInPlace(p) && p.Net.Unix != ir.UnixNone }

// listsPorts reports whether files that list sockets are the supervisor's to answer. Opens are not notified where the policy does
// not let them be read.
func (s *sandbox) listsPorts() bool { return s.program.Net.PortRemap && s.notifies("openat") }

// ports wires what binds in place of the command; nil where the kernel decides alone.
func (s *sandbox) ports(w *wired, limits *lowered, grants metadata.Grants, dynamic *rules.Handler, j supervise.Journal) (*ports.Handler, error) {
	if !bindsInPlace(s.program) {
		return nil, nil
	}
	policy := ports.Policy{
		Bind: func(protocol ir.Protocols, port uint16) query.Ruling {
			return query.Bind(&s.net, &s.reach, protocol, port)
		},
		Ephemeral: s.bindsEphemeral(),
		Describe:  s.describeAt,
		Grants:    grants,
		Virtual:   s.net.PortRemap,
		OnBind:    s.options.hooks.bound,
		Root:      s.root,
		Files:     s.listsPorts(),
		Granted:   s.granted,
		IDs:       s.ids(),
	}
	if dynamic != nil {
		policy.Held = dynamic.Network
	}
	h, err := ports.New(s.arch, policy, j)
	if err != nil {
		return nil, fmt.Errorf("ports: %w", err)
	}
	w.list = append(w.list, h)
	if policy.Files {
		limits.instead = append(limits.instead, h.Instead)
	}
	s.showPorts(h)
	before := w.close
	w.close = func() { before(); h.Close() }
	return h, nil
}

// bindsEphemeral reports whether the kernel may pick any port for a socket that asks for none: where ports are listed, that
// is port 0 in the list.
func (s *sandbox) bindsEphemeral() bool { return len(s.net.DenyBind) == 0 && s.mayBind(0) }

// listens is the policy of the listen gate.
func (s *sandbox) listens(p *ports.Handler) listen.Policy {
	ephemeral := s.bindsEphemeral()
	policy := listen.Policy{May: func(port uint16) bool { return ephemeral || s.mayBind(port) }, Rule: "network.allow_bind"}
	if len(s.net.DenyBind) > 0 {
		policy.Rule, policy.Origin = "network.deny_bind", where(s.program, s.net.DenyBindOrigin)
	}
	if p != nil {
		policy.Virtual, policy.Assign = p.Virtual, p.Assign
	}
	return policy
}
