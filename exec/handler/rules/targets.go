package rules

import (
	"slices"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// target is a path that rules name, and every file that it has led to so far. Hard links and renames of such a file are
// still that file.
type target struct {
	root  kernel.Root
	path  string
	on    ir.Events // that it matters to
	names []string  // real paths, path itself first
	ids   []kernel.FileID
}

// maxAliases bounds what is remembered of one target: a policy's path that leads to ever new files forgets the oldest.
const maxAliases = 64

// targets are all single paths that rules name.
type targets []*target

func newTargets(root kernel.Root, rules []ir.DynamicRule) targets {
	var list targets
	add := func(path string, on ir.Events) {
		if path == "" || ir.PathPattern(path) {
			return
		}
		i := slices.IndexFunc(list, func(t *target) bool { return t.path == path })
		if i < 0 {
			i, list = len(list), append(list, &target{root: root, path: path, names: []string{path}})
			list[i].look()
		}
		list[i].on |= on
	}
	for i := range rules {
		r := &rules[i]
		add(r.Exe, r.On)
		add(r.Path, r.On)
		for _, c := range r.Do {
			add(c.Path, ir.EventExec|ir.EventFile)
		}
	}
	return list
}

// look finds out where the path leads now.
func (t *target) look() {
	if pin, err := t.root.Resolve(kernel.Base{DirFD: kernel.AtCWD}, t.path, true, 0); err == nil {
		if id, _, err := pin.ID(); err == nil {
			t.ids = remember(t.ids, id)
		}
		t.names = remember(t.names, pin.Path)
		pin.Close()
		return
	}
	// Nothing there yet; it will be where its directory is.
	if dir, name, _, err := t.root.ResolveParent(kernel.Base{DirFD: kernel.AtCWD}, t.path); err == nil {
		t.names = remember(t.names, child(dir.Path, name))
		dir.Close()
	}
}

func remember[T comparable](list []T, v T) []T {
	if slices.Contains(list, v) {
		return list
	}
	if len(list) >= maxAliases {
		list = slices.Delete(list, 1, 2) // the first is what the policy wrote, or the file that was there at the start
	}
	return append(list, v)
}

// child is the path of a directory's entry.
func child(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// refresh looks where the paths that matter to an event lead now.
func (l targets) refresh(event ir.Events) {
	for _, t := range l {
		if t.on&event != 0 {
			t.look()
		}
	}
}

// describe says what the policy calls a pinned file.
func (l targets) describe(p kernel.Pin) query.File {
	id, _, err := p.ID()
	return l.file(p.Path, id, err == nil)
}

// file says what the policy calls a file with a path and, if there is one, an identity.
func (l targets) file(path string, id kernel.FileID, exists bool) query.File {
	f := query.File{Path: path}
	for _, t := range l {
		if slices.Contains(t.names, path) || exists && slices.Contains(t.ids, id) {
			f.Also = append(f.Also, t.path)
		}
	}
	return f
}

// closedBy lists the paths that a rule's changes close, wherever they have led.
func (l targets) closedBy(r *ir.DynamicRule) (paths []string) {
	for _, c := range r.Do {
		if c.Kind != ir.ChangeDenyPath {
			continue
		}
		for _, t := range l {
			if t.path == c.Path {
				paths = append(paths, t.names...)
			}
		}
	}
	return paths
}

// unknown describes a file that could be any: a rule that narrows matches it, one that must match all files does not.
func (l targets) unknown() []query.File {
	var any query.File
	for _, t := range l {
		any.Also = append(any.Also, t.path)
	}
	return []query.File{any, {}}
}
