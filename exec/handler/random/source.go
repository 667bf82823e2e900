package random

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// sources are the endless files that stand in for the random devices. Each is a pipe that a goroutine keeps full until
// nobody has its other end any more.
type sources struct{ live atomic.Int32 }

const (
	// maxSources bounds the pipes of one sandbox, and with them goroutines and buffers.
	maxSources = 128
	// Of them the first hold as much as a pipe of an ordinary user may, so that one large read gets all that it asks
	// for, as from the device; further ones hold what pipes usually do.
	largeSources = 16
	largeSource  = 1 << 20
	piece        = 64 << 10
)

// open makes a source and fills it: a read that finds its pipe empty would wait for the other thread, and return less
// than it was asked for. What is returned is the reading end.
func (s *sources) open(k key, nonblock bool) (int, error) {
	n := s.live.Add(1)
	if n > maxSources {
		s.live.Add(-1)
		return -1, unix.ENFILE
	}
	var p [2]int
	err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err == nil && !nonblock {
		if err = unix.SetNonblock(p[0], false); err != nil {
			_ = unix.Close(p[0])
			_ = unix.Close(p[1])
		}
	}
	if err != nil {
		s.live.Add(-1)
		return -1, fmt.Errorf("pipe: %w", err)
	}
	if n <= largeSources {
		_, _ = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, largeSource) // smaller where the host allows no more
	}
	f := feeder{end: p[1], random: rand.NewChaCha8(k)}
	f.fill()
	go func() {
		defer s.live.Add(-1)
		f.feed()
	}()
	return p[0], nil
}

// feeder writes a stream to a pipe.
type feeder struct {
	end    int
	random *rand.ChaCha8
	buffer [piece]byte
	left   []byte // of buffer
}

// fill writes until the pipe is full.
func (f *feeder) fill() {
	for {
		f.next()
		n, err := unix.Write(f.end, f.left)
		if err != nil {
			return // full, or interrupted: feed goes on from there
		}
		f.left = f.left[n:]
	}
}

// feed writes until nobody can read.
func (f *feeder) feed() {
	end := os.NewFile(uintptr(f.end), "random source")
	defer end.Close()
	for {
		f.next()
		n, err := end.Write(f.left)
		if err != nil {
			return
		}
		f.left = f.left[n:]
	}
}

func (f *feeder) next() {
	if len(f.left) == 0 {
		_, _ = f.random.Read(f.buffer[:])
		f.left = f.buffer[:]
	}
}
