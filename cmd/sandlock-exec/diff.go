package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/sandlock-go/sandlock/exec/branch"
)

// diffLimit is how large a file is compared line by line, in bytes: both versions and the lines of both are in memory. The
// comparison is anchored at lines that each version has once, which takes n log n steps at most: the command has written what is
// compared, and an exact one takes n².
const diffLimit = 4 << 20

// side is one version of a file or symbolic link.
type side struct {
	name string // as in the head of a diff; /dev/null if there is no such version
	kind uint32 // as git has it: 10 for files, 12 for links; 0 if there is no such version
	mode uint32
	size int64
	text []byte // unless it is larger than the limit
	err  error  // why it could not be read: it is not for this user, or somebody has changed it meanwhile
}

func (s *side) exists() bool { return s.kind != 0 }

// untold tells that the text is not there to be compared.
func (s *side) untold() bool { return s.err != nil || s.size > diffLimit }

func (s *side) binary() bool { return bytes.IndexByte(s.text, 0) >= 0 }

func (s *side) modeText() string { return fmt.Sprintf("%02o%04o", s.kind, s.mode) }

// printDiff prints what has changed in files and symbolic links as a unified diff with git's heads, which git apply and
// patch take.
func printDiff(w io.Writer, b *branch.Branch) error {
	workdir, err := os.OpenRoot(b.Workdir())
	if err != nil {
		return err
	}
	defer workdir.Close()
	for c, err := range b.Changes() {
		if err != nil {
			return err
		}
		from, to := sides(b, workdir, &c)
		if from.exists() && to.exists() && (from.kind != to.kind || from.kind == 0o12) { // git has no changes of types, patch none of links
			err = printSides(w, c.Path, from, side{name: "/dev/null"})
			from = side{name: "/dev/null"}
		}
		if err == nil {
			err = printSides(w, c.Path, from, to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// gitKinds are the types that git keeps.
var gitKinds = map[string]uint32{"file": 0o10, "symlink": 0o12}

// sides reads both versions.
func sides(b *branch.Branch, workdir *os.Root, c *branch.Change) (from, to side) {
	from, to = side{name: "/dev/null"}, side{name: "/dev/null"}
	oldType, oldMode, oldSize := c.OldType, c.OldMode, c.OldSize
	if c.Kind == branch.Deleted {
		oldType, oldMode, oldSize = c.Type, c.Mode, c.Size
	}
	text := c.Kind != branch.Modified || c.Content
	if kind := gitKinds[oldType]; kind != 0 && c.Kind != branch.Added {
		from = side{name: "a/" + c.Path, kind: kind, mode: oldMode, size: oldSize}
		if oldType == "symlink" {
			link, err := workdir.Readlink(c.Path)
			from.mode, from.text, from.err = 0, []byte(link), err
		} else if text {
			from.read(b.OpenOld, c.Path)
		}
	}
	if kind := gitKinds[c.Type]; kind != 0 && c.Kind != branch.Deleted {
		to = side{name: "b/" + c.Path, kind: kind, mode: c.Mode, size: c.Size}
		if c.Type == "symlink" {
			to.mode, to.text = 0, []byte(c.Text)
		} else if text {
			to.read(b.OpenNew, c.Path)
		}
	}
	if !text {
		from.size, to.size = 0, 0
	}
	return from, to
}

func (s *side) read(open func(string) (io.ReadCloser, error), path string) {
	if s.untold() {
		return
	}
	f, err := open(path)
	if err != nil {
		s.err = err
		return
	}
	defer f.Close()
	s.text, s.err = io.ReadAll(io.LimitReader(f, diffLimit+1))
	s.size = int64(len(s.text))
}

func printSides(w io.Writer, path string, from, to side) error {
	untold := from.untold() || to.untold()
	same := !untold && bytes.Equal(from.text, to.text)
	if !from.exists() && !to.exists() || from.exists() && to.exists() && same && from.mode == to.mode {
		return nil // a directory or the like, or a change that a diff has no words for
	}
	head := fmt.Sprintf("diff --git %s %s\n", quoteName("a/"+path), quoteName("b/"+path))
	switch {
	case !from.exists():
		head += "new file mode " + to.modeText() + "\n"
	case !to.exists():
		head += "deleted file mode " + from.modeText() + "\n"
	case from.mode != to.mode:
		head += "old mode " + from.modeText() + "\nnew mode " + to.modeText() + "\n"
	}
	switch {
	case same:
	case untold:
		head += fmt.Sprintf("Files %s and %s differ (%s)\n", quoteName(from.name), quoteName(to.name), why(&from, &to))
	case from.binary() || to.binary():
		head += fmt.Sprintf("Binary files %s and %s differ\n", quoteName(from.name), quoteName(to.name))
	default:
		head += fmt.Sprintf("--- %s\n+++ %s\n", diffName(from.name), diffName(to.name))
		if _, err := io.WriteString(w, head); err != nil {
			return err
		}
		_, err := w.Write(hunks(from.text, to.text))
		return err
	}
	_, err := io.WriteString(w, head)
	return err
}

// why says why two versions are not compared.
func why(from, to *side) string {
	for _, s := range []*side{from, to} {
		var errno syscall.Errno
		if errors.As(s.err, &errno) {
			return errno.Error()
		} else if s.err != nil {
			return "cannot be read"
		}
	}
	return fmt.Sprintf("too large to be shown: %d and %s", from.size, bytesOf(to.size))
}

// diffName ends a name with a space in it by a tab, by which patch knows where it ends.
func diffName(name string) string {
	q := quoteName(name)
	if strings.Contains(q, " ") {
		q += "\t"
	}
	return q
}

// hunks compares two texts. The head of three lines is left to who knows the names.
func hunks(from, to []byte) []byte {
	text := diff.Diff("a", from, "b", to)
	for range 3 {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return text
}
