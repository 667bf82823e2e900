package rules

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// openRequest is an open. What exists is pinned and opened through the pin; what is to be created is created by its name
// in a pinned directory, and only if nothing has that name by then.
type openRequest struct {
	at      kernel.Base
	path    string
	flags   int
	mode    uint32
	resolve uint64
	tid     int

	pinned *kernel.Pin // the file, or the directory that it is to be created in
	kind   uint32      // type of the file
	create string      // name of the file to be created

	content *[]byte // what is read instead of the file, nil for the file itself

	reader int           // the reading end of a FIFO whose other end nobody has opened yet, or -1
	met    bool          // somebody has meanwhile
	pause  time.Duration // before what would wait is tried again
}

// readOpen reads a call that opens a file.
func readOpen(name string) func(*supervise.Call) (request, error) {
	spec := opens.Named(name)
	return func(c *supervise.Call) (request, error) {
		r, err := spec.Read(c)
		if err != nil {
			return nil, err
		}
		if err := spec.ReadPath(c, &r); err != nil {
			return nil, err
		}
		if r.Flags&unix.O_PATH != 0 {
			r.Flags &= unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC // the kernel ignores the rest
		}
		return &openRequest{
			at: r.Base(), path: r.Path, flags: r.Flags & opens.Known, mode: r.Mode & 0o7777, resolve: r.Resolve, tid: c.TID, reader: -1,
		}, nil
	}
}

func (r *openRequest) named() []string { return []string{r.path} }

// maxTries bounds how often a file may appear and vanish, and how many dangling links may lead to what is created.
const maxTries = 16

func (r *openRequest) pin(h *Handler) ([]query.File, error) {
	at, path := r.at, r.path
	exclusive := r.flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL
	for range maxTries {
		if !exclusive {
			p, err := h.policy.Root.Resolve(at, path, r.flags&unix.O_NOFOLLOW == 0, r.resolve)
			if err == nil {
				return r.existing(h, p)
			}
			if !errors.Is(err, unix.ENOENT) || r.flags&unix.O_CREAT == 0 {
				return nil, err
			}
		}
		if r.resolve != 0 {
			return nil, unix.EOPNOTSUPP // creating within a restricted walk; openat2 is withheld where it would matter
		}
		dir, name, slash, err := h.policy.Root.ResolveParent(at, path)
		if err != nil {
			return nil, err
		}
		if slash || name == "." || name == ".." {
			dir.Close()
			return nil, unix.EISDIR
		}
		target, err := linkTarget(dir, name)
		switch {
		case errors.Is(err, unix.ENOENT):
			r.pinned, r.create = &dir, name
			return []query.File{h.targets.file(child(dir.Path, name), kernel.FileID{}, false)}, nil
		case exclusive:
			dir.Close()
			return nil, unix.EEXIST
		case err == nil && r.flags&unix.O_NOFOLLOW == 0:
			// A dangling link: the file is created where it points to.
			at, path = kernel.Base{TID: r.tid, Own: &dir}, target
			defer dir.Close()
		default:
			dir.Close() // it has appeared meanwhile
		}
	}
	return nil, unix.ELOOP
}

// linkTarget returns where a symbolic link points; EINVAL for what is none, ENOENT for nothing.
func linkTarget(dir kernel.Pin, name string) (string, error) {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(dir.FD, name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (r *openRequest) existing(h *Handler, p kernel.Pin) ([]query.File, error) {
	r.pinned = &p
	id, mode, err := p.ID()
	if err != nil {
		return nil, err
	}
	r.kind = mode & unix.S_IFMT
	isDir := r.kind == unix.S_IFDIR
	switch {
	case r.kind == unix.S_IFLNK && r.flags&unix.O_PATH == 0:
		return nil, unix.ELOOP
	case r.flags&unix.O_DIRECTORY != 0 && !isDir:
		return nil, unix.ENOTDIR
	case isDir && r.flags&unix.O_CREAT != 0:
		return nil, unix.EISDIR
	}
	return []query.File{h.targets.file(p.Path, id, true)}, nil
}

func (r *openRequest) tmpfile() bool { return r.flags&unix.O_TMPFILE == unix.O_TMPFILE }

func (r *openRequest) check(h *Handler) refusal {
	if r.flags&unix.O_PATH != 0 {
		return refusal{} // Landlock asks for no right, and the descriptor gives none
	}
	var want uint64
	switch r.flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		want = abi.FSReadFile
	case unix.O_WRONLY:
		want = abi.FSWriteFile
	default:
		want = abi.FSReadFile | abi.FSWriteFile
	}
	if r.create != "" {
		if no := h.granted(r.pinned.Path, abi.FSMakeReg); no.errno != 0 {
			return no
		}
		return h.granted(child(r.pinned.Path, r.create), want)
	}
	if r.kind == unix.S_IFDIR && !r.tmpfile() {
		want = abi.FSReadDir
	}
	if r.flags&unix.O_TRUNC != 0 && r.kind == unix.S_IFREG {
		want |= abi.FSTruncate
	}
	return h.granted(r.pinned.Path, want)
}

func (r *openRequest) carryOut() supervise.Verdict {
	cloexec := uint32(r.flags & unix.O_CLOEXEC)
	if r.flags&unix.O_PATH != 0 {
		// Nothing hands such a descriptor over (seccomp_unotify(2) takes none), and it gives no access: what is done with it
		// later is decided then, by the file that it stands for.
		return supervise.Continue(supervise.KernelDecides)
	}
	if r.content != nil {
		fd, err := kernel.SealedFile("content", *r.content)
		if err != nil {
			return supervise.Errno(errno(err))
		}
		return supervise.AddFD(fd, cloexec)
	}
	mode := r.mode
	if r.create != "" || r.tmpfile() {
		mask, err := kernel.Umask(r.tid)
		if err != nil {
			return supervise.Errno(unix.EPERM)
		}
		mode &^= mask
	}
	if r.create != "" {
		// Whatever comes to have the name in between is not what was decided about.
		flags := r.flags&^unix.O_TRUNC | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err := unix.Openat(r.pinned.FD, r.create, flags, mode)
		if errors.Is(err, unix.EEXIST) && r.flags&unix.O_EXCL == 0 {
			// Somebody was faster. The name is still the one that was decided about.
			fd, err = r.openHere(r.flags&^unix.O_CREAT | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NOCTTY)
		}
		if err != nil {
			return supervise.Errno(errno(err))
		}
		return supervise.AddFD(fd, cloexec)
	}
	if r.kind == unix.S_IFCHR && r.isTTY() && !kernel.SharesTerminal(r.tid) {
		return supervise.Errno(unix.ENXIO)
	}
	fd, err := r.reopen(mode)
	if errors.Is(err, errWouldBlock) {
		return r.await(r)
	}
	if err != nil {
		return supervise.Errno(errno(err))
	}
	return supervise.AddFD(fd, cloexec)
}

var errWouldBlock = errors.New("would block")

// reopen opens the pinned file. It never waits: not for the other end of a FIFO, a carrier on a terminal's line, or the
// holder of a lease, all of which a command has in its hand.
func (r *openRequest) reopen(mode uint32) (int, error) {
	if r.reader >= 0 {
		return r.reading()
	}
	flags := r.flags&^(unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW) | unix.O_CLOEXEC | unix.O_NOCTTY
	wants := r.flags&unix.O_NONBLOCK != 0
	fd, err := open(r.pinned.SelfPath(), flags|unix.O_NONBLOCK, mode)
	fifo := r.kind == unix.S_IFIFO
	switch {
	case !wants && (errors.Is(err, unix.EAGAIN) || fifo && errors.Is(err, unix.ENXIO)): // a lease, or no reader
		return -1, errWouldBlock
	case err != nil || wants:
		return fd, err
	case fifo && r.flags&unix.O_ACCMODE == unix.O_RDONLY:
		r.reader = fd
		return r.reading()
	}
	return blocking(fd)
}

// reading returns the reading end of a FIFO if it has a writer, or has had one since it was opened.
func (r *openRequest) reading() (int, error) {
	if !r.met {
		var err error
		if r.met, err = hasWriter(r.reader); err != nil {
			return -1, err
		}
	}
	if !r.met {
		return -1, errWouldBlock
	}
	fd := r.reader
	r.reader = -1
	return blocking(fd)
}

// hasWriter tells whether somebody has the other end of a FIFO open, or has left something in it. The kernel says that
// when asked for a copy of what is in it: nothing is there yet, or nothing will come (tee(2)).
func hasWriter(reader int) (bool, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return false, err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	n, err := unix.Tee(reader, p[1], 1, unix.SPLICE_F_NONBLOCK)
	if errors.Is(err, unix.EAGAIN) {
		return true, nil
	}
	return n > 0, err
}

// How long an open waits until it is tried again: at first, and at most.
const (
	firstPause   = time.Millisecond
	longestPause = 64 * time.Millisecond
)

// await lets the call wait until its open can be tried again. A FIFO's reading end is held open meanwhile, as the kernel
// counts one that waits: it lets writers in. What they write, and that they have left, its descriptor tells at once; one
// that writes nothing, a reader where this is the writer, and the end of a lease are looked for.
func (r *openRequest) await(whole request) supervise.Verdict {
	r.pause = min(max(2*r.pause, firstPause), longestPause)
	fd := r.reader
	if fd < 0 {
		return supervise.Wait(r.pause, func(*supervise.Call) supervise.Verdict { return proceed(whole) })
	}
	r.reader = -1 // it is the wait's
	return supervise.WaitFD(fd, unix.EPOLLIN, r.pause, func(_ *supervise.Call, met bool) supervise.Verdict {
		r.reader, r.met = fd, met
		return proceed(whole)
	})
}

// openHere opens an entry of the pinned directory, and does not wait.
func (r *openRequest) openHere(flags int) (int, error) {
	fd, err := unix.Openat(r.pinned.FD, r.create, flags|unix.O_NONBLOCK, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		return fd, err
	}
	return blocking(fd)
}

// blocking takes O_NONBLOCK from a descriptor, or closes it.
func blocking(fd int) (int, error) {
	status, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, status&^unix.O_NONBLOCK)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func open(path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, flags, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// isTTY recognises /dev/tty, which means whatever terminal the opener has.
func (r *openRequest) isTTY() bool {
	var st unix.Stat_t
	return unix.Fstat(r.pinned.FD, &st) == nil && unix.Major(uint64(st.Rdev)) == 5 && unix.Minor(uint64(st.Rdev)) == 0
}

func (r *openRequest) close() {
	if r.reader >= 0 {
		_ = unix.Close(r.reader)
		r.reader = -1
	}
	if r.pinned != nil {
		r.pinned.Close()
		r.pinned = nil
	}
}
