package ca

import (
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCacheBounds(t *testing.T) {
	a := ephemeral(t, Config{Any: true, Cache: 3})
	first := leaf(t, a, "a.test")
	for _, name := range []string{"b.test", "c.test", "a.test", "d.test"} { // b is the one that was not asked for longest
		leaf(t, a, name)
	}
	if a.cache.len() != 3 || a.cache.order.Len() != 3 {
		t.Errorf("%d certificates are kept, %d in order; want 3", a.cache.len(), a.cache.order.Len())
	}
	if leaf(t, a, "A.test") != first {
		t.Error("what was asked for last is not kept")
	}
	if a.cache.entries["b.test"] != nil {
		t.Error("what was not asked for is kept")
	}
}

// A client that asks for ever new names must not make us grow.
func TestManyNames(t *testing.T) {
	a := ephemeral(t, Config{Names: []string{"*.example.test"}})
	heap := func(from, to int) uint64 {
		for i := from; i < to; i++ {
			leaf(t, a, fmt.Sprintf("n%d.example.test", i))
			if _, err := a.Leaf(fmt.Sprintf("n%d.evil.test", i)); err == nil {
				t.Fatal("not refused")
			}
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	early := heap(0, 2*DefaultCache)
	late := heap(2*DefaultCache, 10_000)
	if a.cache.len() != DefaultCache || late > early+1<<20 {
		t.Errorf("%d certificates are kept; %d bytes became %d", a.cache.len(), early, late)
	}
	t.Logf("%d bytes with %d certificates", late, a.cache.len())
}

func TestConcurrent(t *testing.T) {
	a := ephemeral(t, Config{Any: true, Cache: 8})
	var all sync.WaitGroup
	got := make([]*tls.Certificate, 32)
	for i := range got {
		all.Go(func() {
			c, err := a.Leaf("a.test")
			if err != nil {
				t.Error(err)
			}
			got[i] = c
			for j := range 20 { // others come and go
				if c, err := a.Leaf(fmt.Sprintf("n%d.test", (i+j)%20)); err != nil || len(c.Leaf.DNSNames) != 1 {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if a.cache.len() > 8 {
		t.Errorf("%d certificates are kept, want 8 at most", a.cache.len())
	}
}

func TestCacheMakesOnce(t *testing.T) {
	c := newCache(4)
	now := time.Now()
	var made atomic.Int32
	enter := make(chan struct{})
	slow := func() (issue, time.Time) {
		return func() (*tls.Certificate, error) {
			made.Add(1)
			<-enter
			return &tls.Certificate{}, nil
		}, now.Add(time.Hour)
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if _, err := c.get("a.test", now, slow); err != nil {
				t.Error(err)
			}
		})
	}
	// Others are not kept waiting.
	if _, err := c.get("b.test", now, func() (issue, time.Time) {
		return func() (*tls.Certificate, error) { return &tls.Certificate{}, nil }, now.Add(time.Hour)
	}); err != nil {
		t.Error(err)
	}
	close(enter)
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
	failure := errors.New("failure")
	broken := func() (issue, time.Time) {
		return func() (*tls.Certificate, error) { return nil, failure }, now.Add(time.Hour)
	}
	if _, err := c.get("c.test", now, broken); !errors.Is(err, failure) || c.entries["c.test"] != nil {
		t.Errorf("%v, and it is kept: %t", err, c.entries["c.test"] != nil)
	}
}

func BenchmarkLeafNew(b *testing.B) {
	a := ephemeral(b, Config{Names: []string{"example.test"}})
	for i := 0; b.Loop(); i++ {
		leaf(b, a, fmt.Sprintf("n%d.example.test", i))
	}
}

func BenchmarkLeafKept(b *testing.B) {
	a := ephemeral(b, Config{Names: []string{"example.test"}})
	for b.Loop() {
		leaf(b, a, "a.example.test")
	}
}
