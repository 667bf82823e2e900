// Package branchfs is a stand-in for BranchFS (github.com/multikernel/branchfs), for tests: a file system in user space that
// shows a directory, keeps branches of it, and takes what the real one takes by its control files.
//
// It is served by the test's own process. A branch is a whole copy, made at once: test trees are small. Like the real one it
// has every name looked up anew, shows a branch as "@NAME" at the top and in the directory of its parent, lets none but the
// mounting user in, refuses to settle a branch that has branches, and also takes "commit" and "abort" as text. Of two branches
// of one parent the second to be committed is refused (ESTALE).
//
// Real programs run in it: all else is go-fuse's loopback file system.
package branchfs

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	control = ".branchfs_ctl"

	requestCreate = 0x80806200
	requestCommit = 0x6201
	requestAbort  = 0x6202
)

// Options are how a file system is mounted and behaves.
type Options struct {
	Dir      string // to mount on
	Base     string // that is shown
	Storage  string // for branches; on the file system of Base
	UID, GID int    // who it is for; only root may mount for others

	NoControl bool                // it is no BranchFS
	Answer    func(string) string // what is answered to who makes a branch, for its name; nil: that, and a NUL
}

// FS is a mounted file system.
type FS struct {
	o      Options
	server *fuse.Server

	mu       sync.Mutex
	top      *branch // stands for the base
	branches map[string]*branch
	made     uint64
}

// branch is a directory that is shown. The fields are guarded by FS.mu.
type branch struct {
	name    string
	number  uint64
	parent  *branch
	dir     string
	node    *root
	commits int // to this one
	saw     int // of the parent's, when it was made
}

// Mount mounts a file system.
func Mount(o Options) (*FS, error) {
	f := &FS{o: o, branches: map[string]*branch{}}
	f.top = f.add("", nil, o.Base)
	options := fuse.MountOptions{FsName: "branchfs", Name: "branchfs", Options: []string{"default_permissions"}}
	on := o.Dir
	if os.Geteuid() == 0 {
		fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
		}
		text := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions", fd, o.UID, o.GID)
		if err := unix.Mount("branchfs", o.Dir, "fuse.branchfs", unix.MS_NOSUID|unix.MS_NODEV, text); err != nil {
			_ = unix.Close(fd)
			return nil, &os.PathError{Op: "mount", Path: o.Dir, Err: err}
		}
		on = "/dev/fd/" + strconv.Itoa(fd)
	}
	server, err := fuse.NewServer(raw{fs.NewNodeFS(f.top.node, &fs.Options{MountOptions: options})}, on, &options)
	if err != nil {
		f.Close()
		return nil, err
	}
	f.server = server
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		f.Close()
		return nil, err
	}
	learnPoll(o.Dir)
	return f, nil
}

// learnPoll has the kernel learn that there is no poll here, by a file that go-fuse has for that. Where it mounts itself it does
// so too: this process would else wait for itself when the runtime polls a file that it opens here.
func learnPoll(dir string) {
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // another user's: this process opens nothing there
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	_ = unix.Close(fd)
}

// raw takes away what the real one does not have.
type raw struct{ fuse.RawFileSystem }

func (raw) Tmpfile(<-chan struct{}, *fuse.CreateIn, *fuse.CreateOut) fuse.Status { return fuse.ENOSYS }

// Close unmounts, whoever still uses it.
func (f *FS) Close() {
	if os.Geteuid() == 0 {
		_ = unix.Unmount(f.o.Dir, unix.MNT_DETACH)
	} else if f.server != nil {
		_ = f.server.Unmount()
	}
}

// Branches returns the names of all branches.
func (f *FS) Branches() (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.branches {
		names = append(names, name)
	}
	return names
}

// Forget has the kernel forget an entry at the top of the mount, as the real one does with all when it goes to another branch.
func (f *FS) Forget(name string) error {
	if errno := f.top.node.NotifyEntry(name); errno != 0 && errno != syscall.ENOENT { // which it does not know
		return errno
	}
	return nil
}

// add adds a branch; but for the first f.mu is held.
func (f *FS) add(name string, parent *branch, dir string) *branch {
	b := &branch{name: name, number: f.made, parent: parent, dir: dir}
	f.made++
	b.node = &root{fs: f, b: b}
	b.node.RootData = &fs.LoopbackRoot{Path: dir, RootNode: b.node}
	if parent != nil {
		b.saw = parent.commits
		f.branches[name] = b
	}
	return b
}

func (f *FS) create(parent *branch) (name string, err error) {
	var id [16]byte
	rand.Read(id[:])
	name = fmt.Sprintf("branch-%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	f.mu.Lock()
	defer f.mu.Unlock()
	dir := filepath.Join(f.o.Storage, name)
	if err := copyTree(parent.dir, dir); err != nil {
		return "", err
	}
	f.add(name, parent, dir)
	return name, nil
}

// settle ends a branch.
func (f *FS) settle(b *branch, commit bool) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.branches[b.name] != b {
		return syscall.EIO
	}
	for _, other := range f.branches {
		if other.parent == b {
			return syscall.EIO
		}
	}
	if commit {
		if b.saw != b.parent.commits {
			return syscall.ESTALE
		}
		if err := replaceTree(b.dir, b.parent.dir); err != nil {
			return fs.ToErrno(err)
		}
		b.parent.commits++
	}
	delete(f.branches, b.name)
	return fs.ToErrno(os.RemoveAll(b.dir))
}

// root is the top of the mount, or of a branch.
type root struct {
	fs.LoopbackNode
	fs *FS
	b  *branch
}

// Inodes that are not of the directories that are shown.
const (
	controlInode = 1 << 62
	branchInode  = 1<<62 + 1<<61
)

func (n *root) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if n.fs.o.NoControl {
		return n.LoopbackNode.Lookup(ctx, name, out)
	}
	if name == control {
		c := &ctl{fs: n.fs, b: n.b}
		c.attr(&out.Attr)
		return n.NewInode(ctx, c, fs.StableAttr{Mode: unix.S_IFREG, Ino: controlInode + n.b.number}), 0
	}
	if name[0] != '@' {
		return n.LoopbackNode.Lookup(ctx, name, out)
	}
	n.fs.mu.Lock()
	b := n.fs.branches[name[1:]]
	n.fs.mu.Unlock()
	if b == nil || n.b != n.fs.top && b.parent != n.b {
		return nil, syscall.ENOENT
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(b.dir, &st); err != nil {
		return nil, fs.ToErrno(err)
	}
	out.FromStat(&st)
	return n.NewPersistentInode(ctx, b.node, fs.StableAttr{Mode: unix.S_IFDIR, Ino: branchInode + b.number}), 0
}

// OpendirHandle lists also what is not in the directory that is shown.
func (n *root) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if n.fs.o.NoControl {
		return n.LoopbackNode.OpendirHandle(ctx, flags)
	}
	real, errno := n.LoopbackNode.Readdir(ctx)
	if errno != 0 {
		return nil, 0, errno
	}
	defer real.Close()
	list := []fuse.DirEntry{{Name: control, Mode: unix.S_IFREG, Ino: controlInode + n.b.number}}
	n.fs.mu.Lock()
	for _, b := range n.fs.branches {
		if n.b == n.fs.top || b.parent == n.b {
			list = append(list, fuse.DirEntry{Name: "@" + b.name, Mode: unix.S_IFDIR, Ino: branchInode + b.number})
		}
	}
	n.fs.mu.Unlock()
	for real.HasNext() {
		e, errno := real.Next()
		if errno != 0 {
			return nil, 0, errno
		}
		list = append(list, e)
	}
	return fs.NewListDirStream(list), 0, 0
}

// Unlink and the like: the names are not the user's.
func (n *root) Unlink(ctx context.Context, name string) syscall.Errno {
	if name == control {
		return syscall.EPERM
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *root) Create(ctx context.Context, name string, flags uint32, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if name == control && !n.fs.o.NoControl {
		return nil, nil, 0, syscall.EPERM
	}
	return n.LoopbackNode.Create(ctx, name, flags, mode, out)
}

// ctl is a control file.
type ctl struct {
	fs.Inode
	fs *FS
	b  *branch
}

func (c *ctl) attr(a *fuse.Attr) {
	a.Mode, a.Nlink, a.Owner = unix.S_IFREG|0o600, 1, fuse.Owner{Uid: uint32(c.fs.o.UID), Gid: uint32(c.fs.o.GID)}
}

func (c *ctl) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	c.attr(&out.Attr)
	return 0
}

func (c *ctl) Setattr(_ context.Context, _ fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	c.attr(&out.Attr) // such as O_TRUNC
	return 0
}

func (c *ctl) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (c *ctl) Write(_ context.Context, _ fs.FileHandle, data []byte, _ int64) (uint32, syscall.Errno) {
	errno := syscall.Errno(syscall.EINVAL)
	if c.b.parent != nil {
		switch string(bytes.ToLower(bytes.TrimSpace(data))) {
		case "commit":
			errno = c.fs.settle(c.b, true)
		case "abort":
			errno = c.fs.settle(c.b, false)
		}
	}
	if errno != 0 {
		return 0, errno
	}
	return uint32(len(data)), 0
}

func (c *ctl) Ioctl(_ context.Context, _ fs.FileHandle, cmd uint32, _ uint64, _ []byte, output []byte) (int32, syscall.Errno) {
	switch {
	case cmd == requestCreate && len(output) == 128:
		name, err := c.fs.create(c.b)
		if err != nil {
			return 0, fs.ToErrno(err)
		}
		answer := name + "\x00"
		if c.fs.o.Answer != nil {
			answer = c.fs.o.Answer(name)
		}
		copy(output, answer)
		return 0, 0
	case cmd == requestCommit && c.b.parent != nil:
		return 0, c.fs.settle(c.b, true)
	case cmd == requestAbort && c.b.parent != nil:
		return 0, c.fs.settle(c.b, false)
	}
	return 0, syscall.ENOTTY
}
