package opens

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Substitute is what is read instead of a file.
type Substitute struct {
	// Path is where the policy must grant reading, unless it does where the file is.
	Path string
	// Content makes what the thread tid is to read. pin is the file. The error EACCES leaves the open to the kernel.
	Content func(pin kernel.Pin, tid int) ([]byte, error)
}

// Files answers opens of some files for reading with files in memory, which stay as they are when they are opened. Under
// which path a file is opened does not matter. It decides nothing about access: what it does not answer is the kernel's.
type Files struct {
	Name string // of the files in memory, for /proc
	Root kernel.Root
	// Maybe says whether a file may have a substitute, by one look: it is asked for every open.
	Maybe func(st *unix.Stat_t) bool
	// For returns the substitute of a pinned file, nil for none.
	For func(pin kernel.Pin) *Substitute
	// Absent returns the substitute of a file that is not there, nil for none. It may be nil itself.
	Absent  func(r *Request) *Substitute
	Grants  func(path string, want uint64) bool // does the policy grant all rights in want
	Journal supervise.Journal
	// Hides says that the files hold what the command is not to see: a path that cannot be followed is refused, not left to
	// the kernel, and so is any way to read them that only their owner has. Maybe is not asked.
	Hides bool
}

// Plain reports whether flags are those of an open for reading and nothing else. Others are the kernel's to answer: they
// read nothing, or change something, or fail.
func Plain(flags int) bool {
	const more = unix.O_ACCMODE | unix.O_TRUNC | unix.O_DIRECT | unix.O_NOATIME
	r := Request{Flags: flags}
	return r.Reads() && flags&more == 0
}

// answers reports whether an open with some flags is answered.
func (f *Files) answers(flags int) bool {
	if f.Hides { // who owns a file may ask for no access time, and who may do anything, to empty it
		flags &^= unix.O_NOATIME | unix.O_TRUNC
	}
	return Plain(flags)
}

// Open answers an open, or passes it on.
func (f *Files) Open(c *supervise.Call, spec Spec) supervise.Verdict {
	kernelDecides := supervise.Pass(supervise.KernelDecides)
	r, err := spec.Read(c)
	if err != nil || !f.answers(r.Flags) {
		return kernelDecides
	}
	switch err := spec.ReadPath(c, &r); {
	case err != nil && f.Hides:
		return supervise.FromError(err)
	case err != nil || r.Path == "":
		return kernelDecides
	}
	var s *Substitute
	pin, err := f.pin(&r)
	switch {
	case err == nil:
		defer pin.Close()
		s = f.For(pin)
	case f.Hides && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR):
		return supervise.FromError(err)
	case errors.Is(err, errAbsent) && f.Absent != nil && r.Flags&unix.O_CREAT == 0:
		s = f.Absent(&r)
	}
	if s == nil || !f.Grants(pin.Path, abi.FSReadFile) && !f.Grants(s.Path, abi.FSReadFile) {
		return kernelDecides
	}
	content, err := s.Content(pin, c.TID)
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	if errors.Is(err, unix.EACCES) {
		return kernelDecides // it refuses as well
	}
	var fd int
	if err == nil {
		fd, err = kernel.SealedFile(f.Name, content)
	}
	if err != nil {
		f.Journal.Record(supervise.Event{
			Kind: "error", PID: c.TID, Syscall: spec.Name, Path: s.Path, Verdict: "EIO",
			Reason: "the file cannot be shown: " + err.Error(),
		})
		return supervise.Errno(unix.EIO)
	}
	return supervise.AddFD(fd, uint32(r.Flags)&unix.O_CLOEXEC)
}

var (
	errAnother = errors.New("another file")
	errAbsent  = errors.New("nothing there")
)

// pin holds the file that is asked for, if it may be one of ours. Where the caller restricts the way to it the kernel's
// rules for that hold.
func (f *Files) pin(r *Request) (kernel.Pin, error) {
	if f.Hides {
		return f.Root.Find(r.Base(), r.Path, r.Follows(), r.Resolve)
	}
	if r.Resolve != 0 {
		return f.Root.Resolve(r.Base(), r.Path, r.Follows(), r.Resolve)
	}
	// Most opens are of other files, and one look tells.
	st, err := r.Look(f.Root, r.Follows())
	switch {
	case errors.Is(err, unix.ENOENT):
		return kernel.Pin{}, errAbsent
	case err != nil || !f.Maybe(&st):
		return kernel.Pin{}, errAnother
	}
	return r.Pin(f.Root, r.Follows())
}

// Instead returns what a thread is to read in place of a pinned file that it may read, and whether there is anything. It
// is for a handler that opens files on behalf, with flags as in open(2).
func (f *Files) Instead(pin kernel.Pin, flags, tid int) (content []byte, ok bool, err error) {
	if f.For == nil || !f.answers(flags) {
		return nil, false, nil
	}
	s := f.For(pin)
	if s == nil {
		return nil, false, nil
	}
	content, err = s.Content(pin, tid)
	return content, true, err
}
