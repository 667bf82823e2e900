package metadata

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// request is one change, read from the caller once.
type request struct {
	target target
	apply  func(kernel.Pin) error
	// translate changes what apply has of the command's ids to this process's; nil where it has none.
	translate func(kernel.IDs) error
}

// target is the file that a call names.
type target struct {
	fd     int32 // directory for path, or the file itself when byFD
	byFD   bool
	path   string
	follow bool
}

func (t target) pin(c *supervise.Call, root kernel.Root) (kernel.Pin, error) {
	if t.byFD {
		if t.fd == kernel.AtCWD {
			return root.PinPath(c.TID, kernel.AtCWD, ".", true)
		}
		return root.PinDescriptor(c.TID, t.fd)
	}
	return root.PinPath(c.TID, t.fd, t.path, t.follow)
}

type call struct {
	name string
	read func(*supervise.Call) (request, error) // nil: answered with ENOSYS
}

// calls is the group file_metadata with the argument layout of each member.
var calls = map[string]call{
	"chmod":    {read: func(c *supervise.Call) (request, error) { return changeMode(c, atPath(c, 0, true), 1) }},
	"fchmod":   {read: func(c *supervise.Call) (request, error) { return changeMode(c, atFD(c, 0), 1) }},
	"fchmodat": {read: func(c *supervise.Call) (request, error) { return changeMode(c, atDir(c, 0, 1, 0, 0), 2) }},
	"fchmodat2": {read: func(c *supervise.Call) (request, error) {
		return changeMode(c, atDir(c, 0, 1, c.Arg32(3), nofollowOrEmpty), 2)
	}},

	"chown":  {read: func(c *supervise.Call) (request, error) { return changeOwner(c, atPath(c, 0, true), 1) }},
	"lchown": {read: func(c *supervise.Call) (request, error) { return changeOwner(c, atPath(c, 0, false), 1) }},
	"fchown": {read: func(c *supervise.Call) (request, error) { return changeOwner(c, atFD(c, 0), 1) }},
	"fchownat": {read: func(c *supervise.Call) (request, error) {
		return changeOwner(c, atDir(c, 0, 1, c.Arg32(4), nofollowOrEmpty), 2)
	}},

	"utime":     {read: func(c *supervise.Call) (request, error) { return changeTimes(c, atPath(c, 0, true), 1, seconds) }},
	"utimes":    {read: func(c *supervise.Call) (request, error) { return changeTimes(c, atPath(c, 0, true), 1, microseconds) }},
	"futimesat": {read: func(c *supervise.Call) (request, error) { return changeTimes(c, atDirOrFD(c, 0), 2, microseconds) }},
	"utimensat": {read: func(c *supervise.Call) (request, error) {
		return changeTimes(c, atDirOrFD(c, c.Arg32(3)), 2, nanoseconds)
	}},

	"setxattr":     {read: func(c *supervise.Call) (request, error) { return setAttribute(c, atPath(c, 0, true)) }},
	"lsetxattr":    {read: func(c *supervise.Call) (request, error) { return setAttribute(c, atPath(c, 0, false)) }},
	"fsetxattr":    {read: func(c *supervise.Call) (request, error) { return setAttribute(c, atFD(c, 0)) }},
	"removexattr":  {read: func(c *supervise.Call) (request, error) { return removeAttribute(c, atPath(c, 0, true)) }},
	"lremovexattr": {read: func(c *supervise.Call) (request, error) { return removeAttribute(c, atPath(c, 0, false)) }},
	"fremovexattr": {read: func(c *supervise.Call) (request, error) { return removeAttribute(c, atFD(c, 0)) }},

	"setxattrat":    {}, // Linux 6.13
	"removexattrat": {},
	"file_setattr":  {}, // Linux 6.17
}

const nofollowOrEmpty = unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH

// located is a target, or why it could not be read.
type located struct {
	target target
	err    error
}

func atFD(c *supervise.Call, arg int) located {
	return located{target: target{fd: c.Arg32(arg), byFD: true}}
}

func atPath(c *supervise.Call, arg int, follow bool) located {
	path, err := readPath(c, arg)
	return located{target{fd: kernel.AtCWD, path: path, follow: follow}, err}
}

// atDir reads (dirfd, path) with AT_ flags, of which only those in known may be set.
func atDir(c *supervise.Call, dirArg, pathArg int, flags, known int32) located {
	if flags&^known != 0 {
		return located{err: unix.EINVAL}
	}
	path, err := c.Path(pathArg)
	if err != nil {
		return located{err: err}
	}
	if path == "" {
		if flags&unix.AT_EMPTY_PATH == 0 {
			return located{err: unix.ENOENT}
		}
		return atFD(c, dirArg)
	}
	return located{target: target{fd: c.Arg32(dirArg), path: path, follow: flags&unix.AT_SYMLINK_NOFOLLOW == 0}}
}

// atDirOrFD is atDir for the calls of the utimes family, where a null path means the descriptor itself.
func atDirOrFD(c *supervise.Call, flags int32) located {
	if c.Args[1] == 0 {
		if c.Arg32(0) == kernel.AtCWD {
			return located{err: unix.EFAULT}
		}
		if flags != 0 {
			return located{err: unix.EINVAL}
		}
		return atFD(c, 0)
	}
	return atDir(c, 0, 1, flags, nofollowOrEmpty)
}

func readPath(c *supervise.Call, arg int) (string, error) {
	path, err := c.Path(arg)
	if err == nil && path == "" {
		err = unix.ENOENT
	}
	return path, err
}

func changeMode(c *supervise.Call, at located, arg int) (request, error) {
	mode := uint32(c.Args[arg]) & 0o7777
	return request{target: at.target, apply: func(p kernel.Pin) error { return applyMode(p, mode) }}, at.err
}

func changeOwner(c *supervise.Call, at located, arg int) (request, error) {
	uid, gid := uint32(c.Arg32(arg)), uint32(c.Arg32(arg+1))
	return request{
		target: at.target,
		apply:  func(p kernel.Pin) error { return applyOwner(p, int(int32(uid)), int(int32(gid))) },
		translate: func(m kernel.IDs) (err error) {
			if uid, err = m.User(uid); err == nil {
				gid, err = m.Group(gid)
			}
			return err
		},
	}, at.err
}

// unit is how a call of the utimes family writes its two times.
type unit struct {
	perSecond int64 // 0: whole seconds only, one number a time
	nanos     int64 // nanoseconds in one unit of the second number
}

var (
	seconds      = unit{}
	microseconds = unit{perSecond: 1e6, nanos: 1e3}
	nanoseconds  = unit{perSecond: 1e9, nanos: 1}
)

func changeTimes(c *supervise.Call, at located, arg int, u unit) (request, error) {
	if at.err != nil {
		return request{}, at.err
	}
	times := [2]unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	if c.Args[arg] != 0 {
		var err error
		if times, err = readTimes(c, c.Args[arg], u); err != nil {
			return request{}, err
		}
	}
	return request{target: at.target, apply: func(p kernel.Pin) error { return applyTimes(p, times) }}, nil
}

func readTimes(c *supervise.Call, addr uint64, u unit) (times [2]unix.Timespec, err error) {
	words := 4
	if u.perSecond == 0 {
		words = 2
	}
	var buf [32]byte
	if err := c.Bytes(addr, buf[:8*words]); err != nil {
		return times, err
	}
	word := func(i int) int64 { return int64(binary.NativeEndian.Uint64(buf[8*i:])) }
	for i := range times {
		if u.perSecond == 0 {
			times[i].Sec = word(i)
			continue
		}
		sec, sub := word(2*i), word(2*i+1)
		special := u.nanos == 1 && (sub == unix.UTIME_NOW || sub == unix.UTIME_OMIT)
		if !special && (sub < 0 || sub >= u.perSecond) {
			return times, unix.EINVAL
		}
		times[i] = unix.Timespec{Sec: sec, Nsec: sub}
		if !special {
			times[i].Nsec *= u.nanos
		}
	}
	return times, nil
}

const (
	maxAttributeName  = 255   // XATTR_NAME_MAX
	maxAttributeValue = 65536 // XATTR_SIZE_MAX
)

func setAttribute(c *supervise.Call, at located) (request, error) {
	name, err := attributeName(c, at)
	if err != nil {
		return request{}, err
	}
	if c.Args[3] > maxAttributeValue {
		return request{}, unix.E2BIG
	}
	value := make([]byte, c.Args[3])
	if len(value) > 0 {
		if err := c.Bytes(c.Args[2], value); err != nil {
			return request{}, err
		}
	}
	flags := int(c.Arg32(4))
	return request{
		target:    at.target,
		apply:     func(p kernel.Pin) error { return unix.Setxattr(p.SelfPath(), name, value, flags) },
		translate: func(m kernel.IDs) error { return translateAttribute(m, name, value) },
	}, nil
}

func removeAttribute(c *supervise.Call, at located) (request, error) {
	name, err := attributeName(c, at)
	return request{
		target:    at.target,
		apply:     func(p kernel.Pin) error { return unix.Removexattr(p.SelfPath(), name) },
		translate: func(m kernel.IDs) error { return mayAttribute(m, name) },
	}, err
}

func attributeName(c *supervise.Call, at located) (string, error) {
	if at.err != nil {
		return "", at.err
	}
	name, err := c.Path(1)
	if err != nil || name == "" || len(name) > maxAttributeName {
		if err == nil {
			err = unix.ERANGE
		}
		return "", err
	}
	return name, nil
}
