package view

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/stage"
)

// Overlay is a directory whose changes are kept apart (Documentation/filesystems/overlayfs.rst). Lower, Upper and Work are
// directories of the host.
type Overlay struct {
	Target             string
	Mounts             int // how many of the view's come before it: the last of these is what it lies on
	Lower, Upper, Work string
	Options            []string // others, as in mount(8): "name" or "name=value"

	// Bytes bounds what the changes take: Upper and Work are then names in a tmpfs of that size, which Place is given, as a
	// descriptor of its empty root, to make them there. 0: they are directories of the host.
	Bytes uint64
	Place func(root int) error

	// Clones is how many more views are to show this very mount at the same time: each is given one of [View.Clones]. Two mounts
	// of the same upper and work are none that overlayfs knows how to keep apart.
	Clones int
	// Tree is such a clone, to be attached in the place of a mount of Lower, Upper and Work; 0 for none. It stays the caller's, and
	// the mount is there as long as it is open.
	Tree int
}

// bytesPerName is what a name takes in a file system in memory, beside its contents: the kernel's memory for an inode. tmpfs
// counts contents by pages and names apart, so that it needs a bound for either.
const bytesPerName = 1 << 10

// fewNames is how many names the smallest one takes: what overlayfs makes for itself, and some.
const fewNames = 64

// placeLayers makes the tmpfs for the changes and has them placed. It covers the root, from where nobody sees it, and the
// keeper works in it, until the overlay is mounted: nothing is left of it then but the overlay, and what Place has opened.
func (v *View) placeLayers(before []*stage.Call) (calls []*stage.Call, err error) {
	o := v.spec.Overlay
	tmpfs, calls := newTmpfs("a tmpfs for changes", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV,
		"size", strconv.FormatUint(o.Bytes, 10), "nr_inodes", strconv.FormatUint(o.Bytes/bytesPerName+fewNames, 10))
	calls = append(before, calls...)
	calls = append(calls,
		stage.NewCall("mount a tmpfs for changes", unix.SYS_MOVE_MOUNT, tmpfs, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH),
		stage.NewCall("enter it", unix.SYS_FCHDIR, tmpfs))
	if err = v.do(calls); err == nil {
		err = o.Place(int(tmpfs.Result))
	}
	return calls, err
}

// leaveLayers is after the overlay is mounted.
func leaveLayers() []*stage.Call {
	return []*stage.Call{
		stage.NewCall("unmount the tmpfs for changes", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH),
		stage.NewCall("chdir to the root", unix.SYS_CHDIR, "/"),
	}
}

// newTmpfs makes a tmpfs, not attached yet, with mode 0700 and these options, names and values in turn.
func newTmpfs(what string, attributes uintptr, options ...string) (mount *stage.Call, calls []*stage.Call) {
	fs := stage.NewCall("make "+what, unix.SYS_FSOPEN, "tmpfs", unix.FSOPEN_CLOEXEC)
	calls = []*stage.Call{fs}
	options = append(options, "mode", "0700")
	for i := 0; i < len(options); i += 2 {
		calls = append(calls, stage.NewCall("configure "+what, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, options[i], options[i+1], 0))
	}
	mount = stage.NewCall("mount "+what, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, attributes)
	return mount, append(calls, stage.NewCall("create "+what, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0),
		mount, stage.NewCall("close", unix.SYS_CLOSE, fs))
}

// openOverlay mounts the overlay, not attached yet: its layers are named as the host has them. Each name is a parameter of its
// own (lowerdir+ since Linux 6.7), so none of its bytes means anything. The mount is a descriptor, or the call that opens it.
func (v *View) openOverlay() (mount any, calls []*stage.Call) {
	o := v.spec.Overlay
	if o == nil {
		return nil, nil
	}
	if o.Tree > 0 {
		return o.Tree, nil
	}
	what := "an overlay for " + o.Target
	fs := stage.NewCall("make "+what, unix.SYS_FSOPEN, "overlay", unix.FSOPEN_CLOEXEC)
	calls = []*stage.Call{fs}
	set := func(name, value string) {
		calls = append(calls, stage.NewCall("configure "+what+": "+name+" "+value, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, name, value, 0))
	}
	set("lowerdir+", o.Lower)
	set("upperdir", o.Upper)
	set("workdir", o.Work)
	for _, option := range o.Options {
		if name, value, ok := strings.Cut(option, "="); ok {
			set(name, value)
		} else {
			calls = append(calls, stage.NewCall("configure "+what+": "+name, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_FLAG, name, 0, 0))
		}
	}
	made := stage.NewCall("mount "+what, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|narrowed(o.Lower))
	calls = append(calls,
		stage.NewCall("create "+what, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0),
		made, stage.NewCall("close", unix.SYS_CLOSE, fs))
	if o.Bytes > 0 {
		calls = append(calls, leaveLayers()...)
	}
	return made, calls
}

// narrowed are the attributes of the mount that a directory is on which the overlay would do away with.
func narrowed(dir string) (attributes uintptr) {
	const noExec, noSymFollow = 0x8, 0x2000 // ST_NOEXEC, ST_NOSYMFOLLOW (linux/statfs.h)
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return 0 // it cannot be mounted either
	}
	if fs.Flags&noExec != 0 {
		attributes |= unix.MOUNT_ATTR_NOEXEC
	}
	if fs.Flags&noSymFollow != 0 {
		attributes |= unix.MOUNT_ATTR_NOSYMFOLLOW
	}
	return attributes
}

// cloneOverlay opens the attached overlay once more for each view that is to show it, too.
func (v *View) cloneOverlay(mount any) error {
	o := v.spec.Overlay
	if o == nil || o.Clones == 0 {
		return nil
	}
	for range o.Clones {
		v.clones = append(v.clones, stage.NewCall("open the overlay for "+o.Target+" once more", unix.SYS_OPEN_TREE, mount, "",
			unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
	}
	return v.do(v.clones)
}

// Clones are mounts of the overlay for other views, see [Overlay]. They are the caller's from now on.
func (v *View) Clones() (trees []int) {
	for _, c := range v.clones {
		trees = append(trees, int(c.Result))
	}
	v.clones = nil
	return trees
}
