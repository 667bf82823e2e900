package cover

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir/glob"
)

// Patterns are expanded by one walk for all of them. It starts at each write grant for relative patterns, and for absolute
// ones where their first wildcard stands; it descends only where something may still match, and not into what is covered as
// a whole. A pattern that matches a directory protects all that lies in it, with or without "/**" at its end: so does a mount.
//
// What is missing is kept missing, by placeholders, where the rest of a pattern has no wildcards, "**" standing for no
// element: "**/.git/hooks/**" asks for a placeholder in each directory ".git" that there is, and at DIR/.git/hooks for each
// write grant DIR, for which the directory DIR/.git is made, too; but not in every directory of the tree. That is the limit
// of mounts: a repository that the command makes itself in another directory is its own, hooks included.
//
// Links are not followed by wildcards. One that a literal element names is, and one that a pattern ends at, if it leads to
// what lies beneath a write grant: the target is protected. The link itself is pinned in either case.

// walker expands patterns.
type walker struct {
	*planner
	starts map[string][]item
	queue  []string // of starts
	// done are the starts that were walked from, so that links that lead in circles end.
	done   map[string]map[*node]bool
	skips  map[uint64]bool // by device: the kernel's own file systems, where no names are made
	opened file            // of the directory that is being looked at
}

// protect covers what patterns match beneath write grants.
func (p *planner) protect(rules []Rule) {
	if len(rules) == 0 || len(p.grants.writes) == 0 {
		return
	}
	w := &walker{planner: p, starts: map[string][]item{}, done: map[string]map[*node]bool{}, skips: map[uint64]bool{}}
	relative := &node{}
	absolute := map[string]*node{}
	for _, rule := range rules {
		elems := split(rule.Path)
		if !strings.HasPrefix(rule.Path, "/") {
			relative.insert(elems, rule)
			continue
		}
		w.absolute(absolute, rule, elems)
	}
	for _, grant := range p.grants.writes {
		w.start(grant, enter(nil, relative, true))
	}
	for dir, root := range absolute {
		w.begin(dir, root)
	}
	for len(w.queue) > 0 {
		slices.Sort(w.queue) // from above, so that what lies beneath is reached on the way
		dir := w.queue[0]
		w.queue = w.queue[1:]
		if items := w.starts[dir]; items != nil {
			w.walk(dir)
		}
	}
}

// start adds a directory to begin at.
func (w *walker) start(dir string, items []item) {
	for _, it := range items {
		if w.done[dir][it.node] {
			continue
		}
		if w.starts[dir] == nil {
			w.queue = append(w.queue, dir)
		}
		w.starts[dir] = enter(w.starts[dir], it.node, it.exact)
	}
}

// begun returns what begins at a directory that the walk has come to.
func (w *walker) begun(dir string) []item {
	items := w.starts[dir]
	if items == nil {
		return nil
	}
	delete(w.starts, dir)
	if w.done[dir] == nil {
		w.done[dir] = map[*node]bool{}
	}
	for _, it := range items {
		w.done[dir][it.node] = true
	}
	return items
}

// absolute follows an absolute pattern up to its first wildcard, and adds the rest to the tree that begins there.
func (w *walker) absolute(trees map[string]*node, rule Rule, elems []string) {
	for len(elems) > 1 && elems[len(elems)-1] == "**" {
		elems = elems[:len(elems)-1] // a mount covers what lies beneath
	}
	var names []string
	for _, elem := range elems {
		name, ok := glob.Literal(elem)
		if !ok {
			break
		}
		names = append(names, name)
	}
	name, rest := join("/", names...), elems[len(names):]
	if len(rest) == 0 {
		w.follow(rule, name, ReadOnly)
		return
	}
	to, err := w.view.resolve(name)
	switch {
	case err != nil:
		w.fail(rule, name, err)
	case len(to.rest) == 0:
		if trees[to.path] == nil {
			trees[to.path] = &node{}
		}
		trees[to.path].insert(rest, rule)
	default:
		// Nothing is there to match. What the pattern names once "**" stands for nothing is kept missing.
		for _, elem := range rest {
			if elem == "**" {
				continue
			}
			name, ok := glob.Literal(elem)
			if !ok {
				return
			}
			to.rest = append(to.rest, name)
		}
		w.take(rule, join(to.path, to.rest...), to, ReadOnly)
	}
}

// begin starts the tree of absolute patterns at a directory, or at the write grants beneath it.
func (w *walker) begin(dir string, root *node) {
	items := enter(nil, root, true)
	if _, ok := w.grants.writable(dir); ok {
		w.start(dir, items)
		return
	}
	for _, grant := range w.grants.writes {
		if !beneath(grant, dir) {
			continue
		}
		here := items
		for _, elem := range split(strings.TrimPrefix(grant, dir)) {
			if _, ok := accepted(here); ok {
				break
			}
			here = union(steps(nil, here, []byte(elem)), loops(here))
		}
		w.start(grant, here)
	}
}

// visit is a directory to look at.
type visit struct {
	path  string
	items []item
}

// walk looks at a directory and, as far as patterns may match there, at what lies beneath. Directories are opened by their
// paths, so that a deep tree costs no descriptors.
func (w *walker) walk(dir string) {
	stack := []visit{{path: dir}}
	for len(stack) > 0 {
		v := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		v.items = union(v.items, w.begun(v.path))
		if len(v.items) == 0 {
			continue
		}
		if c, ok := w.covers[v.path]; ok && c.Kind >= ReadOnly || w.kept(v.path, ReadOnly) {
			continue
		}
		var err error
		if stack, err = w.look(v, stack); err != nil {
			w.fail(v.items[0].anyRule(), v.path, err)
		}
	}
}

// look matches the names in one directory and adds the directories in it that have to be looked at.
func (w *walker) look(v visit, stack []visit) ([]visit, error) {
	if rule, ok := accepted(v.items); ok {
		return stack, w.whole(rule, v.path)
	}
	fd, err := w.view.open(v.path, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	switch {
	case err == unix.EACCES:
		// The owner could open it up by chmod(2), and whoever may search it reaches the names that he knows. Read-only, it
		// stays as it is.
		return stack, w.whole(v.items[0].anyRule(), v.path)
	case gone(err):
		for _, it := range v.items {
			if it.exact {
				it.chains(nil, func(names []string, rule Rule) { w.vanished(rule, v.path, names...) })
			}
		}
		return stack, nil
	case err != nil:
		return stack, told(err)
	}
	defer unix.Close(fd)
	if w.opened, err = statAt(fd, ""); err != nil || w.skipped(fd) {
		return stack, err
	}
	if !lists(v.items) {
		return w.probe(fd, v, stack), nil
	}
	return w.read(fd, v, stack)
}

// whole covers a file or directory as it is.
func (w *walker) whole(rule Rule, at string) error {
	f, err := w.view.stat(at)
	if err == unix.EACCES {
		return nil // the directory above cannot be searched and was covered for that
	}
	if gone(err) || err == nil && f.nlink == 0 {
		w.vanished(rule, at)
		return nil
	}
	if err != nil {
		return told(err)
	}
	w.take(rule, at, place{path: at, file: f}, ReadOnly)
	return nil
}

// vanished keeps what was there a moment ago from coming back: most likely it was another sandbox's placeholder, or a directory
// on the way to one.
func (w *walker) vanished(rule Rule, at string, names ...string) {
	dir := path.Dir(at)
	if _, ok := w.grants.writable(dir); ok {
		w.missing = append(w.missing, missing{rule: rule, kind: ReadOnly, at: dir, names: append([]string{path.Base(at)}, names...)})
	}
}

// skipped reports whether a directory is of the kernel's own file systems.
func (w *walker) skipped(fd int) bool {
	skip, known := w.skips[w.opened.dev]
	if !known {
		skip = kernels(fd)
		w.skips[w.opened.dev] = skip
	}
	return skip
}

// probe looks for the names that items ask for.
func (w *walker) probe(fd int, v visit, stack []visit) []visit {
	seen := map[string]bool{}
	for _, it := range v.items {
		for name := range it.literal {
			if seen[name] {
				continue
			}
			f, err := statAt(fd, name)
			if err != nil {
				continue // missing, or nobody can tell
			}
			seen[name] = true
			stack = w.match(v, []byte(name), byte(f.mode>>12), nil, stack)
		}
	}
	w.absent(v, seen)
	return stack
}

// read lists the directory.
func (w *walker) read(fd int, v visit, stack []visit) ([]visit, error) {
	stay := loops(v.items)
	var seen map[string]bool
	for _, it := range v.items {
		if it.exact && len(it.literal) > 0 {
			seen = map[string]bool{}
		}
	}
	err := w.view.list(fd, func(e entry) error {
		if seen != nil {
			for _, it := range v.items {
				if it.exact && it.literal[string(e.name)] != nil {
					seen[string(e.name)] = true
					break
				}
			}
		}
		stack = w.match(v, e.name, e.kindIn(fd), stay, stack)
		return nil
	})
	if seen != nil && err == nil {
		w.absent(v, seen)
	}
	return stack, err
}

// match takes one name of a directory.
func (w *walker) match(v visit, name []byte, kind byte, stay []item, stack []visit) []visit {
	var next []item
	for _, it := range v.items {
		next = it.step(next, name)
	}
	if kind == unix.DT_DIR {
		if len(next) == 0 {
			if next = stay; len(next) == 0 {
				return stack
			}
		} else {
			next = union(next, stay)
		}
		// Whether it accepts is seen when it is looked at.
		return append(stack, visit{join(v.path, string(name)), next})
	}
	if len(next) == 0 {
		return stack
	}
	at := join(v.path, string(name))
	rule, ok := accepted(next)
	switch {
	case kind == unix.DT_LNK:
		w.link(v, string(name), at, rule, ok)
	case ok:
		if err := w.whole(rule, at); err != nil {
			w.fail(rule, at, err)
		}
	default:
		// A file where a directory would have to be, such as the file ".git" of a work tree: it must not make room for one.
		w.stay(v, string(name), at)
	}
	return stack
}

// stay pins a file that a literal element of an item names.
func (w *walker) stay(v visit, name, at string) {
	for _, it := range v.items {
		next := it.literal[name]
		if next == nil {
			continue
		}
		f, err := w.view.stat(at)
		switch {
		case gone(err) || err == nil && (isPlaceholder(f) || f.nlink == 0): // that stands there as long as another sandbox lives
			w.vanished(next.anyRule(), at)
		case err == nil && !f.mountRoot:
			w.add(next.anyRule(), at, f, Pinned, true)
		}
		return
	}
}

// absent notes what is to stay missing in a directory.
func (w *walker) absent(v visit, seen map[string]bool) {
	for _, it := range v.items {
		if !it.exact {
			continue
		}
		for name, next := range it.literal {
			if seen[name] {
				continue
			}
			next.chains([]string{name}, func(names []string, rule Rule) {
				w.missing = append(w.missing, missing{rule: rule, kind: ReadOnly, at: v.path, names: names})
			})
		}
	}
}

// link follows a link that a pattern ends at, or that a literal element of one names.
func (w *walker) link(v visit, name, at string, rule Rule, accepts bool) {
	if accepts {
		w.pinLinks(rule, at)
	} else {
		for _, it := range v.items {
			if next := it.literal[name]; next != nil {
				w.pinLinks(next.anyRule(), at)
				break
			}
		}
	}
	to, err := w.view.resolve(at)
	if err != nil {
		return // it leads nowhere, or out of the view's files: nothing can be changed or made through it
	}
	full := join(to.path, to.rest...)
	if _, ok := w.grants.writable(full); !ok {
		return
	}
	if accepts {
		w.take(rule, at, to, ReadOnly)
		return
	}
	for _, it := range v.items {
		next := it.literal[name]
		if next == nil {
			continue
		}
		if len(to.rest) == 0 {
			if to.file.dir() {
				w.start(to.path, enter(nil, next, true))
			}
			continue
		}
		next.chains(to.rest, func(names []string, rule Rule) {
			w.take(rule, at, place{path: to.path, file: to.file, rest: names, shut: to.shut}, ReadOnly)
		})
	}
}

// told is an error that is worth telling: not that a name went away meanwhile.
func told(err error) error {
	switch {
	case gone(err):
		return nil
	case err == unix.ENAMETOOLONG:
		return fmt.Errorf("lies too deep to be covered: %w", err)
	}
	return err
}
