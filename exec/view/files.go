package view

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/stage"
)

// Names in the scratch file system: nodes that nobody can open, an empty file, and files of ours, which are numbered.
const (
	closedFile = "f"
	closedDir  = "d"
	emptyFile  = "e"
)

// closeNodes makes the file system that holds them and closes what the kernel shows and nobody in a sandbox is to see. It is on
// top of the root, where nobody sees it who has that root: lookups begin beneath it. The keeper works in it from then on, so
// that it can name what it holds.
func (v *View) closeNodes() (calls []*stage.Call) {
	v.scratch, calls = newTmpfs("a tmpfs for files of our own", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, "size", strconv.Itoa(scratchBytes))
	calls = append(calls,
		stage.NewCall("mount a tmpfs for files of our own", unix.SYS_MOVE_MOUNT, v.scratch, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH),
		stage.NewCall("enter it", unix.SYS_FCHDIR, v.scratch),
		stage.NewCall("make a closed file", unix.SYS_MKNODAT, unix.AT_FDCWD, closedFile, unix.S_IFREG, 0),
		stage.NewCall("make a closed directory", unix.SYS_MKDIRAT, unix.AT_FDCWD, closedDir, 0))
	// Each is mounted over itself, read-only, so that what is mounted of it later is read-only too: their owner, who may be the
	// command's user, could change their modes otherwise.
	for _, node := range []string{closedFile, closedDir} {
		calls = append(calls, stage.NewCall("mount a closed node", unix.SYS_MOUNT, node, node, 0, unix.MS_BIND, 0), remountReadOnly(node))
	}
	calls = append(calls, v.spec.Bind.hide()...)
	// Whether each is there, and is a directory, only the mount tells. One that fails costs three times one that does not.
	for _, path := range v.spec.Masks {
		likely := strings.HasPrefix(path, "/sys/") || path == "/proc/acpi" || path == "/proc/scsi"
		first, second := closeNode(path, likely).MayMiss(), closeNode(path, !likely).MayMiss()
		first.SkipOnSuccess = 1
		calls = append(calls, first, second)
	}
	return calls
}

// scratchBytes bounds the scratch file system. It holds bundles of certificates, which are of some hundred kilobytes.
const scratchBytes = 128 << 20

func remountReadOnly(path string) *stage.Call {
	return stage.NewCall("make "+path+" read-only", unix.SYS_MOUNT, 0, path, 0, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, 0)
}

// closeNode mounts an inaccessible node over a path.
func closeNode(path string, dir bool) *stage.Call {
	node := closedFile
	if dir {
		node = closedDir
	}
	return stage.NewCall("close "+path, unix.SYS_MOUNT, node, path, 0, unix.MS_BIND, 0)
}

// File is a file of ours that the command sees in the place of another. It cannot be changed from inside.
type File struct {
	Path    string
	content []byte
	open    *stage.Call
	size    int
}

// Show has the command see a file with content of ours in the place of a regular file, from [View.Seal] on. Where there is no
// such file, or what [View.Cover] was given closes it, none is shown: f is nil then.
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
	real := ""
	if err == nil {
		real, err = v.Root.Where(fd)
	}
	_ = unix.Close(fd)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || v.closes(real) {
		return nil, err
	}
	f = &File{Path: path, content: content}
	v.files = append(v.files, f)
	return f, nil
}

// show makes the files and mounts them.
func (v *View) show() (calls []*stage.Call) {
	for i, f := range v.files {
		name := strconv.Itoa(i)
		f.open = stage.NewCall("make a file to be shown as "+f.Path, unix.SYS_OPENAT, unix.AT_FDCWD, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o444)
		calls = append(calls, f.open, stage.NewCall("show "+f.Path, unix.SYS_MOUNT, name, f.Path, 0, unix.MS_BIND, 0), remountReadOnly(f.Path))
	}
	return calls
}

// Write replaces the content, once the view is sealed. A reader sees the old one, the new one, or the end of the new one early.
func (f *File) Write(content []byte) error {
	fd := int(f.open.Result)
	for n := 0; n < len(content); {
		got, err := unix.Pwrite(fd, content[n:], int64(n))
		if err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
		n += got
	}
	if len(content) < f.size {
		if err := unix.Ftruncate(fd, int64(len(content))); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	f.size = len(content)
	return nil
}

// Seal makes the last mounts, takes the file system that they are of away, which they outlive, and leaves the keeper alone
// with the namespaces.
func (v *View) Seal() error {
	var calls, closing []*stage.Call
	var kept []int
	var capabilities uint64
	if v.spec.Mount {
		calls = v.show() // a denial is a later mount: it also holds for files of ours, and directories that they are in
	}
	if v.covers != nil {
		calls, closing = append(calls, v.cover()...), v.uncover()
		if len(closing) > 0 {
			kept, capabilities = v.covers.Descriptors(), closingCapabilities
		}
	}
	if v.spec.Mount {
		calls = append(calls,
			stage.NewCall("unmount our own files", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH),
			stage.NewCall("chdir to the root", unix.SYS_CHDIR, "/"))
	}
	var err error
	if v.Namespaces.Init {
		err = v.Namespaces.Detach(calls, kept, capabilities, closing)
	} else {
		err = v.Namespaces.Do(calls) // the keeper ends with the start
	}
	if err != nil {
		return err
	}
	for _, c := range v.joins {
		v.Namespaces.Join = append(v.Namespaces.Join, int(c.Result))
	}
	for _, f := range v.files {
		if err := f.Write(f.content); err != nil {
			return err
		}
	}
	return nil
}
