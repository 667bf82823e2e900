package branch

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// make makes an entry of the upper anew in the stage. On the workdir's own mount that is one more link to the upper's file,
// whatever its size, so that the upper stays whole until the commit is over; names of one file stay names of one file. Else
// it is a copy. For the top of what is put, mode is what it gets once it is in place, if not now: a directory without write
// permission for its owner cannot be moved.
func (p *planner) make(at *dirs, name string, up upperEntry, as string, low *meta, top bool) (mode uint32, err error) {
	from, to := at.up, at.low
	m := p.b.allowed(up.meta, low)
	if isDir(up.st) {
		return p.makeDir(at, name, up, as, m, top)
	}
	if !p.b.copies {
		err := p.sys.link(from, name, to, as)
		if err == nil {
			return 0, p.finish(to, as, m, &up)
		}
		// EPERM: fs.protected_hardlinks, or a file system without links.
		if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EMLINK) {
			return 0, err
		}
		p.b.copies = errors.Is(err, unix.EXDEV)
	}
	return 0, p.duplicate(from, name, up.st, to, as, p.stage.links, !p.bulk, func() error { return p.finish(to, as, m, nil) })
}

// duplicate makes an entry, which is no directory, like another, and has finish give it the rest. Names of one file stay names
// of one file: links is a directory of those that were made so far. check is whether to ask if what was read is what was written.
func (w *walk) duplicate(from int, name string, st *unix.Stat_t, to int, as string, links int, check bool, finish func() error) (err error) {
	if st.Nlink > 1 {
		err := w.sys.link(links, linkName(st), to, as)
		if err == nil || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EMLINK) {
			return err
		}
	}
	switch kindOf(st) {
	case unix.S_IFREG:
		err = w.copy(from, name, to, as, check)
	case unix.S_IFLNK:
		var text string
		if text, err = readLink(from, name); err == nil {
			err = w.sys.symlink(text, to, as)
		}
	default:
		err = w.sys.mknod(to, as, kindOf(st)|0o600, int(st.Rdev))
	}
	if err == nil {
		err = finish()
	}
	if err == nil && st.Nlink > 1 {
		if err = w.sys.link(to, as, links, linkName(st)); errors.Is(err, unix.EEXIST) {
			err = nil
		}
	}
	return err
}

// copy makes a regular file with another's data.
func (w *walk) copy(from int, name string, to int, as string, check bool) error {
	source, st, err := w.openUpperFile(from, name)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	fd, err := w.sys.create(to, as, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := w.sys.fill(fd, source, st.Size); err != nil || !check {
		return err
	}
	return w.sys.fsync(source) // not to have it on disk, but to hear that it is not what was written
}

// openUpperFile opens one that its command may have left without permissions.
func (w *walk) openUpperFile(dir int, name string) (int, *unix.Stat_t, error) {
	fd, st, err := openRegular(dir, name)
	if !errors.Is(err, unix.EACCES) {
		return fd, st, err
	}
	node, err := pin(dir, name)
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(node)
	if err := w.sys.chmod(node, st.Mode|0o400); err != nil {
		return -1, nil, err
	}
	fd, _, err = openRegular(dir, name)
	return fd, st, errors.Join(err, w.sys.chmod(node, st.Mode))
}

// finish gives what was made its metadata, and syncs it. shared is the upper's own file, if it is that: it has its metadata
// already, but also the notes of overlayfs.
func (p *planner) finish(dir int, name string, m *meta, shared *upperEntry) error {
	if shared == nil || !shared.final(m) {
		node, err := pin(dir, name)
		if err != nil {
			return err
		}
		defer unix.Close(node)
		if shared != nil {
			err = p.strip(node, m, shared)
		} else {
			err = setMeta(p.sys, node, m)
		}
		if err != nil {
			return err
		}
	}
	p.files++
	if p.bulk || p.files > fewFiles || m.Mode&unix.S_IFMT != unix.S_IFREG {
		p.bulk = true // there is no fsync of a link, FIFO or socket
		return nil
	}
	fd, _, err := openRegular(dir, name)
	if err != nil { // no permission to read it
		p.bulk = true
		return nil
	}
	defer unix.Close(fd)
	return p.sys.fsync(fd)
}

// final tells whether an entry has nothing that does not belong into the workdir, and all that it is to have.
func (e *upperEntry) final(m *meta) bool {
	return e.meta.equal(m) && !slices.ContainsFunc(e.names, func(name string) bool { return overlayName(name) != "" })
}

// strip takes what does not belong into the workdir off a file of the upper.
func (p *planner) strip(node int, m *meta, entry *upperEntry) error {
	now := entry.meta
	for _, name := range entry.names {
		if overlayName(name) == "" {
			continue
		}
		err := p.sys.removexattr(node, name)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) { // a file that its owner may not write
			if err = p.sys.chmod(node, now.Mode|0o200); err == nil {
				err = p.sys.removexattr(node, name)
				err = errors.Join(err, p.sys.chmod(node, now.Mode))
			}
		}
		if err != nil {
			return err
		}
	}
	if now.equal(m) {
		return nil
	}
	return setMeta(p.sys, node, m)
}

func (p *planner) makeDir(at *dirs, name string, up upperEntry, as string, m *meta, top bool) (uint32, error) {
	if err := p.sys.mkdir(at.low, as, 0o700); err != nil {
		return 0, err
	}
	err := p.down(at, name, as, func(below *dirs) error {
		names, err := readNames(below.up)
		if err != nil {
			return err
		}
		for _, n := range names {
			e, err := p.b.look(below.up, n, up.notes.xwhiteouts)
			if err != nil {
				return opError("look at upper", join(string(p.path), n), err)
			}
			if e.st == nil {
				continue
			}
			if n == stageName {
				return opError("commit", join(string(p.path), n), errReserved)
			}
			if _, err := p.make(below, n, e, n, nil, false); err != nil {
				return opError("prepare", join(string(p.path), n), err)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	final := uint32(0)
	if top && m.Mode&0o200 == 0 {
		final, m.Mode = m.Mode, m.Mode|0o700
	}
	node, err := pin(at.low, as)
	if err != nil {
		return 0, err
	}
	defer unix.Close(node)
	if err := setMeta(p.sys, node, m); err != nil || p.bulk {
		return final, err
	}
	fd, err := openDir(at.low, as)
	if err != nil { // no permission to read it
		p.bulk = true
		return final, nil
	}
	defer unix.Close(fd)
	return final, p.sys.fsync(fd)
}
