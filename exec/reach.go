package exec

import (
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// What is reachable is decided by ir/query, as everywhere; this file only hands it the ruleset as bound for this run:
// paths resolved to where their descriptors led, ports with their parameters' values.

// grants asks whether a real path is granted all rights in want, and names the rule that comes closest if not.
func (s *sandbox) grants(path string, want uint64) (ok bool, closestRule, closestOrigin string) {
	r := query.Path(&s.reach, path, want)
	return r.Allowed, s.describe(r), where(s.program, r.Origin)
}

// granted is grants without the reason.
func (s *sandbox) granted(path string, want uint64) bool {
	ok, _, _ := s.grants(path, want)
	return ok
}

// describe names a ruling's rule: by its policy path where the artifact still knows that, else as goldens write it.
func (s *sandbox) describe(r query.Ruling) string {
	if path := rulePath(s.program, r.Origin); path != "" {
		return path
	}
	return r.Rule
}

// connectPort and bindPort ask the same of TCP ports.
func (s *sandbox) connectPort(port uint16) query.Ruling {
	return query.Port(&s.reach, port, abi.NetConnectTCP)
}

func (s *sandbox) bindPort(port uint16) query.Ruling {
	return query.Bind(&s.net, &s.reach, ir.TCP, port)
}

func (s *sandbox) mayBind(port uint16) bool { return s.bindPort(port).Allowed }

// resolveGrants completes the reach for an explanation after the fact: a start that can write nothing and explains
// nothing does not look where its rules lead.
func (s *sandbox) resolveGrants() {
	if s.needsRealPaths || s.writes {
		return
	}
	s.reach.Paths = nil
	for _, r := range s.program.Landlock.Paths {
		path, err := ir.ExpandPath(r.Path, s.bound.lookup)
		if err != nil {
			continue
		}
		if real, err := s.root.Real(path); err == nil {
			r.Path = real
			s.reach.Paths = append(s.reach.Paths, r)
		}
	}
}

// notGranted is the hint for a path that the policy does not grant.
func notGranted(path, right, rule, origin string) string {
	hint := "the policy does not grant " + right + " on " + path
	if rule != "" {
		hint += "; closest is " + rule
	}
	if origin != "" {
		hint += " (" + origin + ")"
	}
	return hint
}
