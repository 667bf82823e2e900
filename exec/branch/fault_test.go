package branch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// faulty is the kernel until a given call: then the process dies, or the call fails. It also models power loss, as changes
// that no sync made durable and that are taken back in any combination that a file system could have left.
type faulty struct {
	kernelSys
	t     testing.TB
	left  int   // calls until it happens; negative: it never does
	fail  error // what the call fails with; nil: the process dies
	count int
	lossy bool // keep a log for a power loss
	log   []*change
	hurt  bool // the loss has taken data of the upper
	fds   []int
}

// change is one that was made.
type change struct {
	what    string
	keys    []string // what it touches
	needs   []string // what no later change may have touched, for it to be taken back
	durable bool
	dev     uint64
	objects []uint64 // whose fsync makes it durable
	undo    func() error
}

type died struct{}

// step is before each call; torn does a part of the call that the process dies in.
func (f *faulty) step(torn func()) error {
	f.count++
	if f.left == 0 {
		if f.fail != nil {
			f.left = -1
			return f.fail
		}
		if torn != nil {
			torn()
		}
		panic(died{})
	}
	if f.left > 0 {
		f.left--
	}
	return nil
}

func (f *faulty) id(fd int) (dev, ino uint64) {
	st, err := fstat(fd)
	if err != nil {
		f.t.Fatal(err)
	}
	return st.Dev, st.Ino
}

// note logs a change; objects are descriptors.
func (f *faulty) note(what string, err error, undo func() error, objects []int, keys, needs []string) error {
	if err != nil || !f.lossy {
		return err
	}
	c := &change{what: what, undo: undo, keys: keys, needs: append(needs, keys...), durable: undo == nil}
	for _, fd := range objects {
		dev, ino := f.id(fd)
		c.dev = dev
		c.objects = append(c.objects, ino)
	}
	f.log = append(f.log, c)
	return nil
}

func (f *faulty) entry(dir int, name string) []string {
	dev, ino := f.id(dir)
	return []string{fmt.Sprint("name ", dev, ino, name), fmt.Sprint("in ", dev, ino)}
}

func (f *faulty) object(fd int) string {
	dev, ino := f.id(fd)
	return fmt.Sprint("object ", dev, ino)
}

// keep returns a descriptor of the same object, without the locks of the other, that lasts until the loss.
func (f *faulty) keep(fd, flags int) int {
	kept, err := unix.Open(procPath(fd), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	f.fds = append(f.fds, kept)
	return kept
}

func (f *faulty) close() {
	for _, fd := range f.fds {
		unix.Close(fd)
	}
}

func (f *faulty) made(what string, err error, dir int, name string) error {
	if err != nil || !f.lossy {
		return err
	}
	d := f.keep(dir, unix.O_PATH)
	node, e := pin(dir, name)
	if e != nil {
		f.t.Fatal(e)
	}
	defer unix.Close(node)
	dev, ino := f.id(node)
	needs := []string{fmt.Sprint("in ", dev, ino), fmt.Sprint("object ", dev, ino)}
	return f.note(what, nil, func() error {
		err := unix.Unlinkat(d, name, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			err = unix.Unlinkat(d, name, unix.AT_REMOVEDIR)
		}
		return err
	}, []int{dir}, f.entry(dir, name), needs)
}

func (f *faulty) create(dir int, name string, mode uint32) (int, error) {
	if err := f.step(nil); err != nil {
		return -1, err
	}
	fd, err := f.kernelSys.create(dir, name, mode)
	return fd, f.made("create "+name, err, dir, name)
}

func (f *faulty) data(what string, err error, fd int) error {
	if err != nil || !f.lossy {
		return err
	}
	kept := f.keep(fd, unix.O_WRONLY)
	return f.note(what, nil, func() error { return unix.Ftruncate(kept, 0) }, []int{fd}, []string{f.object(fd)}, nil)
}

func (f *faulty) write(fd int, p []byte) error {
	if err := f.step(func() { _, _ = unix.Write(fd, p[:len(p)/2]) }); err != nil {
		return err
	}
	return f.data("write", f.kernelSys.write(fd, p), fd)
}

func (f *faulty) fill(to, from int, size int64) error {
	if err := f.step(func() { _ = copyData(to, from, size/2) }); err != nil {
		return err
	}
	return f.data("fill", f.kernelSys.fill(to, from, size), to)
}

func (f *faulty) mkdir(dir int, name string, mode uint32) error {
	if err := f.step(nil); err != nil {
		return err
	}
	return f.made("mkdir "+name, f.kernelSys.mkdir(dir, name, mode), dir, name)
}

func (f *faulty) mknod(dir int, name string, mode uint32, dev int) error {
	if err := f.step(nil); err != nil {
		return err
	}
	return f.made("mknod "+name, f.kernelSys.mknod(dir, name, mode, dev), dir, name)
}

func (f *faulty) symlink(text string, dir int, name string) error {
	if err := f.step(nil); err != nil {
		return err
	}
	return f.made("symlink "+name, f.kernelSys.symlink(text, dir, name), dir, name)
}

func (f *faulty) link(fromDir int, from string, dir int, name string) error {
	if err := f.step(nil); err != nil {
		return err
	}
	err := f.kernelSys.link(fromDir, from, dir, name)
	if err != nil || !f.lossy {
		return err
	}
	d := f.keep(dir, unix.O_PATH)
	f.unsynced(dir, name)
	return f.note("link "+name, nil, func() error { return unix.Unlinkat(d, name, 0) }, []int{dir}, f.entry(dir, name), nil)
}

// unsynced logs that what a file of the upper holds may not be on disk either: nothing was synced while the command ran.
func (f *faulty) unsynced(dir int, name string) {
	fd, st, err := openRegular(dir, name)
	if err != nil || st.Size == 0 {
		return
	}
	unix.Close(fd)
	node, err := pin(dir, name)
	if err != nil {
		f.t.Fatal(err)
	}
	f.fds = append(f.fds, node)
	c := &change{what: "data of " + name, keys: []string{f.object(node)}, undo: func() error {
		f.hurt = true
		return errors.Join(unix.Chmod(procPath(node), 0o600), unix.Truncate(procPath(node), 0), unix.Chmod(procPath(node), st.Mode&0o7777))
	}}
	c.needs = c.keys
	dev, ino := f.id(node)
	c.dev, c.objects = dev, []uint64{ino}
	f.log = append(f.log, c)
}

func (f *faulty) rename(fromDir int, from string, dir int, name string, flags uint) error {
	if err := f.step(nil); err != nil {
		return err
	}
	replaced, _ := lookup(dir, name)
	err := f.kernelSys.rename(fromDir, from, dir, name, flags)
	if err != nil || !f.lossy {
		return err
	}
	a, z := f.keep(fromDir, unix.O_PATH), f.keep(dir, unix.O_PATH)
	undo := func() error { return unix.Renameat2(z, name, a, from, unix.RENAME_NOREPLACE) }
	if flags&unix.RENAME_EXCHANGE != 0 {
		undo = func() error { return unix.Renameat2(z, name, a, from, unix.RENAME_EXCHANGE) }
	} else if replaced != nil {
		undo = nil
	}
	return f.note("rename "+from+" "+name, nil, undo, []int{fromDir, dir},
		append(f.entry(fromDir, from), f.entry(dir, name)...), nil)
}

func (f *faulty) unlink(dir int, name string, flags int) error {
	if err := f.step(nil); err != nil {
		return err
	}
	err := f.kernelSys.unlink(dir, name, flags)
	if err != nil || !f.lossy {
		return err
	}
	return f.note("unlink "+name, nil, nil, []int{dir}, f.entry(dir, name), nil)
}

func (f *faulty) changed(what string, node int, call func() error) error {
	if err := f.step(nil); err != nil {
		return err
	}
	before, err := metaOf(node)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := call(); err != nil || !f.lossy {
		return err
	}
	kept := f.keep(node, unix.O_PATH)
	return f.note(what, nil, func() error { return setMeta(kernelSys{}, kept, before) }, []int{node}, []string{f.object(node)}, nil)
}

func (f *faulty) chmod(node int, mode uint32) error {
	return f.changed("chmod", node, func() error { return f.kernelSys.chmod(node, mode) })
}

func (f *faulty) chown(node int, uid, gid int) error {
	return f.changed("chown", node, func() error { return f.kernelSys.chown(node, uid, gid) })
}

func (f *faulty) utimes(node int, atime, mtime unix.Timespec) error {
	return f.changed("utimes", node, func() error { return f.kernelSys.utimes(node, atime, mtime) })
}

func (f *faulty) setxattr(node int, name string, value []byte) error {
	return f.changed("setxattr", node, func() error { return f.kernelSys.setxattr(node, name, value) })
}

func (f *faulty) removexattr(node int, name string) error {
	return f.changed("removexattr", node, func() error { return f.kernelSys.removexattr(node, name) })
}

func (f *faulty) fsync(fd int) error {
	if err := f.step(nil); err != nil {
		return err
	}
	if f.lossy {
		dev, ino := f.id(fd)
		for _, c := range f.log {
			for _, o := range c.objects {
				c.durable = c.durable || c.dev == dev && o == ino
			}
		}
	}
	return nil // the tests need no disk to be waited for
}

func (f *faulty) syncfs(fd int) error {
	if err := f.step(nil); err != nil {
		return err
	}
	dev, _ := f.id(fd)
	for _, c := range f.log {
		c.durable = c.durable || c.dev == dev
	}
	return nil
}

// plainFaulty is faulty, and without the flags of renameat2.
type plainFaulty struct{ faulty }

func (f *plainFaulty) rename(fromDir int, from string, dir int, name string, flags uint) error {
	if flags != 0 {
		return unix.EINVAL
	}
	return f.faulty.rename(fromDir, from, dir, name, flags)
}

// loss takes back changes that are not durable, each by chance, if nothing later that stays depends on it.
func (f *faulty) loss(r *rand.Rand) (lost []string) {
	kept := map[string]bool{}
	for i := len(f.log) - 1; i >= 0; i-- {
		c := f.log[i]
		free := true
		for _, k := range c.needs {
			free = free && !kept[k]
		}
		if c.durable || !free || r.IntN(2) == 0 {
			for _, k := range c.keys {
				kept[k] = true
			}
			continue
		}
		err := c.undo()
		if errors.Is(err, unix.EACCES) { // a directory that this user cannot move as it is by now
			for _, k := range c.keys {
				kept[k] = true
			}
			continue
		}
		if err != nil {
			f.t.Fatalf("take back %s: %v", c.what, err)
		}
		lost = append(lost, c.what)
	}
	return lost
}

// until runs something in which the process may die.
func until(do func() error) (err error, dead bool) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case died:
			dead = true
		default:
			panic(r)
		}
	}()
	return do(), false
}
