// Package view makes what the command of a namespaced start sees: namespaces, and what is mounted in them.
//
// In: a [Spec], with every path bound. Out: a [View], whose root the executor resolves the command's paths in, whose
// namespaces the command joins, and which ends with the run. Nothing is mounted by this process: the keeper of the
// namespaces (package stage) makes system calls that this package prepares. Nothing is left on the host.
//
// Sources are opened before anything changes and attached after the root has (open_tree(2), move_mount(2)): sources are
// thus paths of the host, and targets paths of the command, with links followed in either as they are there.
//
// Read next: namespaces.go (ids, /proc, network), root.go (another root, and directories that mounts need), device.go,
// overlay.go and bind.go (a directory whose changes are kept apart), files.go (files with content of ours, and closed ones),
// cover.go (what the policy denies and protects).
package view

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/cover"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
)

// Spec says what the command is to see. Paths are absolute and clean; those of the host, Root and the sources of Mounts, lead
// through no links.
type Spec struct {
	IDs      *IDs   // what the user and group are inside; nil: the same
	User     bool   // make a user namespace; needed where this process may not mount, or for IDs
	Mount    bool   // a mount and a UTS namespace; all below needs it
	PID      bool   // a PID and an IPC namespace
	Net      bool   // a network namespace
	Hostname string // "" keeps it

	Root     string // directory of the host that becomes the root; "" keeps it
	Proc     Proc
	Tmp      bool
	TmpBytes uint64   // size of /tmp, 0 for the kernel's default
	Devices  []string // with an own /dev: devices of the host, beneath /dev, that are shown where they exist; nil without
	Sys      bool     // the host's /sys, read-only
	Mounts   []Mount
	Overlay  *Overlay // mounted before Mounts, or between
	Bind     *Bind    // likewise
	ReadOnly []string // directories that are made read-only if they exist
	Masks    []string // files and directories that are closed if they exist
}

// IDs are a user and a group.
type IDs struct{ UID, GID uint32 }

// Mount shows a file or directory of the host, with everything mounted beneath it.
type Mount struct {
	Target, Source string
	ReadOnly       bool
	Rule           string // for errors: what of the policy asks for it
}

// Proc is what /proc shows.
type Proc uint8

// Kinds of /proc.
const (
	ProcHost    Proc = iota // the host's
	ProcPrivate             // an own one
	ProcAuto                // an own one if the kernel lets us, else the host's
)

// View is made and not yet started in, or in use.
type View struct {
	Namespaces *stage.Namespaces
	Root       kernel.Root // of the command; this process's own without a mount namespace
	HostProc   error       // why /proc is the host's although an own one was wanted; nil if it is not

	spec    Spec
	joins   []*stage.Call // their results are the namespaces to join
	handles *stage.Call   // its result is the directory that they are opened in
	root    *stage.Call   // its result is the command's root
	scratch *stage.Call   // its result is the file system that holds files of ours
	files   []*File
	covers  *cover.Plan
	clones  []*stage.Call // their results are mounts of the overlay for other views
}

// Failure is a system call of the view's making that failed.
type Failure = stage.CallError

// Open makes the namespaces and mounts. The goroutine must be locked to its thread, see [stage.NewNamespaces].
func Open(spec Spec) (v *View, err error) {
	v = &View{spec: spec}
	layout, err := v.layout()
	if err != nil {
		return nil, err
	}
	if v.Namespaces, err = stage.NewNamespaces(spec.flags()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			v.Close()
			v = nil
		}
	}()
	calls := append(v.identity(), v.ends()...)
	if !spec.Mount {
		return v, v.Namespaces.Begin(calls)
	}
	if err = v.mount(calls, layout); err != nil {
		return v, err
	}
	return v, v.Namespaces.Begin(append(v.closeNodes(), v.network()...))
}

// mount makes the mounts, in the order that ir.View documents. calls come first.
func (v *View) mount(calls []*stage.Call, l *layout) error {
	calls = append(calls, stage.NewCall("keep mounts from spreading", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0))
	if name := v.spec.Hostname; name != "" {
		calls = append(calls, stage.NewCall("set the hostname", unix.SYS_SETHOSTNAME, []byte(name), len(name)))
	}
	var trees []*stage.Call
	proc := v.newProc()
	calls = append(calls, proc.calls...)
	for _, m := range v.spec.Mounts {
		open, more := openTree(m)
		trees = append(trees, open)
		calls = append(calls, more...)
	}
	devices, opened := v.openDevices()
	calls = append(calls, opened...)
	var made []*stage.Call
	defer func() { stage.CloseTrees(made) }()
	if o := v.spec.Overlay; o != nil && o.Bytes > 0 {
		var err error
		if made, err = v.placeLayers(calls); err != nil {
			return err
		}
		calls = nil
	}
	overlay, opened := v.openOverlay()
	calls = append(calls, opened...)
	bound, opened := v.openBind()
	calls = append(calls, opened...)
	calls = append(calls, l.open()...)
	made = append(made, calls...)
	if len(trees) > 0 || l.tree != nil || bound != nil {
		if err := v.do(calls); err != nil {
			return err
		}
		for i, m := range v.spec.Mounts {
			if err := isAt(trees[i], m.Source); err != nil {
				return err
			}
		}
		if l.tree != nil {
			if err := isAt(l.tree, l.root); err != nil {
				return err
			}
		}
		if bound != nil {
			if err := isAt(bound, v.spec.Bind.Source); err != nil {
				return err
			}
		}
		calls = nil
	}
	opening := len(calls)
	calls = append(calls, l.enter()...)
	calls = append(calls, devices.attach()...)
	calls = append(calls, proc.attach()...)
	if v.spec.Tmp {
		calls = append(calls, mountTmpfs("/tmp", "mode=1777"+sizeOption(v.spec.TmpBytes)))
	}
	if v.spec.Bind != nil {
		calls = append(calls, v.spec.Bind.attach(bound)...)
	}
	calls = append(calls, l.makeOurs()...)
	for i := range len(v.spec.Mounts) + 1 {
		if o := v.spec.Overlay; o != nil && o.Mounts == i {
			calls = append(calls, attach(overlay, o.Target))
		}
		if i == len(v.spec.Mounts) {
			break
		}
		m := v.spec.Mounts[i]
		call := attach(trees[i], m.Target)
		if m.Rule != "" {
			call.What = m.Rule + ": " + call.What
		}
		calls = append(calls, call)
	}
	calls = append(calls, l.leave()...)
	for _, dir := range v.spec.ReadOnly {
		calls = append(calls, readOnly(dir)...)
	}
	v.root = stage.NewCall("open the root", unix.SYS_OPENAT, unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	calls = append(calls, v.root)
	made = append(made[:len(made):len(made)], calls[opening:]...)
	if err := v.do(calls); err != nil {
		return err
	}
	v.Root = kernel.NewRoot(int(v.root.Result))
	if proc.mount != nil && proc.mount.Errno != 0 {
		v.HostProc = proc.mount.Errno
	}
	return v.cloneOverlay(overlay)
}

func (v *View) do(calls []*stage.Call) error { return v.Namespaces.Do(calls) }

// Release ends the keeper of namespaces that live on with the command.
func (v *View) Release() {
	if v.Namespaces != nil {
		v.Namespaces.Close()
	}
}

// Close ends the view. The command must have been waited for.
func (v *View) Close() {
	v.Release()
	for _, open := range append(append(v.joins, v.handles, v.root, v.scratch), v.clones...) {
		closeResult(open)
	}
	v.joins, v.handles, v.root, v.scratch, v.clones = nil, nil, nil, nil, nil
	for _, f := range v.files {
		closeResult(f.open)
	}
	v.files = nil
	if v.covers != nil {
		v.covers.Undo() // what the keeper has not removed
	}
}

// closeResult closes the descriptor that a call has opened, if it was made.
func closeResult(c *stage.Call) {
	if c != nil && c.Made && c.Errno == 0 {
		_ = unix.Close(int(c.Result))
	}
}

// openTree opens a source as a mount of its own, not attached anywhere.
func openTree(m Mount) (tree *stage.Call, calls []*stage.Call) {
	tree = stage.NewCall("open "+m.Source+" to be mounted", unix.SYS_OPEN_TREE, unix.AT_FDCWD, m.Source,
		unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	calls = []*stage.Call{tree}
	if m.ReadOnly {
		calls = append(calls, setAttributes(tree, m.Source, unix.MOUNT_ATTR_RDONLY, unix.AT_RECURSIVE))
	}
	return tree, calls
}

// isAt checks that a tree is of the source, whose path has no links: a command of another sandbox that runs now may have put
// one on the way after the path was looked at.
func isAt(tree *stage.Call, source string) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, source, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return fmt.Errorf("mount %s: %w", source, err)
	}
	defer unix.Close(fd)
	var opened, there unix.Stat_t
	if err = unix.Fstat(int(tree.Result), &opened); err == nil {
		err = unix.Fstat(fd, &there)
	}
	if err == nil && (opened.Dev != there.Dev || opened.Ino != there.Ino) {
		err = unix.ESTALE
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", source, err)
	}
	return nil
}

func setAttributes(tree *stage.Call, what string, set uint64, flags int) *stage.Call {
	attr := mountAttr(set)
	return stage.NewCall("make "+what+" read-only", unix.SYS_MOUNT_SETATTR, tree, "", unix.AT_EMPTY_PATH|flags, attr, len(attr))
}

// mountAttr is struct mount_attr (linux/mount.h) of attributes to set.
func mountAttr(set uint64) []byte {
	attr := make([]byte, unix.MOUNT_ATTR_SIZE_VER0)
	binary.NativeEndian.PutUint64(attr, set)
	return attr
}

// attach mounts an open tree, a descriptor or the call that opens it.
func attach(tree any, target string) *stage.Call {
	return stage.NewCall("mount on "+target, unix.SYS_MOVE_MOUNT, tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
}

func mountTmpfs(target, options string) *stage.Call {
	return stage.NewCall("mount a tmpfs on "+target, unix.SYS_MOUNT, "tmpfs", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
}

func sizeOption(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(",size=%d", n)
}

// readOnly mounts a directory over itself, read-only.
func readOnly(dir string) []*stage.Call {
	tree, calls := openTree(Mount{Source: dir, ReadOnly: true})
	tree.MayMiss().SkipOnFailure = 2
	return append(calls, attach(tree, dir))
}

func (s *Spec) flags() (flags uintptr) {
	for _, f := range []struct {
		on   bool
		flag uintptr
	}{
		{s.User, unix.CLONE_NEWUSER}, {s.Mount, unix.CLONE_NEWNS | unix.CLONE_NEWUTS}, {s.PID, unix.CLONE_NEWPID | unix.CLONE_NEWIPC}, {s.Net, unix.CLONE_NEWNET},
	} {
		if f.on {
			flags |= f.flag
		}
	}
	return flags
}

// OnHost returns the host's path of what the command sees at a path with links resolved: the source of the mount that it is
// in, or the root's. What only the view has has none.
func (v *View) OnHost(path string) (host string, ok bool) {
	best, source := "", v.spec.Root
	for _, m := range v.spec.Mounts {
		if (path == m.Target || strings.HasPrefix(path, m.Target+"/")) && len(m.Target) > len(best) {
			best, source = m.Target, m.Source
		}
	}
	if v.spec.Tmp && best == "" && (path == "/tmp" || strings.HasPrefix(path, "/tmp/")) {
		return "", false
	}
	if source == "" {
		return path, true
	}
	return filepath.Join(source, strings.TrimPrefix(path, best)), true
}

// Shown returns the paths by which the command sees a file of the host: it inverts OnHost.
func (v *View) Shown(host string) (paths []string) {
	add := func(target, source string) {
		rest, ok := strings.CutPrefix(host, source)
		if !ok || rest != "" && rest[0] != '/' {
			return
		}
		path := filepath.Join("/", target, rest)
		if at, ok := v.OnHost(path); ok && at == host {
			paths = append(paths, path)
		}
	}
	add("", v.spec.Root)
	for _, m := range v.spec.Mounts {
		add(m.Target, m.Source)
	}
	return paths
}
