package branch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// stageName is the directory in the workdir that a commit works in: it must be on the workdir's file system, whence nothing
// is more than a rename away, and it must survive what the workdir survives (a storage in memory does not survive power loss).
// There is one at most, as a commit holds the workdir's lock. It has these:
//
//	id       whose commit this is, and the metadata of the workdir before it
//	journal  records: all that is to be done, and what was there before
//	state    nothing yet: no name was touched; else one of the states
//	new/N    what is to be put in place for record N; what was in that place, once they are exchanged
//	old/N    what was in the place, if it is deleted
//	links/I  the first copy of a file of several names, until the commit is over
const stageName = ".sandlock-commit"

// The states. Their file is exchanged by a rename after all before it is on disk, so each is one step.
const (
	statePlanned   = "planned"   // names may have been touched: a crash is undone
	stateCommitted = "committed" // all is in place: what is left is to remove the stage and the branch
	stateUndone    = "undone"    // all is as it was: what is left is to remove the stage
)

// identity tells whether an entry is the one that was planned with. Its change time is none of it after a rename.
type identity struct {
	Ino   uint64
	Mode  uint32
	Size  int64
	Mtime stamp
	Ctime stamp
	Links uint64 // how many names it has
}

func identityOf(st *unix.Stat_t) *identity {
	return &identity{Ino: st.Ino, Mode: st.Mode, Size: st.Size, Mtime: stampOf(st.Mtim), Ctime: stampOf(st.Ctim), Links: uint64(st.Nlink)}
}

// is tells whether that is the entry, with what it had in it.
func (i *identity) is(st *unix.Stat_t) bool {
	return st.Ino == i.Ino && kindOf(st) == i.Mode&unix.S_IFMT && stampOf(st.Mtim) == i.Mtime && (isDir(st) || st.Size == i.Size)
}

// untouched is the same for an entry that the commit itself has not moved yet. Of a file with more names it may have moved
// another one.
func (i *identity) untouched(st *unix.Stat_t) bool {
	return i.is(st) && (stampOf(st.Ctim) == i.Ctime || !isDir(st) && i.Links > 1)
}

// cameOut is the same for one that a rename took out of its place just now: of a directory that may have set its time (see timed).
func (i *identity) cameOut(st *unix.Stat_t) bool {
	if isDir(st) && st.Mtim == st.Ctim {
		return st.Ino == i.Ino && kindOf(st) == i.Mode&unix.S_IFMT
	}
	return i.is(st)
}

// The operations of records.
const (
	opDir  = "dir" // what follows, up to its end, is in a directory of both; it is made writable
	opEnd  = "end" // it gets its metadata; the innermost come first
	opPut  = "put" // new/N takes the place
	opDrop = "drop"
	opSet  = "set" // metadata of a file
)

type record struct {
	Op     string    `json:"op"`
	Path   []byte    `json:"path"`
	Slot   int64     `json:"slot,omitempty"`
	Old    *identity `json:"old,omitempty"`   // what is in the place
	New    *identity `json:"new,omitempty"`   // what is put there
	Mode   uint32    `json:"mode,omitempty"`  // that a new directory gets once it is in place, where it cannot be moved with it
	Dirty  bool      `json:"dirty,omitempty"` // the directory was changed outside, without a conflict
	Before *meta     `json:"before,omitempty"`
	After  *meta     `json:"after,omitempty"`
}

func (r *record) slot() string { return strconv.FormatInt(r.Slot, 10) }

// stage is an open stage.
type stage struct {
	sys     sys
	workdir int
	dir     int
	new     int
	old     int
	links   int
	id      stageID

	journal *bufio.Writer // while it is planned
	file    int
	records int
}

type stageID struct {
	ID   string // of the branch
	Root *meta  // of the workdir, before
}

func (s *stage) close() {
	for _, fd := range []*int{&s.dir, &s.new, &s.old, &s.links, &s.file} {
		if *fd >= 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
}

func newStage(s sys, workdir int) *stage {
	return &stage{sys: s, workdir: workdir, dir: -1, new: -1, old: -1, links: -1, file: -1}
}

// makeStage makes one in a workdir that has none.
func makeStage(s sys, workdir int, id stageID) (_ *stage, err error) {
	st := newStage(s, workdir)
	st.id = id
	defer func() {
		if err != nil {
			err = opError("create", stageName, err)
			st.close()
		}
	}()
	if err := s.mkdir(workdir, stageName, 0o700); err != nil {
		return nil, err
	}
	if st.dir, err = openDir(workdir, stageName); err != nil {
		return nil, err
	}
	// The workdir's default access control list and setgid bit would go on to all that is made here.
	for _, name := range []string{"system.posix_acl_default", "system.posix_acl_access"} {
		if err := s.removexattr(st.dir, name); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return nil, err
		}
	}
	now, err := fstat(st.dir)
	if err != nil {
		return nil, err
	}
	if int(now.Gid) != os.Getegid() {
		if err := s.chown(st.dir, -1, os.Getegid()); err != nil && !errors.Is(err, unix.EPERM) {
			return nil, err
		}
	}
	if now.Mode&0o7777 != 0o700 {
		if err := s.chmod(st.dir, 0o700); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"new", "old", "links"} {
		if err := s.mkdir(st.dir, name, 0o700); err != nil {
			return nil, err
		}
	}
	if err := st.openDirs(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	if err := writeFile(s, st.dir, "id", text); err != nil {
		return nil, err
	}
	if st.file, err = s.create(st.dir, "journal", 0o600); err != nil {
		return nil, err
	}
	st.journal = bufio.NewWriterSize(journalWriter{st}, 256<<10)
	return st, nil
}

func (s *stage) openDirs() (err error) {
	for name, fd := range map[string]*int{"new": &s.new, "old": &s.old, "links": &s.links} {
		if *fd, err = openDir(s.dir, name); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

type journalWriter struct{ s *stage }

func (w journalWriter) Write(p []byte) (int, error) {
	if err := w.s.sys.write(w.s.file, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *stage) append(r *record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	s.records++
	if _, err := s.journal.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// openStage opens the stage that an interrupted commit left; nil, without error, where there is none. It must be this user's
// alone: whoever else can write the workdir could plant one.
func openStage(s sys, workdir int) (st *stage, state string, err error) {
	st = newStage(s, workdir)
	defer func() {
		if err != nil {
			err = opError("open", stageName, err)
			st.close()
			st = nil
		}
	}()
	st.dir, err = openDir(workdir, stageName)
	if errors.Is(err, unix.ENOENT) {
		return nil, "", nil
	}
	if err != nil {
		return st, "", err
	}
	now, err := fstat(st.dir)
	if err != nil {
		return st, "", err
	}
	if int(now.Uid) != os.Geteuid() {
		return st, "", fmt.Errorf("belongs to user %d, not to %d", now.Uid, os.Geteuid())
	}
	if now.Mode&0o077 != 0 { // it came with an archive, say
		return st, "", fmt.Errorf("no commit has made it: its mode is %#o, want 0700", now.Mode&0o7777)
	}
	if err := st.openDirs(); err != nil {
		return st, "", err
	}
	text, err := readFile(st.dir, "id")
	if err == nil {
		err = json.Unmarshal(text, &st.id)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return st, "", err
	}
	text, err = readFile(st.dir, "state")
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return st, "", err
	}
	return st, string(text), nil
}

func (s *stage) setState(state string) error {
	return opError("write", "state "+state, writeFile(s.sys, s.dir, "state", []byte(state)))
}

// each reads the journal from its start.
func (s *stage) each(do func(r *record) error) error { return s.read("", do) }

// eachEnd is each for the records of opEnd. Of the others it reads no more than which they are: each was there before.
func (s *stage) eachEnd(do func(r *record) error) error { return s.read(opEnd, do) }

func (s *stage) read(op string, do func(r *record) error) error {
	fd, _, err := openRegular(s.dir, "journal")
	if err != nil {
		return opError("open", "journal", err)
	}
	f := os.NewFile(uintptr(fd), "journal")
	defer f.Close()
	return eachRecord(f, op, do)
}

// eachRecord reads records of one operation; "" is all. Another goroutine decodes the next ones meanwhile.
func eachRecord(f io.Reader, op string, do func(r *record) error) error {
	var failure error
	next := make(chan []record, 1)
	stop := make(chan struct{})
	defer func() {
		close(stop)
		for range next {
		}
	}()
	go func() {
		defer close(next)
		lines := bufio.NewReaderSize(f, 256<<10)
		for failure == nil {
			var some []record
			some, failure = decodeSome(lines, op)
			select {
			case next <- some:
			case <-stop:
				return
			}
		}
	}()
	for some := range next {
		for i := range some {
			if err := do(&some[i]); err != nil {
				return err
			}
		}
	}
	if errors.Is(failure, io.EOF) {
		return nil
	}
	return fmt.Errorf("read journal: %w", failure)
}

// decodeSome returns the next records, and why they are the last.
func decodeSome(lines *bufio.Reader, op string) (some []record, err error) {
	for len(some) < 64 {
		line, err := readLine(lines)
		if err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)) {
			return some, err
		}
		if op != "" && skips(line, op) {
			continue
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return some, err
		}
		if bad(string(r.Path)) {
			return some, fmt.Errorf("path %q", r.Path)
		}
		if op == "" || r.Op == op {
			some = append(some, r)
		}
	}
	return some, nil
}

// readLine returns a line of any length, which the next call may overwrite.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line = bytes.Clone(line)
		var rest []byte
		rest, err = r.ReadBytes('\n')
		line = append(line, rest...)
	}
	return line, err
}

// skips tells whether a line is a record of another operation, as append writes it: one that is not is decoded, or fails.
func skips(line []byte, op string) bool {
	rest, begins := bytes.CutPrefix(line, []byte(`{"op":"`))
	is, _, found := bytes.Cut(rest, []byte(`","path":`))
	if !begins || !found || !bytes.HasSuffix(line, []byte("}\n")) {
		return false
	}
	switch o := string(is); o {
	case opDir, opEnd, opPut, opDrop, opSet:
		return o != op
	}
	return false
}

// bad tells whether a path is none that a plan has.
func bad(path string) bool {
	if path == "" {
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." {
			return true
		}
	}
	return strings.IndexByte(path, 0) >= 0
}

// remove takes the stage away, its state last, and gives the workdir the times that it had or is to have.
func (s *stage) remove(root *meta) error {
	for _, name := range []string{"new", "old", "links", "journal", ".state.new", ".id.new", "id"} {
		if err := removeTree(s.sys, s.dir, name); err != nil {
			return opError("clean up", stageName, err)
		}
	}
	if root != nil { // whose mode it has already, perhaps, and gets again
		if err := s.writable(s.workdir); err != nil {
			return opError("make writable", "", err)
		}
	}
	if err := removeTree(s.sys, s.workdir, stageName); err != nil {
		return opError("clean up", stageName, err)
	}
	if root != nil {
		if err := setMeta(s.sys, s.workdir, root); err != nil {
			return opError("restore", "", err)
		}
	}
	return opError("sync", "", s.sys.fsync(s.workdir))
}
