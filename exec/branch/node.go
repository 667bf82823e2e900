package branch

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Everything here works on descriptors and single components. What is looked at is hostile: a name may be a symbolic link, a
// FIFO whose opening blocks, or be exchanged between two calls. So an entry is pinned by O_PATH|O_NOFOLLOW first, which opens
// nothing, and what it is read from the pin.

// maxPath is how long a path one system call may take (PATH_MAX, with room for the end).
const maxPath = 4000

// openat does not go down into what the host has mounted on a name: the overlay does not show it, so nothing that the command
// did was meant for it.
func openat(dir int, name string, flags int) (fd int, err error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV}
	if name == ".." {
		how.Resolve = 0
	}
	err = again(func() (err error) {
		fd, err = unix.Openat2(dir, name, &how)
		return err
	})
	if errors.Is(err, unix.EXDEV) {
		err = errMounted
	}
	return fd, err
}

// hasAttribute asks for one of the attributes of statx(2): that something is mounted on a name, or that a directory is only to be
// appended to.
func hasAttribute(dir int, name string, attribute uint64) bool {
	var st unix.Statx_t
	err := again(func() error {
		return unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH, 0, &st)
	})
	return err == nil && st.Attributes&attribute != 0
}

// pin holds an entry of a directory, whatever it is, without opening it.
func pin(dir int, name string) (int, error) { return openat(dir, name, unix.O_PATH) }

// openDir opens a directory for reading its names and for *at calls.
func openDir(dir int, name string) (int, error) {
	return openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
}

// beneath pins a directory by its path below another; "" is that other itself. It follows no symbolic link, leaves neither
// the tree nor its file system (a mount in the workdir is not part of what the overlay shows), and takes paths of any length.
func beneath(root int, path string) (int, error) {
	at, owned := root, false
	for path != "" {
		part := path
		if len(part) > maxPath {
			part = part[:strings.LastIndexByte(part[:maxPath], '/')]
			path = path[len(part)+1:]
		} else {
			path = ""
		}
		how := unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		}
		var next int
		err := again(func() (err error) {
			next, err = unix.Openat2(at, part, &how)
			if errors.Is(err, unix.EAGAIN) { // a rename raced with ".." protection: openat2(2) says to retry
				err = unix.EINTR
			}
			return err
		})
		if owned {
			unix.Close(at)
		}
		if errors.Is(err, unix.EXDEV) {
			err = errMounted
		}
		if err != nil {
			return -1, err
		}
		at, owned = next, true
	}
	if !owned {
		return openat(root, ".", unix.O_PATH|unix.O_DIRECTORY)
	}
	return at, nil
}

// split cuts the last component off a path.
func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// lookup returns what a directory has under a name; nil, without error, if it has nothing.
func lookup(dir int, name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}

func fstat(fd int) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(fd, "", &st, unix.AT_EMPTY_PATH) })
	return &st, err
}

func kindOf(st *unix.Stat_t) uint32 { return st.Mode & unix.S_IFMT }

func isDir(st *unix.Stat_t) bool { return st != nil && kindOf(st) == unix.S_IFDIR }

// openRegular opens a regular file for reading, and fails for anything else without ever opening it: the opening of a FIFO
// waits, that of a device may do anything.
func openRegular(dir int, name string) (int, *unix.Stat_t, error) {
	node, err := pin(dir, name)
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(node)
	return openPinned(node)
}

// openPinned is openRegular for what is pinned.
func openPinned(node int) (int, *unix.Stat_t, error) {
	st, err := fstat(node)
	if err != nil {
		return -1, nil, err
	}
	if kindOf(st) != unix.S_IFREG {
		return -1, nil, fmt.Errorf("is no regular file: %w", unix.EINVAL)
	}
	var fd int
	err = again(func() (err error) {
		fd, err = unix.Open(procPath(node), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EPERM) { // not our file
			fd, err = unix.Open(procPath(node), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		}
		return err
	})
	return fd, st, err
}

// stamp is a time as file systems keep it, in nanoseconds since the epoch. Those before 1901, which ext4 and XFS cannot keep, stand
// for what they can: times up to 2486.
type stamp int64

func stampOf(t unix.Timespec) stamp { return stamp(t.Nano()) }

func (s stamp) timespec() unix.Timespec {
	const second = 1e9
	if s >= math.MinInt32*second {
		return unix.NsecToTimespec(int64(s))
	}
	return unix.Timespec{Sec: int64(uint64(s) / second), Nsec: int64(uint64(s) % second)}
}

// meta is what a file has besides its contents and its name.
type meta struct {
	Mode   uint32 // type and permissions
	UID    int
	GID    int
	Atime  stamp
	Mtime  stamp
	Xattrs map[string][]byte `json:",omitempty"`
}

// equal tells whether two are the same but for times.
func (m *meta) equal(o *meta) bool {
	return m.Mode == o.Mode && m.UID == o.UID && m.GID == o.GID && maps.EqualFunc(m.Xattrs, o.Xattrs, bytes.Equal)
}

// metaOf reads a pinned file's.
func metaOf(node int) (*meta, error) { return metaOfAll(node, ours) }

// metaOfAll is metaOf with all extended attributes that are wanted.
func metaOfAll(node int, wanted func(name string) bool) (*meta, error) {
	st, err := fstat(node)
	if err != nil {
		return nil, err
	}
	names, err := xattrNames(node)
	if err != nil {
		return nil, err
	}
	return metaWith(node, st, names, wanted)
}

// metaWith is metaOf where it is known what it is and which attributes it has, and with those of them that are wanted.
func metaWith(node int, st *unix.Stat_t, names []string, wanted func(name string) bool) (m *meta, err error) {
	m = &meta{
		Mode: st.Mode, UID: int(st.Uid), GID: int(st.Gid),
		Atime: stampOf(st.Atim), Mtime: stampOf(st.Mtim),
	}
	m.Xattrs, err = xattrValues(node, names, wanted)
	return m, err
}

// ours tells which extended attributes are part of a tree. Those of overlayfs are about the branch, in both spellings, and so
// are the escaped ones that a command sets on the overlay (overlayfs.rst, "Nested overlayfs mounts"): in the workdir they
// would steer the overlay mounts to come. Labels that a security module gives each file by its place stay the place's.
func ours(name string) bool {
	switch {
	case overlayName(name) != "":
		return false
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "trusted."), strings.HasPrefix(name, "system.posix_acl_"):
		return true
	}
	return name == "security.capability"
}

// overlayName returns the part after the prefix of an attribute that overlayfs keeps for itself; else "".
func overlayName(name string) string {
	for _, prefix := range []string{"user.overlay.", "trusted.overlay."} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return rest
		}
	}
	return ""
}

func xattrNames(node int) ([]string, error) {
	for buf := make([]byte, 1024); ; buf = make([]byte, 4*len(buf)) {
		n, err := unix.Listxattr(procPath(node), buf)
		switch {
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			return nil, nil
		case errors.Is(err, unix.ERANGE) && len(buf) < 1<<20, errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, nil
		}
		names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
		slices.Sort(names)
		return names, nil
	}
}

// xattrValue returns nil, without error, for an attribute that is not there.
func xattrValue(node int, name string) ([]byte, error) {
	for buf := make([]byte, 256); ; buf = make([]byte, 4*len(buf)) {
		n, err := unix.Getxattr(procPath(node), name, buf)
		switch {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			return nil, nil // user.* of what is neither a file nor a directory: EPERM (xattr(7))
		case errors.Is(err, unix.ERANGE) && len(buf) < 1<<20, errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		}
		return buf[:n:n], nil
	}
}

// xattrValues returns those of the attributes that are wanted.
func xattrValues(node int, names []string, wanted func(name string) bool) (map[string][]byte, error) {
	var all map[string][]byte
	for _, name := range names {
		if !wanted(name) {
			continue
		}
		value, err := xattrValue(node, name)
		if err != nil {
			return nil, err
		}
		if value != nil {
			if all == nil {
				all = map[string][]byte{}
			}
			all[name] = value
		}
	}
	return all, nil
}

// overlay is what overlayfs noted on an entry of the upper (overlayfs.rst).
type overlay struct {
	opaque     bool // a directory that hides the lower one of its name
	xwhiteouts bool // a directory in which whiteouts may have the form of attributes
	whiteout   bool // such a whiteout
	origin     bool // copied up, perhaps renamed since
	foreign    string
}

func overlayOf(node int, names []string) (o overlay, err error) {
	for _, name := range names {
		own, _ := strings.CutPrefix(name, "user.overlay.") // others were copied from a workdir that is a layer of another overlay
		switch own {
		case "opaque":
			value, err := xattrValue(node, name)
			if err != nil {
				return o, err
			}
			o.opaque, o.xwhiteouts = string(value) == "y", string(value) == "x"
		case "whiteout":
			o.whiteout = true
		case "origin":
			o.origin = true
		case "redirect", "metacopy":
			o.foreign = name
		}
	}
	return o, nil
}

// replaced tells whether a directory of the lower is another one than the upper's was copied from. Overlayfs has noted that as a
// file handle, after the type and what else is in a struct ovl_fb; nothing, where the file system has none.
func replaced(up, low int) bool {
	const kind, handle = 4, 21 // offsets
	noted, err := xattrValue(up, "user.overlay.origin")
	if err != nil || len(noted) <= handle {
		return false
	}
	now, _, err := unix.NameToHandleAt(low, "", unix.AT_EMPTY_PATH)
	return err == nil && (now.Type() != int32(noted[kind]) || !bytes.Equal(now.Bytes(), noted[handle:]))
}

// isWhiteout tells whether an entry of the upper says that there is nothing: a character device 0:0, which only overlayfs can
// make there.
func isWhiteout(st *unix.Stat_t) bool { return kindOf(st) == unix.S_IFCHR && st.Rdev == 0 }

// setMeta gives a pinned file a mode, an owner, attributes and times, in the order in which none undoes another: a change of
// owner clears setuid bits and capabilities, and everything else changes a time. Owners are for the privileged: where chown
// fails with EPERM, the file stays its maker's. A directory of the workdir that is somebody else's keeps its mode and gets the
// times of the changes in it: nobody but its owner can set either, and the command could not.
func setMeta(s sys, node int, want *meta) error {
	now, err := metaOf(node)
	if err != nil {
		return err
	}
	link := want.Mode&unix.S_IFMT == unix.S_IFLNK
	foreign := now.UID != os.Geteuid() && os.Geteuid() != 0
	if now.UID != want.UID || now.GID != want.GID {
		chownErr := s.chown(node, want.UID, want.GID)
		if chownErr != nil && !errors.Is(chownErr, unix.EPERM) {
			return fmt.Errorf("chown: %w", chownErr)
		}
		if now, err = metaOf(node); err != nil {
			return err
		}
		if !link && chownErr == nil { // what a chown clears is set again below, seen by now or not
			now.Mode = 0
		}
	}
	// The mode first where it lets us write, since attributes need that.
	if !link && want.Mode&0o200 != 0 && now.Mode != want.Mode {
		if err := s.chmod(node, want.Mode); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
		now.Mode = want.Mode
	}
	for _, name := range slices.Sorted(maps.Keys(now.Xattrs)) {
		if _, ok := want.Xattrs[name]; !ok {
			if err := s.removexattr(node, name); err != nil {
				return fmt.Errorf("removexattr %s: %w", name, err)
			}
			now.Mode = 0 // an access control list is part of the mode
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want.Xattrs)) {
		if value := want.Xattrs[name]; now.Xattrs[name] == nil || !bytes.Equal(now.Xattrs[name], value) {
			if err := s.setxattr(node, name, value); err != nil {
				return fmt.Errorf("setxattr %s: %w", name, err)
			}
			now.Mode = 0
		}
	}
	if !link && now.Mode != want.Mode {
		if err := s.chmod(node, want.Mode); err != nil && !(foreign && errors.Is(err, unix.EPERM)) {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	if err := s.utimes(node, want.Atime.timespec(), want.Mtime.timespec()); err != nil && !(foreign && errors.Is(err, unix.EPERM)) {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}
