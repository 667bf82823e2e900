package cover

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// denied plans for paths beneath a directory that is granted for writing.
func denied(t testing.TB, dir string, names ...string) *Plan {
	t.Helper()
	p, err := Make(deniedRequest(dir, names...))
	check(t, err)
	t.Cleanup(p.Close)
	return p
}

func deniedRequest(dir string, names ...string) Request {
	r := Request{Grants: []Grant{{dir, true}}}
	for i, name := range names {
		r.Deny = append(r.Deny, Rule{Path: filepath.Join(dir, name), Name: fmt.Sprintf("filesystem.deny[%d]", i)})
	}
	return r
}

func TestPlaceholders(t *testing.T) {
	asUsers(t, func(t *testing.T) {
		t.Run("shared", func(t *testing.T) {
			dir := tree(t)
			for _, order := range [][2]int{{0, 1}, {1, 0}} {
				plans := []*Plan{denied(t, dir, "a/b/x"), denied(t, dir, "a/b/x", "a/y")}
				first, second := plans[order[0]], plans[order[1]]
				first.Undo()
				if _, err := os.Lstat(filepath.Join(dir, "a/b/x")); err != nil {
					t.Errorf("order %v: gone while in use: %v", order, err)
				}
				second.Undo()
				same(t, listing(t, dir), nil)
			}
		})
		t.Run("left by a killed one", func(t *testing.T) {
			dir := tree(t)
			denied(t, dir, "a/b/x").Close()
			same(t, listing(t, dir), []string{"a", "a/b", "a/b/x"})
			p := denied(t, dir, "a/b/x")
			same(t, shown(p), []string{"pinned d " + dir + "/a", "pinned d " + dir + "/a/b", "closed f " + dir + "/a/b/x"})
			p.Undo()
			same(t, listing(t, dir), nil)
		})
		t.Run("left out of use", func(t *testing.T) {
			dir := tree(t)
			denied(t, dir, "x").Close()
			p, err := Make(Request{Grants: []Grant{{dir, false}}, Deny: rules("deny", dir+"/x")})
			check(t, err)
			same(t, shown(p), []string{"closed f " + dir + "/x"})
			p.Undo()
			same(t, listing(t, dir), []string{"x"})
		})
		t.Run("where a directory would have to be", func(t *testing.T) {
			for name, r := range map[string]Request{
				"denied":    {Deny: []Rule{{Path: "x/y", Name: "deny"}}},
				"protected": {Protect: []Rule{{Path: "x/y", Name: "protect"}}},
				"anywhere":  {Protect: []Rule{{Path: "**/x/y/**", Name: "protect"}}},
			} {
				dir := tree(t)
				first := denied(t, dir, "x")
				r.Grants = []Grant{{dir, true}}
				if len(r.Deny) > 0 {
					r.Deny[0].Path = dir + "/x/y"
				}
				second, err := Make(r)
				check(t, err)
				first.Undo()
				if got := listing(t, dir); len(got) != 1 || got[0] != "x" {
					t.Errorf("%s: got %q once the first sandbox is over, want the file in the way to stay", name, got)
				}
				second.Undo()
				same(t, listing(t, dir), nil)
			}
		})
		t.Run("gone when it is looked at", func(t *testing.T) {
			dir := tree(t)
			v, err := newView(kernel.Root{})
			check(t, err)
			defer v.close()
			for _, kind := range []Kind{ReadOnly, Closed} {
				for _, writes := range []bool{true, false} {
					p := &planner{view: v, grants: newGrants([]Grant{{dir, writes}}), covers: map[string]*found{}, plan: &Plan{}}
					p.take(Rule{Name: "rule"}, dir+"/x", place{path: dir + "/x", file: file{mode: unix.S_IFREG | 0o444}}, kind)
					if len(p.covers) != 0 || len(p.missing) > 0 != writes {
						t.Errorf("%v, granted for writing %v: covers %v, missing %v", kind, writes, p.covers, p.missing)
					}
				}
			}
		})
		t.Run("somebody's empty file", func(t *testing.T) {
			dir := tree(t)
			for _, mode := range []os.FileMode{0o644, 0, 0o444} {
				name := filepath.Join(dir, fmt.Sprint(mode))
				check(t, os.WriteFile(name, nil, mode))
				check(t, os.Chtimes(name, unixEpoch, unixEpoch))
			}
			before := listing(t, dir)
			p := denied(t, dir, before...)
			if len(p.Placeholders) != 0 || len(p.Covers) != len(before) {
				t.Errorf("got %d placeholders, %q", len(p.Placeholders), shown(p))
			}
			p.Undo()
			same(t, listing(t, dir), before)
		})
		t.Run("written to", func(t *testing.T) {
			dir := tree(t)
			p := denied(t, dir, "x")
			check(t, os.Chmod(dir+"/x", 0o644))
			check(t, os.WriteFile(dir+"/x", []byte("mine"), 0o644))
			p.Undo()
			same(t, listing(t, dir), []string{"x"})
			if p := denied(t, dir, "x"); len(p.Placeholders) != 0 {
				t.Error("taken for a placeholder")
			}
		})
		t.Run("replaced", func(t *testing.T) {
			dir := tree(t, "y")
			p := denied(t, dir, "a/x")
			check(t, os.WriteFile(dir+"/y", nil, 0o644))
			check(t, os.Rename(dir+"/y", dir+"/a/x"))
			p.Undo()
			same(t, listing(t, dir), []string{"a", "a/x"})
		})
		t.Run("directory in use", func(t *testing.T) {
			dir := tree(t)
			p := denied(t, dir, "a/b/x")
			growTree(t, dir, "a/other")
			p.Undo()
			same(t, listing(t, dir), []string{"a", "a/other"})
		})
		t.Run("somebody's directory", func(t *testing.T) {
			dir := tree(t, "a/")
			denied(t, dir, "a/x").Undo()
			same(t, listing(t, dir), []string{"a"})
		})
		t.Run("without unnamed files", func(t *testing.T) {
			dir := tree(t, "y")
			at, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
			check(t, err)
			defer unix.Close(at)
			fd, err := createNamed(at, "x")
			check(t, err)
			defer unix.Close(fd)
			if f, err := statAt(at, "x"); err != nil || !isPlaceholder(f) {
				t.Errorf("got %+v, %v", f, err)
			}
			if _, err := createNamed(at, "y"); err != unix.EEXIST {
				t.Errorf("got %v, want EEXIST", err)
			}
			same(t, listing(t, dir), []string{"x", "y"})
		})
		t.Run("failed start", func(t *testing.T) {
			dir := tree(t)
			r := deniedRequest(dir, "a/x")
			r.Protect = rules("protect", "/proc/self/x")
			r.Grants = append(r.Grants, Grant{"/proc", true})
			if _, err := Make(r); !errors.Is(err, ErrSelf) {
				t.Errorf("got %v", err)
			}
			same(t, listing(t, dir), nil)
		})
	})
}

var unixEpoch = time.Unix(0, 0)

// TestUnwritable: a directory in which nobody can make anything needs no placeholder, one that its owner can open up is an
// error, and what lies behind a closed door is closed with the door.
func TestUnwritable(t *testing.T) {
	asUsers(t, func(t *testing.T) {
		p, err := Make(Request{Grants: []Grant{{"/", true}}, Deny: rules("deny", "/proc/none", "/proc/none/x", "/sys/none", "/sys/none/x", "/dev/pts/none")})
		check(t, err)
		same(t, shown(p), nil)
		p.Undo()
		if os.Getuid() == 0 {
			return // root writes everywhere else
		}
		dir := tree(t, "own/", "door/key", "hole/.git/hooks/x")
		check(t, os.Chmod(dir+"/own", 0o555))
		check(t, os.Chmod(dir+"/door", 0))
		check(t, os.Chmod(dir+"/hole", 0o300))
		defer func() {
			for _, name := range []string{"own", "door", "hole"} {
				check(t, os.Chmod(filepath.Join(dir, name), 0o755))
			}
		}()
		if _, err := Make(deniedRequest(dir, "own/x")); err == nil || !strings.Contains(err.Error(), "filesystem.deny[0]: "+dir+"/own/x: keep it missing") {
			t.Errorf("got %v", err)
		}
		p = denied(t, dir, "door/key", "door/none")
		same(t, shown(p), []string{"closed d " + dir + "/door"})
		p, err = Make(Request{Grants: []Grant{{dir, true}}, Protect: rules("protect", "**/hooks/*")})
		check(t, err)
		defer p.Undo()
		same(t, shown(p), []string{"read-only d " + dir + "/door", "read-only d " + dir + "/hole"})
		p, err = Make(Request{Grants: []Grant{{"/", true}}, Deny: rules("deny", "/none", "/root/none", "/etc/none", "/proc/none", "/sys/none")})
		check(t, err)
		same(t, shown(p), nil)
	})
}

// TestPlaceholderRace: whoever holds a plan finds his own file at the name, however many come and go, and the last leaves
// nothing.
func TestPlaceholderRace(t *testing.T) {
	asUsers(t, func(t *testing.T) {
		dir := tree(t)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 100 {
					p, err := Make(deniedRequest(dir, "a/x", "y"))
					if err != nil {
						t.Error(err)
						return
					}
					for _, h := range p.Placeholders {
						if f, err := statAt(h.Dir, h.Name); err != nil || f.id() != h.id {
							t.Errorf("%s: not there while in use: %v", h.Path, err)
						}
					}
					p.Undo()
				}
			})
		}
		wg.Wait()
		same(t, listing(t, dir), nil)
	})
}

func init() {
	children["hold"] = func(args []string) {
		if _, err := Make(deniedRequest(args[0], args[1:]...)); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("held")
		select {}
	}
}

// TestPlaceholderProcesses: another process's placeholder stays while that lives, and is removed by the next user once it was
// killed.
func TestPlaceholderProcesses(t *testing.T) {
	asUsers(t, func(t *testing.T) {
		dir := tree(t)
		cmd := exec.Command("/proc/self/exe", dir, "a/x")
		cmd.Env = append(os.Environ(), childVariable+"=hold")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		if line, _ := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
			t.Fatalf("got %q", line)
		}
		denied(t, dir, "a/x").Undo()
		same(t, listing(t, dir), []string{"a", "a/x"})
		check(t, cmd.Process.Kill())
		_ = cmd.Wait()
		same(t, listing(t, dir), []string{"a", "a/x"})
		denied(t, dir, "a/x").Undo()
		same(t, listing(t, dir), nil)
	})
}
