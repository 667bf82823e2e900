package stage

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func TestKeeper(t *testing.T) {
	exectest.UserNamespaces(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n, err := NewNamespaces(unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) []*Call {
		open := NewCall("open "+path, unix.SYS_OPENAT, unix.AT_FDCWD, path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		return []*Call{open, NewCall("write "+path, unix.SYS_WRITE, open, []byte(text), len(text)), NewCall("close", unix.SYS_CLOSE, open)}
	}
	id := func(n int) string { return fmt.Sprintf("0 %d 1", n) }
	var calls []*Call
	calls = append(calls, write("/proc/self/setgroups", "deny")...)
	calls = append(calls, write("/proc/self/uid_map", id(os.Getuid()))...)
	calls = append(calls, write("/proc/self/gid_map", id(os.Getgid()))...)
	calls = append(calls, NewCall("private", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0),
		NewCall("tmpfs", unix.SYS_MOUNT, "t", "/tmp", "tmpfs", 0, 0),
		NewCall("miss", unix.SYS_MOUNT, "t", "/nowhere", "tmpfs", 0, 0).MayMiss())
	if err := n.Do(calls); err != nil {
		t.Fatal(err)
	}
	root := NewCall("root", unix.SYS_OPENAT, unix.AT_FDCWD, "/tmp", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err := n.Do([]*Call{root}); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(root.Result), &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Error(fs.Type, err)
	}
	if err := n.Do([]*Call{NewCall("bad", unix.SYS_OPENAT, unix.AT_FDCWD, "/nowhere", 0, 0)}); err == nil || err.Error() != "bad: no such file or directory" {
		t.Error(err)
	}
	if err := n.Detach(nil, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(n.PID, 0); err != nil {
		t.Error(err)
	}
	n.Close()
}

// However long the executor takes between requests, the keeper waits; and the executor does not wait for a keeper that is gone.
func TestKeeperWaits(t *testing.T) {
	exectest.UserNamespaces(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n, err := NewNamespaces(unix.CLONE_NEWUSER | unix.CLONE_NEWPID)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	call := []*Call{NewCall("getpid", unix.SYS_GETPID)}
	for range 3 {
		time.Sleep(2 * pulse)
		if err := n.Do(call); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Kill(n.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := n.Do(call); err == nil {
		t.Error("the keeper was gone")
	}
}
