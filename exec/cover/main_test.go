package cover

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

const nobody = 65534

// scratch is where an ordinary user can reach the test program.
var scratch string

// childVariable names what this program does instead of running tests.
const childVariable = "SANDLOCK_COVER_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		children[name](os.Args[1:])
		os.Exit(0)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "cover-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			panic(err)
		}
		scratch = dir
		return m.Run()
	}())
}

// asUsers runs a test as the current user, and where that is root, once more as an ordinary one in another process.
func asUsers(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run(fmt.Sprintf("uid%d", os.Getuid()), test)
	if os.Getuid() != 0 {
		return
	}
	t.Run(fmt.Sprintf("uid%d", nobody), func(t *testing.T) {
		name, _, _ := strings.Cut(t.Name(), "/")
		cmd := exec.Command(self(t), "-test.run", "^"+name+"$", "-test.v", "-test.timeout", "2m")
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), "HOME=/", "TMPDIR=/tmp")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
		text, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(text), "--- PASS: "+name) {
			t.Errorf("%v\n%s", err, text)
		}
	})
}

// self is a copy of the test program that anybody may execute.
func self(t testing.TB) string {
	t.Helper()
	path := filepath.Join(scratch, "self.test")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	in, err := os.Open("/proc/self/exe")
	check(t, err)
	defer in.Close()
	syscall.ForkLock.RLock() // no child may inherit it open for writing (ETXTBSY)
	defer syscall.ForkLock.RUnlock()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	check(t, err)
	_, err = io.Copy(out, in)
	check(t, err)
	check(t, out.Chmod(0o755))
	check(t, out.Close())
	return path
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree makes files beneath a new directory: "a/b" a file, "a/b/" a directory, "a -> b" a symbolic link with "DIR" for the
// directory, "a = b" a hard link. Directories above are made.
func tree(t testing.TB, lines ...string) (dir string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	check(t, err)
	growTree(t, dir, lines...)
	return dir
}

func growTree(t testing.TB, dir string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		name, target, link := strings.Cut(line, " -> ")
		name, other, hard := strings.Cut(name, " = ")
		full := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(full), 0o755))
		switch {
		case link:
			check(t, os.Symlink(target, full))
		case hard:
			check(t, os.Link(filepath.Join(dir, other), full))
		case strings.HasSuffix(name, "/"):
			check(t, os.MkdirAll(full, 0o755))
		default:
			check(t, os.WriteFile(full, []byte("content of "+name), 0o644))
		}
	}
}

// shown are the covers of a plan: "closed f /path".
func shown(p *Plan) (list []string) {
	for _, c := range p.Covers {
		kind := "f"
		switch {
		case c.Dir:
			kind = "d"
		case c.Link:
			kind = "l"
		}
		list = append(list, fmt.Sprintf("%v %s %s", c.Kind, kind, c.Path))
	}
	return list
}

// listing is every name beneath a directory.
func listing(t testing.TB, dir string) (list []string) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && path != dir {
			list = append(list, strings.TrimPrefix(path, dir+"/"))
		}
		return nil
	}))
	return list
}

func rules(name string, paths ...string) (list []Rule) {
	for i, path := range paths {
		list = append(list, Rule{Path: path, Name: fmt.Sprintf("filesystem.%s[%d]", name, i)})
	}
	return list
}

// roots runs a test with the directory in this process's own root, and as the root of a view.
func roots(t *testing.T, dir string, test func(t *testing.T, root kernel.Root, prefix string)) {
	t.Helper()
	t.Run("own", func(t *testing.T) { test(t, kernel.Root{}, dir) })
	t.Run("view", func(t *testing.T) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		check(t, err)
		defer unix.Close(fd)
		test(t, kernel.NewRoot(fd), "")
	})
}

func same(t testing.TB, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}
