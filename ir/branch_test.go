package ir

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// TestDumpBranch: a reader sees where changes go and what becomes of them, and nothing where there is no branch.
func TestDumpBranch(t *testing.T) {
	p := sample()
	text := p.Dump(DumpOptions{Origins: true})
	for _, want := range []string{
		"  branch       overlayfs on ${work}/src: commit after status 0, else keep, at most 1G\n",
		"\nbranch  changes in the working directory are kept apart",
		"  branch      ${work}/src",
		"  workdir              ${work}/src",
		"  kind                 overlayfs, mounted on it\n",
		"  storage              ${home}/branches\n",
		"  after status 0       commit: they are applied to the working directory\n",
		"  after any other end  keep: they are left in the storage\n",
		"  disk                 at most 1G, kept in memory",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the dump has no %q:\n%s", want, text)
		}
	}
	p.Branch.Storage, p.Branch.Disk, p.Branch.DiskOrigin, p.Branch.OnError, p.Branch.Kind = "", 0, 0, BranchAbort, BranchFS
	text = p.Dump(DumpOptions{})
	for _, want := range []string{"the BranchFS's own\n", "abort: they are dropped\n", "disk                 as the BranchFS bounds it\n", "branchfs, which it is on\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the dump has no %q:\n%s", want, text)
		}
	}
	p.Branch = Branch{}
	if text := p.Dump(DumpOptions{}); strings.Contains(text, "branch") {
		t.Errorf("a program without a branch has one:\n%s", text)
	}
}

func TestDumpBranchJSON(t *testing.T) {
	for _, tc := range []struct {
		branch Branch
		want   *branchView
	}{
		{sample().Branch, &branchView{
			Workdir: "${work}/src", Kind: "overlayfs", Storage: "${home}/branches", OnExit: "commit", OnError: "keep", Disk: 1 << 30,
			Origin: "policies/agent.cue:3:9 filesystem.read[0]",
		}},
		{Branch{}, nil},
	} {
		p := sample()
		p.Branch = tc.branch
		var b bytes.Buffer
		if err := p.DumpJSON(&b); err != nil {
			t.Fatal(err)
		}
		var got struct{ Branch *branchView }
		if err := json.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if (got.Branch == nil) != (tc.want == nil) || got.Branch != nil && *got.Branch != *tc.want {
			t.Errorf("%+v: got %+v, want %+v", tc.branch, got.Branch, tc.want)
		}
	}
}

// TestHostPath: what the view's root makes of a path.
func TestHostPath(t *testing.T) {
	for _, tc := range []struct{ root, path, want string }{
		{"", "/work", "/work"}, {"", "/", "/"}, {"/srv/root", "/work", "/srv/root/work"}, {"/srv/root", "/", "/srv/root"},
	} {
		if got := (&View{Root: tc.root}).HostPath(tc.path); got != tc.want {
			t.Errorf("%q beneath %q: got %q, want %q", tc.path, tc.root, got, tc.want)
		}
	}
}
