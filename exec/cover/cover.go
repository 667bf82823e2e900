// Package cover computes what a namespaced start mounts over, so that denied paths stay closed and protected ones unchanged,
// whatever the grants beneath or above them say.
//
// In: the root of the command's view, the grants as they were opened, and the rules. Out: a [Plan]: the mounts to make, in
// order, and the placeholders that were made on the host for paths that do not exist yet, with the system calls that remove
// them at the end. The package mounts nothing, and changes nothing on the host but for placeholders.
//
// Why mounts hold: a mount point cannot be removed, renamed or replaced from within its mount namespace (EBUSY), no hard link
// leads out of one (EXDEV), and a mount covers a file under every name that leads through the covered one: "..", links,
// /proc/self/root and /proc/self/fd, other spellings. What it does not cover:
//
//   - Other names of the file itself: hard links. They are searched for at the start and covered as well (alias.go).
//     The command cannot make new ones.
//   - The same file shown by another mount. Both names have to be denied.
//   - The directories above. They could be renamed, the mounts in them along, and new ones put in their place. So each
//     directory between a write grant and the path is mounted over itself ([Pinned]). The price: renaming a file into or out
//     of such a directory fails with EXDEV as between file systems; mv(1) copies instead.
//   - What a symbolic link leads to elsewhere. A rule means what its path leads to at the start; a link on the way that lies
//     beneath a write grant is mounted over itself, too, so that the command cannot replace it.
//   - Changes from outside the sandbox. Where somebody on the host replaces a covered file by another (many editors do, by
//     rename), the kernel takes the mount off, and the command sees the new file as the grants say. What somebody on the host
//     makes at a denied path that was missing is denied only where a placeholder stands, which is beneath write grants: the
//     command itself cannot make anything elsewhere.
//   - What patterns would match in directories made later. A missing protected path is kept missing where it is known at the
//     start, see protect.go.
//   - Deny rules beneath /proc/self, which is another directory for each process: those are refused.
//
// A rule whose file this process cannot even look at is skipped where the command, the same user with fewer rights, cannot
// either; where it could make itself the way by chmod(2), the closed directory in between is covered as a whole.
//
// Read next: deny.go and protect.go (what rules mean), placeholder.go (the protocol of placeholders), removal.go.
package cover

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Grant is a path that the command has some right to.
type Grant struct {
	Path  string // in the view, links resolved
	Write bool   // holds any right that makes, changes or removes files
}

// Rule is one line of the policy.
type Rule struct {
	Path string // a deny: an absolute path in the view; a protection: a pattern as compiler/policy describes them
	Name string // what errors call it: "filesystem.deny[3]"
	// Alone says that other names of the files in it (hard links) are not searched for.
	Alone bool
}

// Request is what a plan is made of.
type Request struct {
	Root          kernel.Root
	Grants        []Grant
	Deny, Protect []Rule
	// Making is called before the first placeholder is made, so that from then on nothing ends the process unawares; nil for
	// nothing to do.
	Making func() error
}

// Kind is how a path is covered. Kinds are mounted in this order.
type Kind uint8

// Kinds of covers. Binds are recursive: what is mounted beneath has to stay visible, and in a user namespace the kernel
// refuses others (has_locked_children in fs/namespace.c).
const (
	Pinned   Kind = iota // a bind of itself with nothing changed: it cannot be renamed, removed or replaced
	ReadOnly             // a bind of itself, read-only with everything mounted beneath it
	// Closed is an inaccessible file or directory in its place, of mode 000. It has to be on a read-only mount: its owner is
	// the command's user, who could open it up by chmod(2).
	Closed
)

func (k Kind) String() string { return [...]string{"pinned", "read-only", "closed"}[k] }

// Cover is one mount.
type Cover struct {
	Path string // in the view, links resolved
	Dir  bool   // what is mounted over is a directory
	Link bool   // it is a symbolic link, not to be followed; always Pinned
	Kind Kind
	Rule string // name of the first rule that asks for it
}

// Error is what one rule fails with.
type Error struct {
	Rule, Path string
	Err        error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Rule, e.Path, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

const (
	// maxCovers bounds the mounts of one start. The kernel's own bound for a namespace is 100000 (fs.mount-max).
	maxCovers = 1 << 14
	// maxPlaceholders bounds the files that one start makes on the host.
	maxPlaceholders = 1 << 12
)

// planner gathers covers until all rules are looked at.
type planner struct {
	view     *view
	grants   grants
	covers   map[string]*found // by path
	missing  []missing
	problems []error
	plan     *Plan
	uid      uint32
	making   func() error // nil once called
}

// found is a cover and the file it is for.
type found struct {
	Cover
	file  file
	pins  bool // the directories above have to stay in their places
	alone bool // see Rule
}

// Make plans covers and makes the placeholders. It tells all errors at once and then leaves nothing behind.
func Make(r Request) (*Plan, error) {
	v, err := newView(r.Root)
	if err != nil {
		return nil, err
	}
	defer v.close()
	p := &planner{view: v, grants: newGrants(r.Grants), covers: map[string]*found{}, plan: &Plan{}, uid: uid(), making: r.Making}
	// Denials first: what they close need not be searched for matches.
	for _, rule := range r.Deny {
		p.deny(rule)
	}
	p.protect(r.Protect)
	p.place()
	if len(p.problems) == 0 {
		p.aliases()
	}
	if len(p.problems) == 0 {
		p.finish()
	}
	if len(p.problems) > 0 {
		p.plan.Undo()
		return nil, errors.Join(p.problems...)
	}
	return p.plan, nil
}

func (p *planner) fail(rule Rule, path string, err error) {
	p.problems = append(p.problems, &Error{Rule: rule.Name, Path: path, Err: err})
}

// add notes a cover. Of two on one path the stronger one stays.
func (p *planner) add(rule Rule, path string, f file, kind Kind, pins bool) {
	if old, ok := p.covers[path]; ok {
		old.pins, old.alone = old.pins || pins, old.alone && rule.Alone
		if kind > old.Kind {
			old.Kind, old.Rule, old.file = kind, rule.Name, f
		}
		return
	}
	p.covers[path] = &found{Cover{path, f.dir(), f.link(), kind, rule.Name}, f, pins, rule.Alone}
}

// kept reports whether a directory above path is closed or read-only as a whole.
func (p *planner) kept(path string, least Kind) bool {
	for dir := range above(path) {
		if c, ok := p.covers[dir]; ok && c.Kind >= least {
			return true
		}
	}
	return false
}

// finish pins the ways, drops what other covers make needless, and brings the rest into order.
func (p *planner) finish() {
	for _, c := range sortedCovers(p.covers) {
		if c.pins {
			p.pin(c)
		}
	}
	for _, c := range sortedCovers(p.covers) {
		switch {
		case p.kept(c.Path, Closed), c.Kind != Closed && p.kept(c.Path, ReadOnly):
			continue // nothing leads there, or nothing there can be changed or moved anyway
		}
		p.plan.Covers = append(p.plan.Covers, c.Cover)
	}
	slices.SortFunc(p.plan.Covers, func(a, b Cover) int {
		if a.Kind != b.Kind {
			return int(a.Kind) - int(b.Kind)
		}
		return strings.Compare(a.Path, b.Path) // a directory sorts before what lies in it
	})
	if n := len(p.plan.Covers); n > maxCovers {
		p.problems = append(p.problems, fmt.Errorf("filesystem.deny and filesystem.protect: %d mounts would be needed, at most %d are made", n, maxCovers))
	}
}

// pin keeps the directories between the outermost write grant and a covered path in their places.
//
// The outermost grant itself cannot be moved: that takes a right to the directory above it.
func (p *planner) pin(c *found) {
	outer, ok := p.grants.writable(c.Path)
	if !ok {
		return
	}
	for dir := range above(c.Path) {
		if !beneath(dir, outer) || dir == outer {
			return
		}
		if _, ok := p.covers[dir]; ok {
			continue
		}
		f, err := p.view.stat(dir)
		if err != nil {
			p.fail(Rule{Name: c.Rule}, dir, fmt.Errorf("directory above a covered path: %w", err))
			return
		}
		if f.mountRoot {
			continue // it cannot be moved as it is
		}
		p.add(Rule{Name: c.Rule}, dir, f, Pinned, false)
	}
}

func sortedCovers(m map[string]*found) []*found {
	list := make([]*found, 0, len(m))
	for _, c := range m {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *found) int { return strings.Compare(a.Path, b.Path) })
	return list
}
