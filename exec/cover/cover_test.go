package cover

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Paths are written as in the view; with the process's own root the directory of the test is put in front.
type planCase struct {
	name    string
	tree    []string
	read    []string
	write   []string
	deny    []string
	protect []string
	want    []string // covers
	holds   []string // placeholders
	made    []string // what the plan adds to the tree
	fails   []string // parts of the error
}

var planCases = []planCase{
	{name: "nothing"},
	{name: "file", tree: []string{"r/a", "r/b"}, read: []string{"/r"}, deny: []string{"/r/a"}, want: []string{"closed f /r/a"}},
	{name: "out of reach", tree: []string{"r/a", "x/b", "rr/c", "r-/d"}, read: []string{"/r"}, deny: []string{"/x/b", "/x", "/none/of/it", "/rr", "/r-/d"}},
	{name: "above grants", tree: []string{"home/u/w/"}, write: []string{"/home/u/w"}, deny: []string{"/home"}, want: []string{"closed d /home"}},
	{name: "beside a grant above", tree: []string{"a/b/", "a-b/c", "a/c"}, read: []string{"/a/b", "/a-b"}, deny: []string{"/a"}, want: []string{"closed d /a"}},
	{name: "the grant itself", tree: []string{"w/a"}, write: []string{"/w"}, deny: []string{"/w"}, want: []string{"closed d /w"}},
	{name: "nested", tree: []string{"w/a/b/c"}, write: []string{"/w"}, deny: []string{"/w/a/b/c", "/w/a/b", "/w/a/b/", "/w/a"},
		want: []string{"closed d /w/a"}},
	{name: "relative", deny: []string{"a"}, read: []string{"/"}, fails: []string{"filesystem.deny[0]: a: is not absolute"}},
	{name: "pins", tree: []string{"w/a/b/c"}, write: []string{"/w"}, deny: []string{"/w/a/b/c"},
		want: []string{"pinned d /w/a", "pinned d /w/a/b", "closed f /w/a/b/c"}},
	{name: "pins up to the outermost grant", tree: []string{"w/a/b/c"}, write: []string{"/w/a/b", "/w"}, read: []string{"/w/a"}, deny: []string{"/w/a/b/c"},
		want: []string{"pinned d /w/a", "pinned d /w/a/b", "closed f /w/a/b/c"}},
	{name: "no pins beneath a read grant", tree: []string{"r/a/b/c"}, read: []string{"/r"}, deny: []string{"/r/a/b/c"}, want: []string{"closed f /r/a/b/c"}},
	{name: "links", tree: []string{"w/d/secret", "w/l1 -> d/secret", "w/l2 -> l1", "w/dir -> /w/d", "w/up -> ../w/d/../l2"}, write: []string{"/w"},
		deny: []string{"/w/up"}, want: []string{"pinned d /w/d", "pinned l /w/l1", "pinned l /w/l2", "pinned l /w/up", "closed f /w/d/secret"}},
	{name: "link on the way", tree: []string{"data/secret", "w/", "w/l -> ../data"}, write: []string{"/w"}, read: []string{"/data"},
		deny: []string{"/w/l/secret"}, want: []string{"pinned l /w/l", "closed f /data/secret"}},
	{name: "link to what nothing reaches", tree: []string{"data/secret", "w/", "w/l -> /data"}, write: []string{"/w"}, deny: []string{"/w/l/secret"}},
	{name: "link out of reach into reach", tree: []string{"w/s", "x/", "x/l -> ../w/s"}, write: []string{"/w"}, deny: []string{"/x/l"}, want: []string{"closed f /w/s"}},
	{name: "link in circles", tree: []string{"w/l -> l"}, write: []string{"/w"}, deny: []string{"/w/l"}, fails: []string{"filesystem.deny[0]: /w/l: too many"}},
	{name: "root", tree: []string{"a"}, read: []string{"/"}, deny: []string{"/l"}},

	{name: "missing", tree: []string{"w/"}, write: []string{"/w"}, deny: []string{"/w/none"}, want: []string{"closed f /w/none"}, holds: []string{"/w/none"}, made: []string{"w/none"}},
	{name: "missing deeper", tree: []string{"w/"}, write: []string{"/w"}, deny: []string{"/w/a/b/c"},
		want:  []string{"pinned d /w/a", "pinned d /w/a/b", "closed f /w/a/b/c"},
		holds: []string{"/w/a/b/c"}, made: []string{"w/a", "w/a/b", "w/a/b/c"}},
	{name: "missing together", tree: []string{"w/"}, write: []string{"/w"}, deny: []string{"/w/a/b", "/w/a/c", "/w/a/b/d"},
		want:  []string{"pinned d /w/a", "closed f /w/a/b", "closed f /w/a/c"},
		holds: []string{"/w/a/b", "/w/a/c"}, made: []string{"w/a", "w/a/b", "w/a/c"}},
	{name: "missing beneath a read grant", tree: []string{"r/"}, read: []string{"/r"}, deny: []string{"/r/none"}},
	{name: "missing in a closed directory", tree: []string{"w/a/"}, write: []string{"/w"}, deny: []string{"/w/a", "/w/a/none"}, want: []string{"closed d /w/a"}},
	{name: "missing in a read-only directory", tree: []string{"w/a/"}, write: []string{"/w"}, deny: []string{"/w/a/none"}, protect: []string{"a/**"}, want: []string{"read-only d /w/a"}},
	{name: "dangling link", tree: []string{"w/", "w/l -> d/none"}, write: []string{"/w"}, deny: []string{"/w/l"},
		want: []string{"pinned d /w/d", "pinned l /w/l", "closed f /w/d/none"}, holds: []string{"/w/d/none"}, made: []string{"w/d", "w/d/none"}},
	{name: "dangling link out of reach", tree: []string{"w/", "w/l -> /d/none"}, write: []string{"/w"}, deny: []string{"/w/l"}},
	{name: "file in place of a directory", tree: []string{"w/a"}, write: []string{"/w"}, deny: []string{"/w/a/b"}, want: []string{"pinned f /w/a"}},

	{name: "hard links", tree: []string{"w/s", "r/d/alias = w/s", "w/d/alias = w/s", "x/alias = w/s"}, write: []string{"/w"}, read: []string{"/r"}, deny: []string{"/w/s"},
		want: []string{"closed f /r/d/alias", "closed f /w/d/alias", "closed f /w/s"}},
	{name: "hard link that is granted itself", tree: []string{"w/s", "r/alias = w/s"}, write: []string{"/w"}, read: []string{"/r/alias"}, deny: []string{"/w/s"},
		want: []string{"closed f /r/alias", "closed f /w/s"}},
	{name: "hard links of what is not granted", tree: []string{"x/s", "w/alias = x/s"}, write: []string{"/w"}, deny: []string{"/x/s"}},
	{name: "hard links into a closed directory", tree: []string{"w/d/s", "w/alias = w/d/s", "w/d/inner = w/d/s", "w/d/t", "w/d/u = w/d/t"}, write: []string{"/w"}, deny: []string{"/w/d"},
		want: []string{"closed f /w/alias", "closed d /w/d"}},
	{name: "hard links of protected files", tree: []string{"w/p", "w/alias = w/p", "r/alias = w/p", "w/v/q", "w/qalias = w/v/q"}, write: []string{"/w"}, read: []string{"/r"}, protect: []string{"p", "v"},
		want: []string{"read-only f /w/alias", "read-only f /w/p", "read-only f /w/qalias", "read-only d /w/v"}},
	{name: "denied alias in a protected directory", tree: []string{"w/s", "w/v/alias = w/s"}, write: []string{"/w"}, deny: []string{"/w/s"}, protect: []string{"v"},
		want: []string{"read-only d /w/v", "closed f /w/s", "closed f /w/v/alias"}},

	{name: "protect", tree: []string{"w/.git/hooks/x", "w/sub/.git/hooks/y", "w/sub/other/"}, write: []string{"/w"}, protect: []string{"**/.git/hooks/**"},
		want: []string{"pinned d /w/.git", "pinned d /w/sub", "pinned d /w/sub/.git", "read-only d /w/.git/hooks", "read-only d /w/sub/.git/hooks"}},
	{name: "protect nothing beneath read grants", tree: []string{"r/.git/hooks/x"}, read: []string{"/r"}, protect: []string{"**/.git/hooks/**", "/r/.git"}},
	{name: "protect missing", tree: []string{"w/", "w/sub/.git/"}, write: []string{"/w"}, protect: []string{"**/.git/hooks/**"},
		want: []string{"pinned d /w/.git", "pinned d /w/sub", "pinned d /w/sub/.git", "closed f /w/.git/hooks", "closed f /w/sub/.git/hooks"}, holds: []string{"/w/.git/hooks", "/w/sub/.git/hooks"},
		made: []string{"w/.git", "w/.git/hooks", "w/sub/.git/hooks"}},
	{name: "protect each grant", tree: []string{"v/.env", "w/x/.env", "w/x/y/.env"}, write: []string{"/v", "/w", "/w/x"}, protect: []string{".env"},
		want: []string{"pinned d /w/x", "read-only f /v/.env", "read-only f /w/x/.env", "closed f /w/.env"}, holds: []string{"/w/.env"}, made: []string{"w/.env"}},
	{name: "protect by wildcards", tree: []string{"w/a.pem", "w/d/b.pem", "w/d/c.txt", "w/id_rsa", "w/d/id_x", "w/.pem", "w/key1", "w/key22"}, write: []string{"/w"}, protect: []string{"**/*.pem", "id_*", "key?", "[x-z]*"},
		want: []string{"pinned d /w/d", "read-only f /w/.pem", "read-only f /w/a.pem", "read-only f /w/d/b.pem", "read-only f /w/id_rsa", "read-only f /w/key1"}},
	{name: "protect the whole grant", tree: []string{"w/a", "v/b"}, write: []string{"/w", "/v"}, protect: []string{"/w/**"}, want: []string{"read-only d /w"}},
	{name: "protect everything", tree: []string{"w/a", "v/b"}, write: []string{"/w", "/v"}, protect: []string{"/**"}, want: []string{"read-only d /v", "read-only d /w"}},
	{name: "protect absolute", tree: []string{"home/u/w/.ssh/k", "home/u/w/x/.ssh/k", "home/v/.ssh/k"}, write: []string{"/home/u/w"}, protect: []string{"/home/*/w/.ssh/**", "/home/u/w/x/**/k"},
		want: []string{"pinned d /home/u/w/x", "pinned d /home/u/w/x/.ssh", "read-only d /home/u/w/.ssh", "read-only f /home/u/w/x/.ssh/k", "closed f /home/u/w/x/k"},
		// "**" may stand for no element.
		holds: []string{"/home/u/w/x/k"}, made: []string{"home/u/w/x/k"}},
	{name: "protect absolute above the grant", tree: []string{"home/u/w/"}, write: []string{"/home/u/w"}, protect: []string{"/home/*/**"}, want: []string{"read-only d /home/u/w"}},
	{name: "protect absolute through a link", tree: []string{"var/w/f", "home -> var"}, write: []string{"/var/w"}, protect: []string{"/home/w/f", "/home/w/*.x"}, want: []string{"read-only f /var/w/f"}},
	{name: "protect absolute missing", tree: []string{"w/"}, write: []string{"/w"}, protect: []string{"/w/a/**/b", "/w/c/**", "/w/d/*/e"},
		want: []string{"pinned d /w/a", "closed f /w/a/b", "closed f /w/c"}, holds: []string{"/w/a/b", "/w/c"}, made: []string{"w/a", "w/a/b", "w/c"}},
	{name: "protect a file grant", tree: []string{"d/f"}, write: []string{"/d/f"}, protect: []string{"/d/*", ".git/x"}, want: []string{"read-only f /d/f"}},
	{name: "protect links", tree: []string{"w/real/h", "w/.git/", "w/.git/hooks -> ../real", "w/sub/.git -> /w/g2", "w/g2/hooks/", "w/out/.git/hooks -> /x"}, write: []string{"/w"}, protect: []string{"**/.git/hooks/**"},
		want: []string{"pinned d /w/.git", "pinned l /w/.git/hooks", "pinned d /w/g2", "pinned d /w/out", "pinned d /w/out/.git", "pinned l /w/out/.git/hooks", "pinned d /w/sub",
			"pinned l /w/sub/.git", "read-only d /w/g2/hooks", "read-only d /w/real"}},
	{name: "protect a file in place of a directory", tree: []string{"w/.git"}, write: []string{"/w"}, protect: []string{".git/hooks/**"}, want: []string{"pinned f /w/.git"}},
	{name: "protect with links in circles", tree: []string{"w/a/", "w/a/a -> ../a", "w/a/b/x", "w/l -> l"}, write: []string{"/w"}, protect: []string{"**/a/**/x", "l"},
		want: []string{"pinned d /w/a", "pinned l /w/a/a", "pinned d /w/a/b", "pinned l /w/l", "read-only f /w/a/b/x", "closed f /w/a/x"}, holds: []string{"/w/a/x"}, made: []string{"w/a/x"}},
	{name: "protect and deny", tree: []string{"w/.git/hooks/x", "w/.git/secret"}, write: []string{"/w"}, deny: []string{"/w/.git/hooks/x", "/w/.git/secret"}, protect: []string{"**/.git/hooks/**", "**/secret"},
		want:  []string{"pinned d /w/.git", "read-only d /w/.git/hooks", "closed f /w/.git/hooks/x", "closed f /w/.git/secret", "closed f /w/secret"},
		holds: []string{"/w/secret"}, made: []string{"w/secret"}},
	{name: "all errors at once", tree: []string{"w/l -> l"}, write: []string{"/w"}, deny: []string{"x", "/w/l", "/w/fine"}, fails: []string{"filesystem.deny[0]", "filesystem.deny[1]"}},
}

func TestPlans(t *testing.T) {
	asUsers(t, func(t *testing.T) {
		for _, tc := range planCases {
			t.Run(strings.ReplaceAll(tc.name, " ", "_"), func(t *testing.T) { tc.run(t) })
		}
	})
}

func (tc planCase) run(t *testing.T) {
	for _, own := range []bool{true, false} {
		dir := tree(t)
		for _, line := range tc.tree {
			if name, target, ok := strings.Cut(line, " -> "); ok && own && strings.HasPrefix(target, "/") {
				line = name + " -> " + dir + target
			}
			growTree(t, dir, line)
		}
		before := listing(t, dir)
		roots(t, dir, func(t *testing.T, root kernel.Root, prefix string) {
			if root.Own() == own {
				tc.in(t, dir, root, prefix, before)
			}
		})
	}
}

func (tc planCase) in(t *testing.T, dir string, root kernel.Root, prefix string, before []string) {
	under := func(paths []string) (list []string) {
		for _, p := range paths {
			if strings.HasPrefix(p, "/") {
				p = prefix + p
			}
			list = append(list, p)
		}
		return list
	}
	request := Request{Root: root, Deny: rules("deny", under(tc.deny)...), Protect: rules("protect", under(tc.protect)...)}
	for _, p := range under(tc.read) {
		request.Grants = append(request.Grants, Grant{Path: p})
	}
	for _, p := range under(tc.write) {
		request.Grants = append(request.Grants, Grant{Path: p, Write: true})
	}
	plan, err := Make(request)
	if len(tc.fails) > 0 {
		if err == nil {
			plan.Undo()
			t.Fatal("got no error")
		}
		for _, part := range tc.fails {
			if text := strings.ReplaceAll(err.Error(), dir, ""); !strings.Contains(text, part) {
				t.Errorf("error %q lacks %q", text, part)
			}
		}
		same(t, listing(t, dir), before)
		return
	}
	check(t, err)
	var covers, holds []string
	for _, line := range shown(plan) {
		covers = append(covers, strings.Replace(line, " "+prefix+"/", " /", 1))
	}
	for _, h := range plan.Placeholders {
		holds = append(holds, strings.TrimPrefix(h.Path, prefix))
	}
	same(t, covers, tc.want)
	same(t, holds, tc.holds)
	for _, name := range tc.made {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Errorf("was not made: %v", err)
		}
	}
	if got, want := len(listing(t, dir)), len(before)+len(tc.made); got != want {
		t.Errorf("%d files, want %d: %q", got, want, listing(t, dir))
	}
	plan.Undo()
	same(t, listing(t, dir), before)
}
