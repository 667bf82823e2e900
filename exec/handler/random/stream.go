package random

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"

	"github.com/sandlock-go/sandlock/exec/supervise"
)

// key says where a stream starts.
type key [32]byte

// derive makes a key from another one, a purpose, and what else distinguishes it.
func (k key) derive(purpose string, rest []byte, number uint64) (out key) {
	h := sha256.New()
	h.Write(k[:])
	h.Write([]byte(purpose))
	h.Write([]byte{0})
	h.Write(binary.LittleEndian.AppendUint64(nil, number))
	h.Write(rest)
	h.Sum(out[:0])
	return out
}

// streams are those of the processes that are alive, and how often each command line has been run.
type streams struct {
	root   key
	alive  map[*supervise.Process]*stream
	before map[key]uint64 // by the key of a command line
	others uint64         // runs of command lines that before has no room for
}

// maxCommandLines bounds what is remembered of a sandbox that runs ever new commands.
const maxCommandLines = 1 << 14

func newStreams(seed uint64) *streams {
	return &streams{
		root:   key{}.derive("seed", nil, seed),
		alive:  map[*supervise.Process]*stream{},
		before: map[key]uint64{},
	}
}

func (s *streams) of(p *supervise.Process) *stream { return s.alive[p] }

func (s *streams) forget(p *supervise.Process) { delete(s.alive, p) }

// start begins the stream of a further run of a command line in a process.
func (s *streams) start(p *supervise.Process, args []byte) *stream {
	program := s.root.derive("program", args, 0)
	n, known := s.before[program]
	if !known && len(s.before) >= maxCommandLines {
		program, n = s.root.derive("programs", nil, 0), s.others
		s.others++
	} else {
		s.before[program] = n + 1
	}
	st := &stream{key: program.derive("run", nil, n)}
	s.alive[p] = st
	return st
}

// stream is the randomness of one program run.
type stream struct {
	key   key
	bytes *rand.ChaCha8 // of getrandom; nil until asked
	opens uint64
}

// image is what AT_RANDOM holds.
func (s *stream) image() (b [16]byte) {
	k := s.key.derive("image", nil, 0)
	copy(b[:], k[:])
	return b
}

func (s *stream) read(b []byte) {
	if s.bytes == nil {
		s.bytes = rand.NewChaCha8(s.key.derive("getrandom", nil, 0))
	}
	_, _ = s.bytes.Read(b) // never fails
}

// branch is the key of the run's next opened file.
func (s *stream) branch() key {
	s.opens++
	return s.key.derive("open", nil, s.opens)
}
