package supervise

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

const (
	// maxDeferred bounds the calls that wait outside of the loop, and with them the executor's threads.
	maxDeferred = 64
	// deferredTime is how long one may take before it fails with EIO.
	deferredTime = time.Minute
	// checkCallers is how often the callers of deferred calls are looked for.
	checkCallers = 250 * time.Millisecond
)

// pool runs what handlers defer. Each call has two goroutines: one runs the handler's function, the other answers exactly
// once, by what the function returns or by the deadline, whichever comes first. A function that does not heed its context
// keeps its place among the pool's until it returns.
type pool struct {
	listener kernel.Listener
	confine  func() error                    // puts the calling thread under the executor's ruleset
	resume   func(Call, func(*Call) Verdict) // hands a call back to the loop

	most  int
	time  time.Duration
	check time.Duration

	places  chan struct{}  // one token for each function that runs
	closed  chan struct{}  // closed with the loop
	answers sync.WaitGroup // those who may use the listener
}

func newPool(l kernel.Listener, confine func() error, resume func(Call, func(*Call) Verdict)) *pool {
	return &pool{
		listener: l, confine: confine, resume: resume, most: maxDeferred, time: deferredTime, check: checkCallers,
		places: make(chan struct{}, maxDeferred), closed: make(chan struct{}),
	}
}

// deferred is one call of the pool.
type deferred struct {
	*pool
	call       Call
	f          func(context.Context) Verdict
	dispatcher *Dispatcher // records why the call fails
}

// full reports whether one more call would be refused. Only the loop's thread starts calls, so there it stays false.
func (p *pool) full() bool { return len(p.places) >= p.most }

// start runs f for a call, unless there is no room. It is used on the loop's thread only.
func (p *pool) start(d *Dispatcher, c Call, f func(context.Context) Verdict) (started bool) {
	if p.full() {
		answer(p.listener, 0, c.id, Errno(unix.EAGAIN))
		return false
	}
	p.places <- struct{}{}
	p.answers.Add(1)
	go deferred{p, c, f, d}.run()
	return true
}

func (d deferred) run() {
	defer d.answers.Done()
	ctx, cancel := context.WithTimeout(context.Background(), d.time)
	defer cancel()
	verdict := make(chan Verdict, 1)
	go func() {
		v := d.verdict(ctx)
		<-d.places
		verdict <- v
	}()
	check := time.NewTicker(d.check)
	defer check.Stop()
	for {
		select {
		case v := <-verdict:
			if v.kind == verdictResume {
				d.resume(d.call, v.then)
			} else {
				answer(d.listener, 0, d.call.id, v)
			}
			return
		case <-ctx.Done():
			answer(d.listener, 0, d.call.id, Errno(unix.EIO))
			drop(verdict)
			return
		case <-check.C:
			if !d.listener.Valid(d.call.id) {
				drop(verdict)
				return
			}
		case <-d.closed:
			drop(verdict)
			return
		}
	}
}

// verdict runs f on a thread of its own, which ends with it. Whatever goes wrong refuses the call: nobody else would
// answer it.
func (d deferred) verdict(ctx context.Context) (v Verdict) {
	runtime.LockOSThread() // never unlocked
	if err := d.confine(); err != nil {
		d.refuse("confine a deferred call's thread: " + err.Error())
		return Errno(unix.EPERM)
	}
	defer func() {
		if r := recover(); r != nil {
			d.refuse(fmt.Sprintf("internal error: %v", r))
			v = Errno(unix.EPERM)
		}
	}()
	v = d.f(ctx)
	switch {
	case v.kind == verdictNext, v.kind == verdictDefer, v.kind == verdictKill, v.raced(d.call.memoryRead):
		d.refuse("a deferred call cannot be answered with: " + v.String())
		return Errno(unix.EPERM)
	}
	return v
}

func (d deferred) refuse(reason string) { d.dispatcher.refuse(&d.call, reason) }

// drop releases a descriptor that comes too late.
func drop(verdict <-chan Verdict) {
	go func() {
		if v := <-verdict; v.kind == verdictAddFD {
			_ = unix.Close(int(v.value))
		}
	}()
}

// close ends the contexts of all calls. When it returns nobody uses the listener any more.
func (p *pool) close() {
	close(p.closed)
	p.answers.Wait()
}
