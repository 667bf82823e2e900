// Package metadata keeps changes of file metadata within the write grants: modes, owners, times, extended attributes.
//
// Landlock does not mediate these calls, so without this a command could take every permission from its user's files
// or, run as root, open up /etc/shadow. The handler answers the chmod, chown, utime and xattr families: it pins the file,
// asks whether the pinned file lies beneath a write grant, and makes the change on the pin with the executor's own,
// equal credentials. Nothing is continued, so swapping the path under it is of no use. Policies that grant no write
// refuse these calls in the filter and never come here.
//
// Read next: calls.go (how each call's arguments are read), apply.go (how each change is made).
package metadata

import (
	"errors"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Grants says whether a path lies beneath a grant of all rights in want, and if not, which rule comes closest.
type Grants func(path string, want uint64) (ok bool, closestRule, closestOrigin string)

// Handler mediates metadata changes of one sandbox.
type Handler struct {
	config  Config
	journal supervise.Journal
	calls   map[abi.Sysno]call
}

// Config is what the handler is to know.
type Config struct {
	Grants Grants
	Root   kernel.Root // of the command's paths
	IDs    kernel.IDs  // of the command's users and groups
}

// New makes the handler.
func New(arch abi.Arch, c Config, j supervise.Journal) *Handler {
	h := &Handler{config: c, journal: j, calls: map[abi.Sysno]call{}}
	for name, c := range calls {
		if nr, ok := abi.SyscallNumber(arch, name); ok {
			c.name = name
			h.calls[nr] = c
		}
	}
	return h
}

// Name is the concern.
func (h *Handler) Name() string { return "metadata" }

// Syscalls lists the calls of the group file_metadata.
func (h *Handler) Syscalls() []abi.Sysno {
	return slices.Collect(maps.Keys(h.calls))
}

// Handle makes the change on behalf of the caller, or refuses it.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	spec := h.calls[c.Nr]
	if spec.read == nil {
		return supervise.Errno(unix.ENOSYS) // too new to be worth the risk: libraries fall back to the older form
	}
	r, err := spec.read(c)
	if err == nil && r.translate != nil {
		err = r.translate(h.config.IDs)
	}
	if err != nil {
		return supervise.FromError(err)
	}
	pin, err := r.target.pin(c, h.config.Root)
	if err != nil {
		return supervise.FromError(plainErrno(err))
	}
	defer pin.Close()
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	if pin.Path != "" {
		if ok, rule, origin := h.config.Grants(pin.Path, abi.FSWriteFile); !ok {
			h.journal.Record(supervise.Event{
				Kind: "denied", PID: c.TID, Syscall: spec.name, Path: pin.Path,
				Verdict: "EACCES", Reason: "the file is not beneath a write grant", Rule: rule, Origin: origin, Closest: true,
			})
			return supervise.Errno(unix.EACCES)
		}
	}
	return supervise.FromError(plainErrno(r.apply(pin)))
}

func plainErrno(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}
