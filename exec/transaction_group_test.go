package exec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

// beside makes a group of the stages of a transaction from one on.
func beside(txn *exec.Transaction, from int) *exec.Transaction {
	txn.Stages = append(txn.Stages[:from:from], exec.Stage{Parallel: txn.Stages[from:]})
	return txn
}

// meet waits for a file that another command makes.
const meet = "for i in $(seq 1000); do test -e %[1]s && break; sleep 0.01; done; test -e %[1]s; "

// Commands that run side by side see each other's changes when they are made, those before theirs and those after them too; and
// all of it is applied.
func Test_transaction_parallel(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		b.File(b.Work+"/old", "old\n")
		b.File(b.Work+"/gone", "gone\n")
		a := loadBranched(t, b, "")
		all := b.stagedUnder(t, a, "mkdir d",
			"echo 1 >d/one; "+fmt.Sprintf(meet, "d/two")+"mv d/two d/2; rm gone; echo first >&2",
			fmt.Sprintf(meet, "d/one")+"echo 2 >d/two; cat d/one >>old",
			fmt.Sprintf(meet, "d/2")+"printf '#!/bin/sh\necho tool >d/ran\n' >tool; chmod 755 tool; echo third >&2",
			"./tool && cat d/1 || cat d/one d/2 old >sum; rm tool")
		last := all.Stages[4]
		all.Stages = append(beside(&exec.Transaction{Stages: all.Stages[:4]}, 1).Stages, last)
		all.Changes = true
		r, err := all.Run(bounded(t))
		wantCommitted(t, r, err)
		wantFile(t, b.Work+"/sum", "1\n2\nold\n1\n")
		wantFile(t, b.Work+"/d/ran", "tool\n")
		wantMissing(t, b.Work+"/gone", b.Work+"/tool", b.Work+"/d/two")
		if got := stagesOf(r); got != "0 1 2 3 4" || len(r.Changes) != 7 {
			t.Errorf("stages %s, changes %+v", got, r.Changes)
		}
		for _, s := range r.Stages {
			if want := map[int]string{1: "first\n", 3: "third\n"}[s.Stage]; string(s.Stderr) != want && s.Stage != 4 {
				t.Errorf("%s wrote %q, want %q", s.Label, s.Stderr, want)
			}
		}
		b.wantNone(t)

		// With the changes in memory, and nothing before or after.
		small, err := exec.Load(b.policy("", `limits: disk: "1M"`))
		if err != nil {
			t.Fatal(err)
		}
		r, err = beside(b.stagedUnder(t, small, "echo 1 >m1; "+fmt.Sprintf(meet, "m2")+"mv m2 m3", fmt.Sprintf(meet, "m1")+"mv m1 m2"), 0).Run(bounded(t))
		wantCommitted(t, r, err)
		wantFile(t, b.Work+"/m3", "1\n")
		b.wantNone(t)
	})
}

// stagesOf returns the numbers of what has ended, in their order.
func stagesOf(r exec.TransactionResult) string {
	var all []string
	for _, s := range r.Stages {
		all = append(all, fmt.Sprint(s.Stage))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// The first that fails ends the others, and so does what ends the transaction. One that cannot be set up lets none begin.
func Test_transaction_parallel_aborts(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		before := tree(t, b.Work)
		const runs = "touch began; sleep 300 & setsid sleep 300 & sleep 300"
		for name, tc := range map[string]struct {
			script      string
			stage, code int
			ended       string
		}{
			"exit":     {fmt.Sprintf(meet, "began") + "exit 3", 2, 3, "0 2"},
			"signal":   {fmt.Sprintf(meet, "began") + "kill -KILL $$", 2, 137, "0 2"},
			"not here": {"exec /no/such/command", 2, 127, "0 2"},
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				r, err := beside(b.staged(t, "echo 1 >new", runs, tc.script, runs), 1).Run(bounded(t))
				wantAbort(t, r, err, tc.stage, tc.code, 2)
				if got := stagesOf(r); got != tc.ended || !strings.Contains(err.Error(), "stage 3 (sh): ") {
					t.Errorf("%v; stages %s, want %s", err, got, tc.ended)
				}
				sameTree(t, b.Box, before)
				b.wantNone(t)
			})
		}
		for argv, code := range map[string]int{"no-such-command": 127, "/etc/passwd": 126} {
			txn := b.staged(t, "echo 1 >new", "touch began; sleep 300")
			txn.Stages = append(txn.Stages, exec.Stage{Cmd: b.command(t, loadBranched(t, b, ""), argv)})
			r, err := beside(txn, 1).Run(bounded(t))
			wantAbort(t, r, err, 2, code, 2)
			if !errors.As(err, new(*exec.CommandError)) {
				t.Errorf("%s: %v", argv, err)
			}
			b.wantNone(t)
		}
		sameTree(t, b.Box, before)

		txn := beside(b.staged(t, runs, runs), 0)
		txn.Timeout = 300 * time.Millisecond
		r, err := txn.Run(bounded(t))
		wantAbort(t, r, err, -1, exec.CodeTimeout, 0)
		b.wantNone(t)

		ctx, cancel := context.WithCancel(bounded(t))
		txn = b.staged(t, "echo ready; exec sleep 300", "exec sleep 300")
		txn.Stages[0].Stdout = writerFunc(func([]byte) { cancel() })
		r, err = beside(txn, 0).Run(ctx)
		wantAbort(t, r, err, -1, 137, 0)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		sameTree(t, b.Box, before)
		b.wantNone(t)
	})
}

// What a command is granted is opened before any of those beside it runs: links that they make give it nothing.
func Test_transaction_parallel_planted_link(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		secret := b.File(b.Dir("secrets")+"/key", "secret\n")
		b.File(b.Work+"/config", "plain\n")
		reads, err := exec.Load(b.Policy(fmt.Sprintf(`filesystem: {
	read: ["/usr", "/lib", "/bin", "/etc", {path: "/lib64", optional: true}, %q]
	write: ["/dev/null"]
	workdir: %q
	storage: %q
}`, b.Work+"/config", b.Work, b.storage)))
		if err != nil {
			t.Fatal(err)
		}
		txn := b.staged(t, "rm config; ln -s "+secret+" config; touch planted", "true")
		var out, errs bytes.Buffer
		c := b.command(t, reads, "/bin/sh", "-c", fmt.Sprintf(meet, "planted")+"cat config")
		c.Stdout, c.Stderr = &out, &errs
		txn.Stages[1] = exec.Stage{Cmd: c}
		r, err := beside(txn, 0).Run(bounded(t))
		wantAbort(t, r, err, 1, 1, 2)
		if out.Len() > 0 || !strings.Contains(errs.String(), "Permission denied") {
			t.Errorf("read %q, said %q", out.String(), errs.String())
		}
		wantFile(t, b.Work+"/config", "plain\n")
		b.wantNone(t)
	})
}

// An optional stage or group that fails loses its own changes alone.
func Test_transaction_optional(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		b.File(b.Work+"/old", "old\n")
		b.File(b.Work+"/gone", "gone\n")
		s := b.staged(t,
			"rm gone; echo half >old; exit 3",
			"test -e gone && mkdir d && echo 1 >d/one && echo new >old",
			"rm -r d; touch a", "touch b; exit 4", "touch never",
			"touch c; sleep 300", fmt.Sprintf(meet, "c")+"rm old; exit 5",
			"mv d/one d/1", "cat d/1 old >sum").Stages
		optional := func(s exec.Stage) exec.Stage { s.Optional = true; return s }
		txn := &exec.Transaction{Stages: []exec.Stage{
			optional(s[0]), s[1], optional(exec.Stage{Name: "three", Stages: s[2:5]}), optional(exec.Stage{Parallel: s[5:7]}), optional(s[7]), s[8],
		}}
		r, err := txn.Run(bounded(t))
		wantCommitted(t, r, err)
		wantFile(t, b.Work+"/sum", "1\nnew\n")
		wantMissing(t, b.Work+"/a", b.Work+"/b", b.Work+"/c", b.Work+"/never", b.Work+"/d/one")
		wantFile(t, b.Work+"/gone", "gone\n")
		if got := stagesOf(r); got != "0 1 2 3 6 7 8" {
			t.Errorf("stages %s", got)
		}
		for _, s := range r.Stages {
			if dropped := slices.Contains([]int{0, 2, 3, 6}, s.Stage); s.Dropped != dropped || (s.Err != nil) != (dropped && s.Stage != 2) {
				t.Errorf("%+v", s)
			}
		}
		b.wantNone(t)

		// One that is not optional drops all the same, and what ends the transaction is no failure of the stage.
		before := tree(t, b.Work)
		txn = b.staged(t, "echo 1 >new", "rm old; exit 1", "exit 6")
		txn.Stages[1].Optional = true
		r, err = txn.Run(bounded(t))
		wantAbort(t, r, err, 2, 6, 3)
		txn = b.staged(t, "sleep 300", "touch never")
		txn.Stages[0].Optional, txn.Timeout = true, 200*time.Millisecond
		r, err = txn.Run(bounded(t))
		wantAbort(t, r, err, -1, exec.CodeTimeout, 0)
		sameTree(t, b.Box, before)
		b.wantNone(t)
	})
}

// With savepoints a group is what one goes back to, whatever of it has succeeded.
func Test_transaction_groups_resumed(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		a := loadBranched(t, b, "")
		scripts := []string{"echo 1 >one", "rm one; exit 7", "echo 2 >two", "cat two >three", "test -e flag"}
		grouped := func(last string) *exec.Transaction {
			s := b.stagedUnder(t, a, append(scripts[:4:4], last)...).Stages
			s[1].Optional = true
			return &exec.Transaction{Savepoints: true, Stages: []exec.Stage{s[0], s[1], {Stages: s[2:5]}}}
		}
		txn := grouped(scripts[4])
		r, err := txn.Run(bounded(t))
		wantAbort(t, r, err, 4, 1, 5)
		kept := b.wantKept(t, r, "Aone")

		flat := b.stagedUnder(t, a, scripts...)
		flat.Stages = []exec.Stage{flat.Stages[0], {Stages: flat.Stages[1:]}}
		flat.Resume = kept
		r, err = flat.Run(bounded(t))
		wantFault(t, r, err, exec.CodeInvalid, "stage 3 (sh): it is the first to be run, and in a group with one that is over")

		txn = grouped("cat three one >sum")
		txn.Resume = kept
		r, err = txn.Run(bounded(t))
		wantCommitted(t, r, err)
		if got := stagesOf(r); got != "2 3 4" || r.Skipped != 2 {
			t.Errorf("%s, %+v", got, r)
		}
		wantFile(t, b.Work+"/sum", "2\n1\n")
		b.wantNone(t)
	})
}

// Groups have a shape, and limits.disk leaves no room for what optional stages need.
func Test_transaction_groups_refused(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		stage := func() exec.Stage { return b.staged(t, "touch "+b.Work+"/ran").Stages[0] }
		optional := func(s exec.Stage) exec.Stage { s.Optional = true; return s }
		both := stage()
		both.Parallel = []exec.Stage{stage()}
		small, err := exec.Load(b.policy("", `limits: disk: "1M"`))
		if err != nil {
			t.Fatal(err)
		}
		for want, stages := range map[string][]exec.Stage{
			"stage 2: it has no command":                       {stage(), {}},
			"stage 1 (sh): it is more than one of":             {both, stage()},
			"stage 2: its group is empty":                      {stage(), {Parallel: []exec.Stage{}}},
			"what runs side by side must be commands":          {{Parallel: []exec.Stage{stage(), {Stages: []exec.Stage{stage()}}}}},
			"a stage that runs beside others is optional":      {{Parallel: []exec.Stage{stage(), optional(stage())}}},
			"a group of stages has another one in it":          {{Stages: []exec.Stage{stage(), {Stages: []exec.Stage{stage()}}}}},
			"a stage in a group is optional":                   {{Stages: []exec.Stage{stage(), optional(stage())}}},
			"two stages at least, this one has 1":              {{Parallel: []exec.Stage{stage()}}},
			"there can neither be savepoints, and so no optio": {b.stagedUnder(t, small, "true").Stages[0], optional(b.stagedUnder(t, small, "true").Stages[0])},
		} {
			txn := exec.Transaction{Stages: stages}
			r, err := txn.Run(bounded(t))
			wantFault(t, r, err, exec.CodeInvalid, want)
		}
		wantMissing(t, b.Work+"/ran")
		if _, err := os.Stat(b.storage); err != nil {
			t.Fatal(err)
		}
		b.wantNone(t)
	})
}
