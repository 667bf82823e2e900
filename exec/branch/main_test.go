package branch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// childVariable names what this program does instead of running tests.
const childVariable = "SANDLOCK_BRANCH_CHILD"

// againVariable is set where the tests run once more as an ordinary user.
const againVariable = "SANDLOCK_BRANCH_AGAIN"

// scratch is on the file system of the temporary directory, and an ordinary user can reach it.
var scratch string

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		os.Unsetenv(childVariable)
		if err := child(name, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "branch-test-")
		if err != nil {
			panic(err)
		}
		defer func() {
			if err := removePath(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
		if err := os.Chmod(dir, 0o755); err != nil {
			panic(err)
		}
		scratch = dir
		// Before anything else is started: a program is busy as long as a process that was forked meanwhile has it open for writing.
		text, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "self"), text, 0o755)
		}
		if err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// TestOrdinaryUser runs the tests of this package as uid 65534, whose overlays are mounted in a user namespace.
func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 || os.Getenv(againVariable) != "" {
		t.Skip("is not root")
	}
	t.Parallel()
	cmd := rerun(t, nil, "TMPDIR=/tmp")
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	wantSuccess(t, cmd)
}

// crashVariable names a directory on the file system that crashes are tried on; without, it is a fast one.
const crashVariable = "SANDLOCK_BRANCH_CRASH_DIR"

// TestFileSystems runs tests of this package on file systems that the temporary directory is seldom on. They differ in what a
// rename does to times, in how they count names, and in whether files can share blocks. All tests run with SANDLOCK_SOAK.
func TestFileSystems(t *testing.T) {
	if os.Getuid() != 0 || os.Getenv(againVariable) != "" {
		t.Skip("takes root, to mount them")
	}
	t.Parallel()
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := mounted(t, kind)
			args := []string{"-test.run=^(TestFeatures|TestKilled|TestPowerLoss|TestMemorySaved)$/^userxattr$/^([^m]|mo)"}
			if os.Getenv("SANDLOCK_SOAK") != "" {
				args = nil
			}
			wantSuccess(t, rerun(t, args, "TMPDIR="+dir, crashVariable+"="+dir))
		})
	}
}

// mounted makes a file system.
func mounted(t *testing.T, kind string) string {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		lacks(t, err)
	}
	image, dir := filepath.Join(temporary(t, scratch), "image"), temporary(t, scratch)
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 512<<20))
	if out, err := exec.Command(mkfs, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v, %s", kind, err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("this host mounts no %s from a file: %v, %s", kind, err, out)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	must(t, os.Chmod(dir, 0o1777))
	return dir
}

// lacks is of a test that needs what the host lacks: nothing that CI sets up.
func lacks(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("SANDLOCK_TEST_ALL") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// rerun is this program, to run tests once more.
func rerun(t *testing.T, args []string, env ...string) *exec.Cmd {
	t.Helper()
	args = append(args, "-test.timeout=8m")
	if testing.Short() {
		args = append(args, "-test.short")
	}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.Command(filepath.Join(scratch, "self"), args...)
	cmd.Dir = "/"
	cmd.Env = append(append(os.Environ(), againVariable+"=1", "HOME=/nonexistent"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func wantSuccess(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// setting is a kind of branch that tests are run with.
type setting struct {
	name    string
	options Options
	memory  bool // the storage is on another file system
	keep    bool // the branch is kept before it is committed
}

func settings() []setting {
	return []setting{{name: "userxattr"}, {name: "userxattr, other file system", memory: true}}
}

func eachSetting(t *testing.T, test func(t *testing.T, s setting)) {
	t.Helper()
	each(t, settings(), test)
}

func each(t *testing.T, list []setting, test func(t *testing.T, s setting)) {
	t.Helper()
	for _, s := range list {
		t.Run(s.name, func(t *testing.T) { test(t, s) })
	}
}

// world is a workdir and a storage base.
type world struct {
	t       testing.TB
	setting setting
	dir     string
	workdir string
	base    string
	layers  string // of a branch with Options.Disk
}

func newWorld(t testing.TB, s setting) *world {
	t.Helper()
	return newWorldIn(t, s, scratch)
}

// newWorldIn makes one in a directory; with its storage on another file system it is in scratch all the same.
func newWorldIn(t testing.TB, s setting, dir string) *world {
	t.Helper()
	if s.memory {
		dir = scratch
	}
	w := &world{t: t, setting: s, dir: temporary(t, dir)}
	w.workdir, w.base = filepath.Join(w.dir, "w"), filepath.Join(w.dir, "base")
	if s.memory {
		w.base = filepath.Join(temporary(t, "/dev/shm"), "base")
	}
	must(t, os.Mkdir(w.workdir, 0o755))
	if _, err := Base(w.base); err != nil {
		t.Fatal(err)
	}
	return w
}

func temporary(t testing.TB, in string) string {
	t.Helper()
	dir, err := os.MkdirTemp(in, "w-")
	must(t, err)
	t.Cleanup(func() {
		if err := removePath(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func removePath(path string) error {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return removeTree(kernelSys{}, dir, filepath.Base(path))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) branch() *Branch {
	w.t.Helper()
	b, err := New(w.base, w.workdir, w.setting.options)
	must(w.t, err)
	w.place(b)
	must(w.t, b.Settle())
	w.t.Cleanup(b.Close)
	return b
}

// place gives a branch with Options.Disk its layers, or new ones.
func (w *world) place(b *Branch) {
	w.t.Helper()
	if w.setting.options.Disk == 0 {
		return
	}
	w.layers = temporary(w.t, "/dev/shm")
	root, err := unix.Open(w.layers, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(w.t, err)
	defer unix.Close(root)
	must(w.t, b.Place(root))
}

// sh runs a shell script in the real workdir.
func (w *world) sh(script string) {
	w.t.Helper()
	cmd := exec.Command("/bin/bash", "-euc", script)
	cmd.Dir = w.workdir
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// in runs a shell script in the branch, and returns the tree that it left there.
func (w *world) in(b *Branch, script string) tree {
	w.t.Helper()
	return w.child(b, "sh", script)
}

// In lowerdir a colon separates layers; a comma ends an option anywhere (ovl_parse_param_split_lowerdirs, ovl_next_opt in
// fs/overlayfs/params.c).
var (
	lowerEscape = strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`)
	upperEscape = strings.NewReplacer(`\`, `\\`, ",", `\,`)
)

// command is what mounts the branch in a namespace of its own and does something there: see child.
func (w *world) command(b *Branch, name string, args ...string) *exec.Cmd {
	w.t.Helper()
	self, err := os.Executable()
	must(w.t, err)
	lower, upper, work := b.Layers()
	if w.layers != "" {
		upper, work = filepath.Join(w.layers, upper), filepath.Join(w.layers, work)
	}
	options := strings.Join(append(OverlayOptions(),
		"lowerdir="+lowerEscape.Replace(lower), "upperdir="+upperEscape.Replace(upper), "workdir="+upperEscape.Replace(work)), ",")
	cmd := exec.Command(self, append([]string{options, b.Workdir()}, args...)...)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

func (w *world) child(b *Branch, name string, args ...string) tree {
	w.t.Helper()
	cmd := w.command(b, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if strings.Contains(err.Error(), "operation not permitted") && os.Getuid() != 0 {
			w.t.Skipf("no user namespaces here: %v", err)
		}
		w.t.Fatalf("in the branch: %v\n%s%s", err, stdout.String(), stderr.String())
	}
	var got tree
	must(w.t, json.Unmarshal(stdout.Bytes(), &got))
	return got
}

// child is what runs in a mount namespace of its own.
func child(name string, args []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if name == "plain" {
		args[0] = ""
	} else if err := unix.Mount("overlay", args[1], "overlay", 0, args[0]); err != nil {
		return fmt.Errorf("mount overlay %s: %w", args[0], err)
	}
	if err := os.Chdir(args[1]); err != nil {
		return err
	}
	switch name {
	case "sh", "quiet":
		cmd := exec.Command("/bin/bash", "-euc", args[2])
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return err
		}
		if name == "quiet" { // a tree that is too large to be told
			fmt.Println("{}")
			return nil
		}
	case "model", "plain":
		if err := modelChild(args[2:]); err != nil {
			return err
		}
	}
	t, err := snapshot(".")
	if err != nil {
		return err
	}
	if os.Getuid() == 0 && unix.Access("/proc/self/uid_map", unix.R_OK) == nil {
		t.outside()
	}
	return json.NewEncoder(os.Stdout).Encode(t)
}

// tree maps each path, in hexadecimal, to all that is to be the same of it.
type tree map[string]entry

type entry struct {
	Mode     uint32
	UID, GID uint32
	Size     int64
	Mtime    int64
	Data     string // digest of contents, or text of a link in hexadecimal
	Xattrs   map[string][]byte
	Names    string // of a file with more than one: the first of them
	Rdev     uint64
}

// outside turns ids of a user namespace into those of the host.
func (t tree) outside() {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return
	}
	var in, out, n uint32
	if _, err := fmt.Sscan(string(text), &in, &out, &n); err != nil || n != 1 {
		return
	}
	for p, e := range t {
		e.UID, e.GID = e.UID-in+out, e.GID-in+out
		t[p] = e
	}
}

func (t tree) paths() []string {
	var all []string
	for p := range t {
		name, _ := hex.DecodeString(p)
		all = append(all, string(name))
	}
	slices.Sort(all)
	return all
}

func (t tree) at(path string) entry { return t[hex.EncodeToString([]byte(path))] }

func snapshot(root string) (tree, error) {
	t := tree{}
	first := map[[2]uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil && d == nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if rel == "." {
			rel = ""
		}
		e := entry{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Mtime: st.Mtim.Nano()}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			e.Size = st.Size
			if e.Data, err = digest(path); err != nil {
				return err
			}
		case unix.S_IFLNK:
			text, _ := os.Readlink(path)
			e.Data = hexed(text)
		case unix.S_IFCHR, unix.S_IFBLK:
			e.Rdev = st.Rdev
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			id := [2]uint64{st.Dev, st.Ino}
			if first[id] == "" {
				first[id] = rel
			}
			e.Names = first[id]
		}
		node, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		names, err := xattrNames(node)
		if err == nil {
			e.Xattrs, err = xattrValues(node, names, ours)
		}
		unix.Close(node)
		t[hex.EncodeToString([]byte(rel))] = e
		return err
	})
	return t, err
}

// digest reads files of this user without permissions too.
func digest(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "unreadable", nil
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// real is the tree of the real workdir.
func (w *world) real() tree {
	w.t.Helper()
	t, err := snapshot(w.workdir)
	must(w.t, err)
	return t
}

func (w *world) same(what string, got, want tree) bool {
	w.t.Helper()
	same := true
	for _, p := range slices.Sorted(maps.Keys(maps.Collect(func(yield func(string, bool) bool) {
		for p := range got {
			yield(p, true)
		}
		for p := range want {
			yield(p, true)
		}
	}))) {
		g, inGot := got[p]
		e, inWant := want[p]
		name, _ := hex.DecodeString(p)
		if a, b := fmt.Sprintf("%v %+v", inGot, g), fmt.Sprintf("%v %+v", inWant, e); a != b {
			same = false
			w.t.Errorf("%s: %q:\ngot  %s\nwant %s", what, name, a, b)
		}
	}
	return same
}

func hexed(path string) string { return hex.EncodeToString([]byte(path)) }

func unhex(p string) []byte {
	name, _ := hex.DecodeString(p)
	return name
}

func (t tree) but(paths ...string) tree {
	t = maps.Clone(t)
	for _, p := range paths {
		delete(t, hexed(p))
	}
	return t
}

// singles is a tree in which nothing is said of files with more than one name.
func (t tree) singles() tree {
	t = maps.Clone(t)
	for p, e := range t {
		e.Names = ""
		t[p] = e
	}
	return t
}
