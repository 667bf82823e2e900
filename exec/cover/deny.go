package cover

import (
	"errors"
	"os"
	"path"
	"strings"
)

func uid() uint32 { return uint32(os.Geteuid()) }

// deny closes what a path leads to.
//
// A link on the way, or at the end, is followed: its target is what is secret. Where the link lies beneath a write grant it is
// pinned: the next run would look for the secret where the command has it lead.
func (p *planner) deny(rule Rule) {
	if !strings.HasPrefix(rule.Path, "/") {
		p.fail(rule, rule.Path, errors.New("is not absolute"))
		return
	}
	p.follow(rule, path.Clean(rule.Path), Closed)
}

// follow covers what a path leads to, which may not exist.
func (p *planner) follow(rule Rule, name string, kind Kind) {
	to, err := p.view.resolve(name)
	if err != nil {
		if p.matters(name, kind) || !errors.Is(err, ErrSelf) {
			p.fail(rule, name, err)
		}
		return
	}
	if to.linked && p.matters(join(to.path, to.rest...), kind) {
		p.pinLinks(rule, name)
	}
	p.take(rule, name, to, kind)
}

// matters reports whether a grant has to do with a path at all.
func (p *planner) matters(name string, kind Kind) bool {
	if kind == Closed {
		return p.grants.reached(name)
	}
	return p.grants.writeReached(name)
}

// take covers a place.
func (p *planner) take(rule Rule, name string, to place, kind Kind) {
	full := join(to.path, to.rest...)
	if !p.matters(full, kind) {
		return
	}
	_, writable := p.grants.writable(full)
	switch {
	case writable && (isPlaceholder(to.file) || to.file.nlink == 0):
		// Another sandbox's, or left by one that was killed: it is shared. Or it went away just now, as they do.
		p.missing = append(p.missing, missing{rule: rule, kind: kind, at: path.Dir(to.path), names: []string{path.Base(to.path)}})
	case to.file.nlink == 0: // nobody in the sandbox makes it anew
	case to.shut:
		// The owner of a directory that may not be searched can change that: chmod(2) takes no right of Landlock's.
		if to.file.uid == p.uid {
			p.add(rule, to.path, to.file, kind, true)
		}
	case len(to.rest) > 0 && !to.file.dir():
		// A file stands where a directory would have to. Pinned, it cannot make room for one.
		if outer, _ := p.grants.writable(to.path); writable && outer != to.path {
			p.add(rule, to.path, to.file, Pinned, true)
		}
	case len(to.rest) > 0:
		if writable {
			p.missing = append(p.missing, missing{rule: rule, kind: kind, at: to.path, names: to.rest})
		}
	case kind == ReadOnly && !writable:
		for _, grant := range p.grants.outerWrites {
			if !beneath(grant, to.path) {
				continue
			}
			f, err := p.view.stat(grant)
			if err != nil {
				p.fail(rule, grant, err)
				continue
			}
			p.add(rule, grant, f, kind, true)
		}
	case to.path == "/":
		p.fail(rule, name, errors.New("is the root directory, which cannot be covered"))
	default:
		p.add(rule, to.path, to.file, kind, true)
	}
}
