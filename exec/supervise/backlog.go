package supervise

import (
	"container/heap"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

const (
	// maxPending bounds the calls of a sandbox that have left the loop and have no answer yet. Each may hold descriptors, and
	// the kernel walks through all calls that wait, several times for each that is answered (kernel/seccomp.c): measured,
	// 200 of them double the time of a notified call, and 1000 make it ten times as long.
	maxPending = 1024
	// descriptorShare is the part of the executor's descriptors that they may hold: with one each, an eighth.
	descriptorShare = 8
	// checkCallers is how often the callers of pending calls are looked for when there are few of them.
	checkCallers = 250 * time.Millisecond
	// manyPending is how many pending calls double that time.
	manyPending = 256
	// batch bounds what is done for pending calls before the next notified call has its turn.
	batch = 16
)

// backlog holds the calls that have left the loop and have no answer yet: those whose deferred functions run or wait for a
// place (pool.go), and those that wait for a descriptor or a time (wait.go). A pending call costs memory and what its
// handler holds for it, and no goroutine. But for what arrives in results, it is used on the loop's thread only.
type backlog struct {
	loop    *Loop
	confine func() error                       // puts the calling thread under the executor's ruleset
	group   func(tid int) (pid int, err error) // tests replace it
	// signalled tells whether a thread has a signal to take; tests replace it.
	signalled func(tid int) bool

	most   int           // pending calls
	places int           // functions that run at the same time
	time   time.Duration // for a deferred call
	check  time.Duration

	calls   []*pending
	callers map[int]*caller // by process id
	queues  []*caller       // those with queued calls, in the order in which they have their turns
	running int             // functions, those included whose calls have been answered
	results results
	closer  Closer

	timer  *Timer // nil until a call leaves the loop
	armed  time.Time
	alarms alarms
	sweep  time.Time // when callers are looked for; zero: there are none
	cursor int       // how many of calls are still to be looked at
}

// caller is a process that has pending calls or running functions. Its number may be another's one day, which then takes
// over what is left.
type caller struct {
	pid     int
	pending int
	running int
	queue   []*pending // in the order of their arrival
	listed  bool       // in queues
}

// pending is one call that has left the loop.
type pending struct {
	call  Call
	by    *caller
	state pendingState
	at    int       // its place in backlog.calls
	due   time.Time // where alarm is not -1
	alarm int       // its place in backlog.alarms
	what  Verdict   // that it waits as
	end   func()    // ends the context of what runs
}

type pendingState uint8

const (
	pendingQueued   pendingState = iota
	pendingRunning               // its function does
	pendingWaiting               // for a descriptor or a time
	pendingAnswered              // it is no longer in the backlog
)

func newBacklog(l *Loop, confine func() error) *backlog {
	most := maxPending
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil && files.Cur/descriptorShare < maxPending {
		most = int(files.Cur / descriptorShare)
	}
	return &backlog{
		loop: l, confine: confine, group: kernel.ThreadGroup, signalled: kernel.SignalWaits, callers: map[int]*caller{},
		most: most, places: maxDeferred, time: deferredTime, check: checkCallers,
	}
}

// share tells whether a process that has mine of what all processes together have used may have one more. It may have a
// quarter of what is free, and the first while there is any. So whatever one process takes, and however many processes
// take what they can get, they leave something for the next: with 64 of them a seventeenth of all.
func share(mine, used, most int) bool {
	return used < most && (mine == 0 || mine < (most-used)/4)
}

// caller returns the process that a thread belongs to. Those whose process cannot be told are treated as one.
func (b *backlog) caller(tid int) *caller {
	pid, err := b.group(tid)
	if err != nil {
		pid = 0
	}
	by := b.callers[pid]
	if by == nil {
		by = &caller{pid: pid}
	}
	return by
}

func (b *backlog) admits(by *caller) bool {
	return share(by.pending, len(b.calls)+b.closer.open(), b.most)
}

// CanDefer reports whether a call can leave the loop now. Who would rather do the work on the loop than fail the call asks
// first.
func (l *Loop) CanDefer(c *Call) bool { return l.backlog.admits(l.backlog.caller(c.TID)) }

// leave takes up a call that leaves the loop.
func (b *backlog) leave(c *Call, v Verdict) {
	if err := b.prepare(); err != nil {
		b.loop.dispatcher.refuse(c, err.Error())
		b.discard(v)
		b.loop.answer(c, v.unable(Errno(unix.EPERM)))
		return
	}
	by := b.caller(c.TID)
	if !b.admits(by) {
		b.discard(v)
		b.loop.answer(c, v.unable(Errno(unix.EAGAIN)))
		return
	}
	b.callers[by.pid] = by
	by.pending++
	p := &pending{call: *c, by: by, at: len(b.calls), alarm: -1}
	b.calls = append(b.calls, p)
	if b.sweep.IsZero() {
		b.sweep = time.Now().Add(b.check)
	}
	b.proceed(p, v)
	b.arm()
}

// prepare makes what wakes the loop. Most sandboxes never need it.
func (b *backlog) prepare() (err error) {
	if b.timer == nil {
		if b.timer, err = NewTimer(b.loop, b.expired); err != nil {
			return err
		}
	}
	return b.results.open(b.loop, b.finished)
}

// proceed does what a verdict says with a pending call that has no other business.
func (b *backlog) proceed(p *pending, v Verdict) {
	p.what = v
	switch v.kind {
	case verdictDefer:
		b.enqueue(p)
	case verdictWait:
		b.wait(p)
	default:
		b.remove(p)
		b.loop.answer(&p.call, v)
	}
}

// back has a pending call decided anew.
func (b *backlog) back(p *pending, then func(*Call) Verdict) {
	b.proceed(p, b.loop.dispatcher.resume(&p.call, then))
}

// giveUp ends what a pending call waits for, and leaves it unanswered.
func (b *backlog) giveUp(p *pending) {
	switch p.state {
	case pendingQueued:
		p.by.dequeue(p)
		b.discard(p.what)
	case pendingRunning:
		p.end()
	case pendingWaiting:
		b.unwatch(p)
		b.discard(p.what)
	}
	b.remove(p)
}

// discard releases what a verdict holds that is not carried out.
func (b *backlog) discard(v Verdict) {
	switch {
	case v.kind == verdictAddFD:
		b.closer.Close(int(v.value))
	case v.kind == verdictWait && v.wait.fd >= 0:
		b.closer.Close(v.wait.fd)
	}
	if v.drop != nil {
		v.drop()
	}
}

// remove takes a call out of the backlog.
func (b *backlog) remove(p *pending) {
	b.silence(p)
	last := len(b.calls) - 1
	b.calls[p.at] = b.calls[last]
	b.calls[p.at].at = p.at
	b.calls[last] = nil
	b.calls = b.calls[:last]
	p.state, p.at = pendingAnswered, -1
	p.by.pending--
	b.forget(p.by)
}

func (b *backlog) forget(by *caller) {
	if by.pending == 0 && by.running == 0 && b.callers[by.pid] == by {
		delete(b.callers, by.pid)
	}
}

// alert sets when a call's time is over.
func (b *backlog) alert(p *pending, after time.Duration) {
	p.due = time.Now().Add(after)
	heap.Push(&b.alarms, p)
}

// silence takes alert back.
func (b *backlog) silence(p *pending) {
	if p.alarm >= 0 {
		heap.Remove(&b.alarms, p.alarm)
	}
}

// arm sets the timer for what is to be done next.
func (b *backlog) arm() {
	next := b.sweep
	if len(b.alarms) > 0 && (next.IsZero() || b.alarms[0].due.Before(next)) {
		next = b.alarms[0].due
	}
	if next.IsZero() || next.Equal(b.armed) {
		return
	}
	b.armed = next
	b.timer.Set(time.Until(next))
}

// expired is called when the timer has expired.
func (b *backlog) expired() {
	b.armed = time.Time{}
	now := time.Now()
	for range batch {
		if len(b.alarms) == 0 || b.alarms[0].due.After(now) {
			break
		}
		p := b.alarms[0]
		b.silence(p)
		switch {
		case p.state == pendingWaiting:
			b.waited(p, false)
		default:
			b.giveUp(p)
			b.loop.answer(&p.call, Errno(unix.EIO))
		}
	}
	if !b.sweep.IsZero() && !b.sweep.After(now) {
		b.lookForCallers(now)
	}
	b.arm()
}

// lookForCallers gives up calls whose callers no longer wait for an answer, and ends waits that a signal interrupts, a few
// at a time.
func (b *backlog) lookForCallers(now time.Time) {
	if b.cursor == 0 {
		b.cursor = len(b.calls)
	}
	for range batch {
		if b.cursor = min(b.cursor, len(b.calls)); b.cursor == 0 {
			break
		}
		b.cursor--
		p := b.calls[b.cursor]
		if !p.call.Valid() {
			b.giveUp(p)
			continue
		}
		b.interrupted(p)
	}
	switch {
	case len(b.calls) == 0:
		b.sweep = time.Time{}
	case b.cursor == 0: // each look takes the kernel a walk through all
		b.sweep = now.Add(b.check * time.Duration(1+len(b.calls)/manyPending))
	}
}

// close ends the contexts of all functions and releases what waits. It answers nobody.
func (b *backlog) close() {
	for len(b.calls) > 0 {
		b.giveUp(b.calls[len(b.calls)-1])
	}
	for _, r := range b.results.close() {
		b.discard(r.verdict)
	}
}

// alarms is a heap of the calls whose time ends, the next one first.
type alarms []*pending

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].alarm, a[j].alarm = i, j
}

func (a *alarms) Push(x any) {
	p := x.(*pending)
	p.alarm = len(*a)
	*a = append(*a, p)
}

func (a *alarms) Pop() any {
	last := len(*a) - 1
	p := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	p.alarm = -1
	return p
}
