package view

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/stage"
)

// devices is a /dev in the making: a tmpfs with some of the host's device nodes, which are mounted into it since a user
// namespace cannot make any (mknod(2)), terminals of its own (devpts) and shared memory of its own.
type devices struct {
	names []string
	trees []*stage.Call
	sys   *stage.Call
}

// attachOrRemove mounts an open tree on a node that was made for it, and removes the node where there is no such tree.
func attachOrRemove(tree *stage.Call, dir any, name string, isDir bool) []*stage.Call {
	mount := stage.NewCall("mount on "+name, unix.SYS_MOVE_MOUNT, tree, "", dir, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	mount.Tolerate, mount.SkipOnSuccess = stage.BadDescriptor, 1
	flags := 0
	if isDir {
		flags = unix.AT_REMOVEDIR
	}
	return []*stage.Call{mount, stage.NewCall("remove "+name, unix.SYS_UNLINKAT, dir, name, flags)}
}

// openDevices opens what other roots take along of the host's.
func (v *View) openDevices() (d devices, calls []*stage.Call) {
	for _, name := range v.spec.Devices {
		tree, open := openTree(Mount{Source: "/dev/" + name})
		tree.MayMiss()
		d.names, d.trees = append(d.names, name), append(d.trees, tree)
		calls = append(calls, open...)
	}
	if v.spec.Sys {
		tree, open := openTree(Mount{Source: "/sys", ReadOnly: true})
		d.sys = tree
		calls = append(calls, open...)
	}
	return d, calls
}

// attach mounts them once the root is the command's. Devices that the host does not have are left out.
func (d *devices) attach() (calls []*stage.Call) {
	if d.sys != nil {
		calls = append(calls, attach(d.sys, "/sys"))
	}
	if len(d.names) == 0 {
		return calls
	}
	add := func(what string, nr uintptr, args ...any) {
		calls = append(calls, stage.NewCall(what, nr, args...))
	}
	calls = append(calls, stage.NewCall("mount a tmpfs on /dev", unix.SYS_MOUNT, "tmpfs", "/dev", "tmpfs", unix.MS_NOSUID, "mode=755,size=64m"))
	for i, name := range d.names {
		target := "/dev/" + name
		if dir := path.Dir(target); dir != "/dev" {
			made := stage.NewCall("make "+dir, unix.SYS_MKDIRAT, unix.AT_FDCWD, dir, 0o755)
			made.Tolerate = stage.AnyError
			calls = append(calls, made)
		}
		made := stage.NewCall("make "+target, unix.SYS_MKNODAT, unix.AT_FDCWD, target, unix.S_IFREG|0o666, 0)
		if name == "dri" { // the one that is a directory
			made = stage.NewCall("make "+target, unix.SYS_MKDIRAT, unix.AT_FDCWD, target, 0o755)
		}
		calls = append(calls, made)
		calls = append(calls, attachOrRemove(d.trees[i], unix.AT_FDCWD, target, name == "dri")...)
	}
	for _, link := range [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}} {
		add("link /dev/"+link[1], unix.SYS_SYMLINKAT, link[0], unix.AT_FDCWD, "/dev/"+link[1])
	}
	add("make /dev/pts", unix.SYS_MKDIRAT, unix.AT_FDCWD, "/dev/pts", 0o755)
	add("mount a devpts", unix.SYS_MOUNT, "devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
	add("make /dev/shm", unix.SYS_MKDIRAT, unix.AT_FDCWD, "/dev/shm", 0o1777)
	add("open up /dev/shm", unix.SYS_FCHMODAT, unix.AT_FDCWD, "/dev/shm", 0o1777)
	return calls
}
