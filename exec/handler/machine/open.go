package machine

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// hostFile is a file that tells of the machine.
type hostFile struct {
	path string
	id   kernel.FileID
	fs   int64 // magic number of its file system
	// write makes of the host's file what the caller is to read.
	write func(h *Handler, tid int, host []byte) ([]byte, error)
}

func memoryFiles() []hostFile {
	return []hostFile{{path: "/proc/meminfo", write: func(h *Handler, _ int, host []byte) ([]byte, error) {
		used, _ := h.config.Charged()
		return meminfo(host, h.config.Memory, used)
	}}}
}

func cpuFiles() []hostFile {
	of := func(path string, write func([]byte, choice) ([]byte, error)) hostFile {
		return hostFile{path: path, write: func(h *Handler, tid int, host []byte) ([]byte, error) {
			mask, err := h.affinityOf(tid, maxMask)
			if err != nil {
				return nil, err
			}
			return write(host, choose(mask, h.config.CPUs))
		}}
	}
	return []hostFile{
		of("/proc/cpuinfo", cpuinfo), of("/proc/stat", stat), of("/sys/devices/system/cpu/online", cpuList),
		of("/sys/devices/system/cpu/possible", cpuList), of("/sys/devices/system/cpu/present", cpuList),
	}
}

// identify looks up what the files are on this host. One that the host does not have is left out.
func identify(files []hostFile) (found []hostFile) {
	for _, f := range files {
		fd, err := unix.Open(f.path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		pin := kernel.Pin{FD: fd}
		if f.id, _, err = pin.ID(); err == nil {
			if f.fs, err = fileSystem(pin); err == nil {
				found = append(found, f)
			}
		}
		pin.Close()
	}
	return found
}

func fileSystem(pin kernel.Pin) (int64, error) {
	var fs unix.Statfs_t
	err := unix.Fstatfs(pin.FD, &fs)
	return fs.Type, err
}

// known tells whether one of the files has an inode number.
func (h *Handler) known(ino uint64) bool {
	for i := range h.files {
		if h.files[i].id.Ino == ino {
			return true
		}
	}
	return false
}

// fileOf recognises a pinned file, nil for any other. Another mount of procfs or sysfs numbers its files alike.
func (h *Handler) fileOf(pin kernel.Pin) *hostFile {
	id, mode, err := pin.ID()
	if err != nil || mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	for i := range h.files {
		f := &h.files[i]
		if f.id == id {
			return f
		}
		if f.id.Ino == id.Ino && (f.fs == unix.PROC_SUPER_MAGIC || f.fs == unix.SYSFS_MAGIC) {
			if fs, err := fileSystem(pin); err == nil && fs == f.fs {
				return f
			}
		}
	}
	return nil
}

// plain tells whether an open is for reading and nothing else. Others are the kernel's to answer: they read nothing, or fail.
func plain(flags int) bool {
	const more = unix.O_ACCMODE | unix.O_TRUNC | unix.O_DIRECT | unix.O_NOATIME
	r := opens.Request{Flags: flags}
	return r.Reads() && flags&more == 0
}

// open answers with a file in memory if one of the machine's files is about to be opened for reading.
func (h *Handler) open(c *supervise.Call, spec opens.Spec) supervise.Verdict {
	kernelDecides := supervise.Pass(supervise.KernelDecides)
	r, err := spec.Read(c)
	if err != nil || !plain(r.Flags) {
		return kernelDecides
	}
	if err := spec.ReadPath(c, &r); err != nil || r.Path == "" {
		return kernelDecides
	}
	pin, err := h.pin(&r)
	if err != nil {
		return kernelDecides
	}
	defer pin.Close()
	f := h.fileOf(pin)
	if f == nil || !h.config.Grants(pin.Path, abi.FSReadFile) && !h.config.Grants(f.path, abi.FSReadFile) {
		return kernelDecides
	}
	content, err := h.content(f, pin, c.TID)
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	if errors.Is(err, unix.EACCES) {
		return kernelDecides // it refuses as well
	}
	var fd int
	if err == nil {
		fd, err = kernel.SealedFile("machine", content)
	}
	if err != nil {
		h.config.Journal.Record(supervise.Event{
			Kind: "error", PID: c.TID, Syscall: spec.Name, Path: f.path, Verdict: "EIO",
			Reason: "the host's file cannot be shown: " + err.Error(),
		})
		return supervise.Errno(unix.EIO)
	}
	return supervise.AddFD(fd, uint32(r.Flags)&unix.O_CLOEXEC)
}

// pin holds the file that is asked for, if it may be one of ours. Where the caller restricts the way to it the kernel's rules for
// that hold.
func (h *Handler) pin(r *opens.Request) (kernel.Pin, error) {
	if r.Resolve != 0 {
		return kernel.Resolve(r.Base(), r.Path, r.Follows(), r.Resolve)
	}
	// Most opens are of other files, and one look tells.
	seen := r.Seen()
	if st, err := opens.Look(seen, r.Follows()); err != nil || !h.known(st.Ino) {
		return kernel.Pin{}, unix.ENOENT
	}
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !r.Follows() {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(seen, flags, 0)
	if err != nil {
		return kernel.Pin{}, err
	}
	p := kernel.Pin{FD: fd}
	p.Path, _ = os.Readlink(p.SelfPath())
	return p, nil
}

// Instead returns what a thread is to read in place of a pinned file that it may read, and whether there is anything. It is for a
// handler that opens files on behalf, with flags as in open(2).
func (h *Handler) Instead(pin kernel.Pin, flags, tid int) (content []byte, ok bool, err error) {
	f := h.fileOf(pin)
	if f == nil || !plain(flags) {
		return nil, false, nil
	}
	content, err = h.content(f, pin, tid)
	return content, true, err
}

// maxHostFile bounds what is read of a host's file. /proc/cpuinfo of 8192 CPUs is about as long.
const maxHostFile = 16 << 20

// content reads the host's file through the pin, so with the rights that this thread has to it: EACCES if it has none.
func (h *Handler) content(f *hostFile, pin kernel.Pin, tid int) ([]byte, error) {
	fd, err := unix.Open(pin.SelfPath(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	host := os.NewFile(uintptr(fd), f.path)
	defer host.Close()
	b, err := io.ReadAll(io.LimitReader(host, maxHostFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxHostFile {
		return nil, unix.EFBIG
	}
	return f.write(h, tid, b)
}
