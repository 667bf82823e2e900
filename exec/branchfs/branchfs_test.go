package branchfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
	standin "github.com/sandlock-go/sandlock/exec/exectest/branchfs"
	"github.com/sandlock-go/sandlock/exec/kernel"
)

// mountOn mounts a stand-in for BranchFS, of a directory with the file "f" and the directory "sub".
func mountOn(t *testing.T, o standin.Options) (f *standin.FS, dir, base string) {
	t.Helper()
	at := t.TempDir()
	for _, name := range []string{"mnt", "base", "base/sub", "branches"} {
		if err := os.Mkdir(filepath.Join(at, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o.Dir, o.Base, o.Storage, o.GID = at+"/mnt", at+"/base", at+"/branches", os.Getgid()
	if o.UID == 0 {
		o.UID = os.Getuid()
	}
	write(t, o.Base+"/f", "old")
	f, err := standin.Mount(o)
	if err != nil {
		exectest.Lacks(t, fmt.Errorf("a FUSE file system that this user may mount: %w", err))
	}
	t.Cleanup(f.Close)
	return f, o.Dir, o.Base
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantText(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s has %q (%v), want %q", path, got, err, want)
	}
}

func newBranch(t *testing.T, dir string) *Branch {
	t.Helper()
	b, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// TestLife: what is changed in a branch is not seen outside, until it is committed; and never if it is dropped.
func TestLife(t *testing.T) {
	f, mnt, base := mountOn(t, standin.Options{})
	for _, dir := range []string{mnt, mnt + "/sub"} {
		b := newBranch(t, dir)
		if b.Mount() != mnt || b.Dir() != mnt+"/@"+b.ID() || b.Place() != b.Dir()+strings.TrimPrefix(dir, mnt) {
			t.Fatalf("branch of %s: mount %s, directory %s, place %s", dir, b.Mount(), b.Dir(), b.Place())
		}
		write(t, b.Place()+"/new", "1")
		if _, err := os.Lstat(dir + "/new"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is seen outside: %v", err)
		}
		if err := b.Abort(); err != nil {
			t.Fatal(err)
		}
		b = newBranch(t, dir)
		write(t, b.Place()+"/new", "2")
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		wantText(t, base+strings.TrimPrefix(dir, mnt)+"/new", "2")
	}
	if left := f.Branches(); len(left) > 0 {
		t.Errorf("branches are left: %v", left)
	}
}

// TestOpen: a branch that was kept can be settled by its directory.
func TestOpen(t *testing.T) {
	f, mnt, base := mountOn(t, standin.Options{})
	kept := newBranch(t, mnt+"/sub")
	write(t, kept.Place()+"/new", "1")
	if b, err := Open(kept.Dir()); !errors.Is(err, ErrBusy) {
		t.Fatalf("it is in use: got %v, %v", b, err)
	}
	kept.Close()
	b, err := Open(kept.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	wantText(t, base+"/sub/new", "1")
	if err := b.Abort(); err == nil {
		t.Error("it is dropped after it was committed")
	}
	for _, dir := range []string{mnt, mnt + "/sub", kept.Dir(), mnt + "/@..", mnt + "/@"} {
		if b, err := Open(dir); err == nil {
			b.Close()
			t.Errorf("%s is taken for a branch", dir)
		}
	}
	if left := f.Branches(); len(left) > 0 {
		t.Errorf("branches are left: %v", left)
	}
}

// TestConflict: of two branches the one that is committed second is refused, and kept.
func TestConflict(t *testing.T) {
	_, mnt, base := mountOn(t, standin.Options{})
	first, second := newBranch(t, mnt), newBranch(t, mnt)
	write(t, first.Place()+"/f", "first")
	write(t, second.Place()+"/f", "second")
	if err := first.Commit(); err != nil {
		t.Fatal(err)
	}
	var conflict *ConflictError
	if err := second.Commit(); !errors.As(err, &conflict) || conflict.Dir != second.Dir() {
		t.Fatalf("got %v, want a conflict of %s", err, second.Dir())
	}
	wantText(t, base+"/f", "first")
	wantText(t, second.Dir()+"/f", "second")
	if err := second.Abort(); err != nil {
		t.Error(err)
	}
}

// TestNested: a branch of a directory in a branch is one of that branch, and goes there.
func TestNested(t *testing.T) {
	_, mnt, base := mountOn(t, standin.Options{})
	outer := newBranch(t, mnt)
	inner := newBranch(t, outer.Dir()+"/sub")
	write(t, inner.Place()+"/new", "1")
	var failed *CommitError
	if err := outer.Commit(); !errors.As(err, &failed) {
		t.Errorf("a branch with a branch is committed: %v", err)
	}
	if err := inner.Commit(); err != nil {
		t.Fatal(err)
	}
	wantText(t, outer.Dir()+"/sub/new", "1")
	if _, err := os.Lstat(base + "/sub/new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is in the base already: %v", err)
	}
	innermost := newBranch(t, newBranch(t, outer.Dir()).Dir())
	if controls := innermost.Controls(); len(controls) != 1 || controls[0] != Control {
		t.Errorf("control files are %v", controls)
	}
}

// TestRefused: what is not on a BranchFS, or on one that is not to be relied on.
func TestRefused(t *testing.T) {
	plain := t.TempDir()
	write(t, plain+"/"+Control, "")
	_, other, base := mountOn(t, standin.Options{NoControl: true})
	_, planted, plantedBase := mountOn(t, standin.Options{NoControl: true})
	write(t, plantedBase+"/"+Control, "") // ioctl: ENOTTY
	_, linked, linkedBase := mountOn(t, standin.Options{NoControl: true})
	if err := os.Symlink("f", linkedBase+"/"+Control); err != nil {
		t.Fatal(err)
	}
	_, fifo, fifoBase := mountOn(t, standin.Options{NoControl: true})
	if err := unix.Mkfifo(fifoBase+"/"+Control, 0o600); err != nil {
		t.Fatal(err)
	}
	_, good, _ := mountOn(t, standin.Options{})
	link := filepath.Join(plain, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ dir, want string }{
		"plain, with a control file":        {plain, "is on no BranchFS"},
		"procfs":                            {"/proc", "is on no BranchFS"},
		"other FUSE":                        {other, "is missing"},
		"beneath the other's base":          {base, "is on no BranchFS"},
		"other FUSE, with a control file":   {planted, "is no BranchFS"},
		"a link for a control file":         {linked, "too many levels"},
		"a pipe for a control file":         {fifo, "not what BranchFS has"},
		"by a link":                         {link, "too many levels"},
		"missing":                           {good + "/none", "no such file"},
		"a file":                            {good + "/f", "not a directory"},
		"a branch that is not there":        {good + "/@none", "no such file"},
		"the parent directory for a branch": {good + "/@..", "no such file"},
	} {
		if b, err := New(tc.dir); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
			if b != nil {
				b.Close()
			}
		}
	}
}

// TestMountedTwice: another mount of the same file system would lead around the branch.
func TestMountedTwice(t *testing.T) {
	_, mnt, _ := mountOn(t, standin.Options{})
	again := t.TempDir()
	if err := unix.Mount(mnt+"/sub", again, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("this user may not mount: %v", err)
	}
	defer unix.Unmount(again, unix.MNT_DETACH)
	for _, dir := range []string{mnt, again} {
		if _, err := New(dir); err == nil || !strings.Contains(err.Error(), again) || !strings.Contains(err.Error(), mnt) {
			t.Errorf("%s: got %v, want it to name both mounts", dir, err)
		}
	}
}

// TestServedByOthers: who serves a file system decides what everybody reads there.
func TestServedByOthers(t *testing.T) {
	table := "1 0 0:50 / /mnt rw - fuse.branchfs branchfs rw,user_id=%,group_id=0\n"
	for user, want := range map[string]bool{"0": true, "12345": false, "": false} {
		mounts, err := kernel.ParseMounts([]byte(strings.ReplaceAll(table, "user_id=%,", map[bool]string{true: "user_id=" + user + ","}[user != ""])))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := choose(mounts, "/mnt/a", unix.Mkdev(0, 50)); (err == nil) != want {
			t.Errorf("user %q: got %v", user, err)
		}
	}
}

// TestAnswers: the name of a new branch becomes part of a path.
func TestAnswers(t *testing.T) {
	const uuid = "0123abcd-0123-4567-89ab-0123456789ab"
	for text, want := range map[string]string{
		uuid + "\x00":              uuid,
		uuid + "\x00../..\xff":     uuid, // what comes after it does not matter
		"branch-" + uuid + "\x00":  "branch-" + uuid,
		"\x00":                     "",
		"":                         "",
		"..\x00":                   "",
		"main\x00":                 "",
		uuid[1:] + "\x00":          "",
		uuid + "0\x00":             "",
		"../" + uuid + "\x00":      "",
		uuid + "/..\x00":           "",
		"0123ABCD" + uuid[8:]:      "",
		"branch-branch-" + uuid:    "",
		strings.Repeat("a", 36):    "",
		strings.Repeat("a", 128):   "",
		uuid[:35] + "/\x00":        "",
		uuid[:8] + "/" + uuid[9:]:  "",
		uuid + "\n\x00":            "",
		"branch-" + uuid + "/\x00": "",
	} {
		var answer kernel.BranchName
		copy(answer[:], text)
		if got, err := madeName(answer); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, bad := range []string{"../../tmp", "none-of-mine", ""} {
		_, mnt, _ := mountOn(t, standin.Options{Answer: func(string) string { return bad + "\x00" }})
		if b, err := New(mnt); err == nil || !strings.Contains(err.Error(), "no UUID") {
			t.Errorf("%q: got %v, %v", bad, b, err)
		}
	}
	_, mnt, _ := mountOn(t, standin.Options{Answer: func(string) string { return uuid + "\x00" }})
	if b, err := New(mnt); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("a branch that is not there: got %v, %v", b, err)
	}
}
