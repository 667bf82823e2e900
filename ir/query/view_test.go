package query_test

import (
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

func TestAccess(t *testing.T) {
	fs, _, _ := abi.Supported(6)
	write := ir.WriteRights(fs)
	p := &ir.Program{
		Landlock: ir.Landlock{Handled: ir.Rights{FS: fs}, Paths: []ir.PathRule{
			{Path: "${cwd}", Access: write, Kind: ir.PathRequired, Origin: 1},
			{Path: "/proc", Access: write, Kind: ir.PathRequired, Origin: 2},
			{Path: "/srv", Access: write, Kind: ir.PathRequired, Origin: 3},
			{Path: "/usr", Access: ir.ReadRights(fs), Kind: ir.PathRequired, Origin: 4},
		}},
		View: ir.View{
			Mount: true,
			Mounts: []ir.ViewMount{
				{Target: "/srv/ro", Source: "/x", ReadOnly: true, Origin: 5}, {Target: "/srv/ro/rw", Source: "/y", Origin: 6},
			},
			Deny: []ir.ViewPath{{Path: "${cwd}/secret", Origin: 7}, {Path: "/usr/lib/x", Origin: 8}},
			Protect: []ir.ViewPath{
				{Path: "**/.git/hooks/**", Origin: 9}, {Path: "${cwd}/*.lock", Origin: 10}, {Path: "Makefile", Origin: 11},
				{Path: "/srv/keep", Origin: 12},
			},
			Masks: []string{"/proc/kcore"}, ReadOnly: []string{"/proc/sys"},
		},
	}
	const read, change = abi.FSReadFile, abi.FSWriteFile
	for _, tc := range []struct {
		path   string
		want   uint64
		allow  bool
		origin ir.OriginRef
		reason string
	}{
		{"${cwd}/a", change, true, 1, "granted"},
		{"${cwd}/secret", read, false, 7, "denied"},
		{"${cwd}/secret/a", change, false, 7, "denied"},
		{"${cwd}/secrets", read, true, 1, "granted"},
		{"/usr/lib/x", abi.FSExecute, false, 8, "denied"},
		{"/usr/lib/y", abi.FSExecute, true, 4, "granted"},
		{"${cwd}/.git/hooks", change, false, 9, "protected."},
		{"${cwd}/a/b/.git/hooks/pre-commit", change, false, 9, "protected, if it is there"},
		{"${cwd}/a/.git/hooks/pre-commit", read, true, 1, "granted"},
		{"${cwd}/a/.git/hooks/pre-commit", abi.FSMakeReg, false, 9, "protected, if"},
		{"${cwd}/.git/config", change, true, 1, "granted"},
		{"/srv/.git/hooks/x", change, false, 9, "protected."},
		{"/usr/.git/hooks/x", change, false, 4, "no rule grants"}, // no write grant
		{"${cwd}/x.lock", change, false, 10, "protected, if it is there"},
		{"${cwd}/a/x.lock", change, true, 1, "granted"},
		{"/srv/x.lock", change, true, 3, "granted"},
		{"${cwd}/Makefile", change, false, 11, "protected."},
		{"${cwd}/a/Makefile", change, true, 1, "granted"},
		{"/srv/keep/x", change, false, 12, "protected."},
		{"${cwd}", change, true, 1, "granted"},
		{"/proc/kcore", read, false, 0, "always closed"},
		{"/proc/sys/vm/x", read, true, 2, "granted"},
		{"/proc/sys/vm/x", change, false, 0, "never writable"},
		{"/srv/ro/a", read, true, 3, "granted"},
		{"/srv/ro/a", change, false, 5, "mounted read-only"},
		{"/srv/ro/rw/a", change, true, 3, "granted"},
	} {
		got := query.Access(p, tc.path, tc.want)
		if got.Allowed != tc.allow || got.Origin != tc.origin || !strings.HasPrefix(got.Reason+".", tc.reason) {
			t.Errorf("%s for %v: got %+v, want allowed %v by origin %d: %s", tc.path, abi.FSRightNames(tc.want), got, tc.allow, tc.origin, tc.reason)
		}
	}
	p.Landlock.Paths[2].Path = "/" // a grant of everything
	if got := query.Access(p, "/.git/hooks/x", change); got.Allowed || got.Origin != 9 {
		t.Errorf("beneath the root: got %+v, want protected", got)
	}
}

// TestViewInEvents: what a test of a policy asks goes the same way.
func TestViewInEvents(t *testing.T) {
	p := program()
	p.View = ir.View{Mount: true, Deny: []ir.ViewPath{{Path: "/usr/secret"}}}
	for target, want := range map[string]bool{"/usr/secret/x": false, "/usr/x": true} {
		got, err := query.Event(p, abi.AMD64, &ir.Test{Kind: ir.TestOpen, Target: target, For: "read"})
		if err != nil || got.Allowed != want {
			t.Errorf("%s: got %+v (%v), want allowed %v", target, got, err, want)
		}
	}
}

// TestBranched: a mount in the working directory is not part of its branch.
func TestBranched(t *testing.T) {
	p := &ir.Program{
		View:   ir.View{Mount: true, PID: true, Mounts: []ir.ViewMount{{Target: "/work/out", Source: "/srv/out"}}},
		Branch: ir.Branch{Kind: ir.BranchOverlay, Workdir: "/work"},
	}
	for path, want := range map[string]bool{"/work": true, "/work/a": true, "/work/out": false, "/work/out/x": false, "/works": false, "/": false} {
		if got := query.Branched(p, path); got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
	p.Branch = ir.Branch{}
	if query.Branched(p, "/work") {
		t.Error("a program without a branch keeps something in one")
	}
}
