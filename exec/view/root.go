package view

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	anew  []*anew  // parents first
	empty []string // where the view mounts something empty
	ours  []made   // with absolute names: what is made in file systems that the view mounts empty, parents first
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
	if v.spec.Tmp {
		l.empty = append(l.empty, "/tmp")
	}
	if v.spec.Devices != nil {
		l.empty = append(l.empty, "/dev")
	}
	var problems []error
	for i, m := range v.spec.targets() {
		var earlier []Mount
		if i >= v.spec.builtin() {
			earlier = v.spec.Mounts[:i-v.spec.builtin()]
		}
		if err := l.need(root, m, earlier); err != nil {
			if m.Rule != "" {
				err = fmt.Errorf("%s: %w", m.Rule, err)
			}
			problems = append(problems, err)
		}
	}
	return l, errors.Join(problems...)
}

// viewPath is a path of the host as seen beneath a root.
func viewPath(root, host string) string {
	if root == "/" {
		return host
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(host, root), "/")
}

func (a *anew) needs(m made) {
	a.make = addMade(a.make, m)
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
		calls = append(calls, node(e.name, e.dir))
		calls = append(calls, attachOrRemove(e.tree, a.fs, e.name, e.dir)...)
		done := stage.NewCall("close", unix.SYS_CLOSE, e.tree)
		done.Tolerate = stage.BadDescriptor
		calls = append(calls, done)
	}
	for _, m := range a.make {
		calls = append(calls, node(m.name, m.dir))
	}
	return calls
}
