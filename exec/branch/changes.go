package branch

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Kind is what happened to a name.
type Kind byte

// The kinds. A rename is a deletion and an addition: overlayfs, mounted as [OverlayOptions] say, has no note of it.
const (
	Added    Kind = 'A'
	Modified Kind = 'M'
	Deleted  Kind = 'D'
)

// Change is one name of the workdir that a commit would change. Every name in a new or deleted directory is one.
type Change struct {
	Kind Kind
	Path string // below the workdir, any bytes but NUL; "" is the workdir itself

	// Of the entry as it will be; for a deleted one as it is.
	Type string // file, directory, symlink, fifo, socket, device
	Mode uint32 // permissions, with setuid, setgid and sticky bits
	Size int64  // bytes; of a symbolic link its text; 0 for all but files and links
	Text string // of a symbolic link

	OldType string // of a modified one, as it is; else ""
	OldMode uint32
	OldSize int64

	// What is modified. Contents are of files and links.
	Content, Metadata, Times bool
}

// TimesOnly tells that nothing but times differ: the file was touched, or written with what it had. A commit carries the times
// over; a list of changes for people should leave it out, as [Branch.Changes] does.
func (c *Change) TimesOnly() bool { return c.Kind == Modified && !c.Content && !c.Metadata && c.Times }

// MarshalJSON gives a path or link that is no UTF-8 in base64 as well, as "path_bytes" and "target_bytes"; "path" and "target" then
// have U+FFFD for what is wrong.
func (c Change) MarshalJSON() ([]byte, error) {
	out := struct {
		Kind     string `json:"kind"`
		Path     string `json:"path"`
		Bytes    []byte `json:"path_bytes,omitempty"`
		Type     string `json:"type"`
		Mode     string `json:"mode"`
		Size     int64  `json:"size"`
		Text     string `json:"target,omitempty"`
		Target   []byte `json:"target_bytes,omitempty"`
		OldType  string `json:"old_type,omitempty"`
		OldMode  string `json:"old_mode,omitempty"`
		OldSize  *int64 `json:"old_size,omitempty"`
		Content  bool   `json:"content,omitempty"`
		Metadata bool   `json:"metadata,omitempty"`
		Times    bool   `json:"times,omitempty"`
	}{
		Kind: string(rune(c.Kind)), Path: c.Path, Type: c.Type, Mode: fmt.Sprintf("%04o", c.Mode), Size: c.Size, Text: c.Text,
		OldType: c.OldType, Content: c.Content, Metadata: c.Metadata, Times: c.Times,
	}
	if !utf8.ValidString(c.Path) {
		out.Bytes = []byte(c.Path)
	}
	if !utf8.ValidString(c.Text) {
		out.Target = []byte(c.Text)
	}
	if c.Kind == Modified {
		out.OldMode, out.OldSize = fmt.Sprintf("%04o", c.OldMode), &c.OldSize
	}
	return json.Marshal(out)
}

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}

func sizeOf(st *unix.Stat_t) int64 {
	if k := kindOf(st); k == unix.S_IFREG || k == unix.S_IFLNK {
		return st.Size
	}
	return 0
}

// errStop ends a walk whose reader has enough.
var errStop = errors.New("stop")

// ErrStopped is what Changes and the wait for the workdir's lock end with after Stop.
var ErrStopped = errors.New("stopped")

// Stop ends a walk over the changes that another goroutine is at, or its wait for the workdir's lock, and all to come. A commit
// that has the lock goes on.
func (b *Branch) Stop() { b.stopped.Store(true) }

// Changes yields what a commit would change, sorted by the bytes of the paths, without changes of nothing but times. It ends
// after an error. In memory are the names of the directories on the way, not the changes.
func (b *Branch) Changes() iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for c, err := range b.AllChanges() {
			if err == nil && c.TimesOnly() {
				continue
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

// AllChanges is Changes with those of nothing but times.
func (b *Branch) AllChanges() iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		w := &differ{b: b, yield: yield}
		w.sys = b.sys
		err := w.root()
		if err != nil && !errors.Is(err, errStop) {
			yield(Change{}, fmt.Errorf("changes of branch %s: %w", b.id, err))
		}
	}
}

type differ struct {
	walk
	b     *Branch
	yield func(Change, error) bool
}

func (w *differ) put(c Change) error {
	if !w.yield(c, nil) {
		return errStop
	}
	return nil
}

// both opens upper and lower for a walk of its own.
func (b *Branch) both() (*dirs, error) {
	if b.upper < 0 {
		return nil, errGone
	}
	up, err := openDir(b.upper, ".")
	if err != nil {
		return nil, opError("open", "upper", err)
	}
	low, err := openDir(b.workdir, ".")
	if err != nil {
		unix.Close(up)
		return nil, opError("open workdir", b.notes.Workdir, err)
	}
	return &dirs{up, low}, nil
}

func (d *dirs) close() {
	for _, fd := range []int{d.up, d.low} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (w *differ) root() error {
	at, err := w.b.both()
	if err != nil {
		return err
	}
	defer at.close()
	up, err := w.b.look(at.up, ".", false)
	if err != nil {
		return opError("look at", "", err)
	}
	low, err := fstat(at.low)
	if err != nil {
		return err
	}
	if err := w.pair(at, ".", "", &up, low); err != nil {
		return err
	}
	return w.dir(at, up.notes, !up.notes.opaque)
}

// dir visits the names of a directory. merged: those of the lower that the upper does not have stay as they are; else they
// are gone.
func (w *differ) dir(at *dirs, notes overlay, merged bool) error {
	// The contents of a directory come after what sorts before its name with a slash: "a", "a-b", "a/b".
	type event struct{ key, name string }
	var names []string
	var err error
	if at.up >= 0 {
		if names, err = readNames(at.up); err != nil {
			return opError("list upper", string(w.path), err)
		}
	}
	if at.low >= 0 && !merged {
		more, err := readNames(at.low)
		if err != nil {
			return opError("list", string(w.path), err)
		}
		names = append(names, more...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	var later []event // contents of directories, sorted by their keys
	for _, name := range names {
		for len(later) > 0 && later[0].key < name {
			if err := w.enter(at, later[0].name, notes, merged); err != nil {
				return err
			}
			later = later[1:]
		}
		if w.b.stopped.Load() {
			return ErrStopped
		}
		path := join(string(w.path), name)
		if path == w.b.notes.Inside {
			continue
		}
		up, low, err := w.entries(at, name, notes)
		if err == nil && name == stageName && (up.st != nil || up.whiteout || path == stageName) {
			err = errReserved
		}
		if err != nil {
			return opError("look at", path, err)
		}
		if err := w.pair(at, name, path, &up, low); err != nil {
			return err
		}
		if isDir(up.st) || isDir(low) {
			e := event{name + "/", name}
			i, _ := slices.BinarySearchFunc(later, e, func(a, b event) int { return cmp.Compare(a.key, b.key) })
			later = slices.Insert(later, i, e)
		}
	}
	for _, e := range later {
		if err := w.enter(at, e.name, notes, merged); err != nil {
			return err
		}
	}
	return nil
}

// entries are what upper and lower have under a name.
func (w *differ) entries(at *dirs, name string, notes overlay) (up upperEntry, low *unix.Stat_t, err error) {
	if at.up >= 0 {
		var st *unix.Stat_t
		if st, err = lookup(at.up, name); err == nil && st != nil {
			up, err = w.b.look(at.up, name, notes.xwhiteouts)
		}
		if err != nil {
			return up, nil, err
		}
	}
	if at.low >= 0 {
		low, err = lookup(at.low, name)
	}
	return up, low, err
}

func (w *differ) enter(at *dirs, name string, notes overlay, merged bool) error {
	up, low, err := w.entries(at, name, notes)
	if err != nil {
		return opError("look at", join(string(w.path), name), err)
	}
	if !isDir(up.st) && !isDir(low) {
		return nil
	}
	merged = merged && isDir(up.st) && isDir(low) && !up.notes.opaque // an opaque directory hides all beneath the lower's
	var upName, lowName string
	if isDir(up.st) {
		upName = name
	}
	if isDir(low) {
		lowName = name
	}
	return w.down(at, upName, lowName, func(below *dirs) error {
		return w.dir(below, up.notes, merged)
	})
}

// pair yields what sets two entries of one name apart.
func (w *differ) pair(at *dirs, name, path string, entry *upperEntry, low *unix.Stat_t) error {
	up := entry.st
	describe := func(dir int, st *unix.Stat_t, m *meta) (Change, error) {
		c := Change{Path: path, Type: typeName(m.Mode), Mode: m.Mode & 0o7777, Size: sizeOf(st)}
		var err error
		if kindOf(st) == unix.S_IFLNK {
			c.Text, err = readLink(dir, name)
		}
		return c, err
	}
	switch {
	case up == nil && low == nil:
		return nil
	case up == nil, low == nil:
		dir, st, kind := at.up, up, Added
		if up == nil {
			dir, st, kind = at.low, low, Deleted
		}
		var m *meta
		if up != nil {
			m = w.b.allowed(entry.meta, nil)
		} else {
			var err error
			if m, err = metaAt(dir, name); err != nil {
				return opError("look at", path, err)
			}
		}
		c, err := describe(dir, st, m)
		if err != nil {
			return opError("look at", path, err)
		}
		c.Kind = kind
		return w.put(c)
	}
	d, upMeta, lowMeta, err := w.b.compare(at.up, at.low, name, entry, low)
	if err != nil {
		return opError("compare", path, err)
	}
	if d == 0 || d == diffTimes && isDir(up) {
		return nil
	}
	c, err := describe(at.up, up, upMeta)
	if err != nil {
		return opError("look at", path, err)
	}
	c.Kind, c.OldType, c.OldMode, c.OldSize = Modified, typeName(lowMeta.Mode), lowMeta.Mode&0o7777, sizeOf(low)
	c.Content = d&(diffContent|diffType) != 0
	c.Metadata, c.Times = d&(diffMeta|diffType) != 0, d&(diffTimes|diffType) != 0
	return w.put(c)
}

func (b *Branch) reader(root int, path string) (io.ReadCloser, error) {
	dir, name := split(path)
	at, err := beneath(root, dir)
	if err != nil {
		return nil, opError("open", path, err)
	}
	defer unix.Close(at)
	fd, _, err := openRegular(at, name)
	if err != nil {
		return nil, opError("open", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenNew opens a regular file that a change adds or modifies, as it is in the branch.
func (b *Branch) OpenNew(path string) (io.ReadCloser, error) { return b.reader(b.upper, path) }

// OpenOld opens a regular file that a change deletes or modifies, as it is in the workdir.
func (b *Branch) OpenOld(path string) (io.ReadCloser, error) { return b.reader(b.workdir, path) }
