package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/view"
	"github.com/sandlock-go/sandlock/ir"
)

// workdir returns the working directory of the branch as the command names it, and as the host does, both with links resolved,
// and how many of the view's mounts come before the branch: those up to the one that it lies on.
func (s *sandbox) workdir(spec *view.Spec) (target, host string, mounts int, err error) {
	path, err := ir.ExpandPath(s.program.Branch.Workdir, s.bound.lookup)
	if err != nil {
		return "", "", 0, err
	}
	for i, m := range spec.Mounts {
		if beneath(path, m.Target) {
			mounts = i + 1
		}
	}
	if mounts > 0 {
		on := spec.Mounts[mounts-1]
		host, err := filepath.EvalSymlinks(on.Source + strings.TrimPrefix(path, on.Target))
		if err != nil {
			return "", "", 0, err
		}
		if !beneath(host, on.Source) {
			return "", "", 0, fmt.Errorf("%s is a link that leads out of the mount at %s, to %s", path, on.Target, host)
		}
		return on.Target + strings.TrimPrefix(host, on.Source), host, mounts, nil
	}
	root := spec.Root
	within := kernel.Root{}
	if root != "" {
		fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", "", 0, &os.PathError{Op: "open", Path: root, Err: err}
		}
		defer unix.Close(fd)
		within = kernel.NewRoot(fd)
	}
	real, err := within.Real(path) // it is not mounted yet, but the links in it are the root's
	if err != nil {
		return "", "", 0, err
	}
	return real, filepath.Join(root, real), 0, nil
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
