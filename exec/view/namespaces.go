package view

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/stage"
)

// identity maps the ids (user_namespaces(7)). Ids are mapped from within: that needs no
// privileges as long as it is one id each, the executor's own, and setgroups is given up.
func (v *View) identity() (calls []*stage.Call) {
	if v.spec.User {
		uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
		inside := IDs{uid, gid}
		if v.spec.IDs != nil {
			inside = *v.spec.IDs
		}
		calls = append(calls, write("/proc/self/setgroups", "deny")...)
		calls = append(calls, write("/proc/self/uid_map", fmt.Sprintf("%d %d 1", inside.UID, uid))...)
		calls = append(calls, write("/proc/self/gid_map", fmt.Sprintf("%d %d 1", inside.GID, gid))...)
	}
	return calls
}

// network makes the network namespace, with its loopback device started. It takes longer than all the rest, and nothing of
// the rest needs it.
func (v *View) network() (calls []*stage.Call) {
	if !v.spec.Net {
		return nil
	}
	// SIOCSIFFLAGS (netdevice(7)) with struct ifreq: 16 bytes of name, then the flags.
	request := make([]byte, 40)
	copy(request, "lo")
	binary.NativeEndian.PutUint16(request[unix.IFNAMSIZ:], unix.IFF_UP)
	socket := stage.NewCall("socket for the loopback device", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	calls = append(calls, stage.NewCall("make a network namespace", unix.SYS_UNSHARE, unix.CLONE_NEWNET), socket,
		stage.NewCall("start the loopback device", unix.SYS_IOCTL, socket, unix.SIOCSIFFLAGS, request),
		stage.NewCall("close", unix.SYS_CLOSE, socket))
	return append(calls, v.end("net"))
}

// ends opens the namespaces, for the command to join. The user namespace comes first: it is what gives the right to join
// the others (setns(2)).
func (v *View) ends() (calls []*stage.Call) {
	v.handles = stage.NewCall("open /proc/self/ns", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/ns", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	calls = append(calls, v.handles)
	for _, n := range []struct {
		on   bool
		name string
	}{
		{v.spec.User, "user"}, {v.spec.Mount, "mnt"}, {v.spec.Mount, "uts"}, {v.spec.PID, "ipc"}, {v.spec.PID, "pid"},
	} {
		if n.on {
			calls = append(calls, v.end(n.name))
		}
	}
	return calls
}

func (v *View) end(name string) *stage.Call {
	c := stage.NewCall("open /proc/self/ns/"+name, unix.SYS_OPENAT, v.handles, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	v.joins = append(v.joins, c)
	return c
}

func write(path, text string) []*stage.Call {
	open := stage.NewCall("open "+path, unix.SYS_OPENAT, unix.AT_FDCWD, path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	return []*stage.Call{open, stage.NewCall("write "+path, unix.SYS_WRITE, open, []byte(text), len(text)), stage.NewCall("close "+path, unix.SYS_CLOSE, open)}
}

// MountProc is what fails where the kernel refuses an own /proc.
const MountProc = "mount a procfs"

// proc is a procfs in the making.
type proc struct {
	calls []*stage.Call
	mount *stage.Call // its result is the mount, not attached
	host  *stage.Call // its result is the host's, taken along to another root; nil if it is not
}

// newProc mounts a procfs of the PID namespace, not attached yet: whether the kernel allows that must be known as long as the
// host's is there. With hidepid=ptraceable (proc(5)) it shows no process that the reader may not trace: none that is not in
// its Landlock domain, such as the keeper.
func (v *View) newProc() (p proc) {
	if v.spec.Proc == ProcHost {
		return p
	}
	fs := stage.NewCall("make a procfs", unix.SYS_FSOPEN, "proc", unix.FSOPEN_CLOEXEC)
	p.mount = stage.NewCall(MountProc, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	p.calls = []*stage.Call{
		fs,
		stage.NewCall("configure a procfs", unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, "hidepid", "ptraceable", 0),
		stage.NewCall("create a procfs", unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0),
		p.mount,
		stage.NewCall("close", unix.SYS_CLOSE, fs),
	}
	if v.spec.Proc == ProcAuto {
		p.mount.Tolerate = stage.AnyError
		if v.spec.Root != "" {
			p.host = stage.NewCall("open /proc to be mounted", unix.SYS_OPEN_TREE, unix.AT_FDCWD, "/proc", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
			p.calls = append(p.calls, p.host)
		}
	}
	return p
}

// attach mounts it, or else the host's where it is not there already.
func (p *proc) attach() (calls []*stage.Call) {
	if p.mount == nil {
		return nil
	}
	own := attach(p.mount, "/proc")
	calls = append(calls, own)
	if p.mount.Tolerate != 0 {
		own.Tolerate = stage.BadDescriptor
	}
	if p.host != nil {
		own.SkipOnSuccess = 1
		calls = append(calls, attach(p.host, "/proc"))
	}
	return calls
}
