package machine

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
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

// identify looks up what the files are in the command's view of this host. One that is not there is left out.
func identify(root kernel.Root, files []hostFile) (found []hostFile) {
	for _, f := range files {
		fd, err := root.Open(f.path, unix.O_PATH|unix.O_CLOEXEC)
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

// maybe tells whether one of the files has an inode number.
func (h *Handler) maybe(st *unix.Stat_t) bool {
	for i := range h.files {
		if h.files[i].id.Ino == st.Ino {
			return true
		}
	}
	return false
}

// substitute is what is read instead of a pinned file, nil for the file itself.
func (h *Handler) substitute(pin kernel.Pin) *opens.Substitute {
	f := h.fileOf(pin)
	if f == nil {
		return nil
	}
	return &opens.Substitute{Path: f.path, Content: func(pin kernel.Pin, tid int) ([]byte, error) { return h.content(f, pin, tid) }}
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

// Instead returns what a thread is to read in place of a pinned file, see [opens.Files.Instead].
func (h *Handler) Instead(pin kernel.Pin, flags, tid int) (content []byte, ok bool, err error) {
	return h.opened.Instead(pin, flags, tid)
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
