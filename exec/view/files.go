package view

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/stage"
)

// Names in the scratch file system: nodes that nobody can open, and files of ours, which are numbered.
const (
	closedFile = "f"
	closedDir  = "d"
)

// needScratch mounts the file system that holds them on top of the root, where nobody who has that root sees it: lookups begin
// beneath it. The keeper works in it from then on, so that it can name what it holds.
func (v *View) needScratch() error {
	if v.scratch >= 0 {
		return nil
	}
	fs := stage.NewCall("make a tmpfs", unix.SYS_FSOPEN, "tmpfs", unix.FSOPEN_CLOEXEC)
	mount := stage.NewCall("mount a tmpfs", unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	err := v.do([]*stage.Call{
		fs,
		stage.NewCall("configure a tmpfs", unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, "size", strconv.Itoa(scratchBytes), 0),
		stage.NewCall("configure a tmpfs", unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, "mode", "0700", 0),
		stage.NewCall("create a tmpfs", unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0),
		mount,
		stage.NewCall("close", unix.SYS_CLOSE, fs),
		stage.NewCall("mount a tmpfs for files of our own", unix.SYS_MOVE_MOUNT, mount, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH),
		stage.NewCall("enter it", unix.SYS_FCHDIR, mount),
	})
	if err == nil {
		v.scratch = int(mount.Result)
	}
	return err
}

// scratchBytes bounds the scratch file system. It holds bundles of certificates, which are of some hundred kilobytes.
const scratchBytes = 128 << 20

// needNodes makes the inaccessible nodes. Each is mounted over itself, read-only, so that what is mounted of it later is
// read-only too: their owner, who may be the command's user, could change their modes otherwise.
func (v *View) needNodes() (calls []*stage.Call, err error) {
	if v.nodes {
		return nil, nil
	}
	if err := v.needScratch(); err != nil {
		return nil, err
	}
	v.nodes = true
	calls = []*stage.Call{
		stage.NewCall("make a closed file", unix.SYS_MKNODAT, unix.AT_FDCWD, closedFile, unix.S_IFREG, 0),
		stage.NewCall("make a closed directory", unix.SYS_MKDIRAT, unix.AT_FDCWD, closedDir, 0),
	}
	for _, node := range []string{closedFile, closedDir} {
		calls = append(calls,
			stage.NewCall("mount a closed node", unix.SYS_MOUNT, node, node, 0, unix.MS_BIND, 0),
			stage.NewCall("make it read-only", unix.SYS_MOUNT, 0, node, 0, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, 0))
	}
	return calls, nil
}

// closeNode mounts an inaccessible node over a path.
func closeNode(path string, dir bool) *stage.Call {
	node := closedFile
	if dir {
		node = closedDir
	}
	return stage.NewCall("close "+path, unix.SYS_MOUNT, node, path, 0, unix.MS_BIND, 0)
}

// mask closes what the kernel shows and nobody in a sandbox is to see. Whether each is there, and is a directory, only the
// mount tells.
func (v *View) mask() error {
	if len(v.spec.Masks) == 0 {
		return nil
	}
	calls, err := v.needNodes()
	if err != nil {
		return err
	}
	for _, path := range v.spec.Masks {
		dir, file := closeNode(path, true).MayMiss(), closeNode(path, false).MayMiss()
		dir.SkipOnSuccess = 1
		calls = append(calls, dir, file)
	}
	return v.do(calls)
}

// File is a file of ours that the command sees in the place of another, which it cannot change.
type File struct {
	path string
	fd   int
	size int
}

// Show mounts a file with content of ours over a regular file, if there is one.
func (v *View) Show(path string, content []byte) (f *File, err error) {
	fd, err := v.Root.Open(path, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil, nil
		}
		return nil, fmt.Errorf("show %s: %w", path, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	_ = unix.Close(fd)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, err
	}
	if err := v.needScratch(); err != nil {
		return nil, err
	}
	name := strconv.Itoa(v.files)
	v.files++
	open := stage.NewCall("make a file to be shown as "+path, unix.SYS_OPENAT, unix.AT_FDCWD, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o444)
	err = v.do([]*stage.Call{
		open,
		stage.NewCall("show "+path, unix.SYS_MOUNT, name, path, 0, unix.MS_BIND, 0),
		stage.NewCall("make "+path+" read-only", unix.SYS_MOUNT, 0, path, 0, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, 0),
	})
	if err != nil {
		return nil, err
	}
	f = &File{path: path, fd: int(open.Result)}
	return f, f.Write(content)
}

// Write replaces the content. A reader sees the old one, the new one, or the end of the new one early.
func (f *File) Write(content []byte) error {
	for n := 0; n < len(content); {
		got, err := unix.Pwrite(f.fd, content[n:], int64(n))
		if err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		n += got
	}
	if len(content) < f.size {
		if err := unix.Ftruncate(f.fd, int64(len(content))); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	f.size = len(content)
	return nil
}

// Close ends the writing of the file; what it holds remains.
func (f *File) Close() { _ = unix.Close(f.fd) }

// Seal takes the scratch file system away, what is mounted of it remains, and leaves the keeper alone with the namespaces.
func (v *View) Seal(kept []int, capabilities uint64, closing []*stage.Call) error {
	if v.scratch >= 0 {
		if err := v.do([]*stage.Call{
			stage.NewCall("unmount our own files", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH),
			stage.NewCall("chdir to the root", unix.SYS_CHDIR, "/"),
		}); err != nil {
			return err
		}
		_ = unix.Close(v.scratch)
		v.scratch = -1
	}
	if !v.Namespaces.Init {
		return nil // it ends with the start
	}
	return v.Namespaces.Detach(kept, capabilities, closing)
}
