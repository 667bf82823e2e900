package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/compiler"
	"github.com/sandlock-go/sandlock/compiler/load"
	"github.com/sandlock-go/sandlock/ir"
)

type goldenCmd struct {
	Policies string `arg:"" default:"policies" help:"Folder of policies, one a file."`
	Dir      string `default:"golden" help:"Folder of the golden files."`
	Check    bool   `help:"Write nothing; fail if a golden file does not show what its policy means."`
}

// Run writes or compares one golden file for each policy. Goldens are read by people who review a change, so a policy
// that gains a right cannot hide it.
func (c *goldenCmd) Run(s *streams) error {
	files, err := filepath.Glob(filepath.Join(c.Policies, "*.cue"))
	if err != nil || len(files) == 0 {
		return failed("%s: no policies", c.Policies)
	}
	stale := 0
	expected := map[string]bool{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".cue") + ".txt"
		expected[name] = true
		p, err := s.compile(compiler.Options{Source: load.Options{Args: []string{file}}}, false)
		if err != nil {
			return err
		}
		fresh, err := c.one(s, filepath.Join(c.Dir, name), p.Dump(ir.DumpOptions{}))
		if err != nil {
			return err
		}
		if !fresh {
			stale++
		}
	}
	orphans, err := c.orphans(s, expected)
	if err != nil {
		return err
	}
	if stale += orphans; stale > 0 {
		return failed("%d of the golden files do not show what the policies mean", stale)
	}
	return nil
}

// one writes or compares one golden file.
func (c *goldenCmd) one(s *streams, file, text string) (fresh bool, err error) {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, pathError(err)
	}
	if string(old) == text {
		return true, nil
	}
	if !c.Check {
		return true, s.write(file, []byte(text))
	}
	fmt.Fprintf(s.err, "%s is stale; write it with: sandlock-compile golden\n", file)
	fmt.Fprint(s.err, lineDiff(string(old), text, 2))
	return false, nil
}

// orphans counts the golden files that no policy has.
func (c *goldenCmd) orphans(s *streams, expected map[string]bool) (n int, err error) {
	files, err := filepath.Glob(filepath.Join(c.Dir, "*.txt"))
	if err != nil {
		return 0, err
	}
	slices.Sort(files)
	for _, file := range files {
		if !expected[filepath.Base(file)] {
			fmt.Fprintf(s.err, "%s belongs to no policy in %s: remove it\n", file, c.Policies)
			n++
		}
	}
	return n, nil
}
