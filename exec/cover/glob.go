package cover

import "github.com/sandlock-go/sandlock/ir/glob"

// The patterns of one starting point are one tree, so that a directory entry costs a few look-ups however many there are:
// elements without wildcards, and those with one "*" at either end, are found by map.

// node stands for the elements of a pattern that are matched so far.
type node struct {
	literal map[string]*node
	prefix  affixes // "text*"
	suffix  affixes // "*text"
	globs   []other // all others, "*" included
	deep    *node   // reached by "**", for any number of elements: it leads back to itself
	loops   bool    // this node is such a one
	rule    Rule    // where accepts is set: the first rule that ends here
	accepts bool
}

type other struct {
	pattern string
	next    *node
}

// affixes finds texts at one end of a name.
type affixes struct {
	next    map[string]*node
	lengths []int
}

// insert adds a pattern.
func (n *node) insert(elems []string, rule Rule) {
	for _, elem := range elems {
		n = n.child(elem)
	}
	if !n.accepts {
		n.accepts, n.rule = true, rule
	}
}

func (n *node) child(elem string) *node {
	if elem == "**" {
		if n.loops {
			return n // "**/**" is "**"
		}
		if n.deep == nil {
			n.deep = &node{loops: true}
		}
		return n.deep
	}
	if name, ok := glob.Literal(elem); ok {
		if n.literal == nil {
			n.literal = map[string]*node{}
		}
		return grow(n.literal, name)
	}
	if len(elem) > 1 && elem[0] == '*' {
		if text, ok := glob.Literal(elem[1:]); ok {
			return n.suffix.grow(text)
		}
	}
	if len(elem) > 1 && elem[len(elem)-1] == '*' {
		if text, ok := glob.Literal(elem[:len(elem)-1]); ok {
			return n.prefix.grow(text)
		}
	}
	for _, g := range n.globs {
		if g.pattern == elem {
			return g.next
		}
	}
	next := &node{}
	n.globs = append(n.globs, other{elem, next})
	return next
}

func grow(m map[string]*node, key string) *node {
	next := m[key]
	if next == nil {
		next = &node{}
		m[key] = next
	}
	return next
}

func (a *affixes) grow(text string) *node {
	if a.next == nil {
		a.next = map[string]*node{}
	}
	known := false
	for _, n := range a.lengths {
		known = known || n == len(text)
	}
	if !known {
		a.lengths = append(a.lengths, len(text))
	}
	return grow(a.next, text)
}

// item is a node that the way to a directory leads to.
type item struct {
	*node
	// exact: a missing name that the node's literal children ask for is to stay missing. Not so once "**" has swallowed
	// elements, or every directory would need placeholders; until the pattern's next literal element narrows it down again.
	exact bool
}

// enter adds a node and what "**" for no element leads on to.
func enter(items []item, n *node, exact bool) []item {
	for i := range items {
		if items[i].node == n {
			items[i].exact = items[i].exact || exact
			if exact && n.deep != nil {
				return enter(items, n.deep, exact)
			}
			return items
		}
	}
	items = append(items, item{n, exact})
	if n.deep != nil {
		items = enter(items, n.deep, exact)
	}
	return items
}

// step adds what a name leads to from one item, "**" aside.
func (it item) step(items []item, name []byte) []item {
	if next := it.literal[string(name)]; next != nil {
		items = enter(items, next, true)
	}
	for _, n := range it.suffix.lengths {
		if len(name) >= n {
			if next := it.suffix.next[string(name[len(name)-n:])]; next != nil {
				items = enter(items, next, it.exact)
			}
		}
	}
	for _, n := range it.prefix.lengths {
		if len(name) >= n {
			if next := it.prefix.next[string(name[:n])]; next != nil {
				items = enter(items, next, it.exact)
			}
		}
	}
	for _, g := range it.globs {
		if g.pattern == "*" || glob.Element(g.pattern, string(name)) {
			items = enter(items, g.next, it.exact)
		}
	}
	return items
}

// steps returns what a name leads to from items, without what stays because of "**"; see loops.
func steps(to, from []item, name []byte) []item {
	for _, it := range from {
		to = it.step(to, name)
	}
	return to
}

// loops returns the items that every name leads back to.
func loops(from []item) (to []item) {
	for _, it := range from {
		if it.loops {
			to = append(to, item{it.node, false})
		}
	}
	return to
}

// union adds items to others.
func union(to, more []item) []item {
	for _, it := range more {
		to = enter(to, it.node, it.exact)
	}
	return to
}

// accepted returns the rule that one of the items satisfies.
func accepted(items []item) (Rule, bool) {
	for _, it := range items {
		if it.accepts {
			return it.rule, true
		}
	}
	return Rule{}, false
}

// lists reports whether a directory has to be read: an item matches other than by a given name.
func lists(items []item) bool {
	for _, it := range items {
		if it.loops || len(it.globs) > 0 || len(it.prefix.lengths) > 0 || len(it.suffix.lengths) > 0 {
			return true
		}
	}
	return false
}

// chains calls do with the names that lead from a node to an accepting one by literal elements alone, "**" standing for none.
// A chain ends at the first that accepts: what is kept missing has nothing beneath it.
func (n *node) chains(names []string, do func(names []string, rule Rule)) {
	for it := n; it != nil; it = it.deep {
		if it.accepts {
			do(append([]string(nil), names...), it.rule)
			return
		}
	}
	for it := n; it != nil; it = it.deep {
		for name, next := range it.literal {
			next.chains(append(names, name), do)
		}
	}
}

// anyRule returns a rule that leads through a node.
func (n *node) anyRule() Rule {
	for n != nil {
		if n.accepts {
			return n.rule
		}
		var next *node
		for _, c := range n.literal {
			next = c
		}
		for _, c := range n.suffix.next {
			next = c
		}
		for _, c := range n.prefix.next {
			next = c
		}
		if len(n.globs) > 0 {
			next = n.globs[0].next
		}
		if n.deep != nil {
			next = n.deep
		}
		n = next
	}
	return Rule{Name: "filesystem.protect"}
}
