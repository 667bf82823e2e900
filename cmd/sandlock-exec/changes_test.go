package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/sandlock-go/sandlock/exec/branch"
)

func TestQuoteName(t *testing.T) {
	for name, want := range map[string]string{
		"plain":        "plain",
		"a b/c":        "a b/c",
		"é→ü":          "é→ü",
		"":             `""`,
		" a":           `" a"`,
		"a ":           `"a "`,
		"a  (0644)":    `"a  (0644)"`,
		"a -> b":       `"a -> b"`,
		`a"b\c`:        `"a\"b\\c"`,
		"a\nA  b":      `"a\nA  b"`,
		"\x1b[1m":      `"\033[1m"`,
		"\x7f\x80\xff": `"\177\200\377"`,
		"a\u202eb":     `"a\342\200\256b"`,
		"\ufffd":       "\ufffd",
		"\u00a0":       `"\302\240"`,
	} {
		if got := quoteName(name); got != want {
			t.Errorf("quoteName(%q) = %s, want %s", name, got, want)
		}
	}
}

// A quoted name is one line of printable text, and no two names read alike.
func FuzzQuoteName(f *testing.F) {
	for _, s := range []string{"a", "\xff", "a\nb", "\u202e", `"`, " "} {
		f.Add(s, s+"x")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		q := quoteName(a)
		for _, r := range q {
			if !unicode.IsPrint(r) {
				t.Errorf("quoteName(%q) = %q", a, q)
			}
		}
		if a != b && q == quoteName(b) {
			t.Errorf("%q and %q are both %s", a, b, q)
		}
	})
}

func TestChangeLine(t *testing.T) {
	file := branch.Change{Kind: branch.Modified, Path: "f", Type: "file", Mode: 0o644, Size: 3, OldType: "file", OldMode: 0o644, OldSize: 2}
	with := func(change func(*branch.Change)) branch.Change {
		c := file
		change(&c)
		return c
	}
	for want, c := range map[string]branch.Change{
		"M  f  (2 → 3 bytes)":              with(func(c *branch.Change) { c.Content = true }),
		"M  f  (3 bytes)":                  with(func(c *branch.Change) { c.Content, c.OldSize = true, 3 }),
		"M  f  (owner or attributes)":      with(func(c *branch.Change) { c.Metadata = true }),
		"M  f  (0644 → 4755)":              with(func(c *branch.Change) { c.Metadata, c.Mode = true, 0o4755 }),
		"M  f  (0644 → 0600, 2 → 3 bytes)": with(func(c *branch.Change) { c.Content, c.Metadata, c.Mode = true, true, 0o600 }),
		"M  f/  (was a file, 0644 → 0755)": with(func(c *branch.Change) { c.Content, c.Metadata, c.Type, c.Mode = true, true, "directory", 0o755 }),
		"M  f -> x  (was a file)": with(func(c *branch.Change) {
			c.Content, c.Metadata, c.Type, c.Mode, c.Text = true, true, "symlink", 0o777, "x"
		}),
		"M  f  (was a symlink, 3 bytes)": with(func(c *branch.Change) { c.Content, c.Metadata, c.OldType, c.OldMode = true, true, "symlink", 0o777 }),
		"M  f -> \"a\\nb\"":              with(func(c *branch.Change) { c.Content, c.Type, c.OldType, c.Text = true, "symlink", "symlink", "a\nb" }),
		"M  ./  (0755 → 0700)":           {Kind: branch.Modified, Type: "directory", Mode: 0o700, OldType: "directory", OldMode: 0o755, Metadata: true},
		"A  s  (socket, 0600)":           {Kind: branch.Added, Path: "s", Type: "socket", Mode: 0o600},
		"A  f  (0644, 1 byte)":           {Kind: branch.Added, Path: "f", Type: "file", Mode: 0o644, Size: 1},
		"D  d/":                          {Kind: branch.Deleted, Path: "d", Type: "directory", Mode: 0o755},
		"D  \"l\\t\" -> a":               {Kind: branch.Deleted, Path: "l\t", Type: "symlink", Text: "a"},
	} {
		if got := changeLine(&c); got != want {
			t.Errorf("%+v: %s, want %s", c, got, want)
		}
	}
}

// What a diff says of two versions.
func TestPrintSides(t *testing.T) {
	none := side{name: "/dev/null"}
	version := func(name, text string, mode uint32) side {
		return side{name: name, kind: 0o10, mode: mode, size: int64(len(text)), text: []byte(text)}
	}
	large := version("b/f", "", 0o644)
	large.size = diffLimit + 1
	closed := version("a/f", "", 0o644)
	closed.err = bytes.ErrTooLarge
	for name, tc := range map[string]struct {
		from, to side
		want     string
	}{
		"none":         {none, none, ""},
		"attributes":   {version("a/f", "", 0o644), version("b/f", "", 0o644), ""},
		"empty, new":   {none, version("b/f", "", 0o600), "new file mode 100600\n"},
		"mode":         {version("a/f", "x", 0o644), version("b/f", "x", 0o755), "old mode 100644\nnew mode 100755\n"},
		"emptied":      {version("a/f", "x\n", 0o644), version("b/f", "", 0o644), "--- a/f\n+++ b/f\n@@ -1,1 +0,0 @@\n-x\n"},
		"newline":      {version("a/f", "x", 0o644), version("b/f", "x\n", 0o644), "--- a/f\n+++ b/f\n@@ -1,1 +1,1 @@\n-x\n\\ No newline at end of file\n+x\n"},
		"binary":       {version("a/f", "x", 0o644), version("b/f", "\x00", 0o644), "Binary files a/f and b/f differ\n"},
		"binary, gone": {version("a/f", "\x00", 0o644), none, "deleted file mode 100644\nBinary files a/f and /dev/null differ\n"},
		"large":        {version("a/f", "x", 0o644), large, "Files a/f and b/f differ (too large to be shown: 1 and 4194305 bytes)\n"},
		"closed":       {closed, version("b/f", "", 0o644), "Files a/f and b/f differ (cannot be read)\n"},
	} {
		var out strings.Builder
		if err := printSides(&out, "f", tc.from, tc.to); err != nil {
			t.Error(err)
		}
		if got := strings.TrimPrefix(out.String(), "diff --git a/f b/f\n"); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestShellWord(t *testing.T) {
	for path, want := range map[string]string{"/a/b-c_1": "/a/b-c_1", "": "''", "/a b": "'/a b'", "/it's": `'/it'\''s'`, "/$x": "'/$x'"} {
		if got := shellWord(path); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", path, got, want)
		}
	}
}
