package exec_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
	"github.com/sandlock-go/sandlock/ir"
)

// wantKept wants that a transaction has left a branch to be gone on with, and returns its directory.
func (b *branched) wantKept(t *testing.T, r exec.TransactionResult, changes string) string {
	t.Helper()
	i := b.wantOne(t, "kept")
	if r.Branch == nil || r.Branch.Action != ir.BranchKeep || r.Branch.Dir != i.Dir || r.Branch.Err != nil {
		t.Errorf("%+v, want the branch in %s", r.Branch, i.Dir)
	}
	shown := b.branch(t, "show", i.ID).Stdout
	_, list, _ := strings.Cut(shown, "\n\n")
	var got []string
	for line := range strings.Lines(list) {
		kind, path, _ := strings.Cut(strings.TrimSpace(line), "  ")
		path, _, _ = strings.Cut(path, "  ")
		got = append(got, kind+path)
	}
	if strings.Join(got, " ") != changes {
		t.Errorf("the branch has %q, want %q", got, changes)
	}
	return i.Dir
}

// What the stages before have made is kept as it was before the one that failed, and the next transaction goes on from there.
func Test_transaction_savepoints(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		b.File(b.Work+"/old", "old\n")
		b.File(b.Work+"/gone", "gone\n")
		before := tree(t, b.Work)
		a := loadBranched(t, b, "")
		first, second := "rm gone; mkdir d; echo 1 >d/one; echo 1 >>old", "mkdir e; mv d/one e/two; chmod 700 e"
		txn := b.stagedUnder(t, a, first, second, "rm -r e old; touch half; exit 5", "touch never")
		txn.Savepoints = true
		r, err := txn.Run(bounded(t))
		wantAbort(t, r, err, 2, 5, 3)
		kept := b.wantKept(t, r, "Ad/ Ae/ Ae/two Dgone Mold")
		sameTree(t, b.Box, before)

		// Ended by its time, in the stage that is run again.
		txn = b.stagedUnder(t, a, first, second, "touch half; sleep 300", "true")
		txn.Resume, txn.Timeout = kept, 300*time.Millisecond
		r, err = txn.Run(bounded(t))
		wantAbort(t, r, err, -1, exec.CodeTimeout, 0)
		if r.Skipped != 2 {
			t.Errorf("%+v", r)
		}
		b.wantKept(t, r, "Ad/ Ae/ Ae/two Dgone Mold")

		// Before it has begun nothing is lost either, nor by a transaction that is another one.
		txn = b.stagedUnder(t, a, first, second, "true", "true")
		txn.Resume, txn.Timeout = kept, -1
		r, err = txn.Run(bounded(t))
		wantAbort(t, r, err, -1, exec.CodeTimeout, 0)
		for name, scripts := range map[string][]string{
			"it has succeeded as another one":                {first, second + "; true", "true", "true"},
			"the transaction had 4 stages, this one has 3":   {first, second, "true"},
			"the transaction had 4 stages, this one has 5":   {first, second, "true", "true", "true"},
			"stage 1 (sh): it has succeeded as another one ": {second, first, "true", "true"},
		} {
			txn = b.stagedUnder(t, a, scripts...)
			txn.Resume = kept
			r, err = txn.Run(bounded(t))
			wantFault(t, r, err, exec.CodeInvalid, name)
		}
		b.wantOne(t, "kept")

		txn = b.stagedUnder(t, a, first, second, "cat e/two old >sum; test ! -e half -a ! -e gone", "rmdir d")
		txn.Resume = kept
		r, err = txn.Run(bounded(t))
		wantCommitted(t, r, err)
		if len(r.Stages) != 2 || r.Skipped != 2 {
			t.Errorf("%+v", r)
		}
		wantFile(t, b.Work+"/sum", "1\nold\n1\n")
		wantFile(t, b.Work+"/e/two", "1\n")
		wantMissing(t, b.Work+"/gone", b.Work+"/d", b.Work+"/half")
		b.wantNone(t)

		// The first stage has none before it.
		txn = b.stagedUnder(t, a, "touch half; exit 3", "true")
		txn.Savepoints = true
		r, err = txn.Run(bounded(t))
		wantAbort(t, r, err, 0, 3, 1)
		b.wantNone(t)
	})
}

// What is kept can be committed or dropped as any branch; a branch that no transaction has left is none to go on with; and what
// others change meanwhile is a conflict.
func Test_transaction_resume(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		a := loadBranched(t, b, "")
		old := b.File(b.Work+"/old", "old\n")
		fails := func() string {
			t.Helper()
			txn := b.stagedUnder(t, a, "echo new >old; echo 1 >one", "touch half; exit 1")
			txn.Savepoints = true
			r, err := txn.Run(bounded(t))
			wantAbort(t, r, err, 1, 1, 2)
			return b.wantKept(t, r, "Mold Aone")
		}
		wantRun(t, b.branch(t, "commit", filepath.Base(fails())), 0, "")
		wantFile(t, old, "new\n")
		wantMissing(t, b.Work+"/half")
		wantRun(t, exectest.Run(t, exectest.Opts{User: b.User, Dir: b.Work, Args: []string{"/bin/sh", "-c", "rm one; echo old >old"}}), 0, "")

		kept := fails()
		b.File(old, "other\n")
		txn := b.stagedUnder(t, a, "echo new >old; echo 1 >one", "echo 2 >two")
		txn.Resume = kept
		r, err := txn.Run(bounded(t))
		wantFault(t, r, err, exec.CodeConflict, `"old"`)
		wantMissing(t, b.Work+"/two")
		b.wantOne(t, "commit-deferred")

		// It has all that it needs but the commit: there is nothing to go on with.
		txn = b.stagedUnder(t, a, "echo new >old; echo 1 >one", "echo 2 >two")
		txn.Resume = kept
		r, err = txn.Run(bounded(t))
		wantFault(t, r, err, exec.CodeCommit, "none that was left to be gone on with")
		wantRun(t, b.branch(t, "commit", "--force", filepath.Base(kept)), 0, "")
		wantFile(t, b.Work+"/two", "2\n")
		wantFile(t, old, "new\n")

		c := loadBranched(t, b, `on_exit: "keep"`).Command(bounded(t), "/bin/sh", "-c", "echo 1 >x")
		c.Dir = b.Work
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		for dir, want := range map[string]string{
			branchOf(t, c).Dir: "no transaction has left that branch", b.Outside: "is not in the storage", b.storage + "/none": "no such file",
		} {
			txn = b.stagedUnder(t, a, "true", "true")
			txn.Resume = dir
			r, err = txn.Run(bounded(t))
			wantFault(t, r, err, exec.CodeInvalid, want)
		}
		wantRun(t, b.branch(t, "abort", branchOf(t, c).ID), 0, "")
		b.wantNone(t)

		// Ended when all stages have succeeded: only the commit is left.
		ctx, cancel := context.WithCancel(bounded(t))
		txn = b.stagedUnder(t, a, "echo 3 >three", "echo 4 >four; echo go")
		txn.Savepoints = true
		txn.Stages[1].Stdout = writerFunc(func([]byte) {})
		go func() {
			for { // the last stage is over, or will be killed: both must leave something to go on with
				if s, ok := txn.Stages[0].Status(); ok && s.Success() {
					break
				}
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		if r, err = txn.Run(ctx); err != nil { // else it was faster
			again := b.stagedUnder(t, a, "echo 3 >three", "echo 4 >four; echo go")
			again.Resume = b.wantOne(t, "kept").Dir
			r, err = again.Run(bounded(t))
		}
		wantCommitted(t, r, err)
		wantFile(t, b.Work+"/four", "4\n")
		b.wantNone(t)
		if _, err := os.Stat(b.Work + "/three"); err != nil {
			t.Error(err)
		}
	})
}
