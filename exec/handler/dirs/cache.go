package dirs

import (
	"bytes"
	"slices"
)

const (
	maxSnapshots   = 128
	maxCachedBytes = 64 << 20
)

// cache keeps the listings that somebody may be in the middle of. It only saves time, with one exception: a reader whose
// listing has been dropped goes on in a new one at the same index, and so may miss or repeat entries if the directory
// has changed meanwhile.
type cache struct {
	list  []*snapshot // least recently used first
	size  int
	count uint64
}

// find returns the snapshot that a position means; there is none for the start.
func (c *cache) find(dir directory, p position) *snapshot {
	for i := len(c.list) - 1; i >= 0; i-- {
		if s := c.list[i]; s.dir == dir && s.generation == p.generation() {
			c.touch(i)
			return s
		}
	}
	return nil
}

// add numbers a snapshot and keeps it. If the directory is as it was in the newest one, that one is returned instead, so
// that the positions of an unchanged directory stay the same.
func (c *cache) add(s *snapshot) *snapshot {
	newest := -1
	for i, old := range c.list {
		if old.dir == s.dir && (newest < 0 || old.sequence > c.list[newest].sequence) {
			newest = i
		}
	}
	generation := 1
	if newest >= 0 {
		old := c.list[newest]
		s.stamp(old.generation)
		if bytes.Equal(s.bytes, old.bytes) {
			c.touch(newest)
			return old
		}
		generation = old.generation%maxGenerations + 1
	}
	s.stamp(generation)
	c.count++
	s.sequence = c.count
	c.list = append(c.list, s)
	c.size += s.size()
	for len(c.list) > 1 && (len(c.list) > maxSnapshots || c.size > maxCachedBytes) {
		c.size -= c.list[0].size()
		c.list = slices.Delete(c.list, 0, 1)
	}
	return s
}

func (c *cache) touch(i int) {
	s := c.list[i]
	c.list = append(slices.Delete(c.list, i, i+1), s)
}
