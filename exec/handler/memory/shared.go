package memory

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// pool is the anonymous memory that is mapped shared. It belongs to no process: whoever maps it last keeps it alive, and
// all of it even if only a part is mapped still.
type pool struct {
	admitted []share                 // since the last look; what they became is not known yet
	objects  map[kernel.Inode]uint64 // what was there at the last look
	foreign  map[kernel.Inode]bool   // what is charged to others
	sum      uint64
}

type share struct {
	bytes uint64
	when  time.Time
}

// maxShares bounds the admitted shares that are remembered; one more and they are looked for.
const maxShares = 4096

func (p *pool) add(s share) {
	p.admitted = append(p.admitted, s)
	p.sum = plus(p.sum, s.bytes)
}

func (p *pool) empty() bool { return len(p.admitted) == 0 && len(p.objects) == 0 }

// look finds out which objects are there. A new one is as large as the admitted share of its size or, if part of it has
// been unmapped already, as the largest there is: the kernel does not tell. Shares that became no object have failed or
// are gone.
func (p *pool) look(of *limit, accounts map[*supervise.Process]*account, sys system) {
	seen := map[kernel.Inode]uint64{}
	for process, a := range accounts {
		if !a.under(of) {
			continue
		}
		_ = sys.mappings(process.PID, func(m kernel.Mapping) bool {
			if m.Anonymous && !p.foreign[m.Inode] {
				seen[m.Inode] = max(seen[m.Inode], m.End-m.Start)
			}
			return true
		})
	}
	var fresh []kernel.Inode
	objects := map[kernel.Inode]uint64{}
	for inode, mapped := range seen {
		if known, ok := p.objects[inode]; ok {
			objects[inode] = max(known, mapped) // mremap lets it grow
			continue
		}
		i := slices.IndexFunc(p.admitted, func(s share) bool { return s.bytes == mapped })
		if i < 0 {
			fresh = append(fresh, inode)
			continue
		}
		objects[inode] = mapped
		p.admitted = slices.Delete(p.admitted, i, i+1)
	}
	slices.SortFunc(p.admitted, func(a, b share) int { return cmp.Compare(b.bytes, a.bytes) })
	for _, inode := range fresh {
		objects[inode] = seen[inode]
		if len(p.admitted) > 0 {
			objects[inode] = max(seen[inode], p.admitted[0].bytes)
			p.admitted = p.admitted[1:]
		}
	}
	p.objects = objects
	now := sys.now()
	p.admitted = slices.DeleteFunc(p.admitted, func(s share) bool { return now.Sub(s.when) > flight })
	p.sum = 0
	for _, s := range p.admitted {
		p.sum = plus(p.sum, s.bytes)
	}
	for _, n := range p.objects {
		p.sum = plus(p.sum, n)
	}
}

// segments are the System V segments that processes of the sandbox have made. They stay when their makers are gone.
type segments struct {
	creators map[int]bool // pids
	admitted uint64       // since the last look
	used     uint64
}

func (s *segments) total() uint64 { return plus(s.admitted, s.used) }

func (s *segments) creator(pid int) {
	if s.creators == nil {
		s.creators = map[int]bool{}
	}
	s.creators[pid] = true
}

// look sums the segments again. A pid that has come to mean a process outside charges too much, never too little.
func (s *segments) look(list func() ([]segment, error)) {
	all, err := list()
	if err != nil {
		return
	}
	s.used, s.admitted = 0, 0
	for _, g := range all {
		if s.creators[g.creator] {
			s.used = plus(s.used, g.bytes)
		}
	}
}

type segment struct {
	bytes   uint64
	creator int
}

func readSegments() ([]segment, error) {
	b, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		return nil, err
	}
	return parseSegments(b)
}

// parseSegments: a head line, then key shmid perms size cpid … on each.
func parseSegments(b []byte) (list []segment, err error) {
	for i, line := range slices.Collect(bytes.Lines(b)) {
		f := bytes.Fields(line)
		if i == 0 || len(f) == 0 {
			continue
		}
		if len(f) < 5 {
			return nil, fmt.Errorf("line %d: %d fields", i+1, len(f))
		}
		size, err := strconv.ParseUint(string(f[3]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: size: %w", i+1, err)
		}
		pid, err := strconv.Atoi(string(f[4]))
		if err != nil {
			return nil, fmt.Errorf("line %d: pid: %w", i+1, err)
		}
		list = append(list, segment{size, pid})
	}
	return list, nil
}
