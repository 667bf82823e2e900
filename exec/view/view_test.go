package view

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, s Spec) *View {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	s.User = s.User || os.Geteuid() != 0
	v, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func (v *View) text(t *testing.T, path string) string {
	t.Helper()
	fd, err := v.Root.Open(path, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

func (v *View) names(t *testing.T, path string) string {
	fd, err := v.Root.Open(path, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return err.Error()
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	return strings.Join(names, " ")
}

func names(t *testing.T, dir string) string {
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestView(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"src/a": "A", "src/sub/b": "B", "root/etc/hosts": "old", "root/usr/x": "X", "file": "F"} {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.Symlink("usr", filepath.Join(dir, "root/lib"))
	t.Run("mounts", func(t *testing.T) {
		v := open(t, Spec{
			Mount: true, PID: true, Net: true, Hostname: "box", Proc: ProcPrivate, Tmp: true, Masks: []string{"/proc/kcore", "/proc/acpi", "/nowhere", "/proc/1/nothing"},
			Mounts: []Mount{{Target: "/no/such/dir", Source: dir + "/src", ReadOnly: true}, {Target: "/no/such/file", Source: dir + "/file"}}, ReadOnly: []string{"/proc/sys", "/nowhere"},
		})
		if _, err := v.Show("/etc/hosts", []byte("shown")); err != nil {
			t.Fatal(err)
		}
		if err := v.Seal(); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{"/no/such/dir/a": "A", "/no/such/file": "F", "/etc/hosts": "shown", "/tmp/x": "no such file or directory"} {
			if got := v.text(t, path); got != want {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
		}
		if _, err := v.Root.Open("/no/such/dir/new", unix.O_CREAT|unix.O_RDWR); err != unix.EROFS {
			t.Error(err)
		}
		t.Log(v.names(t, "/"), v.names(t, "/proc")[:40])
		v.Close()
		for _, name := range strings.Fields(names(t, "/proc/self/fd")) {
			var fs unix.Statfs_t
			if fd, err := strconv.Atoi(name); err == nil && fd > 2 && unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
				if where, _ := os.Readlink("/proc/self/fd/" + name); where != "/dev/null" { // a devtmpfs looks the same
					t.Error("descriptor", fd, "is left:", where)
				}
			}
		}
	})
	t.Run("root", func(t *testing.T) {
		v := open(t, Spec{
			Mount: true, PID: true, Proc: ProcAuto, Root: dir + "/root", Devices: []string{"null", "tty", "nothing"}, Sys: true, Tmp: true,
			Mounts: []Mount{{Target: "/usr/data", Source: dir + "/src"}},
		})
		t.Log(v.names(t, "/"), v.names(t, "/dev"), v.names(t, "/usr"))
		if got := v.text(t, "/lib/x"); got != "X" {
			t.Error(got)
		}
		if got := v.text(t, "/lib/data/sub/b"); got != "B" {
			t.Error(got)
		}
		if got := v.text(t, "/dev/null"); got != "" {
			t.Error(got)
		}
	})
	if got, _ := os.ReadDir(dir + "/root"); len(got) != 3 {
		t.Error("litter", got)
	}
	if got, _ := os.ReadDir(dir + "/root/usr"); len(got) != 1 {
		t.Error("litter", got)
	}
}
