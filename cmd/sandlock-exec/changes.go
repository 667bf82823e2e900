package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/branch"
)

// changeFormat says how the changes of a branch are printed.
type changeFormat struct {
	json bool // one object a line
	list bool // one line each, for people
	diff bool // of what is text; after the list
}

// settle checks the flags --json and --diff.
func (f *changeFormat) settle(dryRun bool) error {
	switch {
	case !dryRun && (f.json || f.diff):
		return errors.New("--json and --diff say how --dry-run shows changes: they need it (try sandlock-exec --help)")
	case f.json && f.diff:
		return errors.New("--json and --diff exclude each other")
	}
	f.list = !f.json
	return nil
}

// print prints the changes of a branch, and returns how many there are.
func (f changeFormat) print(w io.Writer, b *branch.Branch) (n int, err error) {
	out := bufio.NewWriter(w)
	if f.list || f.json {
		enc := json.NewEncoder(out)
		for c, err := range b.Changes() {
			if err == nil && f.json {
				err = enc.Encode(c)
			} else if err == nil {
				_, err = fmt.Fprintln(out, changeLine(&c))
			}
			if err != nil {
				return n, errors.Join(err, out.Flush())
			}
			n++
		}
	}
	if f.diff {
		if f.list && n > 0 {
			fmt.Fprintln(out)
		}
		if err := printDiff(out, b); err != nil {
			return n, errors.Join(err, out.Flush())
		}
	}
	return n, out.Flush()
}

// review returns what shows the changes of a dry run. Whoever reads them may stop to do so: then the changes must be dropped
// all the same, which a signal (SIGPIPE) would prevent. The command is over by then, and inherits nothing of that.
func (f changeFormat) review(s *streams, quiet bool) func(*branch.Branch) error {
	return func(b *branch.Branch) error {
		signal.Ignore(unix.SIGPIPE)
		n, err := f.print(s.out, b)
		if errors.Is(err, unix.EPIPE) {
			return nil
		}
		if err == nil && n == 0 && !quiet {
			fmt.Fprintln(s.err, "sandlock-exec: no changes")
		}
		return err
	}
}

// changeLine is a change as people read it: what happened, the name, and in brackets what else is to be known.
func changeLine(c *branch.Change) string {
	line := fmt.Sprintf("%c  %s", c.Kind, quoteName(entryName(c)))
	if c.Type == "symlink" {
		line += " -> " + quoteName(c.Text)
	}
	if about := changeDetails(c); len(about) > 0 {
		line += "  (" + strings.Join(about, ", ") + ")"
	}
	return line
}

// entryName is the path of a change, with a slash at the end of a directory's.
func entryName(c *branch.Change) string {
	switch {
	case c.Path == "":
		return "./"
	case c.Type == "directory":
		return c.Path + "/"
	}
	return c.Path
}

func changeDetails(c *branch.Change) (about []string) {
	if c.Kind == branch.Deleted {
		return nil
	}
	special := c.Type != "file" && c.Type != "directory" && c.Type != "symlink"
	if c.Kind == branch.Added {
		if special {
			about = append(about, c.Type)
		}
		if c.Type != "symlink" {
			about = append(about, fmt.Sprintf("%04o", c.Mode))
		}
		if c.Type == "file" {
			about = append(about, bytesOf(c.Size))
		}
		return about
	}
	if c.OldType != c.Type {
		about = append(about, "was a "+c.OldType)
	} else if special {
		about = append(about, c.Type)
	}
	moded := c.OldMode != c.Mode && c.Type != "symlink" && c.OldType != "symlink"
	if moded {
		about = append(about, fmt.Sprintf("%04o → %04o", c.OldMode, c.Mode))
	}
	if c.OldType == c.Type && c.Metadata && !moded {
		about = append(about, "owner or attributes")
	}
	if c.Content && c.Type == "file" {
		if c.OldType == "file" && c.OldSize != c.Size {
			about = append(about, fmt.Sprintf("%d → %s", c.OldSize, bytesOf(c.Size)))
		} else {
			about = append(about, bytesOf(c.Size))
		}
	}
	return about
}

func bytesOf(n int64) string {
	if n == 1 {
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}

// quoteName returns a name as it is if it reads as what it is, else quoted as git does: the command has chosen it, and it must
// neither pass for something else in the list nor reach the terminal as a control sequence.
func quoteName(name string) string {
	plain := name != "" && name[0] != ' ' && name[len(name)-1] != ' ' && !strings.Contains(name, "  ") && !strings.Contains(name, " -> ")
	for i, r := range name {
		_, size := utf8.DecodeRuneInString(name[i:])
		plain = plain && r != '"' && r != '\\' && unicode.IsPrint(r) && (r != utf8.RuneError || size > 1)
	}
	if plain {
		return name
	}
	var q strings.Builder
	q.WriteByte('"')
	for len(name) > 0 {
		r, size := utf8.DecodeRuneInString(name)
		short := strings.IndexByte("\a\b\t\n\v\f\r\"\\", name[0])
		switch {
		case short >= 0:
			q.WriteByte('\\')
			q.WriteByte(`abtnvfr"\`[short])
		case unicode.IsPrint(r) && (r != utf8.RuneError || size > 1):
			q.WriteString(name[:size])
		default:
			for _, b := range []byte(name[:size]) {
				fmt.Fprintf(&q, `\%03o`, b)
			}
		}
		name = name[size:]
	}
	q.WriteByte('"')
	return q.String()
}
