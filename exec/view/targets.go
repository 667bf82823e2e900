package view

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
)

// builtin is how many targets come before those of Mounts.
func (s *Spec) builtin() (n int) {
	for _, on := range []bool{s.Devices != nil, s.Sys, s.Proc != ProcHost, s.Tmp} {
		if on {
			n++
		}
	}
	return n
}

// targets lists what is mounted on. Sources that are directories need directories.
func (s *Spec) targets() (list []Mount) {
	for _, t := range []struct {
		on   bool
		path string
	}{{s.Devices != nil, "/dev"}, {s.Sys, "/sys"}, {s.Proc != ProcHost, "/proc"}, {s.Tmp, "/tmp"}} {
		if t.on {
			list = append(list, Mount{Target: t.path, Source: "/"})
		}
	}
	return append(list, s.Mounts...)
}

// need sees to it that a target will be there. What is beneath an earlier mount must be there already: a source is the
// host's, and not ours to change.
func (l *layout) need(root kernel.Root, m Mount, earlier []Mount) error {
	for _, e := range earlier {
		if rest, ok := strings.CutPrefix(m.Target, e.Target+"/"); ok {
			if _, err := os.Stat(filepath.Join(e.Source, rest)); err != nil {
				return fmt.Errorf("mount %s: it lies beneath the mount of %s, where it is missing: %w", m.Target, e.Source, err)
			}
			return nil
		}
	}
	st, err := os.Stat(m.Source)
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	if l.needOurs(m.Target, st.IsDir()) {
		return nil
	}
	fd, err := root.Open(m.Target, unix.O_PATH|unix.O_CLOEXEC)
	if err == nil {
		return sameKind(fd, m, st.IsDir())
	}
	if !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	// The nearest directory that is there is put together anew.
	dir, rest := filepath.Dir(m.Target), filepath.Base(m.Target)
	for {
		if fd, err = root.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC); err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) || dir == "/" {
			return fmt.Errorf("mount %s: %s: %w", m.Target, dir, err)
		}
		dir, rest = filepath.Dir(dir), filepath.Base(dir)+"/"+rest
	}
	defer unix.Close(fd)
	host, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	a, err := l.anewAt(viewPath(l.root, host), host)
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	parts := strings.Split(rest, "/")
	if slices.ContainsFunc(a.entries, func(e entry) bool { return e.name == parts[0] }) {
		return fmt.Errorf("mount %s: %s is a link to what is not there", m.Target, filepath.Join(dir, parts[0]))
	}
	for i := range parts {
		a.needs(made{strings.Join(parts[:i+1], "/"), i < len(parts)-1 || st.IsDir()})
	}
	return nil
}

// sameKind closes an open target, which must be a directory if what is mounted there is one: the kernel says no more than
// EINVAL.
func sameKind(fd int, m Mount, dir bool) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	_ = unix.Close(fd)
	switch isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; {
	case err != nil:
		return fmt.Errorf("mount %s: %w", m.Target, err)
	case dir && !isDir:
		return fmt.Errorf("mount %s: it is no directory, and %s is one", m.Target, m.Source)
	case !dir && isDir:
		return fmt.Errorf("mount %s: it is a directory, and %s is none", m.Target, m.Source)
	}
	return nil
}

// needOurs takes down what is to be made for a target in a file system that the view mounts empty, and reports whether it is
// in one.
func (l *layout) needOurs(target string, dir bool) bool {
	for _, at := range l.empty {
		rest, ok := strings.CutPrefix(target, at+"/")
		if !ok {
			continue
		}
		parts := strings.Split(rest, "/")
		for i := range parts {
			l.ours = addMade(l.ours, made{at + "/" + strings.Join(parts[:i+1], "/"), i < len(parts)-1 || dir})
		}
		return true
	}
	return false
}

// makeOurs makes it. What is there already, such as a device, stays.
func (l *layout) makeOurs() (calls []*stage.Call) {
	for _, m := range l.ours {
		made := stage.NewCall("make "+m.name, unix.SYS_MKNODAT, unix.AT_FDCWD, m.name, unix.S_IFREG|0o644, 0)
		if m.dir {
			made = stage.NewCall("make "+m.name, unix.SYS_MKDIRAT, unix.AT_FDCWD, m.name, 0o755)
		}
		made.Tolerate = stage.AnyError
		calls = append(calls, made)
	}
	return calls
}

func addMade(list []made, m made) []made {
	if slices.ContainsFunc(list, func(have made) bool { return have.name == m.name }) {
		return list
	}
	return append(list, m)
}
