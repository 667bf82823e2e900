package cover

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir/glob"
)

// matches is what a pattern means, said in the plainest way.
func matches(pattern, names []string) bool {
	switch {
	case len(pattern) == 0:
		return len(names) == 0
	case pattern[0] == "**":
		return matches(pattern[1:], names) || len(names) > 0 && matches(pattern, names[1:])
	}
	return len(names) > 0 && glob.Element(pattern[0], names[0]) && matches(pattern[1:], names[1:])
}

// walked is whether the tree of patterns accepts a path.
func walked(root *node, names []string) (Rule, bool) {
	items := enter(nil, root, true)
	for _, name := range names {
		items = union(steps(nil, items, []byte(name)), loops(items))
	}
	return accepted(items)
}

func TestPatterns(t *testing.T) {
	for _, tc := range []struct {
		pattern string
		yes, no string
	}{
		{"a", "a", "b a/a A"},
		{"a/b", "a/b", "a a/b/c b/a/b"},
		{"*", "a .a a.b", "a/b"},
		{"**", "a a/b .a/.b/c", ""},
		{"**/a", "a b/a b/c/a a/a", "b a/b ab"},
		{"a/**", "a a/b a/b/c", "b b/a"},
		{"a/**/b", "a/b a/c/b a/c/d/b a/b/b", "a b a/b/c"},
		{"**/a/**/b/**", "a/b x/a/y/b/z a/b/c x/y/a/b a/a/b", "a b/a"},
		{"**/**/a", "a b/a", "b"},
		{"*.pem", "a.pem .pem", "a.pe pem"},
		{"id_*", "id_ id_rsa", "id xid_rsa"},
		{"a*b", "ab axb", "a b xab"},
		{"k?y", "key kéy", "ky keey"},
		{"[a-c]*", "a b cc", "d"},
		{`\*`, "*", "a"},
		{`\*x`, "*x", "ax"},
		{"*[x", "", "a x"},
		{"**/*.pem", "a.pem b/c/d.pem", "a"},
		{"**/.git/hooks/**", ".git/hooks .git/hooks/x a/.git/hooks/b/c", ".git .git/info hooks"},
	} {
		root := &node{}
		root.insert(split(tc.pattern), Rule{Name: tc.pattern})
		for want, list := range map[bool]string{true: tc.yes, false: tc.no} {
			for _, name := range strings.Fields(list) {
				if _, got := walked(root, split(name)); got != want {
					t.Errorf("%q on %q: got %v", tc.pattern, name, got)
				}
				if got := matches(split(tc.pattern), split(name)); got != want {
					t.Errorf("%q on %q: the test's own matcher says %v", tc.pattern, name, got)
				}
			}
		}
	}
}

// FuzzPatterns: one tree of several patterns accepts what one of them matches.
func FuzzPatterns(f *testing.F) {
	f.Add("**/a/*", "*.x\nb/**", "a/b/c.x")
	f.Add("a/**/b", "**/**/b*", "a/b/b")
	f.Add("[a", "**", "a")
	f.Add("a?/\\*", "*a/*b*", "aé/*")
	f.Fuzz(func(t *testing.T, first, more, name string) {
		names := split(name)
		patterns := append([]string{first}, strings.Split(more, "\n")...)
		total := 0
		for _, pattern := range patterns {
			total += len(split(pattern))
		}
		if total > 20 || len(names) > 12 {
			return // the test's matcher takes time that doubles with each
		}
		root := &node{}
		want := false
		for _, pattern := range patterns {
			if slices.ContainsFunc(split(pattern), func(elem string) bool { return elem != "**" && strings.Contains(elem, "**") }) {
				return // not in policies
			}
			root.insert(split(pattern), Rule{Name: pattern})
			want = want || matches(split(pattern), names)
		}
		rule, got := walked(root, names)
		if got != want {
			t.Fatalf("%q on %q: got %v, want %v", patterns, name, got, want)
		}
		if got && !matches(split(rule.Name), names) {
			t.Fatalf("%q on %q: blames %q", patterns, name, rule.Name)
		}
	})
}

func TestChains(t *testing.T) {
	root := &node{}
	for _, pattern := range []string{"a/b/c", "a/b/c/d", "**/e/**/f/**", "a/*/g", "h/**"} {
		root.insert(split(pattern), Rule{Name: pattern})
	}
	var got []string
	root.chains(nil, func(names []string, rule Rule) { got = append(got, strings.Join(names, "/")+" "+rule.Name) })
	slices.Sort(got)
	same(t, got, []string{"a/b/c a/b/c", "e/f **/e/**/f/**", "h h/**"})
}

func TestGrants(t *testing.T) {
	g := newGrants([]Grant{{"/a/b", false}, {"/a/b/c", true}, {"/a/b/c/d", true}, {"/a/b-x", true}, {"/z", false}})
	same(t, g.outer, []string{"/a/b", "/a/b-x", "/z"})
	same(t, g.outerWrites, []string{"/a/b-x", "/a/b/c"})
	for _, tc := range []struct {
		path           string
		reached, write bool
		outer          string
	}{
		{"/", true, true, ""}, {"/a", true, true, ""}, {"/a/b", true, true, ""}, {"/a/b/x", true, false, ""}, {"/a/b/c/d/e", true, true, "/a/b/c"},
		{"/a/b-", false, false, ""}, {"/a/b-x/y", true, true, "/a/b-x"}, {"/z/y", true, false, ""}, {"/zz", false, false, ""}, {"/y", false, false, ""},
	} {
		outer, _ := g.writable(tc.path)
		if got, write := g.reached(tc.path), g.writeReached(tc.path); got != tc.reached || write != tc.write || outer != tc.outer {
			t.Errorf("%s: got %v %v %q", tc.path, got, write, outer)
		}
	}
}

// TestEscapedPattern: what a parameter brings into a pattern is escaped, and names one file, which is kept missing like any
// other.
func TestEscapedPattern(t *testing.T) {
	for _, name := range []string{"plain", "a[b]c", "a*b", `a\\b`, "what?"} {
		dir := t.TempDir() + "/" + name
		check(t, os.Mkdir(dir, 0o755))
		p, err := Make(Request{
			Grants:  []Grant{{dir, true}},
			Protect: []Rule{{Path: glob.Escape(dir) + "/.bashrc", Name: "protect[0]"}, {Path: glob.Escape(dir) + "/**/" + glob.Escape("x"+name), Name: "protect[1]"}},
		})
		check(t, err)
		for _, missing := range []string{"/.bashrc", "/x" + name} {
			if !slices.ContainsFunc(p.Placeholders, func(h *Placeholder) bool { return h.Path == dir+missing }) {
				t.Errorf("%s%s is not kept missing", dir, missing)
			}
		}
		p.Undo()
	}
}
