package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes a root with links out of it, and beside it what must not be reached. This process is the caller.
func tree(t *testing.T) (r Root, root string) {
	t.Helper()
	dir := t.TempDir()
	root = dir + "/root"
	for _, d := range []string{"/etc", "/home/user", "/tmp"} {
		if err := os.MkdirAll(root+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{"/root/etc/passwd": "inside", "/root/etc/data": "inside", "/root/home/user/f": "inside", "/secret": "outside"} {
		if err := os.WriteFile(dir+path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path, target := range map[string]string{
		"/out":           dir + "/secret", // nothing in the view
		"/absolute":      "/etc/passwd",   // the view's
		"/up":            "../../../../../../../../../../../../etc/passwd",
		"/upward":        "../secret",
		"/home/user/abs": "/etc",
		"/home/user/up":  "../../../secret",
		"/home/user/rel": "../../etc/data",
		"/loop":          "/loop",
		"/tmp/dangling":  "/tmp/new",
	} {
		if err := os.Symlink(target, root+path); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return NewRoot(fd), root
}

func opened(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func content(t *testing.T, p Pin) string {
	t.Helper()
	b, err := os.ReadFile(p.SelfPath())
	if err != nil {
		t.Errorf("read %s: %v", p.Path, err)
	}
	return string(b)
}

func TestResolveBeneathRoot(t *testing.T) {
	r, root := tree(t)
	home, above := opened(t, root+"/home/user"), opened(t, filepath.Dir(root))
	for _, tc := range []struct {
		dir     int
		path    string
		resolve uint64
		want    string // "" for an error
		fails   error
	}{
		{AtCWD, "/etc/passwd", 0, "/etc/passwd", nil},
		{AtCWD, "/etc/../etc//passwd", 0, "/etc/passwd", nil},
		{AtCWD, "/../../etc/passwd", 0, "/etc/passwd", nil},
		{AtCWD, "/absolute", 0, "/etc/passwd", nil},
		{AtCWD, "/up", 0, "/etc/passwd", nil},
		{AtCWD, "/home/user/abs/passwd", 0, "/etc/passwd", nil},
		{AtCWD, "/out", 0, "", unix.ENOENT},
		{AtCWD, "/upward", 0, "", unix.ENOENT},
		{AtCWD, "/loop", 0, "", unix.ELOOP},
		{AtCWD, "/" + strings.Repeat("../", 20) + "secret", 0, "", unix.ENOENT},
		{home, "f", 0, "/home/user/f", nil},
		{home, "abs/passwd", 0, "/etc/passwd", nil}, // from the directory alone it would be out of reach
		{home, "abs/../etc/data", 0, "/etc/data", nil},
		{home, "../../etc/data", 0, "/etc/data", nil},
		{home, "rel", 0, "/etc/data", nil},
		{home, "up", 0, "", unix.ENOENT},
		{home, "../../../../../secret", 0, "", unix.ENOENT},
		{home, "", 0, "", unix.ENOENT},
		{above, "secret", 0, "", unix.EACCES}, // a descriptor of the host's
		{above, "root/etc/passwd", 0, "", unix.EACCES},
		{above, "secret", unix.RESOLVE_BENEATH, "", unix.EACCES},
		{above, "/secret", unix.RESOLVE_IN_ROOT, "", unix.EACCES},
		{99999, "x", 0, "", unix.EBADF},
		{-5, "x", 0, "", unix.EBADF},
		{home, "f", unix.RESOLVE_BENEATH, "/home/user/f", nil},
		{home, "abs/passwd", unix.RESOLVE_BENEATH, "", unix.EXDEV},
		{home, "../../etc/passwd", unix.RESOLVE_BENEATH, "", unix.EXDEV},
		{AtCWD, "/etc/passwd", unix.RESOLVE_BENEATH, "", unix.EXDEV},
		{home, "/f", unix.RESOLVE_IN_ROOT, "/home/user/f", nil},
		{home, "/../../f", unix.RESOLVE_IN_ROOT, "/home/user/f", nil},
		{home, "/abs/passwd", unix.RESOLVE_IN_ROOT, "", unix.ENOENT},
		{home, "rel", unix.RESOLVE_NO_SYMLINKS, "", unix.ELOOP},
		{home, "f", unix.RESOLVE_NO_SYMLINKS, "/home/user/f", nil},
		{home, "f", unix.RESOLVE_BENEATH | unix.RESOLVE_IN_ROOT, "", unix.EINVAL},
		{home, "a/" + strings.Repeat("x/", unix.PathMax/2), 0, "", unix.ENAMETOOLONG},
	} {
		p, err := r.Resolve(Base{TID: os.Getpid(), DirFD: int32(tc.dir)}, tc.path, true, tc.resolve)
		if err != nil {
			if tc.want != "" || !errors.Is(err, tc.fails) {
				t.Errorf("%d %.60s: %v, want %s, %v", tc.dir, tc.path, err, tc.want, tc.fails)
			}
			continue
		}
		if p.Path != tc.want || content(t, p) != "inside" {
			t.Errorf("%d %.60s (%#x): %s holds %q, want %s", tc.dir, tc.path, tc.resolve, p.Path, content(t, p), tc.want)
		}
		p.Close()
		if tc.resolve != 0 {
			continue
		}
		// What handlers without procfs use comes to the same.
		q, err := r.PinPath(os.Getpid(), int32(tc.dir), tc.path, true)
		if err != nil || q.Path != tc.want {
			t.Errorf("PinPath %d %s: %+v, %v, want %s", tc.dir, tc.path, q, err, tc.want)
		}
		q.Close()
	}
}

func TestResolveParentBeneathRoot(t *testing.T) {
	r, root := tree(t)
	home := opened(t, root+"/home/user")
	for _, tc := range []struct{ path, dir, name string }{
		{"/new", "/", "new"},
		{"/../../new", "/", "new"},
		{"new", "/home/user", "new"},
		{"abs/new", "/etc", "new"},
		{"../../../../new", "/", "new"},
		{"/", "/", "."},
	} {
		dir, name, _, err := r.ResolveParent(Base{TID: os.Getpid(), DirFD: int32(home)}, tc.path)
		if err != nil || dir.Path != tc.dir || name != tc.name {
			t.Errorf("%s: %+v %s, %v; want %s and %s", tc.path, dir, name, err, tc.dir, tc.name)
		}
		dir.Close()
	}
	// A dangling link is followed from its own directory on, and its target begins at the root.
	dir, name, _, err := r.ResolveParent(Base{TID: os.Getpid(), DirFD: AtCWD}, "/tmp/dangling")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	made, name, _, err := r.ResolveParent(Base{TID: os.Getpid(), Own: &dir}, "/tmp/"+name)
	if err != nil || made.Path != "/tmp" {
		t.Errorf("%+v %s, %v", made, name, err)
	}
	made.Close()
}

// Descriptors, programs and working directories that are not the view's.
func TestElsewhere(t *testing.T) {
	r, root := tree(t)
	self := os.Getpid()
	if err := os.WriteFile(root+"er", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if p, err := r.PinDescriptor(self, int32(opened(t, root+"er"))); err == nil {
		t.Errorf("a descriptor of what begins as the root does: %+v", p)
		p.Close()
	}
	in, out := opened(t, root+"/etc/passwd"), opened(t, filepath.Dir(root)+"/secret")
	if p, err := r.PinDescriptor(self, int32(in)); err != nil || p.Path != "/etc/passwd" {
		t.Errorf("a descriptor of the view's: %+v, %v", p, err)
	} else {
		p.Close()
	}
	if p, err := r.PinDescriptor(self, int32(out)); err == nil {
		t.Errorf("a descriptor of the host's: %+v", p)
		p.Close()
	}
	if p, err := r.Resolve(Base{TID: self, DirFD: AtCWD}, "/proc/self/fd/"+itoa(out), true, 0); err == nil {
		t.Errorf("the same by its link: %+v", p)
		p.Close()
	}
	if p, err := r.PinProgram(self); err == nil {
		t.Errorf("a program of the host's: %+v", p)
		p.Close()
	}
	// The test's working directory is outside.
	for _, path := range []string{".", "x", "/proc/self/cwd/x", "/proc/self/cwd/..", "/proc/self/root/etc/passwd", "/proc/thread-self/root/..", "/proc/self/exe", "/proc/self/status"} {
		if p, err := r.Resolve(Base{TID: self, DirFD: AtCWD}, path, true, 0); err == nil {
			t.Errorf("%s: %+v", path, p)
			p.Close()
		}
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	if pin, err := r.PinDescriptor(self, int32(p[0])); err != nil || pin.Path != "" {
		t.Errorf("a pipe: %+v, %v", pin, err)
	} else {
		pin.Close()
	}
}

func itoa(n int) string { return strings.TrimPrefix(Pin{FD: n}.SelfPath(), "/proc/self/fd/") }

func TestDeletedBase(t *testing.T) {
	r, root := tree(t)
	if err := os.Mkdir(root+"/gone", 0o755); err != nil {
		t.Fatal(err)
	}
	dir := opened(t, root+"/gone")
	if err := os.Remove(root + "/gone"); err != nil {
		t.Fatal(err)
	}
	// The name that the kernel tells by now is somebody else's.
	if err := os.MkdirAll(root+"/gone (deleted)/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{".", "sub", "..", "../etc/passwd"} {
		if p, err := r.Resolve(Base{TID: os.Getpid(), DirFD: int32(dir)}, path, true, 0); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s in a deleted directory: %+v, %v", path, p, err)
		}
	}
	odd := opened(t, root+"/gone (deleted)")
	if p, err := r.Resolve(Base{TID: os.Getpid(), DirFD: int32(odd)}, "sub", true, 0); err != nil {
		t.Errorf("in a directory named so: %v", err)
	} else {
		p.Close()
	}
}

// Whatever is renamed during a walk, it ends inside or with an error.
func TestRenamesDuringWalks(t *testing.T) {
	r, root := tree(t)
	if err := os.MkdirAll(root+"/a/b/c", 0o755); err != nil {
		t.Fatal(err)
	}
	deep := opened(t, root+"/a/b/c")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// The directory that the walk stands in moves up, so that its ".." lead further.
			_ = os.Rename(root+"/a/b", root+"/b")
			_ = os.Rename(root+"/b", root+"/a/b")
		}
	}()
	for range 3000 {
		for _, path := range []string{"../../../../../secret", "../../../secret", "../../etc/passwd", "../../../etc/passwd"} {
			p, err := r.Resolve(Base{TID: os.Getpid(), DirFD: int32(deep)}, path, true, 0)
			if err != nil {
				continue
			}
			if p.Path != "/etc/passwd" || content(t, p) != "inside" {
				t.Errorf("%s led to %s", path, p.Path)
			}
			p.Close()
		}
	}
	close(stop)
	<-done
}

func TestOpenAndReal(t *testing.T) {
	r, root := tree(t)
	for path, want := range map[string]string{"/absolute": "/etc/passwd", "/home/user/abs": "/etc", "/": "/", "/..": "/"} {
		if got, err := r.Real(path); err != nil || got != want {
			t.Errorf("%s leads to %s, %v; want %s", path, got, err, want)
		}
	}
	for _, path := range []string{"", "/out", "/upward", "/proc/self/cwd"} {
		if got, err := r.Real(path); err == nil {
			t.Errorf("%s leads to %s", path, got)
		}
	}
	if got, err := (Root{}).Real(root + "/etc/passwd"); err != nil || got != root+"/etc/passwd" {
		t.Errorf("beneath the own root: %s, %v", got, err)
	}
	if got, err := NewRoot(-1).Real("/etc/passwd"); err == nil {
		t.Errorf("beneath no root at all: %s", got)
	}
}

func TestIDs(t *testing.T) {
	own, none := uint32(os.Geteuid()), ^uint32(0)
	for _, tc := range []struct {
		m        IDs
		id, want uint32
		fails    bool
	}{
		{IDs{}, 4711, 4711, false},
		{IDs{}, none, none, false},
		{IDs{true, 1000, 100}, 1000, own, false},
		{IDs{true, 1000, 100}, none, none, false},
		{IDs{true, 1000, 100}, 0, 0, true},
		{IDs{true, 0, 0}, 0, own, false},
		{IDs{true, 0, 0}, own + 1, 0, true},
	} {
		if got, err := tc.m.User(tc.id); got != tc.want || (err != nil) != tc.fails {
			t.Errorf("%+v: %d is %d, %v; want %d", tc.m, tc.id, got, err, tc.want)
		}
	}
	m := IDs{true, 1000, 100}
	if m.ShownUser(own) != 1000 || m.ShownUser(own+1) != overflow || m.ShownGroup(uint32(os.Getegid())) != 100 || (IDs{}).ShownUser(7) != 7 {
		t.Error("ids are not shown as they are mapped")
	}
	if g, err := m.Group(100); err != nil || g != uint32(os.Getegid()) {
		t.Errorf("the group is %d, %v", g, err)
	}
}
