package ports

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// bindUnix makes the socket file as the caller would: with its umask, from its working directory, by the path as it wrote
// it, which is what getsockname tells from then on. The loop's thread is in a Landlock domain that may make sockets where
// the sandbox may, so a path that leads elsewhere by the time it is walked again is of no use. Names that are no paths are
// the kernel's.
//
// Beneath another root a path would mean another file to this process: the socket is made by its name in the directory, and
// that is what getsockname tells.
func (h *Handler) bindUnix(c *supervise.Call, s *socket.Socket, a *socket.Address) supervise.Verdict {
	path, ok := a.Path()
	if !ok {
		return supervise.FromError(kernel.Bind(s.FD, a.Bytes()))
	}
	if a.Size() > unix.SizeofSockaddrUnix {
		return supervise.Errno(unix.EINVAL)
	}
	at := kernel.Base{TID: c.TID, DirFD: kernel.AtCWD}
	dir, name, slash, err := h.policy.Root.ResolveParent(at, path)
	if err != nil {
		return supervise.FromError(kernel.ErrnoOf(err))
	}
	defer dir.Close()
	mask, err := kernel.Umask(c.TID)
	if err != nil || !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	switch {
	case name == "." || name == "..":
		return supervise.Errno(unix.EADDRINUSE)
	case slash:
		return supervise.Errno(unix.ENOENT)
	}
	if refused, ok := h.mayMake(c, dir, name); !ok {
		return refused
	}
	from := -1
	if !h.policy.Root.Own() || strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/dev/fd/") {
		// The path may mean the caller's own descriptors and directories, as where it is to be short.
		from = dir.FD
		var own socket.Address
		own.Set(append(append(make([]byte, 2), name...), 0))
		own.SetFamily(unix.AF_UNIX)
		a = &own
	} else if !strings.HasPrefix(path, "/") {
		cwd, err := h.policy.Root.Resolve(at, ".", true, 0)
		if err != nil {
			return supervise.FromError(kernel.ErrnoOf(err))
		}
		defer cwd.Close()
		if !c.Valid() {
			return supervise.Errno(unix.ESRCH)
		}
		from = cwd.FD
	}
	err = kernel.InDirectory(from, mask, func() error { return kernel.Bind(s.FD, a.Bytes()) })
	if err != nil {
		err = kernel.ErrnoOf(err)
	}
	return supervise.FromError(err)
}

// mayMake decides whether a socket may be made in a directory.
func (h *Handler) mayMake(c *supervise.Call, dir kernel.Pin, name string) (refused supervise.Verdict, ok bool) {
	e := supervise.Event{Path: name, Reason: "the directory has no path", Closest: true}
	if dir.Path != "" {
		if ok, e.Rule, e.Origin = h.policy.Grants(dir.Path, abi.FSMakeSock); ok {
			return refused, true
		}
		e.Path, e.Reason = strings.TrimSuffix(dir.Path, "/")+"/"+name, "no rule grants making sockets there"
	}
	return h.refuse(c, e, unix.EACCES), false
}
