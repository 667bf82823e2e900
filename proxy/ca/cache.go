package ca

import (
	"container/list"
	"crypto/tls"
	"sync"
	"time"
)

// cache keeps the certificates that were asked for last, and makes each once. Failures are not kept.
type cache struct {
	size int

	mu      sync.Mutex
	entries map[string]*list.Element // of order
	order   *list.List               // of *entry, what was asked for last first
}

type entry struct {
	host    string
	issue   issue     // the first time; then it returns what it made, or waits for whoever makes it
	renewed time.Time // when it is made anew
}

func newCache(size int) *cache {
	return &cache{size: size, entries: map[string]*list.Element{}, order: list.New()}
}

// issue makes a certificate.
type issue func() (*tls.Certificate, error)

// get returns what is kept for a host. prepare says how to make it, and how long it is then kept.
func (c *cache) get(host string, now time.Time, prepare func() (issue, time.Time)) (*tls.Certificate, error) {
	e := c.entry(host, now, prepare)
	cert, err := e.issue() // without the lock: others go on
	if err != nil {
		c.forget(e)
	}
	return cert, err
}

func (c *cache) entry(host string, now time.Time, prepare func() (issue, time.Time)) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.entries[host]; at != nil {
		e := at.Value.(*entry)
		if now.Before(e.renewed) {
			c.order.MoveToFront(at)
			return e
		}
		c.drop(at)
	}
	for len(c.entries) >= c.size {
		c.drop(c.order.Back())
	}
	how, renewed := prepare()
	e := &entry{host: host, issue: sync.OnceValues(how), renewed: renewed}
	c.entries[host] = c.order.PushFront(e)
	return e
}

func (c *cache) forget(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.entries[e.host]; at != nil && at.Value == e {
		c.drop(at)
	}
}

func (c *cache) drop(at *list.Element) {
	delete(c.entries, at.Value.(*entry).host)
	c.order.Remove(at)
}
