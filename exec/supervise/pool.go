package supervise

import (
	"context"
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

// pool runs what handlers defer. Each call has a goroutine and is answered exactly once: by what the handler's function
// returns or by the deadline, whichever comes first. A function that does not heed its context keeps its place among
// maxDeferred until it returns.
type pool struct {
	listener kernel.Listener
	confine  func() error // puts the calling thread under the executor's ruleset

	mu     sync.Mutex
	active int
	closed bool
}

// start runs f for the notification id, unless there is no room.
func (p *pool) start(id uint64, f func(context.Context) Verdict) (started bool) {
	p.mu.Lock()
	full := p.active >= maxDeferred || p.closed
	if !full {
		p.active++
	}
	p.mu.Unlock()
	if full {
		answer(p.listener, 0, id, Errno(unix.EAGAIN))
		return false
	}
	go p.run(id, f)
	return true
}

func (p *pool) run(id uint64, f func(context.Context) Verdict) {
	ctx, cancel := context.WithTimeout(context.Background(), deferredTime)
	defer cancel()
	verdict := make(chan Verdict, 1)
	go func() {
		defer p.leave()
		verdict <- p.protected(ctx, f)
	}()
	check := time.NewTicker(checkCallers)
	defer check.Stop()
	for {
		select {
		case v := <-verdict:
			answer(p.listener, 0, id, v)
			return
		case <-ctx.Done():
			answer(p.listener, 0, id, Errno(unix.EIO))
			drop(verdict)
			return
		case <-check.C:
			if p.isClosed() || !p.listener.Valid(id) {
				cancel()
				drop(verdict)
				return
			}
		}
	}
}

// protected runs f on a thread of its own, which ends with it. Whatever goes wrong refuses the call: nobody else would
// answer it.
func (p *pool) protected(ctx context.Context, f func(context.Context) Verdict) (v Verdict) {
	runtime.LockOSThread() // never unlocked
	if err := p.confine(); err != nil {
		return Errno(unix.EPERM)
	}
	defer func() {
		if recover() != nil || v.kind == verdictNext || v.kind == verdictDefer || v.kind == verdictKill {
			v = Errno(unix.EPERM)
		}
	}()
	return f(ctx)
}

// drop releases a descriptor that comes too late.
func drop(verdict <-chan Verdict) {
	go func() {
		if v := <-verdict; v.kind == verdictAddFD {
			_ = unix.Close(int(v.value))
		}
	}()
}

func (p *pool) leave() {
	p.mu.Lock()
	p.active--
	p.mu.Unlock()
}

func (p *pool) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// close lets no further call in; those that run are dropped within checkCallers.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
}
