package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// subject is one process that is watched.
type subject struct {
	name    string
	pid     int
	self    bool
	samples []sample
}

// sample is what a process holds at a moment.
type sample struct {
	descriptors, threads, goroutines, zombies int
	resident                                  int // KiB
}

// allowed is by how much the end may be above the start: what is in flight at a moment differs from one to the next. Orphans
// that died are reaped when the processes are counted next, of which there are 64 by default. What is lost with each sandbox,
// or each process of one, comes to hundreds in a minute.
var allowed = sample{descriptors: 4, threads: 4, goroutines: 4, zombies: 64, resident: 4 << 10}

// inFlight is what a sandbox holds in the process that started it while it runs.
var inFlight = sample{descriptors: 12, threads: 2, goroutines: 4}

// samplesPerEnd is how many samples make up the start and the end. The least of them counts: what leaks is in all.
const samplesPerEnd = 10

// watch samples until the context ends. A tenth of the time is for the processes to find their size.
func watch(ctx context.Context, subjects []*subject, failed <-chan error) error {
	deadline, _ := ctx.Deadline()
	length := time.Until(deadline)
	pause := max(length/(10*samplesPerEnd), 50*time.Millisecond)
	warm := time.Now().Add(length / 10)
	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if time.Now().Before(warm) {
			continue
		}
		for _, s := range subjects {
			now, err := s.look()
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			s.samples = append(s.samples, now)
		}
	}
}

func (s *subject) look() (now sample, err error) {
	if s.self {
		debug.FreeOSMemory() // garbage is no leak
		now.goroutines = runtime.NumGoroutine()
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		return now, err
	}
	now.resident, now.threads = field(status, "VmRSS:"), field(status, "Threads:")
	if now.descriptors, err = entries(fmt.Sprintf("/proc/%d/fd", s.pid)); err != nil {
		return now, err
	}
	now.zombies, err = zombies(s.pid)
	return now, err
}

// report compares the end with the start and says whether nothing grew.
func report(w io.Writer, subjects []*subject) (ok bool) {
	ok = true
	fmt.Fprintln(w, "| executor | descriptors | threads | goroutines | zombies | resident KiB | verdict |\n|---|---|---|---|---|---|---|")
	for _, s := range subjects {
		first, last, err := s.ends()
		verdict := "holds nothing back"
		switch {
		case err != nil:
			verdict, ok = err.Error(), false
		case first.grew(last, s.margin()):
			verdict, ok = "GREW", false
		}
		fmt.Fprintf(w, "| %s | %d → %d | %d → %d | %d → %d | %d → %d | %d → %d | %s |\n", s.name,
			first.descriptors, last.descriptors, first.threads, last.threads, first.goroutines, last.goroutines,
			first.zombies, last.zombies, first.resident, last.resident, verdict)
	}
	return ok
}

func (s *subject) ends() (first, last sample, err error) {
	if len(s.samples) < 2*samplesPerEnd {
		return first, last, errors.New("too short: too few samples")
	}
	return least(s.samples[:samplesPerEnd]), least(s.samples[len(s.samples)-samplesPerEnd:]), nil
}

func least(list []sample) sample {
	l := list[0]
	for _, s := range list[1:] {
		l.descriptors, l.threads = min(l.descriptors, s.descriptors), min(l.threads, s.threads)
		l.goroutines, l.zombies = min(l.goroutines, s.goroutines), min(l.zombies, s.zombies)
		l.resident = min(l.resident, s.resident)
	}
	return l
}

// margin is what may differ between two ends of a subject: all of its sandboxes may run in one and none in the other.
func (s *subject) margin() sample {
	m := allowed
	if s.self {
		m.descriptors += short * inFlight.descriptors
		m.threads += short * inFlight.threads
		m.goroutines += short * inFlight.goroutines
	}
	return m
}

func (s sample) grew(to, margin sample) bool {
	return to.descriptors > s.descriptors+margin.descriptors || to.threads > s.threads+margin.threads ||
		to.goroutines > s.goroutines+margin.goroutines || to.zombies > s.zombies+margin.zombies ||
		to.resident > s.resident+margin.resident
}
