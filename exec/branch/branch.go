// Package branch is the copy-on-write branch of a working directory: what a command changes goes to an upper directory,
// until it is committed to the workdir or thrown away.
//
// The view itself is a kernel overlayfs that the caller mounts on the workdir, with [OverlayOptions] and
// [Branch.Layers]: the lower layer is the real workdir, the upper one a directory in the branch. This package makes and finds
// branches (base.go, branch.go), says what one changed (changes.go), and merges it such that after a crash at any point
// [Recover] yields the old tree or the new one (commit.go tells the protocol).
//
// In: a storage base, a workdir. Out: branch directories, changes, a merged workdir, typed errors. It never mounts, starts no
// process and reads no policy. Upper and lower are both taken as hostile: it follows no symbolic link in them, opens nothing
// but regular files and directories, and keeps beneath both (node.go). No branch may be mounted, or written by anybody, while
// it is looked at or committed: the caller ends all processes in it first.
package branch

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Options are what a branch is made with. They stay with it.
type Options struct {
	// Disk bounds what the branch holds, in bytes; 0 is no bound. Upper and work are then in a file system of that size which the
	// caller makes, in memory (see [Branch.Place]), and gone with this process until the branch is committed or kept.
	Disk uint64 `json:",omitempty"`
}

// Info is what is known of a branch by its own notes.
type Info struct {
	ID      string    // 32 hexadecimal digits
	Dir     string    // of the branch
	Workdir string    // as it was resolved when the branch was made
	Created time.Time // by the clock of the executor
	Pid     int       // of the executor that made it
	Options Options
	Alive   bool   // somebody holds its lock
	Kept    string // why it was kept: one of the Reasons; "" if it was not
	Detail  string // the error that it was kept for
	Empty   bool   // its changes are in the memory of another process, or were (see Options.Disk): nothing can be done but to drop it

	// Resumable is a branch of a transaction that can be gone on with from a savepoint: see [Branch.Resume].
	Resumable bool

	// Incomplete is a branch that may lack some of what its command wrote: see IncompleteError.
	Incomplete bool
}

// The reasons to keep a branch.
const (
	ReasonKept        = "kept"              // asked for
	ReasonDeferred    = "commit-deferred"   // the commit failed before it changed anything, or it was taken back
	ReasonInterrupted = "merge-interrupted" // the commit is under way, or was: see Recover
)

// notes is the file "meta" of a branch.
type notes struct {
	Workdir  string
	Dev, Ino uint64
	Born     stamp  `json:",omitempty"` // the workdir; 0 where its file system does not tell
	Volume   uint64 `json:",omitempty"` // of a btrfs, that the workdir is on: snapshots share numbers and times
	Created  time.Time
	Start    stamp  // see settle
	Inside   string `json:",omitempty"` // the storage base below the workdir, if it is
	Pid      int
	PidStart uint64 // starttime of /proc/<pid>/stat, in clock ticks: with Boot it tells apart processes of one number
	Boot     string
	Options  Options
}

// Branch is an open branch. Its descriptors and its lock are this process's until [Branch.Close].
type Branch struct {
	id    string
	base  string
	notes notes
	sys   sys

	dir     int   // O_RDONLY, holds the lock
	workdir int   // O_RDONLY
	upper   int   // O_RDONLY; -1 while there is none
	memory  bool  // the upper is in memory, and not in the branch's directory
	copies  bool  // the upper is on another mount than the workdir: nothing can be linked
	lost    error // what a sync of the upper failed of
	noted   bool  // meta is on disk
	stopped atomic.Bool
}

// errBusy is a branch that another process uses.
var errBusy = errors.New("in use by another process")

// New makes a branch of a workdir in a base (see [Base]). The workdir may be relative or named by a symbolic link. Where the
// base lies inside the workdir, the branch hides the base: the upper starts with a whiteout in its place, and a commit keeps
// off it.
//
// A command must not run in the branch before [Branch.Settle].
func New(base, workdir string, o Options) (_ *Branch, err error) {
	real, err := filepath.Abs(workdir)
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	if err != nil {
		return nil, fmt.Errorf("workdir %q: %w", workdir, err)
	}
	if !utf8.ValidString(real) || !utf8.ValidString(base) { // the notes are text: nobody would find it again
		return nil, fmt.Errorf("workdir %q, storage base %q: names that are no UTF-8 are not supported", real, base)
	}
	b := &Branch{base: base, sys: kernelSys{}, dir: -1, workdir: -1, upper: -1}
	b.notes = notes{Workdir: real, Created: time.Now(), Options: o, Pid: os.Getpid(), PidStart: startTime(os.Getpid()), Boot: bootID()}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	if err := b.openWorkdir(true); err != nil {
		return nil, err
	}
	if unfinished(b.workdir) {
		return nil, &UnfinishedError{Workdir: real}
	}
	root, err := openBase(base)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	var id [16]byte
	rand.Read(id[:])
	b.id = hex.EncodeToString(id[:])
	if err := b.sys.mkdir(root, b.id, 0o700); err != nil {
		return nil, opError("create branch", b.Dir(), err)
	}
	defer func() {
		if err != nil {
			_ = removeTree(kernelSys{}, root, b.id)
		}
	}()
	if b.dir, err = openDir(root, b.id); err != nil {
		return nil, opError("open branch", b.Dir(), err)
	}
	if err := unix.Flock(b.dir, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, opError("lock branch", b.Dir(), err)
	}
	if b.notes.Inside, err = b.inside(); err != nil {
		return nil, err
	}
	b.notes.Start = b.now(unix.CLOCK_REALTIME)
	if o.Disk == 0 {
		if err := b.place(b.dir); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(&b.notes)
	if err != nil {
		return nil, err
	}
	// Not synced: a branch that is not kept is worth nothing after a crash (durable.go), and keep syncs this.
	meta, err := b.sys.create(b.dir, "meta", 0o600)
	if err == nil {
		err = b.sys.write(meta, text)
		unix.Close(meta)
	}
	if err != nil {
		return nil, opError("write", "meta", err)
	}
	return b, nil
}

// place makes the layers in a directory.
func (b *Branch) place(dir int) (err error) {
	for _, name := range []string{"upper", "work"} {
		if err := b.sys.mkdir(dir, name, 0o700); err != nil {
			return opError("create", name, err)
		}
	}
	if b.upper, err = openDir(dir, "upper"); err != nil {
		return opError("open", "upper", err)
	}
	if err := b.like(b.upper, b.workdir, ""); err != nil {
		return opError("set up", "upper", err)
	}
	if b.notes.Inside != "" {
		if err := b.hideBase(); err != nil {
			return opError("hide storage base", b.notes.Inside, err)
		}
	}
	return nil
}

// Open opens a branch that nobody else has open, and takes its lock.
func Open(base, id string) (*Branch, error) {
	b, err := open(base, id)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(b.dir, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		b.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errBusy
		}
		return nil, opError("lock branch", b.Dir(), err)
	}
	if err := b.openWorkdir(false); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func isID(name string) bool {
	raw, err := hex.DecodeString(name)
	return err == nil && len(raw) == 16
}

// open opens a branch for what needs neither its lock nor its workdir.
func open(base, id string) (_ *Branch, err error) {
	if !isID(id) {
		return nil, fmt.Errorf("branch %q: no such name of a branch", id)
	}
	root, err := openBase(base)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	b := &Branch{id: id, base: base, sys: kernelSys{}, dir: -1, workdir: -1, upper: -1}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	if b.dir, err = openDir(root, id); err != nil {
		return nil, opError("open branch", b.Dir(), err)
	}
	text, err := readFile(b.dir, "meta")
	if err == nil {
		err = json.Unmarshal(text, &b.notes)
	}
	if err != nil {
		return nil, opError("read notes of branch", b.Dir(), err)
	}
	b.upper, err = openDir(b.dir, "upper")
	if errors.Is(err, unix.ENOENT) && b.notes.Options.Disk > 0 { // it was in memory
		b.upper, err = -1, nil
	}
	if err != nil {
		return nil, opError("open upper of branch", b.Dir(), err)
	}
	return b, nil
}

func (b *Branch) openWorkdir(first bool) error {
	fd, err := unix.Open(b.notes.Workdir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("workdir %q: %w", b.notes.Workdir, err)
	}
	b.workdir = fd
	st, err := fstat(fd)
	if err != nil {
		return fmt.Errorf("workdir %q: %w", b.notes.Workdir, err)
	}
	born, volume := birth(fd)
	if first {
		b.notes.Dev, b.notes.Ino, b.notes.Born, b.notes.Volume = st.Dev, st.Ino, born, volume
		return nil
	}
	// Device numbers change with each boot, for some file systems; and all have one number for their top.
	if was := &b.notes; st.Ino != was.Ino || was.Born != 0 && born != was.Born || was.Volume != 0 && volume != was.Volume {
		return fmt.Errorf("workdir %q: is not the directory any more that the branch was made of", b.notes.Workdir)
	}
	return nil
}

// birth tells when a directory was made, and on which volume of a btrfs it is; 0 for what is not known.
func birth(fd int) (born stamp, volume uint64) {
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st) == nil && st.Mask&unix.STATX_BTIME != 0 {
		born = stampOf(unix.Timespec{Sec: st.Btime.Sec, Nsec: int64(st.Btime.Nsec)})
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.BTRFS_SUPER_MAGIC {
		volume = uint64(uint32(fs.Fsid.Val[0])) | uint64(uint32(fs.Fsid.Val[1]))<<32
	}
	return born, volume
}

// Close gives up the descriptors and the lock; the branch stays as it is.
func (b *Branch) Close() {
	for _, fd := range []*int{&b.dir, &b.workdir, &b.upper} {
		if *fd >= 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
}

// ID is the name of the branch in its base.
func (b *Branch) ID() string { return b.id }

// Dir is the directory of the branch.
func (b *Branch) Dir() string { return filepath.Join(b.base, b.id) }

// Workdir is the real path of what the branch is of.
func (b *Branch) Workdir() string { return b.notes.Workdir }

// like gives a directory of the upper what the lower's one has: mode, owner (as far as allowed), attributes and times.
func (b *Branch) like(upper, lower int, path string) error {
	m, err := metaOf(lower)
	if err != nil {
		return err
	}
	return opError("copy metadata of", path, setMeta(b.sys, upper, m))
}

// inside returns where the base is below the workdir; "" if it is not. It goes upwards from the base, so it does not matter
// by which path or mount either was named.
func (b *Branch) inside() (string, error) {
	var names []string
	at, err := openat(b.dir, "..", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer func() { unix.Close(at) }()
	for {
		st, err := fstat(at)
		if err != nil {
			return "", err
		}
		if st.Dev == b.notes.Dev && st.Ino == b.notes.Ino {
			slices.Reverse(names)
			if len(names) == 0 {
				return "", fmt.Errorf("storage base %q is the workdir itself", b.base)
			}
			return strings.Join(names, "/"), nil
		}
		if hasAttribute(at, "", unix.STATX_ATTR_MOUNT_ROOT) { // which the overlay does not show
			return "", nil
		}
		up, err := openat(at, "..", unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return "", err
		}
		above, err := fstat(up)
		if err != nil || above.Dev != st.Dev || above.Ino == st.Ino {
			unix.Close(up)
			return "", err // another file system, or the top: the lower layer of an overlay ends at its file system's edge
		}
		real, err := os.Readlink(procPath(at))
		if err != nil {
			unix.Close(up)
			return "", err
		}
		names = append(names, filepath.Base(real))
		unix.Close(at)
		at = up
	}
}

// hideBase puts a whiteout where the base is, beneath directories that look like the lower's. (The kernel takes an upper that
// lies in the lower; but the command would see the other branches there, and ELOOP in place of its own.)
func (b *Branch) hideBase() error {
	dirs := strings.Split(b.notes.Inside, "/")
	type made struct{ upper, lower int }
	at := made{b.upper, b.workdir}
	stack := []made{at}
	defer func() {
		for _, m := range stack[1:] {
			unix.Close(m.upper)
			unix.Close(m.lower)
		}
	}()
	for _, name := range dirs[:len(dirs)-1] {
		if err := b.sys.mkdir(at.upper, name, 0o700); err != nil {
			return err
		}
		up, err := openDir(at.upper, name)
		if err != nil {
			return err
		}
		low, err := pin(at.lower, name)
		if err != nil {
			unix.Close(up)
			return err
		}
		at = made{up, low}
		stack = append(stack, at)
	}
	if err := b.sys.mknod(at.upper, dirs[len(dirs)-1], unix.S_IFCHR, 0); err != nil {
		return err
	}
	for i := len(stack) - 1; i >= 0; i-- {
		if err := b.like(stack[i].upper, stack[i].lower, ""); err != nil {
			return err
		}
	}
	return nil
}

// now is the time that the workdir's file system would give to a change just now: its clock is the kernel's, by the tick, or
// a server's. An unnamed file tells without a change to the workdir. Where that cannot be made, the kernel's clocks tell what
// the time is at most (fine), and at least (the tick): file systems take the tick's, or since Linux 6.13 the fine one.
func (b *Branch) now(clock int32) stamp {
	if fd, err := unix.Openat(b.workdir, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600); err == nil {
		defer unix.Close(fd)
		if st, err := fstat(fd); err == nil {
			return stampOf(st.Ctim)
		}
	}
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return stamp(time.Now().UnixNano())
	}
	return stampOf(t)
}

// Settle waits until every change to the workdir from now on has a later time than the branch: a tick of the kernel's clock,
// mostly over by the time that this is called. A file changed after the branch was made is known by that (see plan.go).
func (b *Branch) Settle() error {
	deadline := time.Now().Add(3 * time.Second) // file systems that keep whole seconds
	for b.now(unix.CLOCK_REALTIME_COARSE) <= b.notes.Start {
		if time.Now().After(deadline) {
			return fmt.Errorf("clock of workdir %q stands still", b.notes.Workdir)
		}
		time.Sleep(500 * time.Microsecond)
	}
	return nil
}

// List returns the branches of a base, by the time of their making. What is not a branch is left out.
func List(base string) ([]Info, error) {
	root, err := openBase(base)
	if err != nil {
		return nil, err
	}
	names, err := readNames(root)
	unix.Close(root)
	if err != nil {
		return nil, opError("list", base, err)
	}
	var all []Info
	for _, id := range names {
		if info, err := Show(base, id); err == nil {
			all = append(all, *info)
		}
	}
	slices.SortStableFunc(all, func(a, b Info) int { return a.Created.Compare(b.Created) })
	return all, nil
}

// Show returns what is known of a branch, which may be in use.
func Show(base, id string) (*Info, error) {
	b, err := open(base, id)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	info := &Info{ID: id, Dir: b.Dir(), Workdir: b.notes.Workdir, Created: b.notes.Created, Pid: b.notes.Pid, Options: b.notes.Options, Empty: b.upper < 0}
	if err := unix.Flock(b.dir, unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		info.Alive = true
	}
	k, err := b.kept()
	if err == nil && k != nil {
		info.Kept, info.Detail = k.Reason, k.Detail
	}
	info.Incomplete = err == nil && b.incomplete(k)
	if p, err := b.progress(); err == nil && p != nil {
		info.Resumable = !info.Alive && !info.Incomplete && (k == nil || k.Reason == ReasonKept)
	}
	return info, nil
}

// startTime is when a process started, in clock ticks since the boot (field 22 of /proc/pid/stat); 0 if it is gone.
func startTime(pid int) uint64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64)
	return n
}

func bootID() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text))
}
