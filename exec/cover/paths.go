package cover

import (
	"iter"
	"path"
	"slices"
	"strings"
)

// beneath reports whether a clean absolute path is dir or lies in it.
func beneath(p, dir string) bool {
	if dir == "/" {
		return true
	}
	return strings.HasPrefix(p, dir) && (len(p) == len(dir) || p[len(dir)] == '/')
}

// above yields the directories above a clean absolute path, the nearest first.
func above(p string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for p != "/" {
			p = path.Dir(p)
			if !yield(p) {
				return
			}
		}
	}
}

// join is path.Join for a clean directory and names that are known to be clean.
func join(dir string, names ...string) string {
	tail := strings.Join(names, "/")
	switch {
	case tail == "":
		return dir
	case dir == "/":
		return "/" + tail
	}
	return dir + "/" + tail
}

// split returns the elements of a path.
func split(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(elem string) bool { return elem == "" || elem == "." })
}

// grants answers where the command has rights. Lists are sorted.
type grants struct {
	all, writes           []string
	outer, outerWrites    []string // without those that lie beneath others
	isGranted, isWritable map[string]bool
}

func newGrants(list []Grant) grants {
	g := grants{isGranted: map[string]bool{}, isWritable: map[string]bool{}}
	for _, grant := range list {
		p := path.Clean("/" + grant.Path)
		g.isGranted[p] = true
		if grant.Write {
			g.isWritable[p] = true
		}
	}
	g.all, g.writes = sortedKeys(g.isGranted), sortedKeys(g.isWritable)
	g.outer, g.outerWrites = outermost(g.all), outermost(g.writes)
	return g
}

func sortedKeys(m map[string]bool) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

func outermost(sorted []string) (list []string) {
	seen := map[string]bool{}
next:
	for _, p := range sorted {
		if p != "/" && seen["/"] {
			continue
		}
		for dir := range above(p) {
			if seen[dir] {
				continue next
			}
		}
		seen[p] = true
		list = append(list, p)
	}
	return list
}

// reached reports whether a path lies beneath a grant, or a grant lies beneath it.
func (g *grants) reached(p string) bool { return granted(g.isGranted, p) || holds(g.all, p) }

// writeReached is reached for write grants.
func (g *grants) writeReached(p string) bool { return granted(g.isWritable, p) || holds(g.writes, p) }

// granted reports whether a path lies beneath a grant.
func granted(set map[string]bool, p string) bool {
	if set[p] {
		return true
	}
	for dir := range above(p) {
		if set[dir] {
			return true
		}
	}
	return false
}

// holds reports whether one of a sorted list lies beneath a path.
func holds(list []string, p string) bool {
	if p == "/" {
		return len(list) > 0
	}
	// What lies in p follows p+"/"; others, such as p+"-", sort between p and that.
	i, found := slices.BinarySearch(list, p)
	if !found {
		i, _ = slices.BinarySearch(list, p+"/")
	}
	return i < len(list) && beneath(list[i], p)
}

// writable returns the outermost write grant that a path lies beneath.
func (g *grants) writable(p string) (outer string, ok bool) {
	if g.isWritable[p] {
		outer, ok = p, true
	}
	for dir := range above(p) {
		if g.isWritable[dir] {
			outer, ok = dir, true
		}
	}
	return outer, ok
}
