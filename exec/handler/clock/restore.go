package clock

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
)

// A deadline lies in the caller's memory, and the kernel reads it there: to change what the kernel reads is to change what
// the program has. So it is put back as soon as that can be done safely: when the caller sleeps, in the call or in a later
// one, and the bytes are still those that were written. A caller that runs is left alone, since what is there may have
// become something else between looking and writing. Where the caller was too quick, or did not sleep for a while, its next
// wait with a deadline at that address finds the changed one there, or one that was made from it, and starts by turning
// it back.

// change is a deadline that was changed.
type change struct {
	tid     int
	memory  supervise.Overwriter // nil: no longer to be put back
	addr    uint64
	was, is [16]byte
	due     time.Time // to be looked at
	looks   int
}

// restorer puts deadlines back. It is used on the loop's thread only.
type restorer struct {
	watch   func(fd int, ready func()) error
	blocked func(tid int) bool
	changes []change
	timer   int       // descriptor; 0: none yet
	armed   time.Time // when it goes off; zero: it does not
}

const (
	firstLook = 100 * time.Microsecond // after the change; each further one waits twice as long as the one before
	maxLooks  = 11
	// maxChanges bounds what is remembered, and the descriptors that are held.
	maxChanges = 128
)

// turnBack is called for a caller that waits for its answer. If the deadline at an address is one that was changed, or was
// made from one (the next of a series), it is put back into the sandbox's time. It returns what is there then.
func (r *restorer) turnBack(tid int, memory supervise.Overwriter, addr uint64) (t unix.Timespec, err error) {
	var b [16]byte
	if err := memory.Read(addr, b[:]); err != nil {
		return t, err
	}
	t = timeOf(b[:])
	for i := range r.changes {
		c := &r.changes[i]
		is, was := timeOf(c.is[:]), timeOf(c.was[:])
		if c.addr != addr || c.is != b && (c.tid != tid || !nearer(t, is, was)) {
			continue
		}
		t = plus(was, minus(t, is))
		b = timeBytes(t)
		err = memory.Write(addr, b[:])
		c.drop()
		r.changes = slices.Delete(r.changes, i, i+1)
		return t, err
	}
	return t, nil
}

// nearer tells whether t is nearer to a than to b. The sandbox's time and the host's are usually years apart.
func nearer(t, a, b unix.Timespec) bool {
	return less(distance(t, a), distance(t, b))
}

func distance(a, b unix.Timespec) unix.Timespec {
	if less(a, b) {
		a, b = b, a
	}
	return minus(a, b)
}

func less(a, b unix.Timespec) bool { return a.Sec < b.Sec || a.Sec == b.Sec && a.Nsec < b.Nsec }

// add takes over the memory of a change.
func (r *restorer) add(c change) error {
	r.changes = slices.DeleteFunc(r.changes, func(old change) bool {
		if old.tid == c.tid && old.addr == c.addr {
			old.drop()
			return true
		}
		return false
	})
	if len(r.changes) >= maxChanges {
		r.changes[0].drop()
		r.changes = slices.Delete(r.changes, 0, 1)
	}
	c.due = time.Now().Add(firstLook)
	r.changes = append(r.changes, c)
	err := r.start()
	if err == nil {
		err = r.arm()
	}
	if err != nil {
		return fmt.Errorf("put deadlines back: %w", err)
	}
	return nil
}

func (r *restorer) start() error {
	if r.timer != 0 {
		return nil
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return err
	}
	if err := r.watch(timer, r.tick); err != nil {
		_ = unix.Close(timer)
		return err
	}
	r.timer = timer
	return nil
}

// arm has tick called when the next look is due.
func (r *restorer) arm() error {
	var next time.Time
	for i := range r.changes {
		if c := &r.changes[i]; c.memory != nil && (next.IsZero() || c.due.Before(next)) {
			next = c.due
		}
	}
	if next.IsZero() || !r.armed.IsZero() && !next.Before(r.armed) {
		return nil
	}
	r.armed = next
	wait := max(time.Until(next), 1) // 0 would disarm it
	return unix.TimerfdSettime(r.timer, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(wait))}, nil)
}

func (r *restorer) tick() {
	var expirations [8]byte
	if _, err := unix.Read(r.timer, expirations[:]); errors.Is(err, unix.EAGAIN) {
		return
	}
	r.armed = time.Time{}
	r.look(time.Now())
	_ = r.arm()
}

// look puts back what is due and can be put back, and forgets it.
func (r *restorer) look(now time.Time) {
	r.changes = slices.DeleteFunc(r.changes, func(c change) bool {
		return c.memory != nil && !c.due.After(now) && c.putBack(r.blocked(c.tid))
	})
	for i := range r.changes {
		c := &r.changes[i]
		if c.memory == nil || c.due.After(now) {
			continue
		}
		if c.looks++; c.looks > maxLooks {
			c.drop()
		}
		c.due = now.Add(firstLook << c.looks)
	}
}

// putBack puts a change back if its caller is asleep. What has been written over is left, but not forgotten: it may be the
// next deadline, made from the changed one.
func (c *change) putBack(asleep bool) bool {
	var b [16]byte
	if !asleep || c.memory.Read(c.addr, b[:]) != nil || b != c.is {
		return false
	}
	_ = c.memory.Write(c.addr, c.was[:])
	c.drop()
	return true
}

func (c *change) drop() {
	if c.memory != nil {
		c.memory.Close()
		c.memory = nil
	}
}
