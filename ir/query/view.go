package query

import (
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/glob"
)

// Access decides whether all rights in want are granted for a path: by what the view takes away, then by Landlock. As with
// [Path], path and rules must both be resolved, or both be as the policy wrote them.
func Access(p *ir.Program, path string, want uint64) Ruling {
	if r, closed := Closed(&p.View, &p.Landlock, path, want); closed {
		return r
	}
	return Path(&p.Landlock, path, want)
}

// Closed tells whether the mounts of a view refuse a path, whatever is granted, and which of them does. Patterns of Protect
// must be expanded by [ir.ExpandProtect], or hold their parameters as text.
func Closed(v *ir.View, l *ir.Landlock, path string, want uint64) (r Ruling, closed bool) {
	for _, mask := range v.Masks {
		if Beneath(path, mask) {
			return Ruling{Reason: "always closed: " + mask + " tells of the kernel", Rule: "closed " + mask}, true
		}
	}
	for _, d := range v.Deny {
		if Beneath(path, d.Path) {
			return Ruling{false, "denied, whatever is granted", "deny " + d.Path, d.Origin}, true
		}
	}
	if (&ir.PathRule{Access: want, Kind: ir.PathRequired}).Writes() {
		return unchangeable(v, l, path)
	}
	return Ruling{}, false
}

// Branched tells whether what is changed at a path is kept in the program's branch. It is no decision: a branch grants nothing.
func Branched(p *ir.Program, path string) bool {
	if p.Branch.Kind == ir.BranchNone || !Beneath(path, p.Branch.Workdir) {
		return false
	}
	return !slices.ContainsFunc(p.View.Mounts, func(m ir.ViewMount) bool { return Beneath(path, m.Target) })
}

// unchangeable is [Closed] for changes alone.
func unchangeable(v *ir.View, l *ir.Landlock, path string) (r Ruling, closed bool) {
	for _, p := range v.Protect {
		if protected, missing := protects(p.Path, l, path); protected {
			reason := "protected"
			if !missing {
				reason += ", if it is there when the sandbox starts"
			}
			return Ruling{false, reason, "protect " + p.Path, p.Origin}, true
		}
	}
	for _, dir := range v.ReadOnly {
		if Beneath(path, dir) {
			return Ruling{Reason: "never writable: " + dir + " belongs to the kernel", Rule: "read-only " + dir}, true
		}
	}
	var covering *ir.ViewMount // what is mounted later covers what was mounted before
	for i := range v.Mounts {
		if Beneath(path, v.Mounts[i].Target) {
			covering = &v.Mounts[i]
		}
	}
	if covering != nil && covering.ReadOnly {
		return Ruling{false, "mounted read-only", "mount " + covering.Describe(), covering.Origin}, true
	}
	return Ruling{}, false
}

// protects matches a path against a pattern that is absolute, or relative to each write grant. missing says that the path
// is protected from being created, too.
func protects(pattern string, l *ir.Landlock, path string) (protected, missing bool) {
	fixed, isFixed := glob.Fixed(pattern)
	covers := func(rest string) {
		if glob.Covers(pattern, rest) {
			protected, missing = true, missing || isFixed && Beneath(rest, fixed)
		}
	}
	if ir.AbsolutePattern(pattern) {
		covers(strings.TrimPrefix(path, "/"))
		return protected, missing
	}
	for i := range l.Paths {
		if r := &l.Paths[i]; r.Writes() && path != r.Path && Beneath(path, r.Path) {
			covers(strings.TrimPrefix(path[len(r.Path):], "/"))
		}
	}
	return protected, missing
}
