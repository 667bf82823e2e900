package view

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/stage"
)

// Bind shows a directory of the host in the place of one on a file system that the command sees nothing else of, whatever is
// granted. Mount and Target are the command's paths, Source is the host's; none leads through links.
//
// It goes onto the top of what is mounted at Mount, never onto a directory in it: the kernel takes away what is mounted on a
// name that a file system in user space has forgotten (fs/dcache.c, d_invalidate), and what was there would be seen again.
// Where Target lies beneath, an empty file system goes there, with nothing in it but the directories that lead to Target.
type Bind struct {
	Mount, Target, Source string
	Hidden                []string // files of Source, which must be there: an empty file is seen in the place of each
}

// openBind opens the source.
func (v *View) openBind() (tree *stage.Call, calls []*stage.Call) {
	b := v.spec.Bind
	if b == nil {
		return nil, nil
	}
	tree, calls = openTree(Mount{Source: b.Source})
	attr := mountAttr(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	set := stage.NewCall("restrict "+b.Source, unix.SYS_MOUNT_SETATTR, tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr, len(attr))
	return tree, append(calls, set)
}

// attach mounts it.
func (b *Bind) attach(tree *stage.Call) []*stage.Call {
	if b.Target == b.Mount {
		return []*stage.Call{attach(tree, b.Target)}
	}
	empty := &anew{path: b.Mount}
	parts := strings.Split(strings.TrimPrefix(b.Target, b.Mount+"/"), "/")
	for i := range parts {
		empty.needs(made{strings.Join(parts[:i+1], "/"), true})
	}
	calls := append(empty.assemble(), attach(empty.fs, empty.path))
	calls = append(calls, empty.fill()...)
	return append(calls, attach(tree, b.Target), setAttributes(empty.fs, empty.path, unix.MOUNT_ATTR_RDONLY, 0))
}

// hide covers the hidden files. They can be read, so that programs that read whole directories do not fail of them.
func (b *Bind) hide() (calls []*stage.Call) {
	if b == nil || len(b.Hidden) == 0 {
		return nil
	}
	calls = append(calls,
		stage.NewCall("make an empty file", unix.SYS_MKNODAT, unix.AT_FDCWD, emptyFile, unix.S_IFREG|0o444, 0),
		stage.NewCall("mount an empty file", unix.SYS_MOUNT, emptyFile, emptyFile, 0, unix.MS_BIND, 0), remountReadOnly(emptyFile))
	for _, name := range b.Hidden {
		at := path.Join(b.Target, name)
		calls = append(calls, stage.NewCall("hide "+at, unix.SYS_MOUNT, emptyFile, at, 0, unix.MS_BIND, 0))
	}
	return calls
}
