package supervise

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxDeferred bounds the deferred functions that run at the same time, and with them the executor's threads.
	maxDeferred = 64
	// deferredTime is how long a deferred call may take, its time in the queue included, before it fails with EIO.
	deferredTime = time.Minute
)

// enqueue has the function of a deferred call run when it is its turn.
func (b *backlog) enqueue(p *pending) {
	p.state = pendingQueued
	b.alert(p, b.time)
	p.by.queue = append(p.by.queue, p)
	if !p.by.listed {
		p.by.listed = true
		b.queues = append(b.queues, p.by)
	}
	b.start()
}

func (by *caller) dequeue(p *pending) {
	if i := slices.Index(by.queue, p); i >= 0 {
		by.queue = slices.Delete(by.queue, i, i+1)
	}
}

// start gives free places to the queues in turn, and of each to the call that came first. Passing over a queue whose
// process has its share already, it goes on until nobody may have another.
func (b *backlog) start() {
	for passed := 0; passed < len(b.queues); {
		by := b.queues[0]
		b.queues = slices.Delete(b.queues, 0, 1)
		passed++
		if len(by.queue) > 0 && share(by.running, b.running, b.places) {
			p := by.queue[0]
			by.dequeue(p)
			b.run(p)
			passed = 0
		}
		if by.listed = len(by.queue) > 0; by.listed {
			b.queues = append(b.queues, by)
		} else if passed > 0 {
			passed-- // there is one less to pass
		}
	}
}

// run runs the function of a call on a goroutine of its own.
func (b *backlog) run(p *pending) {
	b.running++
	p.by.running++
	p.state = pendingRunning
	ctx, end := context.WithCancel(context.Background())
	p.end = end
	v, d, c := p.what, b.loop.dispatcher, p.call // the loop goes on using its own
	go func() { b.results.add(p, b.verdict(ctx, d, &c, v)) }()
}

// finished takes up what functions have returned.
func (b *backlog) finished() {
	for _, r := range b.results.take() {
		p := r.pending
		b.running--
		p.by.running--
		p.end()
		if p.state != pendingRunning { // it comes too late
			b.discard(r.verdict)
			b.forget(p.by)
			continue
		}
		b.silence(p)
		if r.verdict.kind == verdictResume {
			b.back(p, r.verdict.then)
		} else {
			b.proceed(p, r.verdict)
		}
	}
	b.start()
	b.arm()
}

// verdict runs the function of a Defer on a thread of its own, which ends with it. Whatever goes wrong refuses the call: nobody else would
// answer it.
func (b *backlog) verdict(ctx context.Context, d *Dispatcher, c *Call, deferred Verdict) (v Verdict) {
	runtime.LockOSThread() // never unlocked
	if err := b.confine(); err != nil {
		d.refuse(c, "confine a deferred call's thread: "+err.Error())
		refused := Errno(unix.EPERM)
		if drop := deferred.drop; drop != nil {
			return Resume(func(*Call) Verdict { drop(); return refused }).Dropping(drop)
		}
		return refused
	}
	defer func() {
		if r := recover(); r != nil {
			d.refuse(c, fmt.Sprintf("internal error: %v", r))
			v = Errno(unix.EPERM)
		}
	}()
	v = deferred.later(ctx)
	switch {
	case v.kind == verdictNext, v.Defers(), v.kind == verdictKill, v.raced(c.memoryRead):
		d.refuse(c, "a deferred call cannot be answered with: "+v.String())
		return Errno(unix.EPERM)
	}
	return v
}

// results holds what deferred functions have returned, until the loop's thread takes it up.
type results struct {
	mu    sync.Mutex
	event int // eventfd: readable when there are any; 0 until a call leaves the loop, -1 after the end
	list  []result
}

type result struct {
	pending *pending
	verdict Verdict
}

// open has the loop call finished when there are results.
func (r *results) open(l *Loop, finished func()) error {
	if r.event != 0 {
		return nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if err := l.Watch(fd, finished); err != nil {
		_ = unix.Close(fd)
		return err
	}
	r.event = fd
	return nil
}

// add is called on the goroutine of the function.
func (r *results) add(p *pending, v Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.event < 0 { // the command has ended, and with it the caller
		if v.kind == verdictAddFD {
			_ = unix.Close(int(v.value))
		}
		if v.drop != nil {
			v.drop()
		}
		return
	}
	r.list = append(r.list, result{p, v})
	_, _ = unix.Write(r.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // any non-zero number, in either byte order
}

func (r *results) take() []result {
	r.mu.Lock()
	defer r.mu.Unlock()
	var count [8]byte
	_, _ = unix.Read(r.event, count[:])
	list := r.list
	r.list = nil
	return list
}

// close returns what was not taken up.
func (r *results) close() []result {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.event > 0 {
		_ = unix.Close(r.event)
	}
	r.event = -1
	return r.list
}
