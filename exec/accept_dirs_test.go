package exec_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

const sortedDirs = `determinism: deterministic_dirs: true`

// mixed makes files whose names no file system has in order: neither by hash nor by age.
func mixed(t *testing.T, dir string) (names []string) {
	t.Helper()
	for i := range 60 {
		names = append(names, fmt.Sprintf("%c%d", "bZ-ä.a_~A+"[i%10], i*37%60))
	}
	names = append(names, strings.Repeat("n", 255), strings.Repeat("n", 254))
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	return names
}

var listingCalls = func() []string {
	if runtime.GOARCH == "amd64" {
		return []string{"getdents64", "getdents"}
	}
	return []string{"getdents64"}
}()

func Test_supervisor_8_42_deterministic_dirs(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		dir := b.Dir("mixed")
		names := mixed(t, dir)
		grants := exectest.Grants{Read: []string{dir}, More: sortedDirs}
		artifact := b.Policy(b.Base(grants))

		const kind = "/8" // DT_REG
		inOrder := "value ./4 ../4 " + strings.Join(names, kind+" ") + kind
		for _, call := range listingCalls {
			for _, size := range []string{"280", "1000", "32768", "1048576"} {
				if got := b.Attempt(artifact, "getdents", call, dir, size); got != inOrder {
					t.Errorf("%s with %s bytes: %q, want %q", call, size, got, inOrder)
				}
			}
			if got := b.Attempt(artifact, "getdents-seek", call, dir); got != "ok" {
				t.Errorf("%s after seekdir: %q", call, got)
			}
			// Names of two bytes need 24, the longest 280.
			if got := b.Attempt(artifact, "getdents", call, dir, "64"); got != "errno EINVAL" {
				t.Errorf("%s with a buffer for short names only: %q, want EINVAL", call, got)
			}
		}
		static := "value " + strings.Join(names, " ")
		if got := b.Attempt(artifact, "list", dir); got != static {
			t.Errorf("a static Go program: %q, want %q", got, static)
		}
		wantRun(t, b.Run(artifact, "ls", "-Ua", dir), 0, ".\n..\n"+strings.Join(names, "\n"))

		grants.More = ""
		plain := b.Policy(b.Base(grants))
		for where, got := range map[string]string{"outside": b.Control("list", dir), "without the field": b.Attempt(plain, "list", dir)} {
			if got == static || len(got) != len(static) {
				t.Errorf("%s: %q, want the same names in another order", where, got)
			}
		}
		if got, want := b.Attempt(plain, "list", dir), b.Attempt(plain, "list", dir); got != want {
			t.Errorf("without the field the same directory is listed as %q and as %q", got, want)
		}
	})
}

// What a call does that no library makes is what the kernel does.
func Test_deterministic_dirs_errors(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{More: sortedDirs}))
		mixed(t, b.Work)
		for _, call := range listingCalls {
			for name, want := range map[string]string{
				"short": "errno EINVAL", "huge": "errno EINVAL", "file": "errno ENOTDIR", "opath": "errno EBADF", "closed": "errno EBADF",
				"unmapped": "errno EFAULT", "half": "value entries", "removed": "errno ENOENT", "plain": "value entries",
			} {
				if got := b.Control("getdents-case", call, b.Work, name); got != want {
					t.Errorf("outside: %s, %s: %q, want %q", call, name, got, want)
				}
				if got := b.Attempt(artifact, "getdents-case", call, b.Work, name); got != want {
					t.Errorf("%s, %s: %q, want %q", call, name, got, want)
				}
			}
		}
	})
}

// scandir twice, and what the C library makes of directories.
const dirsScript = `
import ctypes, os, sys
dir = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)

class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("length", ctypes.c_ushort), ("kind", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]

libc.opendir.restype = libc.fdopendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.telldir.restype = ctypes.c_long
libc.readdir.argtypes = libc.telldir.argtypes = libc.rewinddir.argtypes = libc.dirfd.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

def read(d, n=-1):
    names = []
    while n != 0:
        e = libc.readdir(d)
        if not e:
            break
        names.append(e.contents.name)
        n -= 1
    return names

def check(what, got, want):
    print(what, "ok" if got == want else f"{got} instead of {want}")

first = [e.name for e in os.scandir(os.fsencode(dir))]
check("scandir", [first, first], [sorted(first), [e.name for e in os.scandir(os.fsencode(dir))]])
want = [b".", b".."] + sorted(first)

d = libc.opendir(os.fsencode(dir))
check("readdir", read(d), want)
libc.rewinddir(d)
check("rewinddir", read(d, 7), want[:7])
middle = libc.telldir(d)
check("readdir on", read(d), want[7:])
libc.seekdir(d, middle)
check("seekdir", read(d), want[7:])
check("position is stable", [middle], [(libc.rewinddir(d), read(d, 7), libc.telldir(d))[2]])

def some(fd):
    buf = ctypes.create_string_buffer(600)
    n = libc.getdents64(fd, buf, 600)
    names, at = [], 0
    while at < n:
        e = ctypes.cast(ctypes.byref(buf, at), ctypes.POINTER(Dirent)).contents
        names.append(ctypes.string_at(ctypes.addressof(buf) + at + 19))
        at += e.length
    return names

fd = os.open(dir, os.O_RDONLY)
copy, names = os.dup(fd), []
while got := some(fd) + some(copy):
    names += got
check("dup", names, want)

# Parent and child take turns on one open file.
os.lseek(fd, 0, 0)
names = []
for turn in range(200):
    r, w = os.pipe()
    if os.fork() == 0:
        os.write(w, b"/".join(some(fd)))
        os._exit(0)
    os.close(w)
    os.wait()
    text = os.read(r, 4096)
    os.close(r)
    if not text:
        break
    names += text.split(b"/") + some(fd)
check("fork", names, want)

# Removing what has been read must not hide what has not: this is how a tree is deleted.
os.lseek(fd, 0, 0)
seen = []
while got := some(fd):
    for name in got:
        if name not in (b".", b".."):
            os.unlink(os.path.join(os.fsencode(dir), name))
    [e for e in os.scandir(dir)]
    seen += got
check("remove while reading", seen, want)
check("all gone", os.listdir(dir), [])
for path in "/dev", "/sys/class":
    got = [e.name for e in os.scandir(path)]
    check(path, got, sorted(got))
# The kernel lists numbers in their order.
check("/proc/self/fd", os.listdir("/proc/self/fd"), sorted(os.listdir("/proc/self/fd"), key=int))
pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
check("/proc", [pids, os.getpid() in pids], [sorted(pids), True])
`

func Test_supervisor_8_42_python(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		mixed(t, b.Work)
		o := b.Opts(b.Policy(b.Base(exectest.Grants{Read: []string{"/sys", "/proc"}, More: "filesystem: proc: \"host\"\n" + sortedDirs})), py, "-c", dirsScript, b.Work)
		r := exectest.Run(t, o)
		for line := range strings.Lines(r.Stdout) {
			if !strings.HasSuffix(line, " ok\n") {
				t.Error(line)
			}
		}
		if n := strings.Count(r.Stdout, "\n"); r.Code != 0 || n != 14 {
			t.Errorf("exit %d after %d checks, want 14\n%s", r.Code, n, r.Stderr)
		}
	})
}

// A directory that the command did not open itself, and may not open, is sorted as well.
func Test_deterministic_dirs_inherited(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		names := mixed(t, b.Outside)
		artifact := b.Policy(b.Base(exectest.Grants{More: sortedDirs}))
		if got, want := fromStdin(t, b, artifact, b.Outside, "list-stdin"), "value "+strings.Join(names, " "); got != want {
			t.Errorf("inherited: %q, want %q", got, want)
		}
	})
}

// fromStdin runs the probe with a directory, which it need not be able to open, as standard input.
func fromStdin(t *testing.T, b *exectest.Box, artifact, dir string, args ...string) string {
	t.Helper()
	o := b.Opts(artifact, append([]string{b.Probe}, args...)...)
	o.Wrap = []string{"/bin/sh", "-c", `exec "$@" <"$0"`, dir}
	return strings.TrimSpace(exectest.Run(t, o).Stdout)
}

// The supervisor may look at itself, the command may not look at the supervisor.
func Test_deterministic_dirs_not_as_the_supervisor(t *testing.T) {
	b := exectest.NewBox(t, exectest.Self())
	const more = "filesystem: proc: \"host\"\n"
	for _, policy := range []string{more, more + sortedDirs} {
		artifact := b.Policy(b.Base(exectest.Grants{Read: []string{"/proc"}, More: policy}))
		if got := b.Attempt(artifact, "list-parent", "map_files"); !strings.HasPrefix(got, "errno EACCES") && !strings.HasPrefix(got, "errno EPERM") {
			t.Errorf("%s: %q, want EACCES", policy, got)
		}
	}
	if got, want := b.RootControl("list-parent", "map_files"), "value entries=true"; got != want {
		t.Errorf("outside: %q, want %q", got, want)
	}
}

func Test_deterministic_dirs_large(t *testing.T) {
	const onDisk, inMemory = 20_000, 100_000 // entries: those on a disk take long to make
	dirs := []string{largeDirectory(t, os.TempDir(), onDisk)}
	var fs syscall.Statfs_t
	const tmpfs = 0x1021994
	if syscall.Statfs("/dev/shm", &fs) == nil && int64(fs.Type) == tmpfs {
		dirs = append(dirs, largeDirectory(t, "/dev/shm", inMemory))
	}
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b, dirs := exectest.NewBox(t, u), dirs
		if u != exectest.Self() {
			dirs = dirs[:1] // how a file system lists does not depend on who asks
		}
		artifact, nothing := b.Policy(b.Base(exectest.Grants{Read: dirs, More: sortedDirs})), b.Policy(b.Base(exectest.Grants{More: sortedDirs}))
		for i, dir := range dirs {
			entries := []int{onDisk, inMemory}[i]
			if got, want := b.Control("getdents-order", "getdents64", dir, "32768"), fmt.Sprintf("value entries=%d sorted=false", entries); got != want {
				t.Errorf("%s outside: %q, want %q", dir, got, want)
			}
			want := fmt.Sprintf("value entries=%d sorted=true", entries)
			for _, call := range listingCalls {
				if got := b.Attempt(artifact, "getdents-order", call, dir, "32768"); got != want {
					t.Errorf("%s with %s: %q, want %q", dir, call, got, want)
				}
			}
			if got := fromStdin(t, b, nothing, dir, "getdents-order", "getdents64", "-", "32768"); got != want {
				t.Errorf("%s inherited: %q, want %q", dir, got, want)
			}
		}
	})
}

func largeDirectory(t *testing.T, parent string, entries int) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "sandlock-test-large-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(entries) {
		if err := os.Symlink("x", fmt.Sprintf("%s/%x", dir, i)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
