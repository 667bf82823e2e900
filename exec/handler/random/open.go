package random

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// openCall says where a call of the open family has its arguments.
type openCall struct {
	name       string
	dir        int // -1: the working directory
	path       int
	flags      int
	structured bool // the flags are the first field of a structure that the argument points to
}

var openCalls = map[string]openCall{
	"open":    {name: "open", dir: -1, path: 0, flags: 1},
	"openat":  {name: "openat", dir: 0, path: 1, flags: 2},
	"openat2": {name: "openat2", dir: 0, path: 1, flags: 2, structured: true},
}

// files is what open asks the kernel; tests replace it.
type files struct {
	stat    func(path string, follow bool) (unix.Stat_t, error)
	where   func(path string) string // the path of the file that a path leads to, "" for none
	pin     func(tid int, dir int32, path string, follow bool) (kernel.Pin, error)
	sources *sources
}

func newFiles() files {
	return files{
		stat: func(path string, follow bool) (st unix.Stat_t, err error) {
			flags := unix.AT_NO_AUTOMOUNT
			if !follow {
				flags |= unix.AT_SYMLINK_NOFOLLOW
			}
			err = unix.Fstatat(unix.AT_FDCWD, path, &st, flags)
			return st, err
		},
		where: func(path string) string {
			fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				return ""
			}
			defer unix.Close(fd)
			real, _ := os.Readlink(kernel.Pin{FD: fd}.SelfPath())
			return real
		},
		pin:     kernel.PinPath,
		sources: &sources{},
	}
}

// What cannot be the reading of a random device.
const neverRead = unix.O_PATH | unix.O_DIRECTORY

// open answers with a source if a random device is about to be opened for reading. The name decides nothing, since the
// device can have several: one stat tells.
func (h *Handler) open(c *supervise.Call, spec openCall) supervise.Verdict {
	kernelDecides := supervise.Pass(supervise.KernelDecides)
	flags, err := spec.readFlags(c)
	if err != nil || flags&neverRead != 0 || flags&unix.O_ACCMODE == unix.O_WRONLY ||
		flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL {
		return kernelDecides
	}
	name, err := c.Path(spec.path)
	if err != nil || name == "" {
		return kernelDecides
	}
	dir := int32(unix.AT_FDCWD)
	if spec.dir >= 0 {
		dir = c.Arg32(spec.dir)
	}
	follow := flags&unix.O_NOFOLLOW == 0
	seen := asSeenFromHere(c.TID, dir, name)
	if file := h.files.text(seen); file != "" {
		return h.openText(c, spec.name, file, flags)
	}
	if st, err := h.files.stat(seen, follow); err != nil || !isDevice(&st) {
		return kernelDecides
	}
	pin, err := h.files.pin(c.TID, dir, name, follow)
	if err != nil {
		return h.fail(c, spec.name, fmt.Errorf("open %s: %w", name, err))
	}
	defer pin.Close()
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	want := uint64(abi.FSReadFile)
	if flags&unix.O_ACCMODE == unix.O_RDWR {
		want |= abi.FSWriteFile
	}
	if !h.config.Grants(pin.Path, want) {
		return kernelDecides // it refuses
	}
	s, err := h.stream(c)
	if err != nil {
		return h.fail(c, spec.name, err)
	}
	fd, err := h.files.sources.open(s.branch(), flags&unix.O_NONBLOCK != 0)
	if errors.Is(err, unix.ENFILE) {
		e := h.config.Rule
		e.Kind, e.PID, e.Syscall, e.Path, e.Verdict = "limit", c.TID, spec.name, pin.Path, "ENFILE"
		e.Reason = "the sandbox has " + strconv.Itoa(maxSources) + " random devices open"
		h.journal.Record(e)
		return supervise.Errno(unix.ENFILE)
	}
	if err != nil {
		return h.fail(c, spec.name, err)
	}
	return supervise.AddFD(fd, uint32(flags)&unix.O_CLOEXEC)
}

func (o openCall) readFlags(c *supervise.Call) (int, error) {
	if !o.structured {
		return int(c.Arg32(o.flags)), nil
	}
	var b [8]byte
	if err := c.Bytes(c.Args[o.flags], b[:]); err != nil {
		return 0, err
	}
	return int(binary.NativeEndian.Uint64(b[:])), nil
}

// The random devices: /dev/random and /dev/urandom (Documentation/admin-guide/devices.txt).
func isDevice(st *unix.Stat_t) bool {
	const memory = 1
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(uint64(st.Rdev)) == memory &&
		(unix.Minor(uint64(st.Rdev)) == 8 || unix.Minor(uint64(st.Rdev)) == 9)
}

// asSeenFromHere is a path by which this process reaches what name means to the caller. It is for looking only: who acts
// on it pins the file.
func asSeenFromHere(tid int, dir int32, name string) string {
	proc := "/proc/" + strconv.Itoa(tid)
	if strings.HasPrefix(name, "/") {
		for _, own := range []string{"/proc/self/", "/proc/thread-self/"} {
			if rest, ok := strings.CutPrefix(name, own); ok {
				return proc + "/" + rest
			}
		}
		if rest, ok := strings.CutPrefix(name, "/dev/fd/"); ok {
			return proc + "/fd/" + rest
		}
		if n, ok := map[string]string{"/dev/stdin": "0", "/dev/stdout": "1", "/dev/stderr": "2"}[name]; ok {
			return proc + "/fd/" + n
		}
		return name
	}
	if dir == unix.AT_FDCWD {
		return proc + "/cwd/" + name
	}
	return proc + "/fd/" + strconv.Itoa(int(dir)) + "/" + name
}

// Files that give random names: a new one each time they are read, and one for as long as the host runs.
const (
	uuidFile   = "/proc/sys/kernel/random/uuid"
	bootIDFile = "/proc/sys/kernel/random/boot_id"
)

// text returns which of them a path leads to, "" for none. Only a path that ends like one is followed.
func (f files) text(name string) string {
	if last := path.Base(name); last != path.Base(uuidFile) && last != path.Base(bootIDFile) {
		return ""
	}
	if real := f.where(name); real == uuidFile || real == bootIDFile {
		return real
	}
	return ""
}

// openText answers with a file that holds a seeded name.
func (h *Handler) openText(c *supervise.Call, call, file string, flags int) supervise.Verdict {
	if flags&unix.O_ACCMODE != unix.O_RDONLY || !h.config.Grants(file, abi.FSReadFile) {
		return supervise.Pass(supervise.KernelDecides) // it refuses
	}
	k := h.streams.root.derive("boot_id", nil, 0)
	if file == uuidFile {
		s, err := h.stream(c)
		if err != nil {
			return h.fail(c, call, err)
		}
		k = s.branch()
	}
	fd, err := kernel.SealedFile("random", []byte(uuid(k)+"\n"))
	if err != nil {
		return h.fail(c, call, err)
	}
	return supervise.AddFD(fd, uint32(flags)&unix.O_CLOEXEC)
}

// uuid writes a random UUID (RFC 9562, version 4).
func uuid(k key) string {
	b := k[:16]
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
