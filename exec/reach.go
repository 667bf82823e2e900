package exec

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// grants asks whether a real path is granted all rights in want, and names the rule that comes closest if not.
func (s *sandbox) grants(path string, want uint64) (ok bool, closestRule, closestOrigin string) {
	var got uint64
	for _, g := range s.granted {
		if beneath(path, g.Real) {
			got |= g.Access
		}
	}
	return want&^got == 0, "", ""
}

// resolveGrants completes the list of granted paths for an explanation after the fact; a start that needs no
// explanations resolves write grants only.
func (s *sandbox) resolveGrants() {
	if s.needsRealPaths {
		return
	}
	s.granted = nil
	for _, r := range s.program.Landlock.Paths {
		path, err := ir.ExpandPath(r.Path, s.bound.lookup)
		if err != nil {
			continue
		}
		if real, err := filepath.EvalSymlinks(path); err == nil {
			s.granted = append(s.granted, grantedPath{real, r.Access, r.Origin})
		}
	}
}

// mayConnect and mayBind ask the same of TCP ports.
func (s *sandbox) mayConnect(port uint16) bool {
	return s.program.Landlock.Handled.Net&abi.NetConnectTCP == 0 || slices.Contains(s.connectPorts, port)
}

func (s *sandbox) mayBind(port uint16) bool {
	return s.program.Landlock.Handled.Net&abi.NetBindTCP == 0 || slices.Contains(s.bindPorts, port)
}

// ruleName names the place of a rule: policy path and position.
func (s *sandbox) ruleName(ref ir.OriginRef) string {
	path, at := rulePath(s.program, ref), where(s.program, ref)
	if at == "" {
		return path
	}
	return strings.TrimSpace(path + " (" + at + ")")
}

// notGranted is the hint for a path that the policy does not grant.
func notGranted(path, right, rule, origin string) string {
	hint := fmt.Sprintf("the policy does not grant %s on %s", right, path)
	if rule != "" {
		hint += "; closest is " + rule
	}
	if origin != "" {
		hint += " (" + origin + ")"
	}
	return hint
}
