package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sandlock-go/sandlock/exec/branchfs"
)

// ofBranchFS reports whether an argument is the directory of a branch of a BranchFS: those of ours have names without "@".
func ofBranchFS(arg string) bool {
	return strings.Contains(arg, "/") && strings.HasPrefix(filepath.Base(arg), "@")
}

// settleBranchFS commits or drops a branch of a BranchFS, which keeps no notes of ours.
func (c *branchCommand) settleBranchFS(s *streams) error {
	switch {
	case c.name != "commit" && c.name != "abort":
		return fmt.Errorf("branch %s: %s is a branch of a BranchFS, which can only be committed and aborted", c.name, quoteName(c.id))
	case c.force:
		return errors.New("branch commit: BranchFS has no --force")
	}
	dir, err := filepath.Abs(c.id)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return err
	}
	b, err := branchfs.Open(dir)
	if errors.Is(err, branchfs.ErrBusy) {
		return branchError(s, err)
	}
	if err != nil {
		return err
	}
	defer b.Close()
	if c.name == "abort" {
		return branchError(s, b.Abort())
	}
	return branchError(s, b.Commit())
}

// settleHint says what can be done with a branch, and what it means to commit it.
func settleHint(dir, commit string) string {
	const tool = "sandlock-exec branch "
	dir = shellWord(dir)
	return tool + "commit " + dir + " " + commit + ", " + tool + "abort " + dir + " drops the changes"
}
