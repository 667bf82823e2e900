package branch

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A plan is made in one walk over the upper: what the lower has under the same names is compared, what is to be put in place
// is made in the stage, and each step is written to the journal. The workdir's own names are not touched yet.
//
// A lower entry that the commit would replace, delete or change must be what it was when the branch was made: there is no
// hook at copy-up, so it is told by its change time, which the kernel sets at every change of contents, metadata, name or
// links, and which no program can set back. Later than the branch's start is changed since, hence a conflict. Both times are of the
// one clock of the workdir's file system; Settle waits until it has left the start behind, so that no later change has the
// same time, and a change before the start never has a later one. Where that fails: a clock that is set back, and file systems
// without change times (FAT).
//
// An entry that the commit itself touched and put back (see apply.go) has a later change time for that alone. Those times are
// in the branch's file "baseline".

type planner struct {
	walk
	b         *Branch
	force     bool
	root      *meta // of the workdir, before the stage is made
	dirty     bool  // somebody changed the workdir itself since
	rootCtime stamp // that an undone commit left it with
	stage     *stage
	slot      int64
	bulk      bool // not all that was made was synced one by one
	files     int  // that were

	open      []openDirRecord // the merged directories on the way
	conflicts []string
	more      int
	baseline  *baseline
}

// openDirRecord is a merged directory whose record is written once there is anything to do in it.
type openDirRecord struct {
	length  int // of its path
	before  *meta
	after   *meta
	written bool
	touched bool // outside, since the start
	append  bool // names can be made in it, and not be taken away again
}

// fewFiles is up to how many files are synced one by one: one syncfs costs less than many, but waits for what others wrote to
// the file system too.
const fewFiles = 16

func (p *planner) conflict(path string) {
	if len(p.conflicts) < maxConflicts {
		p.conflicts = append(p.conflicts, path)
		return
	}
	p.more++
}

// touched tells whether a lower entry was changed since the branch was made.
func (p *planner) touched(path string, low *unix.Stat_t) bool {
	if p.force || stampOf(low.Ctim) <= p.b.notes.Start {
		return false
	}
	if path == "" {
		return stampOf(low.Ctim) != p.rootCtime
	}
	return !p.baseline.has(path, low)
}

// begin makes sure that there is a stage, and that the directories on the way are in the journal.
func (p *planner) begin() (err error) {
	for i := range p.open {
		if d := &p.open[i]; d.append && !d.written {
			return opError("commit", string(p.path[:d.length]), errAppend)
		}
	}
	if p.stage == nil {
		if err := p.b.interrupted(&kept{Root: p.root, Dirty: p.dirty}); err != nil {
			return err
		}
		if p.root.Mode&0o300 != 0o300 && os.Geteuid() != 0 {
			if err := p.sys.chmod(p.b.workdir, p.root.Mode|0o700); err != nil {
				return opError("make writable", "", err)
			}
		}
		if p.stage, err = makeStage(p.sys, p.b.workdir, stageID{ID: p.b.id, Root: p.root}); err != nil {
			p.stage = nil
			return errors.Join(err, removeTree(p.sys, p.b.workdir, stageName), setMeta(p.sys, p.b.workdir, p.root))
		}
	}
	for i := range p.open {
		d := &p.open[i]
		if d.written {
			continue
		}
		d.written = true
		if err := p.stage.append(&record{Op: opDir, Path: p.path[:d.length], Before: d.before, Dirty: d.touched}); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) run() error {
	at, err := p.b.both()
	if err != nil {
		return err
	}
	defer at.close()
	up, err := p.b.look(at.up, ".", false)
	if err != nil {
		return opError("look at upper", "", err)
	}
	low, err := fstat(at.low)
	if err != nil {
		return err
	}
	return p.dir(at, at, ".", up, low)
}

// dir plans for a directory of both, which parent has under a name.
func (p *planner) dir(at, parent *dirs, name string, up upperEntry, low *unix.Stat_t) error {
	path := string(p.path)
	before, err := metaAt(parent.low, name)
	if err != nil {
		return opError("look at", path, err)
	}
	return p.merged(at, up, low, path, before, up.meta)
}

func (p *planner) merged(at *dirs, up upperEntry, low *unix.Stat_t, path string, before, after *meta) error {
	touched := p.touched(path, low)
	if path == "" {
		p.dirty = touched
	}
	if touched {
		if !after.equal(before) || replaced(at.up, at.low) { // of what is changed, by whom cannot be told
			p.conflict(path)
		}
		after.Mtime = max(after.Mtime, before.Mtime)
	}
	fixed := hasAttribute(at.low, "", unix.STATX_ATTR_APPEND)
	p.open = append(p.open, openDirRecord{length: len(p.path), before: before, after: after, touched: touched, append: fixed})
	if !after.equal(before) || after.Mtime != before.Mtime {
		if err := p.begin(); err != nil {
			return err
		}
	}
	names, err := readNames(at.up)
	if err != nil {
		return opError("list upper", path, err)
	}
	ahead := p.lookAhead(at, names, up.notes)
	defer ahead.stop()
	for i, name := range names {
		found := ahead.take(i)
		if found == nil {
			if found, err = p.find(at, name, up.notes); err != nil {
				return err
			}
		}
		if isDir(found.up.st) || isDir(found.low) { // the walk may close these two directories while it is in that one
			ahead.stop()
		}
		if err := p.entry(at, name, found, touched); err != nil {
			return err
		}
	}
	d := p.open[len(p.open)-1]
	p.open = p.open[:len(p.open)-1]
	if !d.written {
		return nil
	}
	return p.stage.append(&record{Op: opEnd, Path: p.path, Before: before, After: after})
}

func (p *planner) entry(at *dirs, name string, found *found, touched bool) error {
	path := join(string(p.path), name)
	up, low := found.up, found.low
	merges := isDir(up.st) && isDir(low) && !up.notes.opaque
	switch inside := p.b.notes.Inside; {
	case name == stageName: // at any depth: what is below may be a workdir too, some day
		return opError("commit", path, errReserved)
	case inside == "":
	case path == inside && up.whiteout:
		return nil
	case path == inside, strings.HasPrefix(inside, path+"/") && !merges:
		return opError("commit", path, errInside)
	}
	if merges {
		before, err := metaAt(at.low, name)
		if err != nil {
			return opError("look at", path, err)
		}
		return p.down(at, name, name, func(below *dirs) error {
			return p.merged(below, up, low, path, before, up.meta)
		})
	}
	if up.st == nil {
		if low == nil {
			return nil
		}
		if err := p.unchanged(at, name, path, low); err != nil {
			return err
		}
		return p.write(&record{Op: opDrop, Path: []byte(path), Old: identityOf(low)})
	}
	var lowMeta *meta
	if low != nil {
		if found.pair() {
			if err := p.compare(at, name, found); err != nil {
				return opError("compare", path, err)
			}
			d, before := found.diff, found.lowMeta
			if d&diffContent == 0 {
				lowMeta = before
			}
			single := up.st.Nlink == 1 && low.Nlink == 1
			if d == 0 && up.st.Nlink == 1 {
				return nil
			}
			if single && d&(diffType|diffContent) == 0 && kindOf(up.st) == unix.S_IFREG {
				if err := p.unchanged(at, name, path, low); err != nil {
					return err
				}
				return p.write(&record{Op: opSet, Path: []byte(path), Old: identityOf(low), Before: before, After: found.upMeta})
			}
		}
		if err := p.unchanged(at, name, path, low); err != nil {
			return err
		}
	} else if up.notes.origin && touched {
		p.conflict(path) // copied up, and either renamed to here or removed from the lower: it cannot be told
	}
	r := &record{Op: opPut, Path: []byte(path)}
	if low != nil {
		r.Old = identityOf(low)
	}
	return p.put(at, name, up, lowMeta, r)
}

// write adds a record with a slot of its own.
func (p *planner) write(r *record) error {
	if err := p.begin(); err != nil {
		return err
	}
	p.slot++
	r.Slot = p.slot
	return p.stage.append(r)
}

// put makes a new entry in the stage, and its record.
func (p *planner) put(at *dirs, name string, up upperEntry, low *meta, r *record) error {
	if len(p.conflicts) > 0 { // there will be no commit: only more conflicts are of interest
		return nil
	}
	if err := p.begin(); err != nil {
		return err
	}
	p.slot++
	r.Slot = p.slot
	pair := &dirs{at.up, p.stage.new} // the directory in the stage takes the side of the lower
	if isDir(up.st) {
		// The walk may close and open again the directories that it is in: it gets its own.
		var err error
		if pair.up, err = openat(at.up, ".", unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
			return opError("prepare", string(r.Path), err)
		}
		if pair.low, err = openat(p.stage.new, ".", unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
			unix.Close(pair.up)
			return opError("prepare", string(r.Path), err)
		}
		defer pair.close()
	}
	mode, err := p.make(pair, name, up, r.slot(), low, true)
	if err != nil {
		return opError("prepare", string(r.Path), err)
	}
	r.Mode = mode
	st, err := lookup(p.stage.new, r.slot())
	if err == nil && st == nil {
		err = unix.ENOENT
	}
	if err != nil {
		return opError("prepare", string(r.Path), err)
	}
	r.New = identityOf(st)
	return p.stage.append(r)
}

// unchanged notes conflicts of a lower entry that is to go, with all that is beneath it.
func (p *planner) unchanged(at *dirs, name, path string, low *unix.Stat_t) error {
	if hasAttribute(at.low, name, unix.STATX_ATTR_MOUNT_ROOT) {
		return opError("commit", path, errMounted)
	}
	if p.touched(path, low) {
		p.conflict(path)
	}
	if !isDir(low) {
		return nil
	}
	err := p.down(at, "", name, p.allUnchanged)
	if errors.Is(err, unix.EACCES) { // may not be listed: its own time must do
		return nil
	}
	return err
}

func (p *planner) allUnchanged(at *dirs) error {
	names, err := readNames(at.low)
	if err != nil {
		return opError("list", string(p.path), err)
	}
	for _, name := range names {
		low, err := lookup(at.low, name)
		if err != nil {
			return opError("look at", join(string(p.path), name), err)
		}
		if low == nil {
			continue
		}
		if err := p.unchanged(at, name, join(string(p.path), name), low); err != nil {
			return err
		}
	}
	return nil
}

// baseline are the entries that an undone commit left with later change times, in the order of a plan.
type baseline struct {
	file  *os.File
	lines *json.Decoder
	next  *baselineEntry
	key   string
}

type baselineEntry struct {
	Path  []byte `json:"path"`
	Ino   uint64 `json:"ino"`
	Ctime stamp  `json:"ctime"`
}

// order is how a plan goes: by components, where the bytes of whole paths would have "a-b" before "a/b".
func order(path string) string { return strings.ReplaceAll(path, "/", "\x00") }

func (b *Branch) openBaseline() (*baseline, error) {
	fd, _, err := openRegular(b.dir, "baseline")
	if errors.Is(err, unix.ENOENT) {
		return &baseline{}, nil
	}
	if err != nil {
		return nil, opError("open", "baseline", err)
	}
	l := &baseline{file: os.NewFile(uintptr(fd), "baseline")}
	l.lines = json.NewDecoder(bufio.NewReader(l.file))
	l.advance()
	return l, nil
}

func (l *baseline) advance() {
	var e baselineEntry
	if err := l.lines.Decode(&e); err != nil { // its end, or torn: without an entry there is a conflict
		l.next = nil
		return
	}
	l.next, l.key = &e, order(string(e.Path))
}

// has must be asked in the order of a plan.
func (l *baseline) has(path string, st *unix.Stat_t) bool {
	key := order(path)
	for l.next != nil && l.key < key {
		l.advance()
	}
	return l.next != nil && l.key == key && l.next.Ino == st.Ino && l.next.Ctime == stampOf(st.Ctim)
}

func (l *baseline) close() {
	if l.file != nil {
		l.file.Close()
	}
}

// linkName is where the first copy of a file of several names is.
func linkName(st *unix.Stat_t) string { return fmt.Sprintf("%x-%x", st.Dev, st.Ino) }
