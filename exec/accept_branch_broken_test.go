package exec_test

import (
	"os"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// A branch that cannot be made, or read, is an error, and hides no other (number 39 of the filesystem specification).
func Test_branch_broken(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		r := b.Run(b.policy(`workdir: "/etc/passwd"`), "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "not a directory") {
			t.Errorf("a file: exit %d, %s", r.Code, r.Stderr)
		}
		b.wantNone(t)

		// A workdir with an unfinished commit says how to go on.
		stage := b.Work + "/.sandlock-commit"
		b.outside(t, b.Work, "mkdir -m 700 .sandlock-commit")
		r = b.Sh(b.policy(""), "echo ran")
		if r.Code != 125 || r.Stdout != "" || !strings.Contains(r.Stderr, "hint: sandlock-exec branch recover --workdir "+b.Work) {
			t.Errorf("unfinished: exit %d, %q, %s", r.Code, r.Stdout, r.Stderr)
		}
		b.wantNone(t)
		if r := b.branch(t, "recover", "--workdir", b.Work); r.Code != 0 || exists(stage) {
			t.Errorf("recover: exit %d, %q, %s", r.Code, r.Stdout, r.Stderr)
		}
		wantRun(t, b.Sh(b.policy(""), "echo ran"), 0, "ran")

		wantRun(t, b.Sh(b.policy(`on_exit: "keep"`), "echo 1 >new"), 0, "")
		id := b.wantOne(t, "kept").ID
		b.outside(t, b.storage, "mkdir 0123456789abcdef0123456789abcdef 1123456789abcdef0123456789abcdef; echo '{' >1123456789abcdef0123456789abcdef/meta; echo x >file")
		b.wantOne(t, "kept")
		wantRun(t, b.branch(t, "abort", id), 0, "")
		if r := b.branch(t, "show", "01234"); r.Code != 125 {
			t.Errorf("show of what is no branch: exit %d, %s", r.Code, r.Stderr)
		}
		if err := os.RemoveAll(b.storage); err != nil {
			t.Fatal(err)
		}
	})
}
