package view

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
)

// layout is the part of the file system that is not the host's as it is: another root, and directories that are put
// together anew because something is to be mounted where they have no entry for it. The host's directory is not touched:
// a tmpfs takes its place, with all that it holds mounted into it.
type layout struct {
	root  string // directory of the host that becomes the root; "/" keeps it
	pivot bool
	tree  *stage.Call
	anew  []*anew // parents first
}

// anew is a directory that is put together anew.
type anew struct {
	path    string // in the command's view, links resolved
	host    string // the same directory on the host
	entries []entry
	make    []made // what it lacks, parents first
	fs      *stage.Call
}

type entry struct {
	name, link string // link: what a symbolic link says
	dir        bool
	tree       *stage.Call
}

type made struct {
	name string // relative to the directory
	dir  bool
}

// maxEntries bounds the directories that are put together anew: each entry is a mount and, for a while, a descriptor.
const maxEntries = 512

// layout finds out which of the targets are not there.
func (v *View) layout() (*layout, error) {
	l := &layout{root: "/"}
	root := kernel.Root{}
	if v.spec.Root != "" {
		l.root, l.pivot = v.spec.Root, true
		fd, err := unix.Open(l.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "root", Path: l.root, Err: err}
		}
		defer unix.Close(fd)
		root = kernel.NewRoot(fd)
	}
	if !v.spec.Mount {
		return l, nil
	}
	var problems []error
	for i, m := range v.spec.targets() {
		var earlier []Mount
		if i >= v.spec.builtin() {
			earlier = v.spec.Mounts[:i-v.spec.builtin()]
		}
		if err := l.need(root, m, earlier); err != nil {
			problems = append(problems, err)
		}
	}
	return l, errors.Join(problems...)
}

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
	fd, err := root.Open(m.Target, unix.O_PATH|unix.O_CLOEXEC)
	if err == nil {
		return unix.Close(fd)
	}
	if !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	st, err := os.Stat(m.Source)
	if err != nil {
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
	for i := range parts {
		a.needs(made{strings.Join(parts[:i+1], "/"), i < len(parts)-1 || st.IsDir()})
	}
	return nil
}

// viewPath is a path of the host as seen beneath a root.
func viewPath(root, host string) string {
	if root == "/" {
		return host
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(host, root), "/")
}

func (a *anew) needs(m made) {
	for _, have := range a.make {
		if have.name == m.name {
			return
		}
	}
	a.make = append(a.make, m)
}

func (l *layout) anewAt(path, host string) (*anew, error) {
	for _, a := range l.anew {
		if a.path == path {
			return a, nil
		}
		if strings.HasPrefix(a.path+"/", path+"/") && path != "/" || strings.HasPrefix(path+"/", a.path+"/") && a.path != "/" {
			return nil, fmt.Errorf("the directories %s and %s lack what is to be mounted in them, and one holds the other: create the targets", a.path, path)
		}
	}
	list, err := os.ReadDir(host)
	if err != nil {
		return nil, err
	}
	if len(list) > maxEntries {
		return nil, fmt.Errorf("%s has no such entry, and with %d others it is too large to be shown with one more: create the target", host, len(list))
	}
	a := &anew{path: path, host: host}
	for _, e := range list {
		switch {
		case e.Type()&os.ModeSymlink != 0:
			link, err := os.Readlink(filepath.Join(host, e.Name()))
			if err != nil {
				return nil, err
			}
			a.entries = append(a.entries, entry{name: e.Name(), link: link})
		default:
			a.entries = append(a.entries, entry{name: e.Name(), dir: e.IsDir()})
		}
	}
	l.anew = append(l.anew, a)
	if path == "/" {
		l.pivot = true
	}
	return a, nil
}

// open opens what the root will be, and what the directories hold.
func (l *layout) open() (calls []*stage.Call) {
	if l.pivot {
		if a := l.rootAnew(); a == nil {
			tree, open := openTree(Mount{Source: l.root})
			l.tree = tree
			calls = append(calls, open...)
		}
	}
	for _, a := range l.anew {
		for i := range a.entries {
			e := &a.entries[i]
			if e.link != "" {
				continue
			}
			tree, open := openTree(Mount{Source: filepath.Join(a.host, e.name)})
			tree.MayMiss()                           // gone meanwhile
			tree.Args[2] |= unix.AT_SYMLINK_NOFOLLOW // it was none
			e.tree = tree
			calls = append(calls, open...)
		}
	}
	return calls
}

func (l *layout) rootAnew() *anew {
	for _, a := range l.anew {
		if a.path == "/" {
			return a
		}
	}
	return nil
}

// enter makes the root the command's (pivot_root(2)) and puts directories together.
func (l *layout) enter() (calls []*stage.Call) {
	add := func(what string, nr uintptr, args ...any) { calls = append(calls, stage.NewCall(what, nr, args...)) }
	if l.pivot {
		what := "another root, " + l.root
		if a := l.rootAnew(); a != nil {
			calls = append(calls, a.assemble()...)
			l.tree = a.fs
		}
		add(what, unix.SYS_MOVE_MOUNT, l.tree, "", unix.AT_FDCWD, l.root, unix.MOVE_MOUNT_F_EMPTY_PATH)
		add(what, unix.SYS_FCHDIR, l.tree)
		add("pivot_root to "+l.root, unix.SYS_PIVOT_ROOT, ".", ".") // the old one on top of the new one
		add("unmount the old root", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
		add("chdir to the new root", unix.SYS_CHDIR, "/")
		if a := l.rootAnew(); a != nil {
			calls = append(calls, a.fill()...)
		}
	}
	for _, a := range l.anew {
		if a.path == "/" {
			continue
		}
		calls = append(calls, a.assemble()...)
		calls = append(calls, attach(a.fs, a.path))
		calls = append(calls, a.fill()...)
	}
	return calls
}

// leave makes the directories read-only, once all is mounted in them: what the command would create there would be lost.
func (l *layout) leave() (calls []*stage.Call) {
	for _, a := range l.anew {
		calls = append(calls, setAttributes(a.fs, a.path, unix.MOUNT_ATTR_RDONLY, 0))
	}
	return calls
}

// assemble makes the file system that takes the directory's place.
func (a *anew) assemble() []*stage.Call {
	fs := stage.NewCall("make a tmpfs for "+a.path, unix.SYS_FSOPEN, "tmpfs", unix.FSOPEN_CLOEXEC)
	a.fs = stage.NewCall("mount a tmpfs for "+a.path, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	return []*stage.Call{
		fs,
		stage.NewCall("configure a tmpfs for "+a.path, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, "mode", "0755", 0),
		stage.NewCall("configure a tmpfs for "+a.path, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, "size", "4m", 0),
		stage.NewCall("create a tmpfs for "+a.path, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0),
		a.fs,
		stage.NewCall("close", unix.SYS_CLOSE, fs),
	}
}

// fill gives it the directory's entries, and what it lacked. It must be attached by then.
func (a *anew) fill() (calls []*stage.Call) {
	node := func(name string, dir bool) *stage.Call {
		if dir {
			return stage.NewCall("make "+a.path+"/"+name, unix.SYS_MKDIRAT, a.fs, name, 0o755)
		}
		return stage.NewCall("make "+a.path+"/"+name, unix.SYS_MKNODAT, a.fs, name, unix.S_IFREG|0o644, 0)
	}
	for _, e := range a.entries {
		if e.link != "" {
			calls = append(calls, stage.NewCall("link "+a.path+"/"+e.name, unix.SYS_SYMLINKAT, e.link, a.fs, e.name))
			continue
		}
		if e.tree.Errno != 0 {
			continue
		}
		calls = append(calls, node(e.name, e.dir),
			stage.NewCall("mount "+a.host+"/"+e.name, unix.SYS_MOVE_MOUNT, e.tree, "", a.fs, e.name, unix.MOVE_MOUNT_F_EMPTY_PATH),
			stage.NewCall("close", unix.SYS_CLOSE, e.tree))
	}
	for _, m := range a.make {
		calls = append(calls, node(m.name, m.dir))
	}
	return calls
}
