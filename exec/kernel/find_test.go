package kernel

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// This process is the caller, so the kernel's own answer is what is to be found.
func TestFind(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	for name, target := range map[string]string{
		"file": "", "link": "file", "again": dir + "/link", "own": "/proc/self", "thread": "/proc/thread-self/net", "loop": "loop",
		"root": "/proc/self/root", "up": "../../../../../../../../../proc/self/stat",
	} {
		var err error
		if target == "" {
			err = os.WriteFile(filepath.Join(dir, name), nil, 0o600)
		} else {
			err = os.Symlink(target, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	at, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	tid, fd := strconv.Itoa(unix.Gettid()), strconv.Itoa(at)
	for _, path := range []string{
		"file", "link", "again", "link/", "file/", "file/.", ".", "..", "./../" + filepath.Base(dir) + "/file", "none", "none/file", "loop", dir + "//link",
		"own/stat", "thread/tcp", "root/proc/self/stat", "up", "/proc/self/task/" + tid + "/stat", "/proc/thread-self/stat", "/proc/self/fd/" + fd + "/file",
		"/proc/self/task/" + tid + "/fd/" + fd + "/again", "/proc/self/cwd", "/proc/self/exe", "/proc/net/tcp", "/../../proc/./self/../self/root/etc", "/",
		"own/fd/" + fd, "own/ns/net", "/proc/self/root" + dir + "/link",
	} {
		for _, follow := range []bool{true, false} {
			for _, resolve := range []uint64{0, unix.RESOLVE_NO_SYMLINKS, unix.RESOLVE_NO_MAGICLINKS, unix.RESOLVE_BENEATH, unix.RESOLVE_IN_ROOT} {
				how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve}
				if !follow {
					how.Flags |= unix.O_NOFOLLOW
				}
				fd, want := unix.Openat2(at, path, &how)
				got, err := Root{}.Find(Base{TID: unix.Gettid(), DirFD: int32(at)}, path, follow, resolve)
				if (want == nil) != (err == nil) || want == unix.ENOENT && err != want {
					t.Errorf("%s, follow %v, resolve %#x: %v, want %v", path, follow, resolve, err, want)
				}
				if err == nil && want == nil {
					if a, b := identity(t, got), identity(t, Pin{FD: fd}); a != b {
						t.Errorf("%s, follow %v, resolve %#x: found %v (%s), want %v", path, follow, resolve, a, got.Path, b)
					}
				}
				if err == nil {
					got.Close()
				}
				if want == nil {
					unix.Close(fd)
				}
			}
		}
	}
	if _, err := (Root{}).Find(Base{TID: unix.Gettid()}, "", true, 0); err != unix.ENOENT {
		t.Errorf("no path: %v", err)
	}
}

func identity(t *testing.T, p Pin) FileID {
	t.Helper()
	id, _, err := p.ID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}
