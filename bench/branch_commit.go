package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Commit is what it took to apply changes, and to copy as many files of those sizes and bring them to the disk: nanoseconds, round
// by round.
type Commit struct {
	Name, Target string
	Files        int
	Took         []float64
	Copy         []float64 // with one sync of the file system
	CopyEach     []float64 // with an fsync of each file
}

func (c *Commit) ratios(to []float64) (list []float64) {
	for i := range c.Took {
		list = append(list, c.Took[i]/to[i])
	}
	return list
}

const (
	commitFiles  = 10_000
	commitRounds = 3
)

// measureCommits writes all files of a tree anew, or a second tree, in a branch, and times how long the run goes on when that is
// done: until all is applied. What the command wrote is not on disk by then: to bring it there is part of the commit, as it is part
// of a copy that is synced, all at once or file by file.
func (w workshop) measureCommits(files int) ([]Commit, error) {
	work, n := w.path("probe/work"), fmt.Sprint(files)
	memory, err := os.MkdirTemp("/dev/shm", "bench-branch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(memory)
	var all []Commit
	for _, storage := range []struct{ name, path string }{
		{"storage beside the directory", w.place("commit-storage")}, {"storage in memory", filepath.Join(memory, "storage")},
	} {
		for _, change := range []struct {
			name string
			argv func(round int) []string
		}{
			{"changed", func(round int) []string { return []string{work, "change", "files", fmt.Sprint("changed", round)} }},
			{"new", func(int) []string { return []string{work, "tree", "added", n, "new"} }},
		} {
			c := Commit{Name: change.name + ", " + storage.name, Target: "≤ 2 ×", Files: files}
			tree := w.place("commit")
			if err := emptied(os.Getuid(), tree, storage.path); err != nil {
				return nil, err
			}
			if _, err := output(tree, []string{work, "tree", "files", n, "original"}); err != nil {
				return nil, err
			}
			for round := range commitRounds {
				for _, copied := range []struct {
					samples *[]float64
					sync    string
				}{{&c.Copy, "sync -f copied"}, {&c.CopyEach, "find copied -type f -print0 | xargs -0 sync"}} {
					took, err := timedSync(tree, []string{"sh", "-c", "cp -a files copied && " + copied.sync})
					if err != nil {
						return nil, err
					}
					*copied.samples = append(*copied.samples, took)
					if _, err := output(tree, []string{"rm", "-r", "copied"}); err != nil {
						return nil, err
					}
				}
				unix.Sync()
				took, err := timedEnd(tree, join(w.branched("commit", tree, storage.path), change.argv(round)))
				if err != nil {
					return nil, err
				}
				c.Took = append(c.Took, took)
				if err := os.RemoveAll(filepath.Join(tree, "added")); err != nil {
					return nil, err
				}
			}
			all = append(all, c)
		}
	}
	return all, nil
}

func timedSync(tree string, argv []string) (float64, error) {
	unix.Sync()
	return timedIn(tree, argv)
}

// timedEnd is how long a run goes on after the command's last word, with which it ends.
func timedEnd(tree string, argv []string) (float64, error) {
	cmd := commandIn(context.Background(), tree, argv)
	words, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_, err = bufio.NewReader(words).ReadString('\n')
	start := time.Now()
	if ended := cmd.Wait(); ended != nil {
		err = ended
	}
	return float64(time.Since(start).Nanoseconds()), err
}

// timedIn is how long a command takes in a tree.
func timedIn(tree string, argv []string) (float64, error) {
	start := time.Now()
	_, err := output(tree, argv)
	return float64(time.Since(start).Nanoseconds()), err
}
