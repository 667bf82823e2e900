package branchfs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"golang.org/x/sys/unix"
)

// mount is a FUSE mount.
type mount struct {
	dir string // it is mounted on; absolute, without links
	dev uint64 // of the file system, as in stat(2)
}

// find returns the mount that a directory is on. It must be the only one of its file system in this mount namespace, and show
// it from its top: another would lead around what is done with this one.
func find(dir string) (*mount, error) {
	fd, err := openPath(dir)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if uint64(fs.Type) != unix.FUSE_SUPER_MAGIC {
		return nil, notOn(dir)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	mounts, err := kernel.Mounts()
	if err != nil {
		return nil, err
	}
	return choose(mounts, dir, st.Dev)
}

func notOn(dir string) error {
	return fmt.Errorf("%s is on no BranchFS: filesystem.isolation \"branchfs\" needs one that is mounted already", dir)
}

// choose returns the one mount of a file system.
func choose(mounts []kernel.Mount, dir string, dev uint64) (*mount, error) {
	var found *kernel.Mount
	for i := range mounts {
		m := &mounts[i]
		if m.Dev != dev {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("the file system of %s is mounted on %s and on %s: the command could go around the branch", dir, found.On, m.On)
		}
		found = m
	}
	switch {
	case found == nil || found.On == "/" || dir != found.On && !strings.HasPrefix(dir, found.On+"/"):
		return nil, notOn(dir)
	case found.Root != "/":
		return nil, fmt.Errorf("%s is on %s, which shows %s of a file system, and not its top: branches are made there", dir, found.On, found.Root)
	case !found.HasUser || found.User != 0 && int(found.User) != os.Geteuid():
		return nil, fmt.Errorf("%s is on a file system that user %d serves: it is not to be relied on", dir, found.User)
	}
	return &mount{dir: found.On, dev: dev}, nil
}

// rel is a directory's path relative to the mount's.
func (m *mount) rel(dir string) string {
	return strings.TrimPrefix(strings.TrimPrefix(dir, m.dir), "/")
}

// open opens the top of the mount.
func (m *mount) open() (int, error) {
	fd, err := openPath(m.dir)
	if err == nil {
		if err = m.holds(fd, unix.S_IFDIR); err == nil {
			return fd, nil
		}
		_ = unix.Close(fd)
	}
	return -1, &os.PathError{Op: "open", Path: m.dir, Err: err}
}

// control opens the control file of a branch, or the mount's own for "".
func (m *mount) control(root int, branch string) (fd int, err error) {
	dir, name := m.dir, Control
	if branch != "" {
		dir, name = m.dir+"/@"+branch, "@"+branch+"/"+Control
	}
	// RESOLVE_NO_XDEV: nothing that somebody has mounted in it either.
	how := unix.OpenHow{
		Flags:   unix.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		if fd, err = unix.Openat2(root, name, &how); !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("%s is no BranchFS, or has no such branch: %s/%s is missing", m.dir, dir, Control)
	}
	if err == nil {
		if err = m.holds(fd, unix.S_IFREG); err == nil {
			return fd, nil
		}
		_ = unix.Close(fd)
	}
	return -1, &os.PathError{Op: "open", Path: dir + "/" + Control, Err: err}
}

// holds checks that an open file is of a kind, and on the mount's file system.
func (m *mount) holds(fd int, kind uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Dev != m.dev {
		return unix.EXDEV
	}
	if st.Mode&unix.S_IFMT != kind {
		return errors.New("it is not what BranchFS has there")
	}
	return nil
}

// openPath opens a directory without following any link.
func openPath(dir string) (fd int, err error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	for {
		if fd, err = unix.Openat2(unix.AT_FDCWD, dir, &how); !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}
