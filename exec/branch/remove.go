package branch

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// removeTree removes an entry of a directory with all that is beneath it; nothing there is no error. The tree is hostile:
// directories may lack permissions (overlayfs itself leaves work/work with mode 000), and be nested deeper than there are
// descriptors. So it goes down and up by single steps, with one descriptor, and upwards it checks that ".." is where it
// came from.
//
// Half of what is wide another goroutine removes: in which order it goes does not matter. Only the kernel's own calls are shared,
// not those that a test counts.
func removeTree(s sys, dir int, name string) error {
	_, kernel := s.(kernelSys)
	return remover{s, kernel && runtime.GOMAXPROCS(0) > 1}.tree(dir, name)
}

type remover struct {
	sys
	shares bool
}

// How much in one directory is shared.
const (
	manyNames = 256
	manyTrees = 8
)

func (s remover) tree(dir int, name string) error {
	err := s.unlink(dir, name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM): // EPERM: POSIX's answer for a directory
		return opError("remove", name, err)
	}
	if err = s.unlink(dir, name, unix.AT_REMOVEDIR); err == nil {
		return nil
	}
	at, err := enter(s, dir, name)
	if err != nil {
		return opError("remove", name, err)
	}
	defer func() { unix.Close(at) }()
	type level struct {
		name     string   // in the level above
		dev, ino uint64   // of the directory
		todo     []string // directories in it that are not empty
	}
	var other helper
	defer other.wait()
	shared := 0 // how many levels there are where the other is at work
	var levels []level
	for down := name; ; {
		if down != "" { // arrived in it
			st, err := fstat(at)
			if err != nil {
				return opError("remove", down, err)
			}
			todo, err := s.empty(at)
			if err == nil && s.shares && shared == 0 && len(todo) >= manyTrees {
				shared = len(levels) + 1
				todo, err = s.share(&other, at, todo)
			}
			if err != nil {
				return opError("remove", down, err)
			}
			levels = append(levels, level{down, st.Dev, st.Ino, todo})
			down = ""
		}
		here := &levels[len(levels)-1]
		if n := len(here.todo); n > 0 {
			down, here.todo = here.todo[n-1], here.todo[:n-1]
			next, err := enter(s, at, down)
			if err != nil {
				return opError("remove", down, err)
			}
			unix.Close(at)
			at = next
			continue
		}
		if len(levels) == shared {
			shared = 0
			if err := other.wait(); err != nil {
				return opError("remove", here.name, err)
			}
		}
		if len(levels) == 1 {
			return opError("remove", name, s.unlink(dir, name, unix.AT_REMOVEDIR))
		}
		gone := here.name
		levels = levels[:len(levels)-1]
		if at, err = back(at, levels[len(levels)-1].dev, levels[len(levels)-1].ino); err != nil {
			return opError("remove", gone, err)
		}
		if err := s.unlink(at, gone, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
			return opError("remove", gone, err)
		}
	}
}

// helper is the other goroutine, of which there is one at most.
type helper struct {
	running sync.WaitGroup
	err     error
}

func (h *helper) wait() error {
	h.running.Wait()
	return h.err
}

// share has the other remove half of the trees in a directory, and returns the rest.
func (s remover) share(other *helper, dir int, names []string) ([]string, error) {
	own, err := openDir(dir, ".") // the caller closes its own on its way down
	if err != nil {
		return nil, err
	}
	mine, theirs := names[:len(names)/2], names[len(names)/2:]
	other.running.Go(func() {
		defer unix.Close(own)
		for _, name := range theirs {
			if other.err = (remover{s.sys, false}).tree(own, name); other.err != nil {
				return
			}
		}
	})
	return mine, nil
}

// empty removes what it can from a directory, and returns the names of the directories that have something in them.
func (s remover) empty(dir int) (todo []string, err error) {
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	if !s.shares || len(names) < manyNames {
		return s.all(dir, names)
	}
	mine, theirs := names[:len(names)/2], names[len(names)/2:]
	var other helper
	var more []string
	other.running.Go(func() { more, other.err = s.all(dir, theirs) })
	todo, err = s.all(dir, mine)
	err = errors.Join(err, other.wait())
	return append(todo, more...), err
}

// all is empty for some names.
func (s remover) all(dir int, names []string) (todo []string, err error) {
	for _, n := range names {
		err := s.unlink(dir, n, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			if err = s.unlink(dir, n, unix.AT_REMOVEDIR); err != nil {
				if st, _ := lookup(dir, n); isDir(st) {
					todo = append(todo, n)
					continue
				}
			}
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, opError("remove", n, err)
		}
	}
	return todo, nil
}

// back goes one directory up, if that is the one that it was, and closes the lower one. On failure it returns -1.
func back(at int, dev, ino uint64) (int, error) {
	up, err := openat(at, "..", unix.O_RDONLY|unix.O_DIRECTORY)
	unix.Close(at)
	if err != nil {
		return -1, err
	}
	st, err := fstat(up)
	if err == nil && (st.Dev != dev || st.Ino != ino) {
		err = errMoved
	}
	if err != nil {
		unix.Close(up)
		return -1, err
	}
	return up, nil
}

var errMoved = fmt.Errorf("a directory was moved meanwhile: %w", unix.ESTALE)

// enter opens a directory that is to be emptied, with the permissions that this takes.
func enter(s sys, dir int, name string) (int, error) {
	node, err := openat(dir, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer unix.Close(node)
	st, err := fstat(node)
	if err != nil {
		return -1, err
	}
	if st.Mode&0o700 != 0o700 {
		if err := s.chmod(node, 0o700); err != nil {
			return -1, err
		}
	}
	return openDir(dir, name)
}
