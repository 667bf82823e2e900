package exec_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// content is a tree with all that a commit carries over: types, modes, owners, sizes, times of all but directories, extended
// attributes, contents, and which names are one file.
func content(t *testing.T, dir string) string {
	t.Helper()
	var text strings.Builder
	names := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, dir)
		fmt.Fprintf(&text, "%q %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		if !entry.IsDir() {
			fmt.Fprintf(&text, " %d %d.%09d", st.Size, st.Mtim.Sec, st.Mtim.Nsec)
			if first, ok := names[st.Ino]; ok {
				fmt.Fprintf(&text, " is %q", first)
			}
			names[st.Ino] = rel
		}
		switch {
		case entry.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&text, " -> %q", link)
		case entry.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&text, " %x", sha256.Sum256(data))
		}
		buf := make([]byte, 4096)
		n, _ := unix.Llistxattr(path, buf)
		for _, name := range strings.Split(strings.TrimRight(string(buf[:max(n, 0)]), "\x00"), "\x00") {
			value := make([]byte, 4096)
			if n, err := unix.Lgetxattr(path, name, value); err == nil {
				fmt.Fprintf(&text, " %s=%q", name, value[:n])
			}
		}
		text.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// start makes a tree to work on. It is the same for everybody, times included.
const start = `
umask 022
mkdir d d/sub empty full; echo one >d/one; echo two >d/sub/two; echo x >full/x; mkdir full/dir; echo y >full/dir/y
echo victim >victim; echo "first
second" >edit; ln -s d/one link; printf '#!/bin/sh\necho program\n' >prog; chmod 755 prog; : >zero
mkfifo pipe; echo old >replaced; mkdir becomes; echo z >becomes/z; echo file >dir.me; chmod 750 full; echo private >secret; chmod 600 secret
find . -depth -exec touch -h -d 2020-02-02T02:02:02.123456789Z {} +
`

// Number 54, and 1 to 24 of the filesystem specification: a script does the same in a branch that is committed, and outside.
func Test_filesystem_9_1_commit_is_what_the_command_did(t *testing.T) {
	const stamp = "find . -newermt 2021-01-01 ! -type d -exec touch -h -d 2022-02-02T02:02:02.987654321Z {} +"
	for name, script := range map[string]string{
		"create":            `echo new >new; : >d/empty; mkdir -p a/b/c; echo deep >a/b/c/f`,
		"modify":            `echo more >>edit; echo short >victim`,
		"truncate":          `: >edit; truncate -s 3 victim`,
		"remove":            `rm victim link; rm -r full; rmdir empty`,
		"only_in_upper":     `mkdir e && cd e && pwd >../pwd.txt && echo x >f && sed -i "s,$PWD,here," ../pwd.txt`,
		"recreate":          `rm victim; echo other >victim; rm -r d; mkdir d; echo new >d/new`,
		"rename_file":       `mv victim moved; mv edit d/sub/edit`,
		"rename_dir":        `mv full d/full2; mv d d2`,
		"rename_over":       `mv victim edit; mkdir n; echo 1 >n/1; mv n m; mv -T m becomes2`,
		"types":             `rm -r becomes; echo file >becomes; rm dir.me; mkdir dir.me; echo f >dir.me/f; rm replaced; ln -s victim replaced; rm link; echo file >link`,
		"links":             `ln victim victim2; ln -s nowhere dangling; ln -s /etc/passwd out; ln -sf d/sub link; echo a >p; ln p q; ln q d/r`,
		"fifo":              `rm pipe; mkfifo other; chmod 600 other`,
		"modes":             `chmod 700 d/sub; chmod 640 edit; chmod 400 zero; chmod 755 full; chmod u+w,g-r .; chmod 711 .; mkdir locked; echo l >locked/l; chmod 555 locked; echo n >nothing; chmod 0 nothing`,
		"sticky":            `chmod 1777 d; mkdir s; chmod 2755 s`,
		"times":             `touch -d 2001-01-01T01:01:01.5Z edit; touch -h -d 2001-01-01 link; touch -a -d 2003-03-03 victim`,
		"sparse":            `truncate -s 64M hole; printf x | dd of=hole bs=1 seek=30000000 conv=notrunc status=none`,
		"program":           `cp /bin/echo m; ./m hi >said; ./prog >said2; rm m`,
		"names":             `printf 1 >"$(printf 'a\377b')"; printf 2 >"$(printf 'new\nline')"; printf 3 >"..foo"; printf 4 >" "; printf 5 >'*'; mkdir "$(printf 'd\200')"; printf 6 >"$(printf 'd\200/f')"`,
		"unchanged_rewrite": `cp -p edit e2; cat e2 >edit; touch -d 2020-02-02T02:02:02.123456789Z edit; rm e2`,
		"excl":              `set -C; (echo x >victim) 2>/dev/null && echo bad >bad; rm victim; echo fresh >victim; (echo y >victim) 2>/dev/null && echo bad >bad2; cat victim >copy`,
		"not_empty":         `rmdir full 2>/dev/null && echo bad >bad; rmdir victim 2>/dev/null && echo bad >bad; unlink d 2>/dev/null && echo bad >bad; ls full >ls.txt`,
		"many":              `mkdir many; i=0; while [ $i -lt 500 ]; do echo $i >many/$i; i=$((i+1)); done; rm many/1*`,
	} {
		t.Run(name, func(t *testing.T) {
			exectest.InParallel(t, func(t *testing.T, u exectest.User) {
				b := newBranched(t, u)
				plain := b.Dir("plain")
				for _, dir := range []string{b.Work, plain} {
					b.outside(t, dir, start)
				}
				whole := script + "\n" + `cd "$W"; ` + stamp
				r := b.Sh(b.policy(""), "W="+b.Work+"; "+whole)
				if r.Code != 0 {
					t.Fatalf("exit %d: %s", r.Code, r.Stderr)
				}
				b.outside(t, plain, "W="+plain+"; "+whole)
				b.asRoot(t, func() {
					if got, want := content(t, b.Work), content(t, plain); got != want {
						changed(t, want, got)
					}
				})
				b.wantNone(t)
			})
		})
	}
}

// asRoot skips what only root can read of what the command closed to itself.
func (b *branched) asRoot(t *testing.T, f func()) {
	t.Helper()
	if exectest.Self().Root() {
		f()
	} else {
		t.Log("not compared: the tests do not run as root")
	}
}

// outside runs a script with no sandbox.
func (b *branched) outside(t *testing.T, dir, script string) {
	t.Helper()
	o := b.Opts("", "/bin/sh", "-c", script)
	o.Dir = dir
	if r := exectest.Run(t, o); r.Code != 0 {
		t.Fatalf("outside: exit %d: %s", r.Code, r.Stderr)
	}
}

func Test_branch_commit_attributes(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		py := python(t)
		b := newBranched(t, u)
		kept, changed := b.File(b.Work+"/kept", "1"), b.File(b.Work+"/changed", "2")
		for _, path := range []string{kept, changed} {
			if err := unix.Setxattr(path, "user.color", []byte("blue"), 0); err != nil {
				exectest.Lacks(t, fmt.Sprintf("user attributes: %v", err))
			}
		}
		r := b.Run(b.policy(""), py, "-c", `
import os
os.setxattr("changed", "user.color", b"red")
os.setxattr("changed", "user.more", b"\x00\xff")
open("kept", "a").write("x")
open("new", "w").write("n")
os.setxattr("new", "user.new", b"yes")
os.mkdir("dir")
os.setxattr("dir", "user.dir", b"d")
`)
		if r.Code != 0 {
			t.Fatalf("exit %d: %s", r.Code, r.Stderr)
		}
		for path, want := range map[string][]string{
			"kept": {"user.color=blue"}, "changed": {"user.color=red", "user.more=\x00\xff"}, "new": {"user.new=yes"}, "dir": {"user.dir=d"},
		} {
			var got []string
			buf, value := make([]byte, 4096), make([]byte, 4096)
			n, err := unix.Llistxattr(filepath.Join(b.Work, path), buf)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range strings.Split(strings.Trim(string(buf[:n]), "\x00"), "\x00") {
				if n, err := unix.Lgetxattr(filepath.Join(b.Work, path), name, value); err == nil && strings.HasPrefix(name, "user.") {
					got = append(got, name+"="+string(value[:n]))
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s has %q, want %q", path, got, want)
			}
		}
	})
}

// A sparse file stays one.
func Test_branch_commit_sparse(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		wantRun(t, b.Sh(b.policy(""), "truncate -s 1G hole; printf x | dd of=hole bs=1 seek=500000000 conv=notrunc status=none"), 0, "")
		var st syscall.Stat_t
		if err := syscall.Lstat(b.Work+"/hole", &st); err != nil || st.Size != 1<<30 || st.Blocks > 2048 {
			t.Errorf("%d bytes in %d blocks (%v)", st.Size, st.Blocks, err)
		}
	})
}

// What files of privilege the command makes are none after a commit.
func Test_branch_commit_setuid(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.Sh(b.policy(`on_error: "commit"`), "cp /bin/true su; chmod 4755 su; cp /bin/true sg; chmod 2755 sg")
		for _, name := range []string{"su", "sg"} {
			st, err := os.Stat(b.Work + "/" + name)
			if err == nil && st.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
				t.Errorf("%s has mode %v", name, st.Mode())
			}
		}
	})
}

// The names of one file stay that, until the command writes to one: it has then a file of its own, as with all copies.
func Test_branch_commit_hard_links(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.outside(t, b.Work, "echo 1 >a; ln a b; ln a c; echo 2 >p; ln p q")
		wantRun(t, b.Sh(b.policy(""), "echo changed >b; mkdir d; ln p d/r; echo 3 >x; ln x y; ln x d/z"), 0, "")
		wantRun(t, exectest.Run(t, exectest.Opts{User: b.User, Dir: b.Work, Args: []string{"/bin/sh", "-c",
			"cat a b c; stat -c %h a b x; test a -ef c && echo one; test x -ef y && test y -ef d/z && echo one; cat p q d/r"}}), 0,
			"1\nchanged\n1\n2\n1\n3\none\none\n2\n2\n2")
	})
}

// Real programs in a branch leave what they leave outside.
func Test_branch_commit_git(t *testing.T) {
	git := exectest.Program(t, "/usr/bin/git")
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		b.outside(t, b.Work, gitUser+"git init -q . && echo 1 >f && git add f && git commit -qm one")
		r := b.Sh(b.policy(""), "set -e; echo 2 >f; git commit -qam two; git checkout -qb side HEAD~1; echo 3 >g; git add g; git commit -qm three; git gc -q")
		if r.Code != 0 {
			t.Fatalf("exit %d: %s", r.Code, r.Stderr)
		}
		cmd := osexec.Command(git, "-c", "safe.directory=*", "-C", b.Work, "log", "--all", "--format=%s")
		out, err := cmd.CombinedOutput()
		lines := strings.Fields(string(out))
		slices.Sort(lines)
		if err != nil || strings.Join(lines, " ") != "one three two" {
			t.Errorf("log %q, %v", out, err)
		}
		b.outside(t, b.Work, "git fsck --strict && test -z \"$(git status --porcelain g)\"")
	})
}
