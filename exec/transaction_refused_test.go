package exec_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Number 83: what is no transaction is refused before anything is made, and all of it is said.
func Test_filesystem_9_4_83_transaction_refused(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		other := b.Dir("other")
		storage := b.Dir("storage2")
		if err := os.Chmod(storage, 0o700); err != nil {
			t.Fatal(err)
		}
		link := b.Link(b.Work, other+"/link")
		good := b.policy("")
		ran := "touch " + b.Work + "/ran"
		stage := func(policy string) exec.Stage {
			a, err := exec.Load(policy)
			if err != nil {
				t.Fatal(err)
			}
			return exec.Stage{Cmd: b.command(t, a, "/bin/sh", "-c", ran)}
		}
		started := stage(good)
		if err := started.Run(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(b.Work + "/ran"); err != nil {
			t.Fatal(err)
		}
		reviewed, piped := stage(good), stage(good)
		reviewed.Review = func(*branch.Branch) error { return nil }
		pipe, err := piped.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer pipe.Close()
		twice, unbound := stage(good), stage(good)
		unbound.Params = map[string]string{"x": "1"}
		const direct = `isolation: "none"`
		for name, tc := range map[string]struct {
			stages []exec.Stage
			want   string
		}{
			"none":        {nil, "two stages at least, this one has 0"},
			"one":         {[]exec.Stage{stage(good)}, "two stages at least, this one has 1"},
			"no branch":   {[]exec.Stage{stage(good), stage(b.policy(direct))}, "stage 2 (sh): its policy keeps no changes apart"},
			"on_exit":     {[]exec.Stage{stage(b.policy(`on_exit: "keep"`)), stage(good)}, "stage 1 (sh): its policy decides what becomes"},
			"on_error":    {[]exec.Stage{stage(good), stage(b.policy(`on_error: "commit"`))}, "stage 2 (sh): its policy decides what becomes"},
			"on_exit 2":   {[]exec.Stage{stage(good), stage(b.policy(`on_exit: "abort"`))}, "stage 2 (sh): its policy decides what becomes"},
			"workdir":     {[]exec.Stage{stage(good), stage(b.Policy(strings.ReplaceAll(b.text(""), b.Work, other)))}, "its working directory is " + other},
			"storage":     {[]exec.Stage{stage(good), stage(b.policy(fmt.Sprintf("storage: %q", storage)))}, "its storage is " + storage},
			"chroot":      {[]exec.Stage{stage(good), stage(b.policy(`chroot: "/usr"`))}, "filesystem.chroot"},
			"disk":        {[]exec.Stage{stage(good), stage(b.policy("", `limits: disk: "10M"`))}, "its limits.disk is 10485760 bytes, that of the first stage unlimited"},
			"branchfs":    {[]exec.Stage{stage(good), stage(b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf("filesystem: {workdir: %q, isolation: \"branchfs\"}", b.Work)})))}, "by other means than an overlay"},
			"started":     {[]exec.Stage{stage(good), started}, "was started already"},
			"reviewed":    {[]exec.Stage{reviewed, stage(good)}, "a Review of its own"},
			"piped":       {[]exec.Stage{stage(good), piped}, "a pipe from standard error"},
			"twice":       {[]exec.Stage{twice, twice}, "that of stage 1"},
			"no command":  {[]exec.Stage{{}, stage(good)}, "stage 1: it has no command"},
			"parameter":   {[]exec.Stage{unbound, stage(good)}, `declares no parameter "x"`},
			"many faults": {[]exec.Stage{stage(b.policy(direct)), {}, stage(good)}, "stage 2: it has no command"},
			"places":      {[]exec.Stage{stage(good), stage(b.Policy(strings.Replace(b.text("workdir: \"${dir}\""), "write: [", "write: [\n\"${above}\",", 1) + `params: {dir: {type: "dir", default: "` + b.Work + `"}, above: {type: "dir", default: "` + b.storage + `"}}`))}, "which the command may change"},
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				for _, review := range []func(*branch.Branch) error{nil, func(*branch.Branch) error { t.Error("shown"); return nil }} {
					txn := exec.Transaction{Stages: tc.stages, Review: review}
					r, err := txn.Run(bounded(t))
					wantFault(t, r, err, exec.CodeInvalid, tc.want)
					if len(r.Stages) != 0 || r.Branch != nil {
						t.Errorf("%+v", r)
					}
				}
				wantMissing(t, b.Work+"/ran")
				b.wantNone(t)
			})
		}
		// The same directory by another name is the same, also where a policy mounts it elsewhere.
		mounted, err := exec.Load(b.Policy(fmt.Sprintf(`filesystem: {
	read: ["/usr", "/lib", "/bin", "/etc", {path: "/lib64", optional: true}]
	write: ["/m", "/dev/null"]
	mount: [{target: "/m", source: %q}]
	workdir: "/m"
	storage: %q
}
program: cwd: "/m"`, b.Work, b.storage)))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := exec.Load(good)
		if err != nil {
			t.Fatal(err)
		}
		there := exec.Transaction{Stages: []exec.Stage{{Cmd: b.command(t, mounted, "/bin/sh", "-c", "pwd >where; echo 1 >ran")}, {Cmd: b.command(t, plain, "/bin/sh", "-c", "cat where ran >both; rm where ran")}}}
		if r, err := there.Run(bounded(t)); err != nil {
			t.Errorf("%v, %+v", err, r)
		}
		wantFile(t, b.Work+"/both", "/m\n1\n")
		txn := exec.Transaction{Stages: []exec.Stage{stage(good), stage(b.policy(fmt.Sprintf("workdir: %q", link)))}}
		r, err := txn.Run(bounded(t))
		wantCommitted(t, r, err)
		wantFile(t, b.Work+"/ran", "")
	})
}

// Numbers 85 to 87: failures that are nobody's command's.
func Test_filesystem_9_4_85_transaction_fails(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		a := loadBranched(t, b, "")
		txn := b.staged(t, "echo 1 >new")
		txn.Stages = append(txn.Stages, exec.Stage{Cmd: a.Command(bounded(t), "")})
		txn.Stages[1].Dir = b.Work
		r, err := txn.Run(bounded(t))
		wantFault(t, r, err, exec.CodeStage, "stage 2: no command")
		if len(r.Stages) != 1 {
			t.Errorf("%+v", r)
		}
		b.wantNone(t)

		// The storage belongs to nobody who could use it.
		if err := os.Chmod(b.storage, 0o755); err != nil {
			t.Fatal(err)
		}
		txn = b.staged(t, "touch "+b.Work+"/ran", "true")
		r, err = txn.Run(bounded(t))
		wantFault(t, r, err, exec.CodeCommit, "storage base")
		wantMissing(t, b.Work+"/ran", b.Work+"/new")
		if err := os.Chmod(b.storage, 0o700); err != nil {
			t.Fatal(err)
		}

		// What others change meanwhile is a conflict, and nothing is applied.
		old := b.File(b.Work+"/old", "old\n")
		txn = b.staged(t, "echo inside >old; echo 1 >new; echo go", "echo two >two")
		txn.Stages[0].Stdout = writerFunc(func([]byte) { b.File(old, "outside\n") })
		r, err = txn.Run(bounded(t))
		wantFault(t, r, err, exec.CodeConflict, `"old"`)
		wantFile(t, old, "outside\n")
		wantMissing(t, b.Work+"/new", b.Work+"/two")
		wantFile(t, r.Branch.Dir+"/upper/two", "two\n")
		if err := branch.Discard(b.storage, r.Branch.ID); err != nil {
			t.Error(err)
		}

		// The commit fails: the message says where the changes are, and the directory is as it was.
		before := tree(t, b.Work)
		txn = b.staged(t, "rm old; echo 1 >new", "mkdir .sandlock-commit; echo x >.sandlock-commit/x")
		r, err = txn.Run(bounded(t))
		wantFault(t, r, err, exec.CodeCommit, b.Work)
		var commit *branch.CommitError
		if !errors.As(err, &commit) || !commit.Undone || commit.Dir != r.Branch.Dir {
			t.Errorf("%v", err)
		} else {
			sameTree(t, b.Box, before)
			b.wantOne(t, "commit-deferred")
		}
	})
}

// A branch that somebody has done something with meanwhile is not given to the next stage.
func Test_transaction_branch_is_taken(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, box *exectest.Box) {
		b := newBranchedIn(t, box)
		txn := b.staged(t, "echo 1 >new; echo go", "touch "+b.Work+"/ran")
		txn.Stages[0].Stdout = writerFunc(func([]byte) {
			dirs, err := filepath.Glob(b.storage + "/*")
			if err != nil || len(dirs) != 1 {
				t.Errorf("branches %q, %v", dirs, err)
				return
			}
			b.File(dirs[0]+"/kept", `{"Reason": "kept"}`)
		})
		r, err := txn.Run(bounded(t))
		wantFault(t, r, err, exec.CodeCommit, "reuse branch")
		wantMissing(t, b.Work+"/new", b.Work+"/ran")
		b.wantNone(t)
	})
}
