package exec_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

const (
	manyFiles = `umask 022; mkdir a b; for i in $(seq 600); do echo old $i >a/$i; echo old >b/$i; done`
	// manyChanges changes some 2000 names, again and again.
	manyChanges = `umask 022; for i in $(seq 600); do echo $$ >>a/$i; done
if [ -e new ]; then rm -r new b/n* link; chmod 755 a; else mkdir -p new/sub; chmod 700 a; ln -s a link
for i in $(seq 700); do echo $$ >new/sub/$i; echo $$ >b/n$i; done; fi
`
	// manySeen is all of that: names, types, modes, sizes, times, texts of links, and what is in files.
	manySeen = `{ find . -mindepth 1 ! -type d -printf '%P %y %m %s %T@ %l\n' -o -printf '%P %y %m\n' | sort; find . -type f | sort | xargs cat; } | sha256sum`
)

// A commit whose executor is killed, at any time, is undone or completed by a recovery, whose first attempt may be killed too.
// With SANDLOCK_SOAK it is killed a hundred times.
func Test_branch_commit_killed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		rounds := 4
		if os.Getenv("SANDLOCK_SOAK") != "" {
			rounds = 100
		}
		b := newBranched(t, u)
		policy := b.policy(`on_exit: "keep"`)
		b.outside(t, b.Work, manyFiles)
		seen := func(r exectest.Result) string {
			t.Helper()
			if r.Code != 0 || len(r.Stdout) < 64 {
				t.Fatalf("exit %d, %q, %s", r.Code, r.Stdout, r.Stderr)
			}
			return r.Stdout
		}
		now := func() string {
			o := b.Opts("", "/bin/sh", "-c", manySeen)
			o.Dir = b.Work
			return seen(exectest.Run(t, o))
		}
		// killed ends a command at some time: a commit takes 0.1 to 0.5 seconds.
		killed := func(args ...string) {
			p := exectest.Start(t, exectest.Opts{User: u, Dir: b.Work, Args: append([]string{exectest.Executor(t), "branch", args[0], "--storage", b.storage}, args[1:]...)})
			time.Sleep(rand.N(300 * time.Millisecond))
			_ = p.Cmd.Process.Kill() // it may be over
			p.Wait(t)
		}

		outcomes := map[string]int{}
		var old, want string
		for round := range rounds {
			if old == want {
				old = now()
				want = seen(b.Sh(policy, manyChanges+manySeen))
			}
			killed("commit", b.list(t)[0].ID)
			if round%2 == 1 {
				killed("recover")
			}
			for range 2 {
				wantRecovered(t, b)
			}
			switch got := now(); {
			case got == old && got != want:
				outcomes["old"]++
				if all := b.list(t); len(all) != 1 {
					t.Fatalf("round %d: the old tree, and branches %+v, want one", round, all)
				}
			case got == want:
				outcomes["new"]++
				old = want
				if all := b.list(t); len(all) > 0 {
					t.Fatalf("round %d: the new tree, and branches %+v", round, all)
				}
			default:
				t.Fatalf("round %d: neither the old tree nor the new one", round)
			}
		}
		t.Logf("trees found: %v", outcomes)
	})
}

func wantRecovered(t *testing.T, b *branched) {
	t.Helper()
	if r := b.branch(t, "recover"); r.Code != 0 {
		t.Fatalf("recover: exit %d, %s", r.Code, r.Stderr)
	}
	if exists(filepath.Join(b.Work, ".sandlock-commit")) {
		t.Error("recover: the stage is left")
	}
}
