package exec

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// cleanUp removes what the run has made, once it is over.
func (s *sandbox) cleanUp() {
	s.board.close()
	s.endHelpers()
	if s.view != nil {
		s.view.Close()
	}
	s.dropBranch()
	if err := s.removeGroup(); err != nil {
		fmt.Fprintf(os.Stderr, "sandlock-exec: %v\n", err)
	}
	if s.bound != nil {
		s.removeTmp()
	}
}

// removeTmp removes the private temporary directory, once no process of the sandbox is left to race with.
func (s *sandbox) removeTmp() {
	dir := s.bound.tmp
	if dir == "" {
		return
	}
	err := removeTree(dir)
	if err != nil {
		openUp(dir) // the command may have taken permissions from its own directories
		err = removeTree(dir)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "sandlock-exec: temporary directory: %v\n", err)
	}
}

// removeTree is os.RemoveAll without opening dir's parent, which the executor's own Landlock ruleset does not let it
// read.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return unix.Rmdir(dir)
}

// openUp gives the owner access to every directory of a tree. Links are not followed.
func openUp(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
}
