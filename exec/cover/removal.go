package cover

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Plan is what a start mounts, and what it made on the host.
//
// The descriptors are close-on-exec. The init process of the sandbox inherits them (it is a fork): with them it holds the
// locks, and at the end, when no other process of the sandbox is left, it makes the calls of [Plan.Removal].
type Plan struct {
	Covers       []Cover // in the order to mount them in
	Placeholders []*Placeholder

	dirs   []madeDir
	open   map[[3]uint64]int
	closed bool
}

// Call is one system call. It fails unless its result is 0. The address of Text, where that is not empty, stands in for
// Args[TextArg].
type Call struct {
	NR      uintptr
	Args    [6]uintptr
	Text    []byte // ends in NUL
	TextArg int
}

// Removal returns the calls that take the placeholders away, for a process in the view's mount namespace that may unmount and
// has the plan's descriptors. A group ends at its first call that fails; the next is made whatever the one before did.
//
// That two who end at once do not both leave it to the other: turning a shared lock into an exclusive one gives up the first
// before the second is tried for (flock(2)), so whoever gives up last finds no other lock.
func (p *Plan) Removal() (groups [][]Call) {
	const detach = unix.MNT_DETACH | unix.UMOUNT_NOFOLLOW
	unmount := func(path string) Call {
		return Call{NR: unix.SYS_UMOUNT2, Args: [6]uintptr{0, detach}, Text: text(path)}
	}
	unlink := func(dir int, name string, flags uintptr) Call {
		return Call{NR: unix.SYS_UNLINKAT, Args: [6]uintptr{uintptr(dir), 0, flags}, Text: text(name), TextArg: 1}
	}
	for _, h := range p.Placeholders {
		groups = append(groups, []Call{
			{NR: unix.SYS_FLOCK, Args: [6]uintptr{uintptr(h.FD), unix.LOCK_EX | unix.LOCK_NB}},
			{NR: unix.SYS_LSEEK, Args: [6]uintptr{uintptr(h.FD), 0, unix.SEEK_END}}, // its size: nobody wrote to it
			unmount(h.Path), // fails where the name means another file by now
			unlink(h.Dir, h.Name, 0),
		})
	}
	// The directories lie above placeholders, so they are pinned: mount points, too. Unmounting one takes the mounts beneath
	// it along, hence the deepest first, after all files. One that is not empty stays.
	for _, d := range p.deepest() {
		groups = append(groups, []Call{unmount(d.path), unlink(d.dir, d.name, unix.AT_REMOVEDIR)})
	}
	return groups
}

func text(s string) []byte { return append([]byte(s), 0) }

func (p *Plan) deepest() []madeDir {
	dirs := slices.Clone(p.dirs)
	slices.SortFunc(dirs, func(a, b madeDir) int { return strings.Compare(b.path, a.path) })
	return dirs
}

// Descriptors returns those that the init process has to keep.
func (p *Plan) Descriptors() (fds []int) {
	for _, h := range p.Placeholders {
		fds = append(fds, h.FD)
	}
	for _, fd := range p.open {
		fds = append(fds, fd)
	}
	slices.Sort(fds)
	return fds
}

// Undo removes the placeholders from this process, where the start failed before the init process took over, or where that
// was killed, and closes the plan. It does not need to know how far the init process came.
func (p *Plan) Undo() {
	if p.closed {
		return
	}
	for _, h := range p.Placeholders {
		if unix.Flock(h.FD, unix.LOCK_EX|unix.LOCK_NB) != nil {
			continue
		}
		if f, err := statAt(h.Dir, h.Name); err == nil && f.id() == h.id && f.size == 0 {
			_ = unix.Unlinkat(h.Dir, h.Name, 0)
		}
	}
	for _, d := range p.deepest() {
		if f, err := statAt(d.dir, d.name); err == nil && f.id() == d.id {
			_ = unix.Unlinkat(d.dir, d.name, unix.AT_REMOVEDIR)
		}
	}
	p.Close()
}

// Close closes the descriptors of this process and removes nothing. What is locked stays locked by the init process.
func (p *Plan) Close() {
	if p.closed {
		return
	}
	p.closed = true
	for _, fd := range p.Descriptors() {
		_ = unix.Close(fd)
	}
}
