package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// maxArgs bounds the arguments that are read from the caller; each is cut at PATH_MAX. The second look sees all.
const maxArgs = 64

// exec decides an execve: a first time by what the caller's memory says, so that a refusal is an error like any other,
// and, where that matters, a second time in verify by what the kernel has read.
func (h *Handler) exec(w *held) supervise.Verdict {
	if !h.policy.Verify {
		// Nothing depends on what is run. What is seen here is for the journal.
		if h.policy.Audited {
			_, _ = h.look(w)
		}
		v, admitted := h.settle(w, h.decide(w))
		if admitted {
			h.executions++
		}
		return v
	}
	if h.tracer.busy(w.process, w.call.TID) {
		// Two threads of a process execute at a time: one of them is about to end the other. To trace both could make
		// the kernel wait for the executor and the executor for the kernel.
		return supervise.Errno(unix.EAGAIN)
	}
	id, err := h.look(w)
	if err != nil {
		return h.fails(w, err)
	}
	if v, admitted := h.settle(w, h.decide(w)); !admitted {
		return v
	}
	if err := h.tracer.follow(w, id); err != nil {
		h.fault(w, "trace the caller: "+err.Error())
		return supervise.Errno(unix.EPERM)
	}
	return supervise.Next()
}

// look reads what is to be run, and with which arguments.
func (h *Handler) look(w *held) (kernel.FileID, error) {
	c := w.call
	at, path, argv, follow := kernel.Base{TID: c.TID, DirFD: kernel.AtCWD}, 0, 1, true
	empty := false
	if w.spec.name == "execveat" {
		at.DirFD, path, argv = c.Arg32(0), 1, 2
		follow, empty = c.Arg32(4)&unix.AT_SYMLINK_NOFOLLOW == 0, c.Arg32(4)&unix.AT_EMPTY_PATH != 0
	}
	name, err := c.Path(path)
	if err != nil {
		return kernel.FileID{}, err
	}
	w.named = []string{name}
	var pin kernel.Pin
	switch {
	case name == "" && empty && at.DirFD != kernel.AtCWD:
		pin, err = h.policy.Root.PinDescriptor(c.TID, at.DirFD)
	default:
		pin, err = h.policy.Root.Resolve(at, name, follow, 0)
	}
	if err != nil {
		return kernel.FileID{}, err // what the kernel would have said, and most searches of PATH end here
	}
	defer pin.Close()
	id, _, err := pin.ID()
	if err != nil {
		return kernel.FileID{}, err
	}
	h.targets.refresh(w.facts.Kind)
	w.file = pin.Path
	w.facts.Programs = []query.File{h.targets.describe(pin)}
	w.facts.Argv, err = arguments(c, c.Args[argv])
	if err == nil && !c.Valid() {
		err = unix.ESRCH
	}
	return id, err
}

// arguments reads a vector of texts, the first maxArgs of them.
func arguments(c *supervise.Call, vector uint64) ([]string, error) {
	var argv []string
	if vector == 0 {
		return nil, nil // taken for an empty one (execve(2))
	}
	for i := range maxArgs {
		var word [8]byte
		if err := c.Bytes(vector+uint64(8*i), word[:]); err != nil {
			return nil, err
		}
		addr := binary.NativeEndian.Uint64(word[:])
		if addr == 0 {
			break
		}
		text, err := c.Text(addr)
		if err != nil && !errors.Is(err, unix.ENAMETOOLONG) {
			return nil, err
		}
		argv = append(argv, text)
	}
	return argv, nil
}

// verify looks at a program that has been executed and has not run yet. It reports whether it may. No dispatcher stands
// between it and the loop, so it sees to its own faults.
func (h *Handler) verify(t *tracing) (may bool) {
	defer func() {
		if r := recover(); r != nil {
			h.journal.Record(supervise.Event{Kind: "error", PID: t.process.PID, Syscall: "execve", Verdict: "kill", Reason: fmt.Sprintf("internal error: %v", r)})
			may = false
		}
	}()
	h.executions++
	w := &held{call: &supervise.Call{TID: t.process.PID}, spec: t.admitted.spec, process: t.process, who: t.admitted.who, again: true}
	w.facts.Kind, w.facts.AfterExec, w.file = ir.EventExec, t.admitted.facts.AfterExec, t.admitted.file
	argv, err := kernel.Arguments(t.process.PID)
	if err != nil {
		h.fault(w, "read the arguments of the program: "+err.Error())
		return false
	}
	w.facts.Argv = argv
	pin, err := h.policy.Root.PinProgram(t.process.PID)
	if err != nil {
		h.fault(w, "look at the program: "+err.Error())
		return false
	}
	defer pin.Close()
	id, _, err := pin.ID()
	if err != nil {
		return false
	}
	h.targets.refresh(w.facts.Kind)
	w.facts.Programs = []query.File{h.targets.describe(pin)}
	if id != t.id {
		// A script, whose interpreter runs: rules about either hold. Or somebody changed the path after the first look.
		w.facts.Programs = append(w.facts.Programs, t.admitted.facts.Programs...)
	}
	d := h.decide(w)
	if !d.refuses() && h.hook.f != nil && (id != t.id || !slices.Equal(argv, t.admitted.facts.Argv)) {
		// It is not what the callback was asked about.
		if o := h.hook.ask(h.event(w, d)); o.Narrows() {
			d = decision{outcome: o, rule: query.NoRule}
		}
	}
	if !d.refuses() {
		return true
	}
	w.file = pin.Path
	d.outcome = ir.Outcome{Kind: ir.OutcomeKill}
	h.record(w, d)
	return false
}

// fault records that a call is refused for no reason of the policy's.
func (h *Handler) fault(w *held, reason string) {
	h.journal.Record(supervise.Event{Kind: "error", PID: w.call.TID, Syscall: w.spec.name, Path: w.file, Verdict: "EPERM", Reason: reason})
}
