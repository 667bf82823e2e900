package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// tree is a root filesystem in the making. Paths are as it will see them.
type tree struct{ root string }

func (t *tree) at(path string) string { return filepath.Join(t.root, path) }

// mkdir makes a directory with those above it, whatever the umask.
func (t *tree) mkdir(path string, mode fs.FileMode) error {
	if path != "/" {
		if _, err := os.Stat(t.at(filepath.Dir(path))); errors.Is(err, fs.ErrNotExist) {
			if err := t.mkdir(filepath.Dir(path), 0o755); err != nil {
				return err
			}
		}
	}
	if err := os.Mkdir(t.at(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(t.at(path), mode)
}

func (t *tree) link(target, path string) error {
	if err := t.parent(path); err != nil {
		return err
	}
	err := os.Symlink(target, t.at(path))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// parent makes the directory that path is to be in; the links among its own ancestors are relative ones.
func (t *tree) parent(path string) error {
	dir := filepath.Dir(path)
	if _, err := os.Stat(t.at(dir)); err == nil {
		return nil
	}
	return t.mkdir(dir, 0o755)
}

func (t *tree) write(path, text string) error {
	if err := t.parent(path); err != nil {
		return err
	}
	return os.WriteFile(t.at(path), []byte(text), 0o644)
}

// copy puts a file of the host in the same place, and if it is a symbolic link, the link and what it leads to.
func (t *tree) copy(path string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return err
	}
	path = filepath.Join(dir, filepath.Base(path))
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return t.copyFile(path, merged(path))
	}
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if err := t.link(target, merged(path)); err != nil {
		return err
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(dir, target)
	}
	return t.copy(target)
}

// merged is where a path of the host is when /bin, /lib and their like are links into /usr, also if they are not here.
func merged(path string) string {
	for _, dir := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
		if strings.HasPrefix(path, dir) {
			return "/usr" + path
		}
	}
	return path
}

// copyFile copies contents and permissions, and neither owner nor set-user-ID.
func (t *tree) copyFile(from, to string) error {
	if err := t.parent(to); err != nil {
		return err
	}
	// As in exectest: a test beside this one must not inherit the descriptor, or the file could not be executed (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(t.at(to), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(info.Mode().Perm()|0o444), out.Close())
}
