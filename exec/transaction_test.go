package exec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

// staged makes a stage for each shell script, all under one policy.
func (b *branched) staged(t *testing.T, scripts ...string) *exec.Transaction {
	t.Helper()
	return b.stagedUnder(t, loadBranched(t, b, ""), scripts...)
}

func (b *branched) stagedUnder(t *testing.T, a *exec.Artifact, scripts ...string) *exec.Transaction {
	t.Helper()
	txn := &exec.Transaction{}
	for _, script := range scripts {
		txn.Stages = append(txn.Stages, exec.Stage{Cmd: b.command(t, a, "/bin/sh", "-c", script)})
	}
	return txn
}

func (b *branched) command(t *testing.T, a *exec.Artifact, argv ...string) *exec.Cmd {
	t.Helper()
	c := a.Command(bounded(t), argv[0], argv[1:]...)
	c.Dir = b.Work
	return c
}

// wantFault wants a *TransactionError with this code, and that nothing is left of a branch.
func wantFault(t *testing.T, r exec.TransactionResult, err error, code int, text string) {
	t.Helper()
	var fault *exec.TransactionError
	if !errors.As(err, &fault) || fault.Code != code || r.Code != code || !strings.Contains(err.Error(), text) || r.Outcome != "" {
		t.Errorf("%v (%+v), want code %d, %q", err, r, code, text)
	}
}

// wantAbort wants an *AbortError of this stage, this code, and this many results.
func wantAbort(t *testing.T, r exec.TransactionResult, err error, stage, code, stages int) {
	t.Helper()
	var abort *exec.AbortError
	if !errors.As(err, &abort) || abort.Stage != stage || r.Code != code || len(r.Stages) != stages || r.Outcome != exec.Aborted {
		t.Errorf("%v, %+v, want stage %d, code %d, %d results", err, r, stage, code, stages)
	}
}

func wantCommitted(t *testing.T, r exec.TransactionResult, err error) {
	t.Helper()
	if err != nil || r.Outcome != exec.Committed || r.Code != 0 || r.Branch == nil || r.Branch.Dir != "" {
		t.Errorf("%v, %+v", err, r)
	}
}

// Numbers 69 to 71, 77, 80, 84 and 93 of the filesystem specification.
func Test_filesystem_9_4_69_transaction_commits(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		b.File(b.Work+"/old", "old\n")
		b.File(b.Work+"/gone", "gone\n")
		b.File(b.Work+"/kept", "kept\n")
		txn := b.staged(t,
			`umask 022; echo 1 >a; echo new >old; rm gone; printf '#!/bin/sh\necho made >made\n' >tool; chmod 755 tool`,
			`test "$(cat old)" = new && ! test -e gone && ./tool && mkdir d && mv a d/a`,
			`cat made d/a >sum; rm tool; echo last >&2`)
		txn.Changes = true
		r, err := txn.Run(bounded(t))
		wantCommitted(t, r, err)
		if len(r.Stages) != 3 || string(r.Stages[2].Stderr) != "last\n" || r.Stages[1].Err != nil {
			t.Errorf("stages %+v", r.Stages)
		}
		var changes []string
		for _, c := range r.Changes {
			changes = append(changes, string(rune(c.Kind))+c.Path)
		}
		if got, want := strings.Join(changes, " "), "Ad Ad/a Dgone Amade Mold Asum"; got != want || r.ListErr != nil {
			t.Errorf("changes %q (%v), want %q", got, r.ListErr, want)
		}
		wantFile(t, b.Work+"/sum", "made\n1\n")
		wantFile(t, b.Work+"/old", "new\n")
		wantFile(t, b.Work+"/kept", "kept\n")
		wantMissing(t, b.Work+"/gone", b.Work+"/tool", b.Work+"/a")
		b.wantNone(t)
	})
}

// The stages together have the room that limits.disk leaves, and no savepoints.
func Test_transaction_disk(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		b.File(b.Work+"/old", "old\n")
		a, err := exec.Load(b.policy("", `limits: disk: "1M"`))
		if err != nil {
			t.Fatal(err)
		}
		const first = "echo new >old; head -c 600K /dev/zero >f; ln f g; mkdir -m 700 d; ln -s x d/l"
		r, err := b.stagedUnder(t, a, first, "cat old; rm f; head -c 300K /dev/zero >h", "cmp -n 600K g /dev/zero && mv h d").Run(bounded(t))
		wantCommitted(t, r, err)
		wantFile(t, b.Work+"/old", "new\n")
		for name, size := range map[string]int64{"g": 600 << 10, "d/h": 300 << 10} {
			if st, err := os.Stat(b.Work + "/" + name); err != nil || st.Size() != size {
				t.Errorf("%s: %v, %v", name, st, err)
			}
		}
		before := tree(t, b.Work)
		r, err = b.stagedUnder(t, a, "head -c 600K /dev/zero >f2", "head -c 600K /dev/zero >f3").Run(bounded(t))
		wantAbort(t, r, err, 1, 1, 2)
		if text := string(r.Stages[1].Stderr); !strings.Contains(text, "No space left") || !r.Branch.Full {
			t.Errorf("%q, %+v", text, r.Branch)
		}
		sameTree(t, b.Box, before)
		txn := b.stagedUnder(t, a, "true", "true")
		txn.Savepoints = true
		r, err = txn.Run(bounded(t))
		wantFault(t, r, err, exec.CodeInvalid, "under limits.disk")
		b.wantNone(t)
	})
}

// Numbers 75, 76, 79, 80, 84, 88, 90: the first stage that fails is the last that runs, and nothing is left of any.
func Test_filesystem_9_4_75_transaction_aborts(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		b.File(b.Work+"/old", "old\n")
		before := tree(t, b.Work)
		const change = "echo 1 >new; rm old; "
		for name, tc := range map[string]struct {
			scripts     []string
			stage, code int
		}{
			"first":           {[]string{change + "exit 3", "touch " + b.Outside + "/ran"}, 0, 3},
			"second":          {[]string{change, "test -e new && exit 4", "exit 5"}, 1, 4},
			"last":            {[]string{change, "exit 1"}, 1, 1},
			"signal":          {[]string{change, "kill -TERM $$"}, 1, 143},
			"killed":          {[]string{change, "kill -KILL $$"}, 1, 137},
			"leaves a child":  {[]string{change, "sleep 300 & exit 3"}, 1, 3},
			"not found":       {[]string{change, "exec /no/such/command"}, 1, 127},
			"detached writer": {[]string{change, "setsid sh -c 'while :; do echo x >>log; done' & exit 6"}, 1, 6},
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				txn := b.staged(t, tc.scripts...)
				txn.Changes = true
				r, err := txn.Run(bounded(t))
				wantAbort(t, r, err, tc.stage, tc.code, tc.stage+1)
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Status.Code != tc.code || r.Stages[tc.stage].Err == nil {
					t.Errorf("%v, %+v", err, r.Stages)
				}
				if len(r.Changes) < 2 {
					t.Errorf("changes %+v", r.Changes)
				}
				sameTree(t, b.Box, before)
				b.wantNone(t)
			})
		}
		for argv, code := range map[string]int{"no-such-command": 127, "/etc/passwd": 126} {
			txn := b.staged(t, change)
			txn.Stages = append(txn.Stages, exec.Stage{Cmd: b.command(t, loadBranched(t, b, ""), argv), Name: "odd"})
			r, err := txn.Run(bounded(t))
			wantAbort(t, r, err, 1, code, 2)
			if !errors.As(err, new(*exec.CommandError)) || !strings.Contains(err.Error(), "stage 2 (odd): ") || r.Stages[1].Status.Code != code {
				t.Errorf("%s: %v, %+v", argv, err, r.Stages)
			}
			sameTree(t, b.Box, before)
			b.wantNone(t)
		}
		wantMissing(t, b.Outside+"/ran")
	})
}

// A stage that a limit has taken processes from has failed, whatever it ended with.
func Test_transaction_limit(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		a, err := exec.Load(b.policy("", `limits: memory: "64M"`))
		if err != nil {
			t.Fatal(err)
		}
		txn := b.staged(t, "echo 1 >new")
		txn.Stages = append(txn.Stages, exec.Stage{Cmd: b.command(t, a, "/bin/sh", "-c", "head -c 200M /dev/zero | tail >/dev/null; exit 0")})
		r, err := txn.Run(bounded(t))
		wantAbort(t, r, err, 1, 137, 2)
		if err == nil || !strings.Contains(err.Error(), "limits.memory") {
			t.Errorf("%v", err)
		}
		wantMissing(t, b.Work+"/new")
		b.wantNone(t)
	})
}

// Numbers 78, 92 and 94: what ends a transaction drops its changes, and no process of it is left.
func Test_filesystem_9_4_78_transaction_ended(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		before := tree(t, b.Work)
		txn := b.staged(t, "echo 1 >new", "sleep 300 & setsid sleep 300 & sleep 300")
		txn.Timeout = 300 * time.Millisecond
		r, err := txn.Run(bounded(t))
		wantAbort(t, r, err, -1, exec.CodeTimeout, 1)
		if !errors.Is(err, exec.ErrTransactionTimeout) {
			t.Errorf("%v", err)
		}
		b.wantNone(t)

		for _, early := range []time.Duration{-1, time.Nanosecond} {
			txn = b.staged(t, "echo 1 >new", "true")
			txn.Timeout = early
			r, err = txn.Run(bounded(t))
			wantAbort(t, r, err, -1, exec.CodeTimeout, 0)
		}

		ctx, cancel := context.WithCancel(bounded(t))
		txn = b.staged(t, "echo 1 >new", "echo ready; exec sleep 300")
		ready, out := io.Pipe()
		txn.Stages[1].Stdout = out
		go func() {
			_, _ = ready.Read(make([]byte, 10))
			cancel()
		}()
		r, err = txn.Run(ctx)
		wantAbort(t, r, err, -1, 137, 1)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		b.wantNone(t)

		// A stage's own time limit is its failure.
		txn = b.staged(t, "echo 1 >new", "sleep 300")
		txn.Stages[1].Timeout = 200 * time.Millisecond
		r, err = txn.Run(bounded(t))
		wantAbort(t, r, err, 1, exec.CodeTimeout, 2)
		sameTree(t, b.Box, before)
		b.wantNone(t)
	})
}

// Numbers 72 to 74, 81 and 92: the commit waits for the directory's lock as long as it is told, whatever the time limit and the
// context say by then.
func Test_filesystem_9_4_72_transaction_lock(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		b.File(b.Work+"/old", "old\n")
		before := tree(t, b.Work)
		release := holdLock(t, b.Work)
		for _, wait := range []time.Duration{100 * time.Millisecond, -1} {
			txn := b.staged(t, "echo 1 >new; rm old", "true")
			txn.LockWait = wait
			r, err := txn.Run(bounded(t))
			wantFault(t, r, err, exec.CodeConflict, b.storage)
			var lock *branch.LockError
			if !errors.As(err, &lock) || !lock.Busy || lock.Dir != r.Branch.Dir || lock.Workdir != b.Work {
				t.Errorf("%v, %+v", err, r.Branch)
			}
			sameTree(t, b.Box, before)
			if shown := b.branch(t, "show", b.wantOne(t, "commit-deferred").ID); !strings.Contains(shown.Stdout, "D  old\n") || !strings.Contains(shown.Stdout, "A  new  (") {
				t.Errorf("show: %q, %q", shown.Stdout, shown.Stderr)
			}
			wantFile(t, r.Branch.Dir+"/upper/new", "1\n")
			if err := branch.Discard(b.storage, r.Branch.ID); err != nil {
				t.Fatal(err)
			}
		}

		// A dry run takes no lock.
		txn := b.staged(t, "echo 1 >new", "true")
		txn.Review = func(*branch.Branch) error { return nil }
		if r, err := txn.Run(bounded(t)); err != nil || r.Outcome != exec.Reviewed {
			t.Errorf("dry run: %v, %+v", err, r)
		}
		b.wantNone(t)

		// Released while the commit waits, and the context done long before.
		ctx, cancel := context.WithCancel(bounded(t))
		txn = b.staged(t, "echo 1 >new; rm old", "true")
		txn.Timeout = 300 * time.Millisecond
		txn.Changes = true
		go func() {
			for { // its listing is the end of the stages
				if s, ok := txn.Stages[1].Status(); ok && s.Success() {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond)
			cancel()
			time.Sleep(300 * time.Millisecond)
			release()
		}()
		r, err := txn.Run(ctx)
		wantCommitted(t, r, err)
		wantFile(t, b.Work+"/new", "1\n")
		wantMissing(t, b.Work+"/old")
		b.wantNone(t)
	})
}

// Numbers 81, 82 and 95.
func Test_filesystem_9_4_81_transaction_dry_run(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		b.File(b.Work+"/old", "old\n")
		before := tree(t, b.Work)
		var seen []string
		review := func(br *branch.Branch) error {
			for c, err := range br.Changes() {
				if err != nil {
					return err
				}
				seen = append(seen, string(rune(c.Kind))+c.Path)
			}
			return nil
		}
		txn := b.staged(t, "echo 1 >new", "cat new >old")
		txn.Review = review
		r, err := txn.Run(bounded(t))
		if err != nil || r.Outcome != exec.Reviewed || r.Code != 0 || !r.Branch.Review || strings.Join(seen, " ") != "Anew Mold" {
			t.Errorf("%v, %+v, seen %q", err, r, seen)
		}
		sameTree(t, b.Box, before)
		b.wantNone(t)

		seen = nil
		txn = b.staged(t, "echo 1 >new", "exit 9")
		txn.Review = review
		r, err = txn.Run(bounded(t))
		wantAbort(t, r, err, 1, 9, 2)
		txn = b.staged(t, "echo 1 >new", "true")
		txn.Review = func(*branch.Branch) error { return errors.New("seen enough") }
		r, err = txn.Run(bounded(t))
		wantFault(t, r, err, exec.CodeCommit, "seen enough")
		if seen != nil {
			t.Errorf("a failure was shown: %q", seen)
		}

		// A context that is done while the changes are shown ends that.
		ctx, cancel := context.WithCancel(bounded(t))
		txn = b.staged(t, "echo 1 >new; echo 2 >two; echo 3 >three", "true")
		txn.Review = func(br *branch.Branch) error {
			for _, err := range br.Changes() {
				if err != nil {
					return err
				}
				cancel()
				time.Sleep(150 * time.Millisecond)
			}
			return nil
		}
		r, err = txn.Run(ctx)
		wantAbort(t, r, err, -1, 137, 2)
		sameTree(t, b.Box, before)
		b.wantNone(t)
	})
}

// Somebody outside of the sandbox holds a stage's standard error open, and goes on writing: the transaction does not wait for that.
func Test_transaction_stderr_held(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		txn := b.staged(t, "echo first >&2; echo go; sleep 0.2; echo last >&2", "true")
		held := make(chan *os.File, 1)
		txn.Stages[0].Stdout = writerFunc(func([]byte) {
			f, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/2", txn.Stages[0].Pid()), os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
			}
			held <- f
		})
		r, err := txn.Run(bounded(t))
		wantCommitted(t, r, err)
		f := <-held
		defer f.Close()
		if got := string(r.Stages[0].Stderr); got != "first\nlast\n" {
			t.Errorf("stderr %q", got)
		}
		if _, err := f.WriteString("late"); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the pipe is still read: %v", err)
		}
	})
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// Number 89: standard error is captured for each stage, exact within the cap; the other streams are the stage's own.
func Test_filesystem_9_4_89_transaction_stderr(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		txn := b.staged(t,
			`cat; echo e1 >&2; head -c 65530 /dev/zero | tr '\0' a >&2; echo end >&2`,
			`echo e2 >&2; head -c 1000000 /dev/zero | tr '\0' b >&2; printf end >&2`,
			`echo out; echo err >&2; echo out`)
		var out, both, seen bytes.Buffer
		txn.Stages[0].Stdin, txn.Stages[0].Stdout = strings.NewReader("in\n"), &out
		txn.Stages[1].Stderr = &seen
		txn.Stages[2].Stdout, txn.Stages[2].Stderr = &both, &both
		r, err := txn.Run(bounded(t))
		wantCommitted(t, r, err)
		if out.String() != "in\n" {
			t.Errorf("stdout %q", out.String())
		}
		if len(r.Stages) != 3 {
			t.Fatalf("%+v", r)
		}
		whole := "e1\n" + strings.Repeat("a", 65530) + "end\n"
		if want := whole[:32768] + "\n[stderr truncated]\n" + whole[len(whole)-32768:]; string(r.Stages[0].Stderr) != want {
			t.Errorf("first: %d bytes, want %d", len(r.Stages[0].Stderr), len(want))
		}
		whole = "e2\n" + strings.Repeat("b", 1000000) + "end"
		if want := whole[:32768] + "\n[stderr truncated]\n" + whole[len(whole)-32768:]; string(r.Stages[1].Stderr) != want {
			t.Errorf("second: %d bytes, want %d", len(r.Stages[1].Stderr), len(want))
		}
		if seen.String() != whole {
			t.Errorf("the second's own writer got %d bytes, want %d", seen.Len(), len(whole))
		}
		if got := both.String(); strings.Count(got, "out\n") != 2 || strings.Count(got, "err\n") != 1 {
			t.Errorf("one writer for both got %q", got)
		}
	})
}

// A stage that was given less cannot be given more by a link that an earlier one has left.
func Test_transaction_planted_link(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		secret := b.File(b.Dir("secrets")+"/key", "secret\n")
		read := func(grants string) *exec.Artifact {
			a, err := exec.Load(b.Policy(fmt.Sprintf(`filesystem: {
	read: ["/usr", "/lib", "/bin", "/etc", {path: "/lib64", optional: true}, %s]
	write: ["/dev/null"]
	workdir: %q
	storage: %q
}`, grants, b.Work, b.storage)))
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		b.File(b.Work+"/config", "plain\n")
		policy := fmt.Sprintf("%q", b.Work+"/config")
		for script, want := range map[string]string{
			"true":                                   "",
			"rm config; ln -s " + secret + " config": "an earlier stage could have placed that link",
			"mv config c; ln -s c config":            "",
		} {
			txn := b.staged(t, script)
			c := b.command(t, read(policy), "/bin/cat", b.Work+"/config")
			var out bytes.Buffer
			c.Stdout = &out
			txn.Stages = append(txn.Stages, exec.Stage{Cmd: c})
			r, err := txn.Run(bounded(t))
			if want == "" {
				wantCommitted(t, r, err)
				if out.String() != "plain\n" {
					t.Errorf("%s: read %q", script, out.String())
				}
				continue
			}
			wantFault(t, r, err, exec.CodeStage, want)
			if out.Len() > 0 {
				t.Errorf("%s: read %q", script, out.String())
			}
		}
		b.wantNone(t)
	})
}
