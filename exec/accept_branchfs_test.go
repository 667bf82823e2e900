package exec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
	"github.com/sandlock-go/sandlock/exec/exectest/branchfs"
)

// onBranchFS is a box with a stand-in for BranchFS.
type onBranchFS struct {
	*exectest.Box
	fs        *branchfs.FS
	mnt, base string
}

// newOnBranchFS mounts one that shows the file "old" and the directory "sub", which holds a file "old" too.
func newOnBranchFS(t *testing.T, u exectest.User) *onBranchFS {
	t.Helper()
	return mountIn(t, exectest.NewBox(t, u), branchfs.Options{})
}

func mountIn(t *testing.T, box *exectest.Box, o branchfs.Options) *onBranchFS {
	t.Helper()
	b := &onBranchFS{Box: box, mnt: box.Dir("mnt"), base: box.Dir("base")}
	b.File(b.base+"/old", "old\n")
	b.Dir("base/sub")
	b.File(b.base+"/sub/old", "old\n")
	o.Dir, o.Base, o.Storage, o.UID, o.GID = b.mnt, b.base, b.Dir("branches"), b.User.UID, b.User.GID
	var err error
	if b.fs, err = branchfs.Mount(o); err != nil {
		t.Skipf("this host mounts no FUSE file system: %v", err)
	}
	t.Cleanup(b.fs.Close)
	return b
}

// policy keeps changes beneath a directory in a branch. It grants the whole mount, and what is above it for reading.
func (b *onBranchFS) policy(workdir, fields string, more ...string) string {
	return b.Policy(b.text(workdir, fields, more...))
}

func (b *onBranchFS) text(workdir, fields string, more ...string) string {
	return b.Base(exectest.Grants{
		Read: []string{b.Outside}, Write: []string{b.mnt, "/dev/null"},
		More: fmt.Sprintf("filesystem: {isolation: \"branchfs\", workdir: %q\n%s\n}\n", workdir, fields) + strings.Join(more, "\n"),
	})
}

// opts runs a script, and the executor too, in a directory of the mount. This process, which serves the mount, must not go
// there between fork and exec: it could not answer itself then.
func (b *onBranchFS) opts(artifact, dir, script string) exectest.Opts {
	o := b.Opts(artifact, "/bin/sh", "-c", script)
	o.Wrap = []string{"/bin/sh", "-c", `cd "$0" && exec "$@"`, dir}
	return o
}

func (b *onBranchFS) sh(t *testing.T, artifact, dir, script string) exectest.Result {
	t.Helper()
	return exectest.Run(t, b.opts(artifact, dir, script))
}

// How a branch of a BranchFS ends, and that nobody sees it before. The working directory is the whole mount, or lies in it.
func Test_branchfs_how_a_branch_ends(t *testing.T) {
	for name, tc := range map[string]struct {
		fields, script string
		code           int
		landed, kept   bool
		said           string
	}{
		"default, status 0": {script: "exit 0", landed: true},
		"default, status 3": {script: "exit 3", code: 3, said: "the changes are dropped"},
		"keep, status 0":    {fields: `on_exit: "keep"`, script: "exit 0", kept: true, said: "sandlock-exec branch commit"},
		"commit, signal":    {fields: `on_error: "commit"`, script: "kill -TERM $$", code: 143, landed: true},
	} {
		t.Run(name, func(t *testing.T) {
			exectest.InParallel(t, func(t *testing.T, u exectest.User) {
				for _, sub := range []string{"", "/sub"} {
					b := newOnBranchFS(t, u)
					r := b.sh(t, b.policy(b.mnt+sub, tc.fields), b.mnt+sub, "cat old && echo 1 >new && echo 2 >old && cat "+b.mnt+sub+"/new && "+tc.script)
					if r.Code != tc.code || !strings.Contains(r.Stderr, tc.said) || r.Stdout != "old\n1\n" {
						t.Fatalf("exit %d, %q, %q, want %d, %q", r.Code, r.Stdout, r.Stderr, tc.code, tc.said)
					}
					if tc.landed {
						wantFile(t, b.base+sub+"/new", "1\n")
						wantFile(t, b.base+sub+"/old", "2\n")
					} else {
						wantMissing(t, b.base+sub+"/new")
						wantFile(t, b.base+sub+"/old", "old\n")
					}
					if left := b.fs.Branches(); len(left) > 0 != tc.kept {
						t.Errorf("branches %v are left", left)
					}
				}
			})
		})
	}
}
