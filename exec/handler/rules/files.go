package rules

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// call is a held system call.
type call struct {
	name  string
	event ir.Events
	// read reads what a call that names files asks for; nil for the others.
	read func(*supervise.Call) (request, error)
}

// request is a call that names files, read from the caller once.
type request interface {
	// named returns the paths as the caller wrote them.
	named() []string
	// pin finds the files, and describes them as the rules see them. What it pins close releases.
	pin(h *Handler) ([]query.File, error)
	// check refuses what the static policy does not grant.
	check(h *Handler) refusal
	// carryOut makes the call on what was pinned. It does not block: what the call waits for, its verdict does.
	carryOut() supervise.Verdict
	close()
}

var calls = map[string]call{
	"execve":   {event: ir.EventExec},
	"execveat": {event: ir.EventExec},
	"clone":    {event: ir.EventClone},
	"fork":     {event: ir.EventClone},
	"vfork":    {event: ir.EventClone},

	"open":    {event: ir.EventOpen, read: readOpen("open")},
	"openat":  {event: ir.EventOpen, read: readOpen("openat")},
	"openat2": {event: ir.EventOpen, read: readOpen("openat2")},
	"creat":   {event: ir.EventOpen, read: readOpen("creat")},

	"truncate": {event: ir.EventTruncate, read: readTruncate},

	"unlink": {event: ir.EventUnlink, read: func(c *supervise.Call) (request, error) { return readUnlink(c, kernel.AtCWD, 0, 0) }},
	"rmdir": {event: ir.EventUnlink, read: func(c *supervise.Call) (request, error) {
		return readUnlink(c, kernel.AtCWD, 0, unix.AT_REMOVEDIR)
	}},
	"unlinkat": {event: ir.EventUnlink, read: func(c *supervise.Call) (request, error) { return readUnlink(c, c.Arg32(0), 1, c.Arg32(2)) }},

	"rename": {event: ir.EventRename, read: func(c *supervise.Call) (request, error) {
		return readRename(c, entryAt(c, kernel.AtCWD, 0), entryAt(c, kernel.AtCWD, 1), 0)
	}},
	"renameat": {event: ir.EventRename, read: func(c *supervise.Call) (request, error) {
		return readRename(c, entryAt(c, c.Arg32(0), 1), entryAt(c, c.Arg32(2), 3), 0)
	}},
	"renameat2": {event: ir.EventRename, read: func(c *supervise.Call) (request, error) {
		return readRename(c, entryAt(c, c.Arg32(0), 1), entryAt(c, c.Arg32(2), 3), uint32(c.Arg32(4)))
	}},

	"link": {event: ir.EventLink, read: func(c *supervise.Call) (request, error) {
		return readLink(c, kernel.AtCWD, 0, entryAt(c, kernel.AtCWD, 1), 0)
	}},
	"linkat": {event: ir.EventLink, read: func(c *supervise.Call) (request, error) {
		return readLink(c, c.Arg32(0), 1, entryAt(c, c.Arg32(2), 3), c.Arg32(4))
	}},

	"mkdir":   {event: ir.EventMake, read: func(c *supervise.Call) (request, error) { return readMkdir(c, kernel.AtCWD, 0) }},
	"mkdirat": {event: ir.EventMake, read: func(c *supervise.Call) (request, error) { return readMkdir(c, c.Arg32(0), 1) }},
	"mknod":   {event: ir.EventMake, read: func(c *supervise.Call) (request, error) { return readMknod(c, kernel.AtCWD, 0) }},
	"mknodat": {event: ir.EventMake, read: func(c *supervise.Call) (request, error) { return readMknod(c, c.Arg32(0), 1) }},
	"symlink": {event: ir.EventMake, read: func(c *supervise.Call) (request, error) { return readSymlink(c, kernel.AtCWD, 1) }},
	"symlinkat": {event: ir.EventMake, read: func(c *supervise.Call) (request, error) {
		return readSymlink(c, c.Arg32(1), 2)
	}},
}

// file decides a call that names files.
func (h *Handler) file(w *held) supervise.Verdict {
	h.callersProgram(w)
	if !h.pathsMatter(w) {
		// Decided by the call alone; the paths are for the journal, and the kernel reads them itself.
		if h.policy.Audited {
			if r, err := w.spec.read(w.call); err == nil {
				w.facts.Files, _ = r.pin(h)
				w.named = r.named()
				r.close()
			}
		}
		v, _ := h.settle(w, h.decide(w))
		return v
	}
	r, err := w.spec.read(w.call)
	if err != nil {
		return h.fails(w, err)
	}
	w.named = r.named()
	done := r.close
	defer func() { done() }()
	h.targets.refresh(w.facts.Kind)
	if w.facts.Files, err = r.pin(h); err != nil {
		return h.fails(w, err)
	}
	if !w.call.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	d := h.decide(w)
	if h.hook.f != nil && !d.refuses() {
		if refused, v := h.static(w, r); refused {
			return v
		}
		if err := h.replace(r); err != nil {
			return h.fails(w, err)
		}
		h.record(w, d)
		event, copied := h.event(w, d), *w
		copied.call = &supervise.Call{TID: w.call.TID} // the loop uses its own again
		done = func() {}                               // the deferred function closes
		return supervise.Defer(func(context.Context) supervise.Verdict {
			if o := h.hook.ask(event); o.Narrows() {
				r.close()
				h.record(&copied, decision{outcome: o, rule: query.NoRule})
				if o.Kind == ir.OutcomeKill { // the loop alone can
					return supervise.Resume(func(*supervise.Call) supervise.Verdict { return verdict(o) })
				}
				return verdict(o)
			}
			return supervise.Resume(func(*supervise.Call) supervise.Verdict { return proceed(r) }).Dropping(r.close)
		}).Dropping(r.close)
	}
	h.record(w, d)
	if d.refuses() {
		return verdict(d.outcome)
	}
	if refused, v := h.static(w, r); refused {
		return v
	}
	if err := h.replace(r); err != nil {
		return supervise.Errno(errno(err))
	}
	done = func() {} // proceed closes
	return proceed(r)
}

// proceed carries a request out and releases it, at once or when what it waits for has come.
func proceed(r request) supervise.Verdict {
	waits := false
	defer func() {
		if !waits {
			r.close()
		}
	}()
	v := r.carryOut()
	if waits = v.Defers(); waits {
		return v.Dropping(r.close)
	}
	return v
}

// replace has an open that was decided answered with other content, where a feature has some. It asks on the loop: the
// content is made of other handlers' state.
func (h *Handler) replace(r request) error {
	o, opens := r.(*openRequest)
	if !opens || o.create != "" || h.policy.Instead == nil {
		return nil
	}
	content, ok, err := h.policy.Instead(*o.pinned, o.flags, o.tid)
	if ok {
		o.content = &content
	}
	return err
}

// fails answers a call that cannot be carried out, whatever rules say: as the kernel would.
func (h *Handler) fails(w *held, err error) supervise.Verdict {
	w.facts.Files = nil
	h.record(w, decision{outcome: errnoOutcome(errno(err)), rule: query.NoRule, impossible: true})
	return supervise.Errno(errno(err))
}

// pathsMatter tells whether the decision depends on the files that a call names.
func (h *Handler) pathsMatter(w *held) bool {
	if h.hook.f != nil {
		return true
	}
	asks := func(r ir.DynamicRule) bool { return r.On&w.facts.Kind != 0 && r.Path != "" }
	if slices.ContainsFunc(h.policy.Rules, asks) {
		return true
	}
	// A rule that this very event meets may close a path, too.
	closes := func(c ir.Change) bool { return c.Kind == ir.ChangeDenyPath }
	applied := h.state.applied(w.who)
	for i := range h.policy.Rules {
		r := &h.policy.Rules[i]
		if (applied>>i&1 != 0 || r.On&w.facts.Kind != 0) && slices.ContainsFunc(r.Do, closes) {
			return true
		}
	}
	return false
}

// refusal is what the static policy says against a request; the zero refusal is none.
type refusal struct {
	errno        unix.Errno
	path         string
	rule, origin string
}

// static refuses what the static policy does not grant: the executor's own grants are a little wider.
func (h *Handler) static(w *held, r request) (refused bool, v supervise.Verdict) {
	no := r.check(h)
	if no.errno == 0 {
		return false, v
	}
	h.journal.Record(supervise.Event{
		Kind: "denied", PID: w.call.TID, Syscall: w.spec.name, Path: no.path, Verdict: unix.ErrnoName(no.errno),
		Reason: "the policy does not grant it", Rule: no.rule, Origin: no.origin, Closest: true,
	})
	return true, supervise.Errno(no.errno)
}

// granted asks for rights on a path; a file without one, such as a pipe, is nobody's to grant.
func (h *Handler) granted(path string, want uint64) refusal {
	if path == "" {
		return refusal{}
	}
	if ok, rule, origin := h.policy.Grants(path, want); !ok {
		return refusal{unix.EACCES, path, rule, origin}
	}
	return refusal{}
}

// errno is the errno in an error.
func errno(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EPERM
}
