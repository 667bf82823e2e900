// Package ports binds sockets in place of a sandbox, and keeps the ports that it sees apart from those of the host.
//
// It answers bind, and where ports are virtual getsockname, getpeername, and opens of the files in /proc that list sockets.
// Ports that may not be bound are decided by
// ir/query on a copy of the address, and the copy is bound to a duplicate of the socket: nothing is continued, so neither an
// address nor a descriptor that another thread changes matters.
//
// With virtual ports a socket that asks for a port which somebody outside holds is bound to another one, the real port. The
// sandbox goes on to see the port that it asked for: what it connects and sends to (exec/handler/network asks Translate) and
// what getsockname, getpeername and the files say is translated. Two sockets of the sandbox are in each other's way as on any host.
//
// Read next: internet.go (TCP and UDP), pathname.go (unix sockets), table.go (which port is which), names.go, files.go.
package ports

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Policy is what the handler asks; the executor answers from ir/query.
type Policy struct {
	// Bind says whether a port may be bound; 0 is one that the kernel picks.
	Bind func(protocol ir.Protocols, port uint16) query.Ruling
	// Held has the dynamic rules look at a call before it has any effect; nil where there are none. What does not narrow is
	// left to Bind.
	Held func(c *supervise.Call, syscall string, event ir.Events, protocol ir.Protocols, to netip.AddrPort) ir.Outcome
	// Ephemeral says that the kernel may pick any port for a socket that asks for none, though Bind does not list it.
	Ephemeral bool
	// Describe names the rule of a ruling and its place in the policy.
	Describe func(query.Ruling) (rule, origin string)
	// Grants says whether a path is granted all rights in want, and if not, which rule comes closest.
	Grants func(path string, want uint64) (ok bool, closestRule, closestOrigin string)
	// Virtual has ports outside stand in for those that are taken.
	Virtual bool
	// Files has files that list the host's sockets list the sandbox's, where ports are virtual.
	Files bool
	// Granted says whether a path is granted all rights in want.
	Granted func(path string, want uint64) bool
	// IDs are the command's numbers of users.
	IDs kernel.IDs
	// OnBind is told of each port that is bound where ports are virtual; nil tells nobody.
	OnBind func(Port)
	// Root is where the command's paths begin.
	Root kernel.Root
}

// Port is a port as the sandbox sees it, and as the host does.
type Port struct {
	Protocol ir.Protocols // TCP or UDP
	Address  netip.Addr   // that the socket was bound to; unspecified for all of the host
	Virtual  uint16       // what the sandbox asked for
	Real     uint16
}

// Handler carries out the calls of one sandbox.
type Handler struct {
	policy  Policy
	journal supervise.Journal
	calls   map[abi.Sysno]func(*Handler, *supervise.Call) supervise.Verdict
	alarm   *kernel.Alarm // of the loop's thread
	table   *table        // nil where ports are not virtual
	opens   map[abi.Sysno]opens.Spec
	lists   map[uint64]list // by inode number
	opened  opens.Files
}

// patience bounds a close that does not wait unless the caller has given its own descriptor up meanwhile.
const patience = 2 * time.Millisecond

// New makes the handler. It must be called on the thread of the loop, which must have a umask of its own
// (kernel.UnshareFS) if there can be unix sockets.
func New(arch abi.Arch, p Policy, j supervise.Journal) (*Handler, error) {
	h := &Handler{policy: p, journal: j, calls: map[abi.Sysno]func(*Handler, *supervise.Call) supervise.Verdict{}}
	for name, handle := range map[string]func(*Handler, *supervise.Call) supervise.Verdict{
		"bind":        (*Handler).bind,
		"getsockname": (*Handler).ownName,
		"getpeername": (*Handler).peerName,
	} {
		if nr, ok := abi.SyscallNumber(arch, name); ok && (p.Virtual || name == "bind") {
			h.calls[nr] = handle
		}
	}
	var err error
	if p.Virtual {
		if h.table, err = newTable(); err != nil {
			return nil, err
		}
	}
	if p.Virtual && p.Files {
		h.showLists(arch)
	}
	if h.alarm, err = kernel.NewAlarm(); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Name is the concern.
func (h *Handler) Name() string { return "ports" }

// Syscalls lists bind, and with virtual ports the calls that tell them.
func (h *Handler) Syscalls() []abi.Sysno {
	return slices.AppendSeq(slices.Collect(maps.Keys(h.calls)), maps.Keys(h.opens))
}

// Close releases what the handler holds.
func (h *Handler) Close() {
	if h.alarm != nil {
		h.alarm.Close()
	}
	if h.table != nil {
		h.table.close()
	}
}

// Handle carries a call out, or refuses it.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	if spec, ok := h.opens[c.Nr]; ok {
		return h.opened.Open(c, spec)
	}
	return h.calls[c.Nr](h, c)
}

func (h *Handler) bind(c *supervise.Call) supervise.Verdict {
	var a socket.Address
	if err := a.Read(c, c.Args[1], c.Arg32(2)); err != nil {
		return supervise.FromError(err)
	}
	s, err := socket.Pin(c, c.Arg32(0), h.close)
	if err != nil {
		return supervise.FromError(err)
	}
	defer h.release(&s)
	switch {
	case s.Internet():
		return h.bindInternet(c, &s, &a)
	case s.Domain == unix.AF_UNIX:
		return h.bindUnix(c, &s, &a)
	case s.Domain == unix.AF_NETLINK:
		return h.bindNetlink(c, &s, &a)
	}
	return h.refuse(c, supervise.Event{Reason: "sockets of this family are not bound"}, unix.EAFNOSUPPORT)
}

// release closes the duplicate of the caller's socket.
func (h *Handler) release(s *socket.Socket) { h.close(s.FD) }

func (h *Handler) close(fd int) {
	h.alarm.Set(patience)
	_ = unix.Close(fd)
	h.alarm.Clear()
}

// refuse records a refusal.
func (h *Handler) refuse(c *supervise.Call, e supervise.Event, errno unix.Errno) supervise.Verdict {
	e.Kind, e.PID, e.Syscall, e.Verdict = "denied", c.TID, "bind", unix.ErrnoName(errno)
	h.journal.Record(e)
	return supervise.Errno(errno)
}

// bindNetlink gives the socket the port id that the kernel would give the caller: without one it takes the process's, which
// would be the executor's here (netlink(7)).
func (h *Handler) bindNetlink(c *supervise.Call, s *socket.Socket, a *socket.Address) supervise.Verdict {
	const size, port = unix.SizeofSockaddrNetlink, 4
	b := a.Bytes()
	if len(b) < size || binary.NativeEndian.Uint32(b[port:]) != 0 {
		return supervise.FromError(kernel.Bind(s.FD, b))
	}
	pid, err := h.policy.Root.OwnPID(c.TID)
	if err != nil || !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	id := uint32(pid)
	for range maxTries {
		binary.NativeEndian.PutUint32(b[port:], id)
		if err = kernel.Bind(s.FD, b); err != unix.EADDRINUSE {
			break
		}
		id = randomID()
	}
	return supervise.FromError(err)
}
