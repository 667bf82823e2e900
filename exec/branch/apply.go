package branch

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// changedError is an entry that is not what the plan found.
type changedError struct{ path string }

func (e *changedError) Error() string { return fmt.Sprintf("%q: %v", e.path, errChanged) }
func (e *changedError) Unwrap() error { return errChanged }

// places opens the directories that records are about, the last one kept for the next record.
type places struct {
	root int
	path string
	fd   int
}

func (p *places) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
	p.fd = -1
}

// at returns a directory of the workdir, until the next call.
func (p *places) at(path string) (int, error) {
	if p.fd >= 0 && p.path == path {
		return p.fd, nil
	}
	p.close()
	fd, err := beneath(p.root, path)
	if err != nil {
		return -1, err
	}
	p.path, p.fd = path, fd
	return fd, nil
}

func (s *stage) places() *places { return &places{root: s.workdir, fd: -1} }

// apply puts all records in place and syncs that. It returns what the workdir itself is to have.
func (s *stage) apply(bulk bool) (root *meta, err error) {
	at := s.places()
	defer at.close()
	if err := s.each(func(r *record) error {
		return opError("apply", string(r.Path), s.applyOne(at, r))
	}); err != nil {
		return nil, err
	}
	bulk = bulk || s.records > 2*fewFiles
	if err := s.eachEnd(func(r *record) error {
		if len(r.Path) == 0 {
			root = r.After
		}
		return opError("apply", string(r.Path), s.end(at, r, r.After, bulk))
	}); err != nil {
		return nil, err
	}
	// Both directories of each rename must be on disk before the state says so.
	if bulk {
		return root, opError("sync", "", s.sys.syncfs(s.workdir))
	}
	for _, fd := range []int{s.new, s.old} {
		if err := s.sys.fsync(fd); err != nil {
			return nil, opError("sync", stageName, err)
		}
	}
	return root, nil
}

// end gives a directory its metadata once all in it is done.
func (s *stage) end(at *places, r *record, m *meta, bulk bool) error {
	dir, err := at.at(string(r.Path))
	if err != nil {
		return err
	}
	if !bulk { // while it can be opened: its mode may forbid that next, and its times go with a sync of any later time
		if err := s.syncDir(dir); err != nil {
			return err
		}
	}
	if err := setMeta(s.sys, dir, m); err != nil {
		return err
	}
	if !bulk {
		return s.syncDir(dir)
	}
	return nil
}

func (s *stage) syncDir(dir int) error {
	fd, err := openDir(dir, ".")
	if errors.Is(err, unix.EACCES) {
		return s.sys.syncfs(s.dir)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return s.sys.fsync(fd)
}

// writable gives a directory the permissions that changes in it take, if it lacks them.
func (s *stage) writable(node int) error {
	if os.Geteuid() == 0 {
		return nil
	}
	st, err := fstat(node)
	if err != nil || st.Mode&0o700 == 0o700 {
		return err
	}
	return s.sys.chmod(node, st.Mode|0o700)
}

// movable lets a directory be moved to another: that changes its "..", for which it must be writable.
func (s *stage) movable(dir int, name string, mode uint32) error {
	if mode&unix.S_IFMT != unix.S_IFDIR || mode&0o200 != 0 || os.Geteuid() == 0 {
		return nil
	}
	node, err := openat(dir, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(node)
	return s.sys.chmod(node, mode|0o200)
}

// find opens the directory of a record's name and looks what is there; now is nil for nothing. It is done with records that have
// no name: with the end, and with directories that are to be changed, once they can be.
func (s *stage) find(at *places, r *record) (dir int, name string, now *unix.Stat_t, done bool, err error) {
	switch r.Op {
	case opEnd:
		return -1, "", nil, true, nil
	case opDir:
		if dir, err = at.at(string(r.Path)); err == nil {
			err = s.writable(dir)
		}
		return -1, "", nil, true, err
	}
	parent, name := split(string(r.Path))
	if dir, err = at.at(parent); err == nil {
		now, err = lookup(dir, name)
	}
	return dir, name, now, false, err
}

func (s *stage) applyOne(at *places, r *record) error {
	dir, name, now, done, err := s.find(at, r)
	if done || err != nil {
		return err
	}
	if (now == nil) != (r.Old == nil) || now != nil && !r.Old.untouched(now) {
		return &changedError{string(r.Path)}
	}
	if r.Op == opSet {
		return s.set(dir, name, r, r.After)
	}
	if r.Old != nil {
		if err := s.movable(dir, name, r.Old.Mode); err != nil {
			return err
		}
	}
	switch {
	case r.Op == opDrop:
		err = s.move(dir, name, s.old, r.slot())
		if err == nil {
			err = s.cameOut(s.old, r)
		}
		return err
	case r.Old == nil:
		err = s.move(s.new, r.slot(), dir, name)
		if errors.Is(err, unix.EEXIST) {
			return &changedError{string(r.Path)}
		}
	default:
		err = s.sys.rename(s.new, r.slot(), dir, name, unix.RENAME_EXCHANGE)
		switch {
		case err == nil:
			err = s.cameOut(s.new, r)
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			if err = s.move(dir, name, s.old, r.slot()); err == nil {
				err = s.cameOut(s.old, r)
			}
			if err == nil {
				err = s.move(s.new, r.slot(), dir, name)
			}
		}
	}
	if err != nil {
		return err
	}
	return s.placed(dir, name, r)
}

// placed gives a new directory what a rename took from it, or what it could not be renamed with.
func (s *stage) placed(dir int, name string, r *record) error {
	if r.New.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	node, err := openat(dir, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(node)
	changed, err := s.timed(node, r.New.Mtime)
	if err == nil && r.Mode != 0 {
		changed = true
		err = s.sys.chmod(node, r.Mode)
	}
	if err != nil || !changed {
		return err
	}
	return s.syncDir(node)
}

// timed gives a directory its modification time again: on XFS, RENAME_EXCHANGE sets that of directories which it moves to others
// (xfs_cross_rename), and then it is the change time. Nobody but the owner can.
func (s *stage) timed(node int, mtime stamp) (changed bool, err error) {
	st, err := fstat(node)
	if err != nil || stampOf(st.Mtim) == mtime || st.Mtim != st.Ctim {
		return false, err
	}
	err = s.sys.utimes(node, unix.Timespec{Nsec: unix.UTIME_OMIT}, mtime.timespec())
	if errors.Is(err, unix.EPERM) && int(st.Uid) != os.Geteuid() {
		err = nil
	}
	return true, err
}

// move renames to where nothing is. Where the file system cannot promise that, it looks first.
func (s *stage) move(fromDir int, from string, dir int, name string) error {
	err := s.sys.rename(fromDir, from, dir, name, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	st, err := lookup(dir, name)
	if err != nil {
		return err
	}
	if st != nil {
		return unix.EEXIST
	}
	return s.sys.rename(fromDir, from, dir, name, 0)
}

// cameOut checks that what a rename took out of its place is what was planned with.
func (s *stage) cameOut(dir int, r *record) error {
	st, err := lookup(dir, r.slot())
	if err != nil {
		return err
	}
	if st == nil || !r.Old.cameOut(st) {
		return &changedError{string(r.Path)}
	}
	return nil
}

// set changes the metadata of a file in its place.
func (s *stage) set(dir int, name string, r *record, m *meta) error {
	node, err := pin(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(node)
	st, err := fstat(node)
	if err != nil {
		return err
	}
	if st.Ino != r.Old.Ino || kindOf(st) != unix.S_IFREG {
		return &changedError{string(r.Path)}
	}
	if err := setMeta(s.sys, node, m); err != nil {
		return err
	}
	fd, _, err := openRegular(dir, name)
	if err != nil {
		return s.sys.syncfs(s.dir)
	}
	defer unix.Close(fd)
	return s.sys.fsync(fd)
}

// undo takes back what a commit did that is not committed, and removes its stage.
func (b *Branch) undo(s *stage) error {
	state, err := stateOf(s)
	if err != nil {
		return err
	}
	if state == stateCommitted {
		return errors.New("is committed")
	}
	if state == statePlanned {
		if err := s.undoAll(); err != nil {
			return err
		}
		if b.dir >= 0 {
			if err := b.writeBaseline(s); err != nil {
				return err
			}
		}
		err := s.setState(stateUndone)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) { // what was to be put in place makes room
			if err = removeTree(b.sys, s.dir, "new"); err == nil {
				err = s.setState(stateUndone)
			}
		}
		if err != nil {
			return err
		}
	}
	return s.remove(s.id.Root)
}

func stateOf(s *stage) (string, error) {
	text, err := readFile(s.dir, "state")
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	return string(text), opError("read", "state", err)
}

// undoAll goes on after a failure, so that as much as can be is as it was; it returns the first.
func (s *stage) undoAll() error {
	at := s.places()
	defer at.close()
	var first error
	note := func(r *record, err error) error {
		if err != nil && first == nil {
			first = opError("undo", string(r.Path), err)
		}
		return nil
	}
	if err := s.each(func(r *record) error {
		return note(r, s.undoOne(at, r))
	}); err != nil {
		return err
	}
	if err := s.eachEnd(func(r *record) error {
		return note(r, s.end(at, r, r.Before, true))
	}); err != nil {
		return err
	}
	if first != nil {
		return first
	}
	return opError("sync", "", s.sys.syncfs(s.workdir))
}

func (s *stage) undoOne(at *places, r *record) error {
	dir, name, now, done, err := s.find(at, r)
	if done || err != nil {
		return err
	}
	if r.Op == opSet {
		if now == nil || now.Ino != r.Old.Ino {
			return nil // somebody else's by now
		}
		return s.set(dir, name, r, r.Before)
	}
	inNew, err := lookup(s.new, r.slot())
	if err != nil {
		return err
	}
	inOld, err := lookup(s.old, r.slot())
	if err != nil {
		return err
	}
	placed := r.New != nil && now != nil && now.Ino == r.New.Ino
	original := 0 // where the original is: a directory of the stage
	mode := uint32(0)
	switch {
	case inOld != nil:
		original, mode = s.old, inOld.Mode
	case r.Old != nil && inNew != nil && inNew.Ino != r.New.Ino:
		original, mode = s.new, inNew.Mode
	}
	if original != 0 { // after a power loss it may have its old mode already
		if err := s.movable(original, r.slot(), mode); err != nil {
			return err
		}
	}
	if placed {
		if err := s.movable(dir, name, now.Mode); err != nil {
			return err
		}
		if original == s.new {
			if err := s.sys.rename(s.new, r.slot(), dir, name, unix.RENAME_EXCHANGE); err != nil {
				return err
			}
			return s.asBefore(dir, name, r)
		}
		if err := s.move(dir, name, s.new, r.slot()); err != nil {
			return err
		}
		now = nil
	}
	if original != 0 {
		if now != nil { // not ours: what was there is kept in the stage until somebody has made room
			return fmt.Errorf("is in the way of the original, %s/%s: %w", stageName, r.slot(), unix.EEXIST)
		}
		if err := s.move(original, r.slot(), dir, name); err != nil {
			return err
		}
	}
	return s.asBefore(dir, name, r)
}

// asBefore gives a directory its mode again, which it may have been made movable by, and its time.
func (s *stage) asBefore(dir int, name string, r *record) error {
	if r.Old == nil || r.Old.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	node, err := openat(dir, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(node)
	st, err := fstat(node)
	if err != nil || st.Ino != r.Old.Ino {
		return err
	}
	if st.Mode != r.Old.Mode {
		if err := s.sys.chmod(node, r.Old.Mode); err != nil {
			return err
		}
	}
	_, err = s.timed(node, r.Old.Mtime)
	return err
}

// writeBaseline notes what the entries of a journal look like after an undo.
func (b *Branch) writeBaseline(s *stage) error {
	if err := removeTree(b.sys, b.dir, "baseline"); err != nil {
		return err
	}
	fd, err := b.sys.create(b.dir, "baseline", 0o600)
	if err != nil {
		return opError("create", "baseline", err)
	}
	defer unix.Close(fd)
	out := bufio.NewWriterSize(journalWriter{&stage{sys: b.sys, file: fd}}, 64<<10)
	at := s.places()
	defer at.close()
	err = s.each(func(r *record) error {
		if r.Op == opEnd || len(r.Path) == 0 || r.Op != opDir && r.Old == nil || r.Dirty {
			return nil
		}
		parent, name := split(string(r.Path))
		dir, err := at.at(parent)
		if err != nil {
			return nil // without an entry there is a conflict, which loses nothing
		}
		st, err := lookup(dir, name)
		if err != nil || st == nil {
			return nil
		}
		text, err := json.Marshal(baselineEntry{Path: r.Path, Ino: st.Ino, Ctime: stampOf(st.Ctim)})
		if err == nil {
			_, err = out.Write(append(text, '\n'))
		}
		return err
	})
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = b.sys.fsync(fd)
	}
	return opError("write", "baseline", err)
}
