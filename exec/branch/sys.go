package branch

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// sys is every system call by which a commit changes or secures anything: the tests stop it after any of them, have any of
// them fail, and take back what was not yet synced. Names are single components; directories are descriptors. Calls that
// only look are not part of it: a crash between two of them leaves what a crash before the next change does.
type sys interface {
	create(dir int, name string, mode uint32) (fd int, err error) // regular, new, opened for reading and writing
	write(fd int, p []byte) error                                 // all of it
	fill(to, from int, size int64) error                          // all data of one regular file, its holes kept
	mkdir(dir int, name string, mode uint32) error
	mknod(dir int, name string, mode uint32, dev int) error
	symlink(text string, dir int, name string) error
	link(fromDir int, from string, dir int, name string) error
	rename(fromDir int, from string, dir int, name string, flags uint) error
	unlink(dir int, name string, flags int) error
	chmod(node int, mode uint32) error // these six take any descriptor, also one opened with O_PATH
	chown(node int, uid, gid int) error
	utimes(node int, atime, mtime unix.Timespec) error
	setxattr(node int, name string, value []byte) error
	removexattr(node int, name string) error
	fsync(fd int) error  // contents and metadata of one file or directory
	syncfs(fd int) error // all of its file system
}

// kernelSys is the real one.
type kernelSys struct{}

// procPath names what a descriptor refers to, for calls that take no descriptor opened with O_PATH. It is a magic link: what
// is reached is that very object, symbolic links included (proc_pid_fd(5)).
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (kernelSys) create(dir int, name string, mode uint32) (fd int, err error) {
	err = again(func() (err error) {
		fd, err = unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

func (kernelSys) write(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}

func (kernelSys) fill(to, from int, size int64) error { return copyData(to, from, size) }

func (kernelSys) mkdir(dir int, name string, mode uint32) error {
	return again(func() error { return unix.Mkdirat(dir, name, mode) })
}

func (kernelSys) mknod(dir int, name string, mode uint32, dev int) error {
	return again(func() error { return unix.Mknodat(dir, name, mode, dev) })
}

func (kernelSys) symlink(text string, dir int, name string) error {
	return again(func() error { return unix.Symlinkat(text, dir, name) })
}

func (kernelSys) link(fromDir int, from string, dir int, name string) error {
	return again(func() error { return unix.Linkat(fromDir, from, dir, name, 0) })
}

func (kernelSys) rename(fromDir int, from string, dir int, name string, flags uint) error {
	return again(func() error { return unix.Renameat2(fromDir, from, dir, name, flags) })
}

func (kernelSys) unlink(dir int, name string, flags int) error {
	return again(func() error { return unix.Unlinkat(dir, name, flags) })
}

func (kernelSys) chmod(node int, mode uint32) error {
	return again(func() error { return unix.Chmod(procPath(node), mode&0o7777) })
}

func (kernelSys) chown(node int, uid, gid int) error {
	return again(func() error { return unix.Fchownat(node, "", uid, gid, unix.AT_EMPTY_PATH) })
}

func (kernelSys) utimes(node int, atime, mtime unix.Timespec) error {
	return again(func() error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(node), []unix.Timespec{atime, mtime}, 0)
	})
}

func (kernelSys) setxattr(node int, name string, value []byte) error {
	return again(func() error { return unix.Setxattr(procPath(node), name, value, 0) })
}

func (kernelSys) removexattr(node int, name string) error {
	err := again(func() error { return unix.Removexattr(procPath(node), name) })
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

func (kernelSys) fsync(fd int) error { return again(func() error { return unix.Fsync(fd) }) }

func (kernelSys) syncfs(fd int) error { return again(func() error { return unix.Syncfs(fd) }) }

// opError is a failed operation on a path below the workdir or the branch.
func opError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	if path == "" {
		path = "."
	}
	return fmt.Errorf("%s %q: %w", op, path, err)
}
