// Package memory enforces limits.memory: one cap on the memory of all processes of a sandbox together.
//
// In: the calls by which memory is asked for (mmap, mprotect, brk, mremap, memfd_create and the like; the filter lets those
// through whose registers show that they cost nothing, reservations with PROT_NONE above all), and a timer. Out: the call
// goes on, or the process is killed, as by the kernel when the machine is out of memory; a program never sees ENOMEM for
// the limit. It trusts the kernel's own numbers, never a sum of its own alone, when it kills.
//
// Two questions are asked, because fork makes them differ. On each call: may this much more be promised? What is charged
// is what processes may write to (private writable mappings, stacks, shared anonymous memory, memfds); what a child got
// by fork is not charged until it differs from its parent's. And from time to time: how much is in use? That catches what
// grows without a call: copies after fork, files in memory, stacks.
//
// The call is decided on registers, so it goes on in the kernel without a race. A signal can interrupt it before the
// supervisor has taken it up; programs whose handlers do not ask for restarts may, rarely, see EINTR.
//
// Rules can bound a process and its descendants alone. Such a scope has a limit of its own, within the sandbox's; all of
// the above holds for it as well.
//
// Read next: request.go (what a call asks for), ledger.go (what is charged), limit.go (to whom), use.go (what is used),
// memfd.go.
package memory

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Processes is what the handler needs of the index of processes.
type Processes interface {
	Of(tid int) (*supervise.Process, error)
	Add(pid int) (*supervise.Process, error)
	OnExit(func(*supervise.Process))
}

// Options is what a handler works with.
type Options struct {
	Arch      abi.Arch
	Limit     uint64 // bytes
	Command   int    // pid of the sandbox's first process
	Processes Processes
	Roots     func() ([]int, error) // the executor's children that belong to the sandbox
	Watch     func(fd int, ready func()) error
	Journal   supervise.Journal
	Rule      supervise.Event // Rule and Origin of the limit
	// Scopes lists the scopes that rules have set a process apart in, the innermost first; nil: there are none.
	Scopes func(pid int) ([]uint64, error)
}

// Handler is the memory limit of one sandbox.
type Handler struct {
	Options
	ledger   *ledger
	kinds    map[abi.Sysno]kind
	calls    []abi.Sysno
	timer    int
	children func(pid int) ([]int, error) // tests replace it
	victims  map[*supervise.Process]int   // killed ones that are still there, and for how many looks
	slack    uint64                       // what the limit that is next to be reached was short of it
	kills    int
	command  bool   // among them
	reached  *limit // for which the command, or else the first of them, was killed
}

// New makes the handler and starts its timer.
func New(o Options) (*Handler, error) {
	h := newHandler(o, newLedger(o.Limit, linux()))
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("limits.memory: timer: %w", err)
	}
	h.timer = timer
	if err := o.Watch(timer, h.tick); err != nil {
		return nil, fmt.Errorf("limits.memory: %w", err)
	}
	h.rearm(firstLook)
	return h, nil
}

func newHandler(o Options, l *ledger) *Handler {
	h := &Handler{Options: o, ledger: l, kinds: map[abi.Sysno]kind{}, victims: map[*supervise.Process]int{}, children: kernel.Children}
	l.discover = h.discover
	l.whole().rule = o.Rule
	if o.Scopes != nil {
		l.scopes = o.Scopes
	}
	for name, k := range kinds {
		if nr, ok := abi.SyscallNumber(o.Arch, name); ok {
			h.kinds[nr] = k
			h.calls = append(h.calls, nr)
		}
	}
	slices.Sort(h.calls)
	o.Processes.OnExit(func(p *supervise.Process) {
		l.forget(p)
		delete(h.victims, p)
	})
	return h
}

// Name is the concern.
func (h *Handler) Name() string { return "memory" }

// Syscalls lists the calls that ask for memory.
func (h *Handler) Syscalls() []abi.Sysno { return h.calls }

// Handle admits the call or kills its process.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	p, err := h.Processes.Of(c.TID)
	if err != nil {
		return supervise.Errno(unix.EAGAIN) // the caller is gone, or the executor is out of descriptors
	}
	k := h.kinds[c.Nr]
	if k.free(c) {
		return supervise.Next() // not by the policy's filter
	}
	a := h.ledger.account(p)
	if a == nil {
		return supervise.Errno(unix.EAGAIN)
	}
	if k == kindMemfd {
		return h.createMemfd(c, a)
	}
	if a.brings() {
		h.ledger.disinherit(a) // if it has called execve since, what it had does not count any more
	}
	r := k.request(c, a)
	if r.bytes >= neverFits {
		return supervise.Continue(supervise.DecidedOnRegisters) // the kernel refuses it for certain
	}
	if over := h.ledger.admit(a, c.TID, r); over != nil {
		h.overLimit(c, p, r, over)
		return supervise.Kill()
	}
	return supervise.Continue(supervise.DecidedOnRegisters)
}

// overLimit records that a process is killed for a call.
func (h *Handler) overLimit(c *supervise.Call, p *supervise.Process, r request, over *limit) {
	name, _ := abi.SyscallName(h.Arch, c.Nr)
	h.record(p, over, name, fmt.Sprintf("%s more would exceed %s: %s are charged", Size(r.bytes), over, Size(over.total())))
}

func (h *Handler) record(p *supervise.Process, over *limit, call, reason string) {
	h.victims[p] = 0
	h.ledger.condemn(p)
	h.kills++
	if command := p.PID == h.Command; command || h.reached == nil {
		h.command, h.reached = h.command || command, over
	}
	e := over.rule
	e.Kind, e.PID, e.Syscall, e.Verdict, e.Reason = "limit", p.PID, call, "SIGKILL", reason
	h.Journal.Record(e)
}

// Lower lowers the limit; it never raises it.
func (h *Handler) Lower(n uint64) {
	h.Limit = min(h.Limit, n)
	h.ledger.whole().max = h.Limit
	h.rearm(soonest)
}

// Least is the lowest of the limits that hold for a process.
func (h *Handler) Least(p *supervise.Process) (uint64, error) {
	a := h.known(p)
	if a == nil {
		return 0, unix.ESRCH
	}
	least := h.Limit
	for _, c := range a.limits {
		least = min(least, c.max)
	}
	return least, nil
}

// Restrict bounds a scope that a process has just been set apart in: it and all that it and its descendants fork from
// now on.
func (h *Handler) Restrict(p *supervise.Process, scope, bytes uint64, rule supervise.Event) error {
	a := h.known(p)
	if a == nil {
		return unix.ESRCH
	}
	h.ledger.separate(a, &limit{scope: scope, max: bytes, name: rule.Rule + ": restrict_memory", rule: rule})
	h.rearm(soonest)
	return nil
}

// known returns the account of a process that another index knows, nil if it is gone.
func (h *Handler) known(other *supervise.Process) *account {
	p, err := h.Processes.Add(other.PID)
	if err != nil || p.Start != other.Start {
		return nil
	}
	return h.ledger.account(p)
}

// End forgets a scope that nobody belongs to any more.
func (h *Handler) End(scope uint64) { h.ledger.end(scope) }

// Kills returns how many processes were killed for a limit, and whether the command itself was one of them.
func (h *Handler) Kills() (n int, command bool) { return h.kills, h.command }

// Reached says for which limit the command, or else the first process, was killed.
func (h *Handler) Reached() string {
	if h.reached == nil {
		return ""
	}
	return h.reached.String()
}

// Charged returns what is charged at present, or a little more, and the number of processes that it is charged to.
func (h *Handler) Charged() (bytes uint64, processes int) {
	return min(h.ledger.whole().total(), h.Limit), len(h.ledger.accounts)
}

// Size writes a number of bytes as policies do, with the largest unit that divides it, or rounded to three digits.
func Size(n uint64) string {
	const units = "KMGTPE"
	unit := -1
	for n >= 1024 && n%1024 == 0 && unit+1 < len(units) {
		n /= 1024
		unit++
	}
	for n >= 10240 && unit+1 < len(units) {
		n = (n + 512) / 1024
		unit++
	}
	if unit < 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d%c", n, units[unit])
}
