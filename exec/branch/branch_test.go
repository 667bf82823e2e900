package branch

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// features are what a command can do to a tree.
var features = []struct {
	name   string
	before string // in the workdir
	script string // in the branch
	root   bool   // takes root
	links  string // the names of each file with more than one, with = between them
}{
	{name: "nothing", before: "echo a > a", script: "true"},
	{name: "new file", script: "echo a > a"},
	{name: "modified file", before: "echo a > a; mkdir d; echo b > d/b", script: "echo x >> a; echo x >> d/b"},
	{name: "removed file", before: "echo a > a; mkdir d; echo b > d/b; touch d/c", script: "rm a d/b"},
	{name: "removed tree", before: "mkdir -p d/e/f; echo b > d/e/b; ln -s x d/e/f/l", script: "rm -r d"},
	{name: "empty directories", script: "mkdir -p a/b/c d; chmod 700 a/b"},
	{name: "opaque directory", before: "mkdir -p d/s; echo a > d/a; echo b > d/b; echo c > d/s/c", script: "rm -r d; mkdir d; echo n > d/n; echo a > d/a; mkdir d/s; echo q > d/s/q"},
	{name: "opaque directory in a merged one", before: "mkdir -p p/d/s; echo a > p/d/a; echo z > p/z", script: "rm -r p/d; mkdir p/d; echo n > p/d/n; rm p/z"},
	{name: "file to directory and back", before: "echo a > a; mkdir -p d/e; echo b > d/e/b", script: "rm a; mkdir a; echo x > a/x; rm -r d; echo d > d"},
	{name: "links", before: "ln -s t l; echo m > m; ln -s gone g", script: "ln -sf /etc/passwd l; rm m; ln -s ../../.. m; ln -s l n; rm g; echo file > g"},
	{name: "fifo and socket", before: "mkfifo old; echo a > a", script: "mkfifo f; rm a; mkfifo a; rm old; echo x > old; chmod 600 f; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'"},
	{name: "hard links", before: "echo a > a; echo c > c; ln c c2", links: "a=b=d/e n=d/n", script: "ln a b; mkdir d; ln a d/e; echo n > n; ln n d/n; echo x >> c"},
	{name: "hard link without a change of data", before: "echo a > a", links: "a=b", script: "ln a b"},
	{name: "replaced hard link", before: "echo a > a; ln a b", script: "rm a; echo new > a"},
	{name: "modes and times", before: "echo a > a; mkdir d; echo b > d/b", script: "chmod 640 a; touch -d '2001-02-03 04:05:06.789' d/b; chmod 711 d; touch -d '1999-01-01' d"},
	{name: "old root", before: "touch -d 2000-01-01 .", script: "chmod 750 ."},
	{name: "root's time", before: "echo a > a; touch -d 2000-01-01 .", script: "echo b >> a"},
	{name: "read-only directories", before: "mkdir -p d/e; echo a > d/e/a; echo z > d/z; chmod 555 d/e d; touch -d 2000-01-01 d", script: "chmod 755 d/e; echo n > d/e/n; echo x >> d/e/a; chmod 555 d/e; mkdir q; echo 1 > q/1; chmod 555 q"},
	{name: "removed read-only directory", before: "mkdir -p d/e; echo a > d/e/a; chmod 555 d/e d", script: "chmod -R u+w d; rm -r d; mkdir d; chmod 500 d"},
	{name: "read-only root", before: "echo a > a; mkdir d; chmod 555 .; touch -d 2000-01-01 .", script: "echo x >> a; echo y > d/y"},
	{name: "directory without permissions", script: "mkdir -p d/e; echo a > d/e/a; chmod 0 d/e; chmod 0 d; echo s > s; chmod 0 s", root: true},
	{name: "sparse file", before: "truncate -s 64M s; echo tail >> s", script: "truncate -s 8M big; echo x | dd of=big bs=1 seek=5000000 conv=notrunc status=none; truncate -s 1M s"},
	{name: "renames", before: "mkdir -p d/e; echo a > d/e/a; echo f > f", script: "mv f g; mv d h; mv h/e/a h/b; mkdir i; echo j > i/j; mv i k"},
	{name: "names", before: `echo a > $'\xff\xfe'; mkdir $'a\nb'`, script: `echo b >> $'\xff\xfe'; echo c > $'a\nb/\x01\\'; echo d > '..x'; mkdir -- '-r'; echo e > $'-r/\xc3\x28'; echo f > ' '`},
	{name: "order", before: "mkdir a; echo x > a/b; echo y > a-b; echo z > a0", script: "echo 1 >> a/b; echo 2 >> a-b; echo 3 >> a0"},
	{name: "unchanged rewrite", before: "echo a > a; mkdir d; echo b > d/b", script: "t=$(stat -c %y a); cat a > ../c 2>/dev/null || true; echo a > a; touch -d \"$t\" a; echo b > d/b"},
	{name: "changed and back", before: "mkdir d; echo a > d/a", script: "echo x > d/x; rm d/x"},
	{name: "attributes", before: "echo a > a; mkdir d", script: "python3 -c 'import os; os.setxattr(\"a\",\"user.x\",b\"1\"); os.setxattr(\"d\",\"user.y\",b\"\\0\\1\"); open(\"n\",\"w\"); os.setxattr(\"n\",\"user.z\",b\"\")'"},
	{name: "setuid kept", before: "echo a > a; chmod 4755 a; mkdir d; chmod 2775 d", script: "chmod 4700 a; echo f > d/f; mkdir d/g"},
	{name: "owners", before: "echo a > a; mkdir d; echo b > d/b", script: "chown 1:2 a d d/b; echo n > n; chown 3 n; chmod 600 n", root: true},
}

func TestFeatures(t *testing.T) {
	inMemory := []setting{{name: "in memory", options: Options{Disk: 1 << 30}}, {name: "in memory, kept", options: Options{Disk: 1 << 30}, keep: true}}
	each(t, append(settings(), inMemory...), func(t *testing.T, s setting) {
		for _, f := range features {
			if f.root && os.Getuid() != 0 {
				continue
			}
			t.Run(f.name, func(t *testing.T) {
				w := newWorld(t, s)
				w.sh(f.before + "\ntrue")
				before := w.real()
				b := w.branch()
				var err error
				want := w.in(b, f.script)
				if !w.same("workdir after the command", w.real(), before) {
					return
				}
				w.checkChanges(b, before, want)
				w.same("workdir after the listing", w.real(), before)
				if s.keep {
					must(t, b.Keep("asked"))
					b.Close()
					b, err = Open(w.base, b.ID())
					must(t, err)
					w.checkChanges(b, before, want)
				}
				must(t, b.Commit(CommitOptions{}))
				got := w.real()
				for names := range strings.FieldsSeq(f.links) {
					first := ""
					for name := range strings.SplitSeq(names, "=") {
						if n := got.at(name).Names; n == "" || first != "" && n != first {
							t.Errorf("%s is no name of one file: %s", names, name)
						}
						first = got.at(name).Names
					}
				}
				// An overlay mount without an index tells no names of one file apart from others.
				w.same("committed", got.singles(), want.singles())
				if left, err := List(w.base); err != nil || len(left) > 0 {
					t.Errorf("branches left: %v, %v", left, err)
				}
			})
		}
	})
}

// checkChanges compares the changes of a branch with those between two trees.
func (w *world) checkChanges(b *Branch, before, after tree) {
	w.t.Helper()
	var got, want []string
	for c, err := range b.AllChanges() {
		must(w.t, err)
		kind := string(rune(c.Kind))
		if c.TimesOnly() {
			kind = "T"
		}
		got = append(got, fmt.Sprintf("%s %q %s %o", kind, c.Path, c.Type, c.Mode))
		if _, err := json.Marshal(c); err != nil {
			w.t.Error(err)
		}
	}
	all := append(before.paths(), after.paths()...)
	slices.Sort(all)
	for _, p := range slices.Compact(all) {
		o, n := before.at(p), after.at(p)
		kind, e := "M", n
		switch {
		case o.Mode == 0:
			kind = "A"
		case n.Mode == 0:
			kind, e = "D", o
		default:
			o.Names, n.Names = "", ""
			dir := o.Mode&unix.S_IFMT == unix.S_IFDIR && n.Mode&unix.S_IFMT == unix.S_IFDIR
			same := func() bool { return fmt.Sprintf("%+v", o) == fmt.Sprintf("%+v", n) }
			if same() {
				continue
			}
			o.Mtime = n.Mtime
			if same() {
				if dir {
					continue
				}
				kind = "T"
			}
		}
		want = append(want, fmt.Sprintf("%s %q %s %o", kind, p, typeName(e.Mode), e.Mode&0o7777))
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("changes:\ngot  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func TestAbort(t *testing.T) {
	eachSetting(t, func(t *testing.T, s setting) {
		w := newWorld(t, s)
		w.sh("mkdir d; echo a > d/a; echo b > b")
		before := w.real()
		b := w.branch()
		w.in(b, "rm -r d; echo x >> b; mkdir -p m/n/o; echo p > m/n/o/p; chmod 0 m/n/o m/n m")
		must(t, b.Abort())
		w.same("workdir", w.real(), before)
		if names, err := os.ReadDir(w.base); err != nil || len(names) > 0 {
			t.Errorf("left in the base: %v, %v", names, err)
		}
	})
}

func TestDeepTree(t *testing.T) {
	w := newWorld(t, setting{})
	w.sh("mkdir d")
	b := w.branch()
	deep := `python3 -c 'import os
for i in range(3000):
    os.mkdir("abcdefgh"); os.chdir("abcdefgh")
open("f","w").write("x")'`
	// The snapshot of the child goes by whole paths, which end at PATH_MAX: the tree is made in the upper itself.
	(&world{t: t, workdir: b.Dir() + "/upper"}).sh(deep)
	n := 0
	for _, err := range b.Changes() {
		must(t, err)
		n++
	}
	if n != 3001 {
		t.Errorf("got %d changes, want 3001", n)
	}
	must(t, b.Commit(CommitOptions{}))
	fd, err := unix.Open(w.workdir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	dir, err := beneath(fd, strings.TrimSuffix(strings.Repeat("abcdefgh/", 3000), "/"))
	must(t, err)
	defer unix.Close(dir)
	if st, err := lookup(dir, "f"); err != nil || st == nil {
		t.Errorf("lowest file: %v, %v", st, err)
	}
	b = w.branch()
	must(t, os.Mkdir(b.Dir()+"/upper/x", 0o755))
	must(t, unix.Mknod(b.Dir()+"/upper/abcdefgh", unix.S_IFCHR, 0)) // a whiteout
	must(t, b.Commit(CommitOptions{}))
	if _, err := os.Lstat(w.workdir + "/abcdefgh"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("deep tree: %v", err)
	}
}

func TestStorageInWorkdir(t *testing.T) {
	beside := slices.DeleteFunc(settings(), func(s setting) bool { return s.memory })
	each(t, beside, func(t *testing.T, s setting) {
		w := newWorld(t, s)
		w.sh("mkdir -p .cache/x; echo a > .cache/x/a; echo b > b; touch -d 2001-01-01 .cache/x .cache")
		w.base = filepath.Join(w.workdir, ".cache/x/store")
		_, err := Base(w.base)
		must(t, err)
		w.sh("touch -d 2001-01-01 .cache/x .cache")
		b := w.branch()
		if got := b.notes.Inside; got != ".cache/x/store" {
			t.Fatalf("inside: %q", got)
		}
		got := w.in(b, "test ! -e .cache/x/store; echo c > .cache/x/c; echo x >> b")
		w.checkChangesLike(b, `A ".cache/x/c"`, `M "b"`)
		must(t, b.Commit(CommitOptions{}))
		real := w.real()
		for p := range real {
			if name := string(unhex(p)); strings.HasPrefix(name, ".cache/x/store") {
				delete(real, p)
			}
		}
		x := real[hexed(".cache/x")]
		x.Mtime = got[hexed(".cache/x")].Mtime
		w.same("committed", real, got)

		b = w.branch()
		w.in(b, "rm -r .cache")
		var failed *CommitError
		if err := b.Commit(CommitOptions{}); !errors.As(err, &failed) || !errors.Is(err, errInside) || !failed.Undone {
			t.Errorf("commit without the storage: %v", err)
		}
		must(t, b.Abort())
	})
}

func TestRefused(t *testing.T) {
	t.Run("device", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("takes root")
		}
		w := newWorld(t, setting{})
		b := w.branch()
		w.in(b, "echo a > a; mknod null c 1 3")
		if err := b.Commit(CommitOptions{}); !errors.Is(err, errDevice) {
			t.Errorf("commit of a device: %v", err)
		}
		w.same("workdir", w.real().but(""), tree{})
		must(t, b.Abort())
	})
	t.Run("setuid", func(t *testing.T) {
		w := newWorld(t, setting{})
		w.sh("echo a > a; chmod 755 a; echo m > m; chmod 4755 m")
		b := w.branch()
		w.in(b, "chmod 6755 a; echo b > b; chmod 4711 b; mkdir d; echo c > d/c; chmod 2755 d/c; touch m")
		mapped := b.Dir() + "/upper/m" // as a write to mapped memory leaves it, which takes no privileges away
		must(t, os.WriteFile(mapped, []byte("M\n"), 0))
		must(t, unix.Chmod(mapped, 0o4755))
		w.checkChangesLike(b, `A "b"`, `A "d"`, `A "d/c"`, `M "m"`)
		must(t, b.Commit(CommitOptions{}))
		for path, mode := range map[string]uint32{"a": 0o755, "b": 0o711, "d/c": 0o755, "m": 0o755} {
			if got := w.real().at(path).Mode & 0o7777; got != mode {
				t.Errorf("%s: mode %#o, want %#o", path, got, mode)
			}
		}
	})
	t.Run("reserved name", func(t *testing.T) {
		for _, dir := range []string{".", "old", "new/sub"} { // the others may be workdirs too, some day
			w := newWorld(t, setting{})
			w.sh("mkdir old")
			b := w.branch()
			stage := dir + "/" + stageName
			w.in(b, "mkdir -p "+stage+"; echo planned > "+stage+"/state")
			if err := b.Commit(CommitOptions{}); !errors.Is(err, errReserved) {
				t.Errorf("commit of %s: %v", stage, err)
			}
			var shown error
			for _, err := range b.Changes() {
				shown = err
			}
			if !errors.Is(shown, errReserved) {
				t.Errorf("changes of %s: %v", stage, shown)
			}
			must(t, b.Abort())
		}
	})
	t.Run("redirect", func(t *testing.T) {
		w := newWorld(t, setting{})
		b := w.branch()
		must(t, os.Mkdir(b.Dir()+"/upper/d", 0o755))
		must(t, unix.Setxattr(b.Dir()+"/upper/d", "user.overlay.redirect", []byte("/x"), 0))
		if err := b.Commit(CommitOptions{}); !errors.Is(err, errForeign) {
			t.Errorf("commit of a redirect: %v", err)
		}
	})
}

func TestChangeOfBytes(t *testing.T) {
	text, err := json.Marshal(Change{Kind: Added, Path: "\xfe", Type: "symlink", Text: "\xff"})
	for _, want := range []string{`"path_bytes":"/g=="`, `"target_bytes":"/w=="`} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s, %v, want %s in it", text, err, want)
		}
	}
}

func TestStamps(t *testing.T) {
	for _, want := range []unix.Timespec{
		{Sec: math.MinInt32}, {Sec: -1, Nsec: 999_999_999}, {}, {Sec: 1, Nsec: 1}, {Sec: math.MaxInt32 + 1, Nsec: 5},
		{Sec: 10_000_000_000, Nsec: 7}, {Sec: 1<<34 - 1<<31 - 1, Nsec: 999_999_999}, // after 2262, and the last of ext4
	} {
		if got := stampOf(want).timespec(); got != want {
			t.Errorf("%+v became %+v", want, got)
		}
	}
}

// TestAttributeWhiteouts is the other form of whiteouts, which the kernel makes in no upper of its own.
func TestAttributeWhiteouts(t *testing.T) {
	w := newWorld(t, setting{})
	w.sh("mkdir d; echo a > d/a; echo b > d/b; touch d/c")
	b := w.branch()
	upper := b.Dir() + "/upper/d"
	must(t, os.Mkdir(upper, 0o755))
	must(t, unix.Setxattr(upper, "user.overlay.opaque", []byte("x"), 0))
	for _, name := range []string{"a", "gone"} {
		must(t, os.WriteFile(upper+"/"+name, nil, 0o644))
		must(t, unix.Setxattr(upper+"/"+name, "user.overlay.whiteout", []byte("y"), 0))
	}
	w.checkChangesLike(b, `D "d/a"`)
	must(t, b.Commit(CommitOptions{}))
	if got := w.real().paths(); !slices.Equal(got, []string{"", "d", "d/b", "d/c"}) {
		t.Errorf("committed: %q", got)
	}
}

// TestLayerOfAnother has a workdir that is a layer of another overlay, whose notes the kernel copies as any attribute.
func TestLayerOfAnother(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root, for trusted attributes")
	}
	w := newWorld(t, setting{})
	w.sh("mkdir opaque moved; echo a > opaque/a; echo b > opaque/b; echo c > moved/c")
	must(t, unix.Setxattr(w.workdir+"/opaque", "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Setxattr(w.workdir+"/moved", "trusted.overlay.redirect", []byte("/x"), 0))
	b := w.branch()
	w.in(b, "echo n > opaque/n; echo n > moved/n")
	w.checkChangesLike(b, `A "moved/n"`, `A "opaque/n"`)
	must(t, b.Commit(CommitOptions{}))
	if got := w.real().paths(); !slices.Equal(got, []string{"", "moved", "moved/c", "moved/n", "opaque", "opaque/a", "opaque/b", "opaque/n"}) {
		t.Errorf("committed: %q", got)
	}
	var value [8]byte
	if n, err := unix.Getxattr(w.workdir+"/opaque", "trusted.overlay.opaque", value[:]); err != nil || string(value[:n]) != "y" {
		t.Errorf("the other overlay's note is %q (%v)", value[:max(n, 0)], err)
	}
}

func (w *world) checkChangesLike(b *Branch, want ...string) {
	w.t.Helper()
	var got []string
	for c, err := range b.Changes() {
		must(w.t, err)
		got = append(got, fmt.Sprintf("%c %q", c.Kind, c.Path))
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("changes: got %v, want %v", got, want)
	}
}
