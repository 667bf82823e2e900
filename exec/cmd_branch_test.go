package exec_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/exec/exectest"
	"github.com/sandlock-go/sandlock/ir"
)

// loadBranched loads a policy that keeps the box's folder for work in a branch.
func loadBranched(t *testing.T, b *branched, fields string) *exec.Artifact {
	t.Helper()
	a, err := exec.Load(b.policy(fields))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func branchOf(t *testing.T, c *exec.Cmd) *exec.BranchResult {
	t.Helper()
	s, _ := c.Status()
	if s.Branch == nil {
		t.Fatalf("no branch: %+v", s)
	}
	return s.Branch
}

func TestCmdBranch(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		old := b.File(b.Work+"/old", "old\n")

		c := loadBranched(t, b, "").Command(bounded(t), "/bin/sh", "-c", "echo 1 >new")
		c.Dir = b.Work
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		if r := branchOf(t, c); r.Action != ir.BranchCommit || r.Err != nil || r.Dir != "" || len(r.ID) != 32 {
			t.Errorf("commit: %+v", r)
		}
		wantFile(t, b.Work+"/new", "1\n")

		c = loadBranched(t, b, "").Command(bounded(t), "/bin/sh", "-c", "rm new; exit 3")
		c.Dir = b.Work
		var exit *exec.ExitError
		if err := c.Run(); !errors.As(err, &exit) || exit.Status.Code != 3 || errors.Unwrap(err) != nil {
			t.Errorf("exit 3: %v", err)
		}
		if r := branchOf(t, c); r.Action != ir.BranchAbort || r.Err != nil || r.Dir != "" {
			t.Errorf("abort: %+v", r)
		}
		wantFile(t, b.Work+"/new", "1\n")

		c = loadBranched(t, b, `on_exit: "keep"`).Command(bounded(t), "/bin/sh", "-c", "echo 2 >new")
		c.Dir = b.Work
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		r := branchOf(t, c)
		if r.Action != ir.BranchKeep || r.Err != nil || r.Dir != b.storage+"/"+r.ID {
			t.Errorf("keep: %+v", r)
		}
		if err := branch.Discard(b.storage, r.ID); err != nil {
			t.Error(err)
		}

		// A conflict is an error that knows its paths, although the command succeeded.
		c = loadBranched(t, b, "").Command(bounded(t), "/bin/sh", "-c", "echo inside >old; echo ready; read go")
		c.Dir = b.Work
		in, feed := io.Pipe()
		ready, out := io.Pipe()
		c.Stdin, c.Stdout = in, out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := ready.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		b.File(old, "outside\n")
		fmt.Fprintln(feed, "go")
		err := c.Wait()
		var conflict *branch.ConflictError
		if !errors.As(err, &exit) || exit.Status.Code != exec.CodeConflict || !errors.As(err, &conflict) || strings.Join(conflict.Paths, " ") != "old" {
			t.Errorf("conflict: %v", err)
		}
		if r := branchOf(t, c); r.Code != exec.CodeConflict || r.Dir == "" || r.Err == nil {
			t.Errorf("conflict: %+v", r)
		} else if err := branch.Discard(b.storage, r.ID); err != nil {
			t.Error(err)
		}
		wantFile(t, old, "outside\n")
		b.wantNone(t)

		// The program itself is as free as ever.
		if err := os.WriteFile(b.Outside+"/mine", nil, 0o644); err != nil {
			t.Error(err)
		}
	})
}

func TestCmdDryRun(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		b.File(b.Work+"/old", "old\n")
		for fields, failure := range map[string]error{"": nil, `on_exit: "keep"`: errors.New("seen enough")} {
			c := loadBranched(t, b, fields).Command(bounded(t), "/bin/sh", "-c", "echo inside >old; mkdir d; echo 1 >d/f")
			c.Dir = b.Work
			var seen []string
			c.Review = func(b *branch.Branch) error {
				for change, err := range b.Changes() {
					if err != nil {
						return err
					}
					seen = append(seen, string(rune(change.Kind))+change.Path)
				}
				f, err := b.OpenNew("old")
				if err != nil {
					return err
				}
				defer f.Close()
				text, err := io.ReadAll(f)
				seen = append(seen, string(text))
				return errors.Join(err, failure)
			}
			err := c.Run()
			if !errors.Is(err, failure) || (err == nil) != (failure == nil) {
				t.Errorf("%v, want %v", err, failure)
			}
			if got, want := strings.Join(seen, " "), "Ad Ad/f Mold inside\n"; got != want {
				t.Errorf("seen %q, want %q", got, want)
			}
			if r := branchOf(t, c); !r.Review || r.Dir != "" {
				t.Errorf("%+v", r)
			}
			wantFile(t, b.Work+"/old", "old\n")
			b.wantNone(t)
		}

		c := load(t, box, exectest.Grants{}).Command(bounded(t), "true")
		c.Review = func(*branch.Branch) error { return nil }
		if err := c.Run(); err == nil || !strings.Contains(err.Error(), "filesystem.workdir") {
			t.Errorf("without a branch: %v", err)
		}
	})
}
