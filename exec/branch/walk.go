package branch

import (
	"cmp"
	"errors"
	"maps"
	"os"

	"golang.org/x/sys/unix"
)

// maxOpen is how many levels of directories a walk keeps open. Below, it closes the one above while it is in the next, and
// comes back to it by "..", if that is still the same: trees can be nested deeper than there are descriptors.
const maxOpen = 64

// walk is a way through upper and lower at once.
type walk struct {
	sys   sys
	path  []byte // where it is
	depth int
}

// dirs are a directory of the upper and the lower's of its name; -1 where there is none.
type dirs struct{ up, low int }

// down visits a directory below, by its names in upper and lower; "" is not to go down there.
func (w *walk) down(at *dirs, up, low string, visit func(below *dirs) error) (err error) {
	below := dirs{-1, -1}
	length := len(w.path)
	defer func() {
		w.path = w.path[:length]
		w.depth--
		for _, fd := range []int{below.up, below.low} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}()
	if length > 0 {
		w.path = append(w.path, '/')
	}
	w.path = append(w.path, cmp.Or(up, low)...)
	w.depth++
	if up != "" {
		fd, restore, err := w.openUpper(at.up, up)
		if err != nil {
			return opError("open in upper", string(w.path), err)
		}
		defer restore()
		below.up = fd
	}
	if low != "" {
		if below.low, err = openDir(at.low, low); err != nil {
			return opError("open", string(w.path), err)
		}
	}
	if w.depth <= maxOpen {
		return visit(&below)
	}
	// A side that the walk does not go down stays open: it cannot be come back to. There is one such level on a way at most,
	// as below it the walk is on one side only.
	var ids [2]*unix.Stat_t
	for i, fd := range []*int{&at.up, &at.low} {
		if *fd < 0 || []int{below.up, below.low}[i] < 0 {
			continue
		}
		if ids[i], err = fstat(*fd); err != nil {
			return opError("stat", string(w.path), err)
		}
		unix.Close(*fd)
		*fd = -1
	}
	if err := visit(&below); err != nil {
		return err
	}
	for i, fd := range []*int{&at.up, &at.low} {
		if ids[i] == nil {
			continue
		}
		from, err := unix.FcntlInt(uintptr([]int{below.up, below.low}[i]), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			*fd, err = back(from, ids[i].Dev, ids[i].Ino)
		}
		if err != nil {
			return opError("come back from", string(w.path), err)
		}
	}
	return nil
}

// openUpper opens a directory of the upper that its command may have left without permissions. It has them while the walk is
// in it; restore takes them away again.
func (w *walk) openUpper(dir int, name string) (fd int, restore func(), err error) {
	fd, err = openDir(dir, name)
	node := -1
	if err == nil {
		var st *unix.Stat_t
		if st, err = fstat(fd); err != nil || st.Mode&0o500 == 0o500 || os.Geteuid() == 0 {
			return fd, func() {}, err
		}
		unix.Close(fd)
	} else if !errors.Is(err, unix.EACCES) {
		return fd, func() {}, err
	}
	if node, err = openat(dir, name, unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return -1, nil, err
	}
	st, err := fstat(node)
	if err == nil {
		err = w.sys.chmod(node, st.Mode|0o700)
	}
	if err == nil {
		fd, err = openDir(dir, name)
	}
	if err != nil {
		unix.Close(node)
		return -1, nil, err
	}
	return fd, func() {
		_ = w.sys.chmod(node, st.Mode)
		unix.Close(node)
	}, nil
}

// upperEntry is what the upper says of a name.
type upperEntry struct {
	st       *unix.Stat_t // nil: nothing there in the branch
	meta     *meta        // as it is; of a commit it has what allowed leaves
	names    []string     // of its extended attributes
	notes    overlay
	whiteout bool
}

// errForeign is an upper that no mount with OverlayOptions writes.
var errForeign = errors.New("written with redirect_dir or metacopy, which the mount must switch off")

// errDevice is a device node in a branch. The overlay does not let it be opened, but the workdir's mount might.
var errDevice = errors.New("is a device")

// look reads an entry of the upper. xwhiteouts is about the directory.
func (b *Branch) look(dir int, name string, xwhiteouts bool) (e upperEntry, err error) {
	node, err := pin(dir, name)
	if err != nil {
		return e, err
	}
	defer unix.Close(node)
	st, err := fstat(node)
	if err != nil {
		return e, err
	}
	if isWhiteout(st) {
		e.whiteout = true
		return e, nil
	}
	if e.names, err = xattrNames(node); err == nil {
		e.notes, err = overlayOf(node, e.names)
	}
	if err == nil {
		e.meta, err = metaWith(node, st, e.names, ours)
	}
	if err != nil {
		return e, err
	}
	switch {
	case e.notes.foreign != "":
		return e, errForeign
	case xwhiteouts && e.notes.whiteout && kindOf(st) == unix.S_IFREG && st.Size == 0:
		e.whiteout = true
		return e, nil
	case kindOf(st) == unix.S_IFCHR || kindOf(st) == unix.S_IFBLK:
		return e, errDevice
	}
	e.st = st
	return e, nil
}

// privileges are the mode bits by which a program runs as another.
const privileges = unix.S_ISUID | unix.S_ISGID

// allowed is the metadata that an entry of the upper has once it is committed: without setuid and setgid bits and file
// capabilities, unless low has just the same: the workdir's file of its name, if it has the same contents. (The setgid bit of
// directories is no privilege.)
func (b *Branch) allowed(entry, low *meta) *meta {
	if entry.Mode&unix.S_IFMT != unix.S_IFREG {
		return entry
	}
	up := *entry
	up.Xattrs = maps.Clone(up.Xattrs)
	if low != nil && low.Mode&unix.S_IFMT == unix.S_IFREG && low.UID == up.UID && low.GID == up.GID {
		up.Mode &^= privileges &^ low.Mode
		if v, ok := up.Xattrs["security.capability"]; ok && string(v) != string(low.Xattrs["security.capability"]) {
			delete(up.Xattrs, "security.capability")
		}
		return &up
	}
	up.Mode &^= privileges
	delete(up.Xattrs, "security.capability")
	return &up
}

// metaAt reads the metadata of an entry.
func metaAt(dir int, name string) (*meta, error) {
	node, err := pin(dir, name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(node)
	return metaOf(node)
}

// difference is what sets two entries of one name apart, as bits.
type difference uint

const (
	diffType difference = 1 << iota
	diffContent
	diffMeta
	diffTimes
)

// compare tells how an entry of the upper differs from the lower's of its name. Contents of directories are not part of it.
func (b *Branch) compare(upDir, lowDir int, name string, entry *upperEntry, low *unix.Stat_t) (d difference, upMeta, lowMeta *meta, err error) {
	up := entry.st
	node, err := pin(lowDir, name)
	if err != nil {
		return 0, nil, nil, err
	}
	defer unix.Close(node)
	if lowMeta, err = metaOf(node); err != nil {
		return 0, nil, nil, err
	}
	upMeta = b.allowed(entry.meta, lowMeta)
	if kindOf(up) != kindOf(low) {
		return diffType, upMeta, lowMeta, nil
	}
	if !upMeta.equal(lowMeta) {
		d |= diffMeta
	}
	if upMeta.Mtime != lowMeta.Mtime {
		d |= diffTimes
	}
	switch kindOf(up) {
	case unix.S_IFREG:
		same, err := sameFile(upDir, name, node, up, low)
		if err != nil {
			return 0, nil, nil, err
		}
		if !same {
			d |= diffContent
			// A write takes privileges away; one to mapped memory does not.
			upMeta = b.allowed(entry.meta, nil)
			if !upMeta.equal(lowMeta) {
				d |= diffMeta
			}
		}
	case unix.S_IFLNK:
		a, err := readLink(upDir, name)
		if err != nil {
			return 0, nil, nil, err
		}
		z, err := readLink(lowDir, name)
		if err != nil {
			return 0, nil, nil, err
		}
		if a != z {
			d |= diffContent
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		if up.Rdev != low.Rdev {
			d |= diffContent
		}
	}
	return d, upMeta, lowMeta, nil
}

// sameFile compares two regular files. A lower one that may not be read counts as different.
func sameFile(upDir int, name string, lowNode int, up, low *unix.Stat_t) (bool, error) {
	if up.Size != low.Size {
		return false, nil
	}
	if up.Size == 0 {
		return true, nil
	}
	u, _, err := openRegular(upDir, name)
	if errors.Is(err, unix.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(u)
	l, _, err := openPinned(lowNode)
	if errors.Is(err, unix.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(l)
	return sameData(u, l, up.Size)
}

// maxLink is longer than any text of a symbolic link (PATH_MAX), in bytes.
const maxLink = 8192

func readLink(dir int, name string) (string, error) {
	var buf [maxLink]byte
	n, err := unix.Readlinkat(dir, name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
