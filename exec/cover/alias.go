package cover

import (
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// Hard links that were made before the start are other names of a covered file, or of one in a covered directory. They are
// searched for in what is granted, and covered too. A file that all of whose names (st_nlink) are known costs no search.
//
// The search does not leave the file systems that the files are on. It is for what the grants reach: an alias in a directory
// that the command cannot look into is none for it, except where the directory is the user's own and could be opened up
// (chmod(2) takes no right of Landlock's): that is covered as a whole.

// maxHidden bounds the entries beneath covered directories that are looked at, together. Each costs a stat, so this is about a
// second.
const maxHidden = 1 << 20

// target is a file whose other names are searched for.
type target struct {
	kind  Kind
	rule  Rule
	nlink int
	names map[linkName]Kind // how they are covered
}

// linkName is one name of a file, however the directory was come to.
type linkName struct {
	dir  id
	name string
}

// know notes a name that is covered.
func (t *target) know(n linkName, kind Kind) {
	if old, ok := t.names[n]; !ok || old < kind {
		t.names[n] = kind
	}
}

// complete reports whether all names are covered as the target is to be.
func (t *target) complete() bool {
	n := 0
	for _, kind := range t.names {
		if kind >= t.kind {
			n++
		}
	}
	return n >= t.nlink
}

// search looks for the names of targets.
type search struct {
	*planner
	targets map[id]*target
	inodes  map[uint64]bool // of targets, whatever their devices
	devices map[uint64]bool // that targets, and the directories that hold them, are on
	exact   map[uint64]bool // by device: d_ino of a listing is st_ino
	mounts  map[uint64]bool // that targets are on
	roots   map[string]bool // directories to begin at
	hidden  int
}

func (p *planner) aliases() {
	s := &search{planner: p, targets: map[id]*target{}, inodes: map[uint64]bool{}, devices: map[uint64]bool{},
		exact: map[uint64]bool{}, mounts: map[uint64]bool{}, roots: map[string]bool{}}
	for _, c := range sortedCovers(p.covers) {
		if c.Kind < ReadOnly || c.alone || p.kept(c.Path, c.Kind) {
			continue
		}
		if err := s.gather(c); err != nil {
			p.fail(Rule{Name: c.Rule}, c.Path, fmt.Errorf("search for its hard links: %w", err))
		}
	}
	for i, t := range s.targets {
		if t.complete() {
			delete(s.targets, i)
		} else {
			s.inodes[i.ino] = true
		}
	}
	if len(s.targets) == 0 || len(p.problems) > 0 {
		return
	}
	if err := s.run(); err != nil {
		p.fail(s.anyRule(), "the granted paths", fmt.Errorf("search for hard links: %w", err))
	}
}

func (s *search) anyRule() Rule {
	for _, t := range s.targets {
		return t.rule
	}
	return Rule{Name: "filesystem.deny"}
}

// gather notes the files of a cover that have several names.
func (s *search) gather(c *found) error {
	if c.Dir {
		return s.gatherIn(c)
	}
	if c.file.nlink < 2 {
		return nil
	}
	parent := path.Dir(c.Path)
	f, err := s.view.stat(parent)
	if err != nil {
		return err
	}
	s.target(c, c.file, f, path.Base(c.Path), parent)
	return nil
}

// target notes one name of a file of a cover.
func (s *search) target(c *found, f, dir file, name, where string) {
	t := s.targets[f.id()]
	if t == nil {
		t = &target{kind: c.Kind, rule: Rule{Name: c.Rule}, nlink: int(f.nlink), names: map[linkName]Kind{}}
		s.targets[f.id()] = t
	}
	if c.Kind > t.kind {
		t.kind, t.rule = c.Kind, Rule{Name: c.Rule}
	}
	t.know(linkName{dir.id(), name}, c.Kind)
	// An overlay gives files other devices than directories.
	s.devices[f.dev], s.devices[dir.dev] = true, true
	if !s.mounts[dir.mnt] {
		s.mounts[dir.mnt] = true
		s.root(where, dir)
	}
}

// root adds the topmost directory of the mount that a target is on, if that lies beneath a grant: the grant's own file system
// may be another. On the way down from there volumes within a file system may have other devices.
func (s *search) root(where string, dir file) {
	for up := range above(where) {
		f, err := s.view.stat(up)
		if err != nil || f.mnt != dir.mnt {
			break
		}
		where = up
		s.devices[f.dev] = true
	}
	if granted(s.grants.isGranted, where) {
		s.roots[where] = true
	}
}

// gatherIn notes the files in a covered directory that have several names. What this process may not look into the command
// may not either; its files' other names are then files like any other to both.
func (s *search) gatherIn(c *found) error {
	stack := []string{c.Path}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		fd, err := s.view.open(at, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			if err = told(err); err != nil && err != unix.EACCES {
				return err
			}
			continue
		}
		dir, err := statAt(fd, "")
		if err == nil {
			err = s.view.list(fd, func(e entry) error {
				if s.hidden++; s.hidden > maxHidden {
					return fmt.Errorf("more than %d files lie in covered directories", maxHidden)
				}
				switch e.kindIn(fd) {
				case unix.DT_DIR:
					stack = append(stack, join(at, string(e.name)))
				case unix.DT_LNK:
				default:
					f, err := statAt(fd, string(e.name))
					if err == nil && f.nlink > 1 && !f.dir() {
						s.target(c, f, dir, string(e.name), at)
					}
				}
				return nil
			})
		}
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// run walks the grants.
func (s *search) run() error {
	grants := s.grants.outerWrites
	for _, t := range s.targets {
		if t.kind == Closed {
			grants = s.grants.outer
		}
	}
	for _, grant := range grants {
		f, err := s.view.stat(grant)
		if err != nil {
			if told(err) == nil {
				continue
			}
			return err
		}
		switch {
		case !f.dir():
			if err := s.single(grant, f); err != nil {
				return err
			}
		case s.devices[f.dev]:
			s.roots[grant] = true
		}
	}
	for _, root := range sortedKeys(s.roots) { // from above
		if s.roots[root] && len(s.targets) > 0 {
			if err := s.walk(root); err != nil {
				return err
			}
		}
	}
	return nil
}

// single looks at a file that is granted by itself.
func (s *search) single(at string, f file) error {
	if s.targets[f.id()] == nil {
		return nil
	}
	parent := path.Dir(at)
	dir, err := s.view.stat(parent)
	if err != nil {
		return err
	}
	s.hit(at, linkName{dir.id(), path.Base(at)}, f)
	return nil
}

// hit covers one name of a target.
func (s *search) hit(at string, name linkName, f file) {
	t := s.targets[f.id()]
	if t == nil {
		return
	}
	if t.know(name, t.kind); t.complete() {
		delete(s.targets, f.id())
	}
	if _, ok := s.grants.writable(at); t.kind == Closed || ok {
		s.add(t.rule, at, f, t.kind, false)
	}
}

// walk looks at all names beneath a directory until no target is left.
func (s *search) walk(root string) error {
	stack := []string{root}
	for len(stack) > 0 && len(s.targets) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		delete(s.roots, at)
		if c, ok := s.covers[at]; ok && c.Kind == Closed {
			continue // it was gathered
		}
		fd, err := s.view.open(at, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
		if err == unix.EACCES {
			s.unreadable(at)
			continue
		}
		if err != nil {
			if err = told(err); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
			continue
		}
		stack, err = s.read(fd, at, stack)
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

func (s *search) read(fd int, at string, stack []string) ([]string, error) {
	dir, err := statAt(fd, "")
	if err != nil || !s.devices[dir.dev] {
		return stack, err
	}
	exact := s.inodesListed(fd, dir.dev)
	err = s.view.list(fd, func(e entry) error {
		switch e.kindIn(fd) {
		case unix.DT_DIR:
			stack = append(stack, join(at, string(e.name)))
		case unix.DT_LNK:
		default:
			if exact && !s.inodes[e.ino] {
				return nil
			}
			if f, err := statAt(fd, string(e.name)); err == nil && s.targets[f.id()] != nil {
				s.hit(join(at, string(e.name)), linkName{dir.id(), string(e.name)}, f)
			}
		}
		return nil
	})
	return stack, err
}

// inodesListed reports whether inode numbers in listings are those of the files, which spares looking at each. Overlays list
// the numbers of a lower layer, FUSE whatever the server says; where a file is mounted over, what is beneath is listed.
func (s *search) inodesListed(fd int, dev uint64) bool {
	exact, known := s.exact[dev]
	if known {
		return exact
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil {
		switch fs.Type {
		case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.F2FS_SUPER_MAGIC:
			exact = true
		}
	}
	s.exact[dev] = exact
	return exact
}

// unreadable closes a directory that this process may not list, unless the command can make nothing of it either. What is
// searched for could lie in it.
func (s *search) unreadable(at string) {
	f, err := s.view.stat(at)
	if err != nil || !s.devices[f.dev] {
		return
	}
	usable := f.uid == s.uid
	if !usable {
		fd, err := s.view.open(at, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		usable = unix.Faccessat(fd, ".", unix.X_OK, 0) == nil
	}
	if usable {
		for _, t := range s.targets {
			if _, ok := s.grants.writable(at); t.kind == Closed || ok {
				s.add(t.rule, at, f, t.kind, false)
			}
		}
	}
}
