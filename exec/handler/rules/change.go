package rules

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// entry is a name in a pinned directory. The name is fixed and so is the directory; what has the name may change, but
// nothing that a rule closes can be moved there, because the moves go through this package as well.
type entry struct {
	at   kernel.Base
	path string
	err  error // why it could not be read

	dir   *kernel.Pin
	name  string // with the slash that the path ended in
	id    kernel.FileID
	kind  uint32 // type of what has the name, 0 if nothing has
	taken bool
}

// entryAt reads the path of an entry.
func entryAt(c *supervise.Call, dirfd int32, arg int) *entry {
	e := &entry{at: kernel.Base{TID: c.TID, DirFD: dirfd}}
	e.path, e.err = c.Path(arg)
	return e
}

func (e *entry) named() []string { return []string{e.path} }

func (e *entry) real() string {
	if e.name == "." {
		return e.dir.Path
	}
	return child(e.dir.Path, trimSlash(e.name))
}

func trimSlash(name string) string {
	if n := len(name); n > 1 && name[n-1] == '/' {
		return name[:n-1]
	}
	return name
}

func (e *entry) pin(h *Handler) (query.File, error) {
	dir, name, slash, err := h.policy.Root.ResolveParent(e.at, e.path)
	if err != nil {
		return query.File{}, err
	}
	e.dir, e.name = &dir, name
	var st unix.Stat_t
	if err := unix.Fstatat(dir.FD, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		e.id, e.kind, e.taken = kernel.FileID{Dev: uint64(st.Dev), Ino: st.Ino}, st.Mode&unix.S_IFMT, true
	} else if !errors.Is(err, unix.ENOENT) {
		return query.File{}, err
	}
	if slash && name != "." {
		e.name += "/" // the kernel then wants a directory
	}
	return h.targets.file(e.real(), e.id, e.taken), nil
}

func (e *entry) close() {
	if e.dir != nil {
		e.dir.Close()
		e.dir = nil
	}
}

// removal is the Landlock right to take an entry away.
func (e *entry) removal() uint64 {
	if e.kind == unix.S_IFDIR {
		return abi.FSRemoveDir
	}
	return abi.FSRemoveFile
}

// mountPoint tells whether something is mounted on the entry in the command's view. The kernel keeps such an entry only from
// callers in the same mount namespace (is_local_mountpoint in fs/namespace.c), which this process is not in: for it, the file
// beneath the mount would go. The answer stays true: no entry with a mount on it comes to the name or leaves it, for here
// too all moves of one are refused. Where nobody can tell, it is taken for one.
func (e *entry) mountPoint() bool {
	fd, err := unix.Openat(e.dir.FD, trimSlash(e.name), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return !errors.Is(err, unix.ENOENT)
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st)
	return err != nil || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

func result(err error) supervise.Verdict {
	if err != nil {
		return supervise.Errno(errno(err))
	}
	return supervise.Return(0)
}

// unlinkRequest is unlink, unlinkat and rmdir.
type unlinkRequest struct {
	*entry
	flags int
}

func readUnlink(c *supervise.Call, dirfd int32, arg int, flags int32) (request, error) {
	e := entryAt(c, dirfd, arg)
	return &unlinkRequest{e, int(flags)}, e.err
}

func (r *unlinkRequest) pin(h *Handler) ([]query.File, error) {
	f, err := r.entry.pin(h)
	return []query.File{f}, err
}

func (r *unlinkRequest) check(h *Handler) refusal {
	if r.flags&unix.AT_REMOVEDIR != 0 {
		return h.granted(r.dir.Path, abi.FSRemoveDir)
	}
	return h.granted(r.dir.Path, abi.FSRemoveFile)
}

func (r *unlinkRequest) carryOut() supervise.Verdict {
	if r.mountPoint() {
		return supervise.Errno(unix.EBUSY)
	}
	return result(unix.Unlinkat(r.dir.FD, r.name, r.flags))
}

// renameRequest is rename and its relatives.
type renameRequest struct {
	from, to *entry
	flags    uint
}

func readRename(_ *supervise.Call, from, to *entry, flags uint32) (request, error) {
	r := &renameRequest{from, to, uint(flags)}
	if flags&unix.RENAME_WHITEOUT != 0 {
		return r, unix.EPERM // leaves a device node behind
	}
	return r, errors.Join(from.err, to.err)
}

func (r *renameRequest) named() []string { return []string{r.from.path, r.to.path} }

func (r *renameRequest) pin(h *Handler) ([]query.File, error) {
	from, err := r.from.pin(h)
	if err != nil {
		return nil, err
	}
	to, err := r.to.pin(h)
	return []query.File{from, to}, err
}

func (r *renameRequest) check(h *Handler) refusal {
	type need struct {
		dir    *kernel.Pin
		rights uint64
	}
	needs := []need{{r.from.dir, r.from.removal()}, {r.to.dir, kernel.MakeRight(r.from.kind)}}
	if r.to.taken {
		needs = append(needs, need{r.to.dir, r.to.removal()})
	}
	if r.flags&unix.RENAME_EXCHANGE != 0 {
		needs = append(needs, need{r.from.dir, kernel.MakeRight(r.to.kind)})
	}
	for _, n := range needs {
		if no := h.granted(n.dir.Path, n.rights); no.errno != 0 {
			return no
		}
	}
	return refusal{}
}

func (r *renameRequest) carryOut() supervise.Verdict {
	if r.from.mountPoint() || r.to.mountPoint() {
		return supervise.Errno(unix.EBUSY)
	}
	return result(unix.Renameat2(r.from.dir.FD, r.from.name, r.to.dir.FD, r.to.name, r.flags))
}

func (r *renameRequest) close() {
	r.from.close()
	r.to.close()
}

// linkRequest is link and linkat. The source is pinned as a file, not by its name.
type linkRequest struct {
	at     kernel.Base
	path   string
	flags  int32
	source *kernel.Pin
	to     *entry
}

func readLink(c *supervise.Call, dirfd int32, arg int, to *entry, flags int32) (request, error) {
	path, err := c.Path(arg)
	if flags&^(unix.AT_SYMLINK_FOLLOW|unix.AT_EMPTY_PATH) != 0 {
		err = unix.EINVAL
	}
	return &linkRequest{at: kernel.Base{TID: c.TID, DirFD: dirfd}, path: path, flags: flags, to: to}, errors.Join(err, to.err)
}

func (r *linkRequest) named() []string { return []string{r.path, r.to.path} }

func (r *linkRequest) pin(h *Handler) ([]query.File, error) {
	var (
		p   kernel.Pin
		err error
	)
	if r.path == "" && r.flags&unix.AT_EMPTY_PATH != 0 {
		// The kernel wants a capability for it, or a descriptor that the caller has opened itself.
		return nil, unix.ENOENT
	}
	if p, err = h.policy.Root.Resolve(r.at, r.path, r.flags&unix.AT_SYMLINK_FOLLOW != 0, 0); err != nil {
		return nil, err
	}
	r.source = &p
	to, err := r.to.pin(h)
	return []query.File{h.targets.describe(p), to}, err
}

func (r *linkRequest) check(h *Handler) refusal { return h.granted(r.to.dir.Path, abi.FSMakeReg) }

func (r *linkRequest) carryOut() supervise.Verdict {
	return result(unix.Linkat(unix.AT_FDCWD, r.source.SelfPath(), r.to.dir.FD, r.to.name, unix.AT_SYMLINK_FOLLOW))
}

func (r *linkRequest) close() {
	r.to.close()
	if r.source != nil {
		r.source.Close()
		r.source = nil
	}
}

// makeRequest is mkdir, mknod and symlink.
type makeRequest struct {
	*entry
	tid    int
	kind   uint32
	mode   uint32
	dev    int
	target string // of a symbolic link
}

func readMkdir(c *supervise.Call, dirfd int32, arg int) (request, error) {
	e := entryAt(c, dirfd, arg)
	return &makeRequest{entry: e, tid: c.TID, kind: unix.S_IFDIR, mode: uint32(c.Args[arg+1]) & 0o7777}, e.err
}

func readMknod(c *supervise.Call, dirfd int32, arg int) (request, error) {
	e := entryAt(c, dirfd, arg)
	mode := uint32(c.Args[arg+1])
	kind := mode & unix.S_IFMT
	if kind == 0 {
		kind = unix.S_IFREG
	}
	return &makeRequest{entry: e, tid: c.TID, kind: kind, mode: mode & 0o7777, dev: int(uint32(c.Args[arg+2]))}, e.err
}

func readSymlink(c *supervise.Call, dirfd int32, arg int) (request, error) {
	target, err := c.Path(0)
	e := entryAt(c, dirfd, arg)
	return &makeRequest{entry: e, tid: c.TID, kind: unix.S_IFLNK, target: target}, errors.Join(err, e.err)
}

func (r *makeRequest) pin(h *Handler) ([]query.File, error) {
	f, err := r.entry.pin(h)
	return []query.File{f}, err
}

func (r *makeRequest) check(h *Handler) refusal {
	return h.granted(r.dir.Path, kernel.MakeRight(r.kind))
}

func (r *makeRequest) carryOut() supervise.Verdict {
	if r.kind == unix.S_IFLNK {
		return result(unix.Symlinkat(r.target, r.dir.FD, r.name))
	}
	mask, err := kernel.Umask(r.tid)
	if err != nil {
		return supervise.Errno(unix.EPERM)
	}
	if r.kind == unix.S_IFDIR {
		return result(unix.Mkdirat(r.dir.FD, r.name, r.mode&^mask))
	}
	return result(unix.Mknodat(r.dir.FD, r.name, r.kind|r.mode&^mask, r.dev))
}

// truncateRequest is truncate.
type truncateRequest struct {
	openRequest
	length int64
}

func readTruncate(c *supervise.Call) (request, error) {
	path, err := c.Path(0)
	return &truncateRequest{openRequest{at: kernel.Base{TID: c.TID, DirFD: kernel.AtCWD}, path: path, flags: unix.O_WRONLY, tid: c.TID, reader: -1}, int64(c.Args[1])}, err
}

func (r *truncateRequest) pin(h *Handler) ([]query.File, error) {
	files, err := r.openRequest.pin(h)
	switch {
	case err != nil:
		return nil, err
	case r.kind == unix.S_IFDIR:
		return nil, unix.EISDIR
	case r.kind != unix.S_IFREG || r.length < 0:
		return nil, unix.EINVAL
	}
	return files, nil
}

func (r *truncateRequest) check(h *Handler) refusal {
	return h.granted(r.pinned.Path, abi.FSTruncate|abi.FSWriteFile)
}

// carryOut truncates by a descriptor: truncate itself waits for the holder of a lease.
func (r *truncateRequest) carryOut() supervise.Verdict {
	fd, err := r.reopen(0)
	if errors.Is(err, errWouldBlock) {
		return r.await(r)
	}
	if err != nil {
		return supervise.Errno(errno(err))
	}
	defer unix.Close(fd)
	return result(unix.Ftruncate(fd, r.length))
}
