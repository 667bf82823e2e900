package exec

import (
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/cover"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// What is reachable is decided by ir/query, as everywhere; this file only hands it the ruleset as bound for this run:
// paths resolved to where their descriptors led, ports with their parameters' values.

// grants asks whether a real path is granted all rights in want, and names the rule that comes closest if not.
func (s *sandbox) grants(path string, want uint64) (ok bool, closestRule, closestOrigin string) {
	r, _, refused := s.coveredFor(path, want)
	if !refused {
		r = query.Path(&s.reach, path, want)
	}
	return r.Allowed, s.describe(r), where(s.program, r.Origin)
}

// covered is a path that is mounted over for a rule.
type covered struct {
	kind   cover.Kind
	origin ir.OriginRef
}

// coveredFor tells whether what is mounted over a path, or over a directory above it, refuses some right in want, and with
// which error. It comes before all grants. The kernel says the same to the command itself; who acts on its behalf has to ask,
// for a root executor may open what nobody may.
func (s *sandbox) coveredFor(path string, want uint64) (r query.Ruling, e unix.Errno, refused bool) {
	if s.view == nil || !strings.HasPrefix(path, "/") {
		return r, 0, false
	}
	changes := (&ir.PathRule{Access: want, Kind: ir.PathRequired}).Writes()
	for at := path; len(s.covered) > 0; at = filepath.Dir(at) {
		switch c, ok := s.covered[at]; {
		case ok && c.kind == cover.Closed:
			return query.Ruling{Reason: "closed, whatever is granted", Rule: "deny " + at, Origin: c.origin}, unix.EACCES, true
		case ok && c.kind == cover.ReadOnly && changes:
			return query.Ruling{Reason: "protected from changes", Rule: "protect " + at, Origin: c.origin}, unix.EROFS, true
		}
		if at == "/" {
			break
		}
	}
	v := &s.program.View
	fixed := ir.View{Masks: v.Masks, ReadOnly: v.ReadOnly, Mounts: s.mounted}
	if r, refused = query.Closed(&fixed, &s.reach, path, want); !refused {
		return r, 0, false
	}
	if slices.ContainsFunc(v.Masks, func(mask string) bool { return query.Beneath(path, mask) }) {
		return r, unix.EACCES, true
	}
	return r, unix.EROFS, true
}

// keptInPlace tells whether something is mounted on a path itself, so that it can be neither removed nor renamed.
func (s *sandbox) keptInPlace(path string) (r query.Ruling, kept bool) {
	c, kept := s.covered[path]
	return query.Ruling{Reason: "it has to stay where it is", Rule: c.kind.String() + " " + path, Origin: c.origin}, kept
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
