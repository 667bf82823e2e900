package view

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/cover"
	"github.com/sandlock-go/sandlock/exec/stage"
)

// closingCapabilities are what the keeper needs to take placeholders away: it unmounts, and removes from directories that as
// root it may not be the owner of. What it ends before may run as other users.
const closingCapabilities = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_KILL

// Cover has a plan carried out when the view is sealed. The view undoes it at its end.
func (v *View) Cover(p *cover.Plan) { v.covers = p }

// closes reports whether the plan closes a file, links resolved: shown later, it would be open again.
func (v *View) closes(path string) bool {
	return v.covers != nil && slices.ContainsFunc(v.covers.Covers, func(c cover.Cover) bool {
		return c.Kind == cover.Closed && (path == c.Path || c.Dir && strings.HasPrefix(path, c.Path+"/"))
	})
}

// cover makes the mounts of the plan.
func (v *View) cover() (calls []*stage.Call) {
	for _, c := range v.covers.Covers {
		what := c.Rule + ": " + c.Path
		bind := stage.NewCall(what, unix.SYS_MOUNT, c.Path, c.Path, 0, unix.MS_BIND|unix.MS_REC, 0)
		switch {
		case c.Link:
			tree := stage.NewCall(what, unix.SYS_OPEN_TREE, unix.AT_FDCWD, c.Path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
			calls = append(calls, tree, stage.NewCall(what, unix.SYS_MOVE_MOUNT, tree, "", unix.AT_FDCWD, c.Path, unix.MOVE_MOUNT_F_EMPTY_PATH),
				stage.NewCall("close", unix.SYS_CLOSE, tree))
		case c.Kind == cover.Closed:
			closed := closeNode(c.Path, c.Dir)
			closed.What = what
			calls = append(calls, closed)
		case c.Kind == cover.Pinned:
			calls = append(calls, bind)
		case c.Kind == cover.ReadOnly:
			attr := mountAttr(unix.MOUNT_ATTR_RDONLY)
			calls = append(calls, bind, stage.NewCall(what, unix.SYS_MOUNT_SETATTR, unix.AT_FDCWD, c.Path, unix.AT_RECURSIVE, attr, len(attr)))
		}
	}
	return calls
}

// uncover takes the placeholders away. A group of calls ends with the first that fails.
func (v *View) uncover() (calls []*stage.Call) {
	for _, group := range v.covers.Removal() {
		for i, c := range group {
			args := make([]any, len(c.Args))
			for j, a := range c.Args {
				args[j] = a
			}
			if len(c.Text) > 0 {
				args[c.TextArg] = c.Text
			}
			call := stage.NewCall("remove a placeholder", c.NR, args...)
			call.Zero, call.Tolerate, call.SkipOnFailure = true, stage.AnyError, uint32(len(group)-i-1)
			calls = append(calls, call)
		}
	}
	return calls
}
