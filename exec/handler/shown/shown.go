// Package shown shows programs a file with another content than it has: /etc/hosts with the addresses that names are pinned
// to, a bundle of certificates with one more.
//
// In: opens for reading, where the policy grants to read the file, and where the filter notifies them calls that tell of its
// size. Out: a descriptor of a file in memory. Under which path the file is opened does not matter. It decides nothing about access, here or on the network: it is there so that programs
// find what the sandbox is like. Opens that it does not answer, those that write among them, are the kernel's.
package shown

import (
	"maps"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Hosts is where programs look names up (hosts(5)).
const Hosts = "/etc/hosts"

// Config is what the handler is to know.
type Config struct {
	Name    string // of the concern
	File    string
	Content []byte // of the file
	// Read is where Content was read, links resolved, "" where it is from elsewhere. Then the policy must grant reading there,
	// or where the file is by now: that File is granted says nothing about what a link there has led to.
	Read    string
	Grants  func(path string, want uint64) bool // does the policy grant all rights in want
	Journal supervise.Journal
	Root    kernel.Root // of the command's paths, File among them
	IDs     kernel.IDs  // of the command's users and groups
}

// Handler answers opens of the file.
type Handler struct {
	name    string
	root    kernel.Root
	ids     kernel.IDs
	file    string
	content []byte
	real    string        // where the host's file is, links resolved
	granted string        // where the policy must grant reading, unless it does where the file is
	first   kernel.FileID // the host's file at the start; zero where there was none
	calls   map[abi.Sysno]opens.Spec
	stats   map[abi.Sysno]stat
	opened  opens.Files
}

// New makes the handler.
func New(arch abi.Arch, c Config) *Handler {
	h := &Handler{name: c.Name, root: c.Root, ids: c.IDs, file: c.File, real: c.File, granted: c.File, content: c.Content, calls: opens.Readers(arch), stats: statCalls(arch)}
	if c.Read != "" {
		h.real, h.granted = c.Read, c.Read
	} else if real, err := c.Root.Real(c.File); err == nil {
		h.real = real
	}
	h.first, _ = h.identity()
	h.opened = opens.Files{Name: c.Name, Root: c.Root, Maybe: h.maybe, For: h.substitute, Absent: h.absent, Grants: c.Grants, Journal: c.Journal}
	return h
}

// identity returns which file the path leads to now.
func (h *Handler) identity() (id kernel.FileID, ok bool) {
	var st unix.Stat_t
	var err error
	if h.root.Own() {
		st, err = opens.Look(h.file, true)
	} else {
		st, err = h.root.Stat(kernel.Base{}, h.file, true)
	}
	return kernel.FileID{Dev: uint64(st.Dev), Ino: st.Ino}, err == nil
}

// Name is the concern.
func (h *Handler) Name() string { return h.name }

// Syscalls lists the calls that open files for reading, and those that tell of files.
func (h *Handler) Syscalls() []abi.Sysno {
	return slices.AppendSeq(slices.Collect(maps.Keys(h.calls)), maps.Keys(h.stats))
}

// Handle answers an open of the file, or what asks about it.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	if s, ok := h.stats[c.Nr]; ok {
		return h.tell(c, s)
	}
	return h.opened.Open(c, h.calls[c.Nr])
}

// Instead returns what is to be read in place of a pinned file, see [opens.Files.Instead].
func (h *Handler) Instead(pin kernel.Pin, flags, tid int) (content []byte, ok bool, err error) {
	return h.opened.Instead(pin, flags, tid)
}

// maybe tells whether a file is the host's, as it was at the start or as it is now: editors write a new one and rename it.
func (h *Handler) maybe(st *unix.Stat_t) bool {
	id := kernel.FileID{Dev: uint64(st.Dev), Ino: st.Ino}
	return st.Mode&unix.S_IFMT == unix.S_IFREG && h.is(id)
}

func (h *Handler) is(id kernel.FileID) bool {
	if id == h.first {
		return true
	}
	now, ok := h.identity()
	return ok && id == now
}

func (h *Handler) substitute(pin kernel.Pin) *opens.Substitute {
	id, mode, err := pin.ID()
	if err != nil || mode&unix.S_IFMT != unix.S_IFREG || pin.Path != h.real && !h.is(id) {
		return nil
	}
	return h.show()
}

func (h *Handler) show() *opens.Substitute {
	return &opens.Substitute{Path: h.granted, Content: func(kernel.Pin, int) ([]byte, error) { return h.content, nil }}
}

// absent shows the file where the host has none: the path leads into its directory, to its name.
func (h *Handler) absent(r *opens.Request) *opens.Substitute {
	if filepath.Base(r.Path) != filepath.Base(h.real) {
		return nil
	}
	dir, name, slash, err := h.root.ResolveParent(r.Base(), r.Path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	if slash || filepath.Join(dir.Path, name) != h.real {
		return nil
	}
	return h.show()
}
