package rootfs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
	"github.com/sandlock-go/sandlock/exec/exectest/rootfs"
)

func TestMain(m *testing.M) { exectest.Main(m) }

// chroot runs a command in a root filesystem, with nothing but chroot(2), as root and as an ordinary user.
func chroot(t *testing.T, root string, args ...string) (string, int) {
	t.Helper()
	tool := exectest.Program(t, "/usr/sbin/chroot")
	r := exectest.Run(t, exectest.Opts{User: exectest.Self(), Args: append([]string{tool, "--userspec=65534:65534", root}, args...), Env: []string{"PATH=/usr/bin:/bin"}})
	return r.Stdout + r.Stderr, r.Code
}

type attempt struct {
	args []string
	want string // in the output
}

func attempts(t *testing.T, root string, list []attempt) {
	t.Helper()
	if !exectest.Self().Root() {
		t.Skip("chroot(2) needs root")
	}
	for _, tc := range list {
		if got, code := chroot(t, root, tc.args...); code != 0 || !strings.Contains(got, tc.want) {
			t.Errorf("%q: exit %d, %q, want %q", tc.args, code, got, tc.want)
		}
	}
}

func TestDebian(t *testing.T) {
	root := rootfs.Debian(t)
	if again := rootfs.Debian(t); again != root {
		t.Errorf("second call made another one: %s, %s", root, again)
	}
	inspect(t, root)
	attempts(t, root, []attempt{
		{[]string{"/bin/sh", "-c", "echo $0"}, "/bin/sh"},
		{[]string{"bash", "-c", "echo ${BASH_VERSION:0:1}; cat /etc/os-release"}, "ID=debian"},
		{[]string{"apt-get", "--version"}, "apt "},
		{[]string{"python3", "-c", `import json; print(json.loads('{"a": 42}')["a"])`}, "42"},
		{[]string{"awk", "BEGIN {print 6*7}"}, "42"}, // by way of /etc/alternatives, absolute
		{[]string{"sh", "-c", "echo x >/tmp/file && cat /tmp/file && rm /tmp/file && id -u && ls -d /var/run/."}, "65534"},
		{[]string{"find", "/usr/bin", "-name", "cat"}, "/usr/bin/cat"},
		{[]string{"readlink", "/bin", "/lib", "/var/run"}, "usr/bin\nusr/lib\n/run\n"},
	})
}

func TestBusybox(t *testing.T) {
	root := rootfs.Busybox(t)
	inspect(t, root)
	attempts(t, root, []attempt{
		{[]string{"/bin/sh", "-c", "echo 6 7 | awk '{print $1*$2}'"}, "42"},
		{[]string{"/bin/ls", "/"}, "bin"},
		{[]string{"/bin/readlink", "/bin/cat"}, "/bin/busybox"},
		{[]string{"/bin/sh", "-c", "echo x >/tmp/file && cat /tmp/file && rm /tmp/file && whoami"}, "nobody"},
	})
}

// inspect wants what a test of chroot relies on: nothing that is the host's, nothing that gives rights, nothing that an
// ordinary user could not read, and not much of it.
func inspect(t *testing.T, root string) {
	t.Helper()
	size := int64(0)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size += info.Size()
		if info.Mode().IsRegular() && info.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Errorf("%s is a hard link", path)
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeDevice) != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if private := strings.TrimPrefix(path, root) == "/root"; !private && info.Mode()&fs.ModeSymlink == 0 && info.Mode().Perm()&0o444 != 0o444 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("%s: %d MiB", root, size>>20)
	if size > 60<<20 {
		t.Errorf("%s has %d bytes", root, size)
	}
	if info, err := os.Stat(root + "/tmp"); err != nil || info.Mode() != fs.ModeDir|fs.ModeSticky|0o777 {
		t.Errorf("/tmp: %v, %v", info.Mode(), err)
	}
}
