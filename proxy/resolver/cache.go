package resolver

import (
	"context"
	"sync"
	"time"
)

// maxCached bounds the cache, in answers.
const maxCached = 4096

// cache keeps what servers have answered as long as they allow, and asks once for what is asked for twice at a time.
// Failures are not kept.
type cache struct {
	now func() time.Time

	mu      sync.Mutex
	answers map[cacheKey]*cached
}

type cacheKey struct {
	name  string
	qtype uint16
}

// cached is an answer that is there, or being waited for.
type cached struct {
	done    chan struct{}
	found   found
	err     error
	expires time.Time
}

func newCache() *cache { return &cache{now: time.Now, answers: map[cacheKey]*cached{}} }

func (c *cache) get(ctx context.Context, name string, qtype uint16, ask lookup) (found, error) {
	key := cacheKey{name, qtype}
	c.mu.Lock()
	e := c.answers[key]
	if e != nil && e.over(c.now()) {
		e = nil
	}
	mine := e == nil
	if mine {
		c.makeRoom()
		e = &cached{done: make(chan struct{})}
		c.answers[key] = e
	}
	c.mu.Unlock()
	if mine {
		e.found, e.err = ask(ctx, name, qtype)
		c.mu.Lock()
		e.expires = c.now().Add(e.found.ttl)
		if e.err != nil && c.answers[key] == e {
			delete(c.answers, key)
		}
		c.mu.Unlock()
		close(e.done)
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return found{}, ctx.Err()
	}
	f := e.found
	f.ttl = max(e.expires.Sub(c.now()), 0)
	return f, e.err
}

// over reports whether an answer is there and too old.
func (e *cached) over(now time.Time) bool {
	select {
	case <-e.done:
		return !now.Before(e.expires)
	default:
		return false
	}
}

// makeRoom drops what is too old, or anything, once the cache is full.
func (c *cache) makeRoom() {
	if len(c.answers) < maxCached {
		return
	}
	now := c.now()
	for key, e := range c.answers {
		if e.over(now) {
			delete(c.answers, key)
		}
	}
	for key := range c.answers {
		if len(c.answers) < maxCached {
			return
		}
		delete(c.answers, key)
	}
}
