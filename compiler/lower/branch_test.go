package lower

import (
	"testing"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

// TestBranch: a branch never starts without its namespaces, and without one there is nothing of it.
func TestBranch(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*policy.Filesystem)
		want   ir.Branch
	}{
		"none":          {func(fs *policy.Filesystem) { fs.Storage = str("/var/x") }, ir.Branch{}},
		"isolation off": {func(fs *policy.Filesystem) { fs.Workdir, fs.Isolation = str("/work"), str("none") }, ir.Branch{}},
		"auto": {
			func(fs *policy.Filesystem) { fs.Workdir = str("/work") },
			ir.Branch{Workdir: "/work", Kind: ir.BranchOverlay, OnExit: ir.BranchCommit, OnError: ir.BranchAbort},
		},
		"all of it": {
			func(fs *policy.Filesystem) {
				fs.Workdir, fs.Isolation, fs.Storage = str("/work"), str("overlayfs"), str("/var/x")
				fs.OnExit, fs.OnError = str("keep"), str("commit")
			},
			ir.Branch{Workdir: "/work", Kind: ir.BranchOverlay, Storage: "/var/x", OnExit: ir.BranchKeep, OnError: ir.BranchCommit},
		},
		"BranchFS": {
			func(fs *policy.Filesystem) {
				fs.Workdir, fs.Isolation, fs.Storage = str("/work"), str("branchfs"), str("/var/x")
			},
			ir.Branch{Workdir: "/work", Kind: ir.BranchFS, OnExit: ir.BranchCommit, OnError: ir.BranchAbort},
		},
	} {
		p := policyWith(6, "strict")
		p.Program.StrictLifetime.V = "prefer"
		p.Filesystem.Isolation, p.Filesystem.OnExit, p.Filesystem.OnError = str("auto"), str("commit"), str("abort")
		tc.change(&p.Filesystem)
		u := lowered(p)
		Branch(u)
		if got := u.Program.Branch; got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
		if got, want := u.Filter.BranchFS, tc.want.Kind == ir.BranchFS; got != want {
			t.Errorf("%s: requests of BranchFS are refused: got %v, want %v", name, got, want)
		}
		branched := tc.want.Kind != ir.BranchNone
		if v := &u.Program.View; !v.Mount || !v.PID || v.Optional == branched {
			t.Errorf("%s: got the view %+v", name, v)
		}
		if grants := len(u.Program.Landlock.Paths); grants != 0 {
			t.Errorf("%s: got %d grants, want none", name, grants)
		}
	}
}
