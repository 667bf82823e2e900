// Package rootfs makes root filesystems for tests of filesystem.chroot, out of what is installed on this host: nothing is
// downloaded, and nothing is a link to a file of the host, which a test could change.
//
// In: the host's programs, with what they load. Out: a directory that every user may read, one for each test process:
// what a test changes in it, the next one sees. It lies in exectest's scratch folder and goes away with it.
//
// Read next: debian.go and busybox.go (what is in them), copy.go (how it gets there).
package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// root is a filesystem that is made when a test first asks for it.
type root struct {
	name  string
	fill  func(*tree) error
	needs []string // of the host

	once sync.Once
	dir  string
	err  error
}

func (r *root) get(tb testing.TB) string {
	tb.Helper()
	for _, path := range r.needs {
		exectest.Program(tb, path)
	}
	scratch := exectest.Scratch(tb)
	r.once.Do(func() {
		r.dir = filepath.Join(scratch, "rootfs-"+r.name)
		t := &tree{root: r.dir}
		if r.err = t.mkdir("/", 0o755); r.err == nil {
			r.err = r.fill(t)
		}
	})
	if r.err != nil {
		tb.Fatalf("make the %s root filesystem: %v", r.name, r.err)
	}
	return r.dir
}

// accounts are those that every system has, and an ordinary user.
func (t *tree) accounts(shell string) error {
	for path, text := range map[string]string{
		"/etc/passwd": fmt.Sprintf("root:x:0:0:root:/root:%s\nuser:x:1000:1000::/home/user:%[1]s\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n", shell),
		"/etc/group":  "root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n",
	} {
		if err := t.write(path, text); err != nil {
			return err
		}
	}
	return nil
}

// directories makes what a root filesystem has empty: places to mount at, and to write to.
func (t *tree) directories(more ...string) error {
	for _, dir := range append([]string{"/dev", "/proc", "/sys", "/run", "/mnt", "/home/user", "/etc", "/var/lib"}, more...) {
		if err := t.mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp"} {
		if err := t.mkdir(dir, 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	return t.mkdir("/root", 0o700)
}
