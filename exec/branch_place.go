package exec

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/view"
	"github.com/sandlock-go/sandlock/ir"
)

// workdir returns the working directory of the branch as the command names it, and as the host does, both with links resolved.
func (s *sandbox) workdir(root string) (target, host string, err error) {
	path, err := ir.ExpandPath(s.program.Branch.Workdir, s.bound.lookup)
	if err != nil {
		return "", "", err
	}
	within := kernel.Root{}
	if root != "" {
		fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", "", &os.PathError{Op: "open", Path: root, Err: err}
		}
		defer unix.Close(fd)
		within = kernel.NewRoot(fd)
	}
	real, err := within.Real(path) // it is not mounted yet, but the links in it are the root's
	if err != nil {
		return "", "", err
	}
	return real, filepath.Join(root, real), nil
}

// placeable repeats with what paths lead to what the compiler has checked of their texts.
func (s *sandbox) placeable(spec *view.Spec, b *ir.Branch) error {
	v := s.program.View
	v.Root, v.Mounts = spec.Root, nil
	for _, m := range spec.Mounts {
		source := m.Source
		if real, err := filepath.EvalSymlinks(source); err == nil {
			source = real
		}
		v.Mounts = append(v.Mounts, ir.ViewMount{Target: m.Target, Source: source, ReadOnly: m.ReadOnly})
	}
	var l ir.Landlock
	for i := range s.program.Landlock.Paths {
		r := s.program.Landlock.Paths[i]
		path, err := ir.ExpandPath(r.Path, s.bound.lookup)
		if err != nil {
			return err
		}
		r.Path = path
		l.Paths = append(l.Paths, r)
		if real, err := filepath.EvalSymlinks(v.HostPath(path)); err == nil && v.Root == "" && real != path {
			r.Path = real
			l.Paths = append(l.Paths, r)
		}
	}
	return b.Misplaced(&v, &l)
}
