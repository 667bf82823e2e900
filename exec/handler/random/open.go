package random

import (
	"errors"
	"fmt"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// files is what open asks the kernel; tests replace it.
type files struct {
	stat    func(*opens.Request) (unix.Stat_t, error)
	where   func(*opens.Request) string // the path of the file that a path leads to, "" for none
	pin     func(*opens.Request) (kernel.Pin, error)
	sources *sources
}

func newFiles(root kernel.Root) files {
	return files{
		stat: func(r *opens.Request) (unix.Stat_t, error) { return r.Look(root, r.Follows()) },
		where: func(r *opens.Request) string {
			pin, err := r.Pin(root, true)
			if err != nil {
				return ""
			}
			defer pin.Close()
			return pin.Path
		},
		pin: func(r *opens.Request) (kernel.Pin, error) {
			return root.PinPath(r.TID, r.Dir, r.Path, r.Follows())
		},
		sources: &sources{},
	}
}

// open answers with a source if a random device is about to be opened for reading. The name decides nothing, since the
// device can have several: one stat tells.
func (h *Handler) open(c *supervise.Call, spec opens.Spec) supervise.Verdict {
	kernelDecides := supervise.Pass(supervise.KernelDecides)
	r, err := spec.Read(c)
	if err != nil || !r.Reads() {
		return kernelDecides
	}
	if err := spec.ReadPath(c, &r); err != nil || r.Path == "" {
		return kernelDecides
	}
	if file := h.files.text(&r); file != "" {
		return h.openText(c, spec.Name, file, r.Flags)
	}
	if st, err := h.files.stat(&r); err != nil || !isDevice(&st) {
		return kernelDecides
	}
	pin, err := h.files.pin(&r)
	if err != nil {
		return h.fail(c, spec.Name, fmt.Errorf("open %s: %w", r.Path, err))
	}
	defer pin.Close()
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	want := uint64(abi.FSReadFile)
	if r.Flags&unix.O_ACCMODE == unix.O_RDWR {
		want |= abi.FSWriteFile
	}
	if !h.config.Grants(pin.Path, want) {
		return kernelDecides // it refuses
	}
	s, err := h.stream(c)
	if err != nil {
		return h.fail(c, spec.Name, err)
	}
	fd, err := h.files.sources.open(s.branch(), r.Flags&unix.O_NONBLOCK != 0)
	if errors.Is(err, unix.ENFILE) {
		e := h.config.Rule
		e.Kind, e.PID, e.Syscall, e.Path, e.Verdict = "limit", c.TID, spec.Name, pin.Path, "ENFILE"
		e.Reason = "the sandbox has " + strconv.Itoa(maxSources) + " random devices open"
		h.journal.Record(e)
		return supervise.Errno(unix.ENFILE)
	}
	if err != nil {
		return h.fail(c, spec.Name, err)
	}
	return supervise.AddFD(fd, uint32(r.Flags)&unix.O_CLOEXEC)
}

// The random devices: /dev/random and /dev/urandom (Documentation/admin-guide/devices.txt).
func isDevice(st *unix.Stat_t) bool {
	const memory = 1
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(uint64(st.Rdev)) == memory &&
		(unix.Minor(uint64(st.Rdev)) == 8 || unix.Minor(uint64(st.Rdev)) == 9)
}

// Files that give random names: a new one each time they are read, and one for as long as the host runs.
const (
	uuidFile   = "/proc/sys/kernel/random/uuid"
	bootIDFile = "/proc/sys/kernel/random/boot_id"
)

// text returns which of them a path leads to, "" for none. Only a path that ends like one is followed.
func (f files) text(r *opens.Request) string {
	if last := path.Base(r.Path); last != path.Base(uuidFile) && last != path.Base(bootIDFile) {
		return ""
	}
	if real := f.where(r); real == uuidFile || real == bootIDFile {
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
