package explain

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// want is one thing that a call asks Landlock for: rights on a path, or a TCP port.
type want struct {
	path   string
	rights uint64
	unseen bool // the path leads into what this process cannot look into, or to what is not there: only a mount can refuse it
	moves  bool // the path is to be renamed or removed
	port   *uint16
	bind   bool
	what   string
}

// call is a watched call.
type call struct {
	*supervise.Call
	root kernel.Root // of its paths
}

type watch struct {
	look func(*call) []want
}

// watches says what the watched calls ask for. What cannot be read or resolved is left out of the report.
var watches = map[string]watch{
	"open": {func(c *call) []want { return opened(c, at(c, -1, 0), uint64(uint32(c.Args[1]))) }},
	"creat": {func(c *call) []want {
		return opened(c, at(c, -1, 0), unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	}},
	"openat":  {func(c *call) []want { return opened(c, at(c, 0, 1), uint64(uint32(c.Args[2]))) }},
	"openat2": {openat2},

	"execve":   {func(c *call) []want { return existing(c, at(c, -1, 0), abi.FSExecute) }},
	"execveat": {func(c *call) []want { return existing(c, at(c, 0, 1), abi.FSExecute) }},
	"truncate": {func(c *call) []want { return existing(c, at(c, -1, 0), abi.FSTruncate) }},

	"mkdir":   {func(c *call) []want { return inParent(c, at(c, -1, 0), abi.FSMakeDir) }},
	"mkdirat": {func(c *call) []want { return inParent(c, at(c, 0, 1), abi.FSMakeDir) }},
	"mknod":   {func(c *call) []want { return inParent(c, at(c, -1, 0), kernel.MakeRight(uint32(c.Args[1]))) }},
	"mknodat": {func(c *call) []want { return inParent(c, at(c, 0, 1), kernel.MakeRight(uint32(c.Args[2]))) }},
	"rmdir":   {func(c *call) []want { return inParent(c, at(c, -1, 0), abi.FSRemoveDir) }},
	"unlink":  {func(c *call) []want { return inParent(c, at(c, -1, 0), abi.FSRemoveFile) }},
	"unlinkat": {func(c *call) []want {
		if c.Arg32(2)&unix.AT_REMOVEDIR != 0 {
			return inParent(c, at(c, 0, 1), abi.FSRemoveDir)
		}
		return inParent(c, at(c, 0, 1), abi.FSRemoveFile)
	}},
	"symlink":   {func(c *call) []want { return inParent(c, at(c, -1, 1), abi.FSMakeSym) }},
	"symlinkat": {func(c *call) []want { return inParent(c, at(c, 1, 2), abi.FSMakeSym) }},
	"link":      {func(c *call) []want { return inParent(c, at(c, -1, 1), abi.FSMakeReg) }},
	"linkat":    {func(c *call) []want { return inParent(c, at(c, 2, 3), abi.FSMakeReg) }},
	"rename":    {func(c *call) []want { return moved(c, at(c, -1, 0), at(c, -1, 1)) }},
	"renameat":  {func(c *call) []want { return moved(c, at(c, 0, 1), at(c, 2, 3)) }},
	"renameat2": {func(c *call) []want { return moved(c, at(c, 0, 1), at(c, 2, 3)) }},

	"connect": {func(c *call) []want { return address(c, false) }},
	"bind":    {func(c *call) []want { return address(c, true) }},
}

// place is a path as a call names it.
type place struct {
	root kernel.Root
	dir  int32
	path string
	ok   bool
}

func at(c *call, dirArg, pathArg int) place {
	p := place{root: c.root, dir: kernel.AtCWD}
	if dirArg >= 0 {
		p.dir = c.Arg32(dirArg)
	}
	text, err := c.Path(pathArg)
	p.path, p.ok = text, err == nil && text != ""
	return p
}

// resolved returns the real path of what exists.
func (p place) resolved(tid int) (real string, isDir, ok bool) {
	if !p.ok {
		return "", false, false
	}
	pin, err := p.root.PinPath(tid, p.dir, p.path, true)
	if err != nil {
		// Links on procfs would mean this process; what the caller wrote is the better report.
		clean := path.Clean(p.path)
		return clean, false, strings.HasPrefix(clean, "/proc/")
	}
	defer pin.Close()
	st, err := os.Stat(pin.SelfPath())
	return pin.Path, err == nil && st.IsDir(), pin.Path != ""
}

// parent returns the real path of the directory that the last element lies in.
func (p place) parent(tid int) (dir, leaf string, ok bool) {
	if !p.ok {
		return "", "", false
	}
	q := place{root: p.root, dir: p.dir, path: path.Dir(p.path), ok: true}
	real, _, ok := q.resolved(tid)
	return real, path.Base(p.path), ok
}

// unseen is a path that does not lead to anything that can be looked at, by what exists of it.
func unseen(c *call, p place, rights uint64) []want {
	rest := ""
	for range maxUnseen {
		dir, leaf := path.Split(strings.TrimRight(p.path, "/"))
		rest = path.Join(leaf, rest)
		if dir == "" {
			dir = "."
		}
		p.path = dir
		if real, _, ok := p.resolved(c.TID); ok {
			return []want{{path: path.Join(real, rest), rights: rights, unseen: true}}
		}
		if dir == "/" || dir == "." {
			break
		}
	}
	return nil
}

// maxUnseen bounds how many elements of a path are taken away in search of what exists.
const maxUnseen = 64

func existing(c *call, p place, rights uint64) []want {
	real, _, ok := p.resolved(c.TID)
	if !ok {
		return unseen(c, p, rights)
	}
	return []want{{path: real, rights: rights}}
}

func inParent(c *call, p place, rights uint64) []want {
	dir, leaf, ok := p.parent(c.TID)
	if !ok {
		return unseen(c, p, rights)
	}
	wants := []want{{path: dir, rights: rights}}
	if rights&(abi.FSRemoveFile|abi.FSRemoveDir) != 0 {
		wants = append(wants, want{path: path.Join(dir, leaf), moves: true})
	}
	return wants
}

func moved(c *call, from, to place) []want {
	real, isDir, _ := from.resolved(c.TID)
	remove, create := abi.FSRemoveFile, abi.FSMakeReg
	if isDir && real != "" {
		remove, create = abi.FSRemoveDir, abi.FSMakeDir
	}
	source, old, ok1 := from.parent(c.TID)
	target, name, ok2 := to.parent(c.TID)
	if !ok1 || !ok2 {
		return nil
	}
	if source != target {
		remove |= abi.FSRefer
		create |= abi.FSRefer
	}
	return []want{
		{path: source, rights: remove}, {path: target, rights: create},
		{path: path.Join(source, old), moves: true}, {path: path.Join(target, name), moves: true},
	}
}

func opened(c *call, p place, flags uint64) []want {
	if flags&unix.O_PATH != 0 {
		return nil // Landlock does not mediate O_PATH
	}
	real, isDir, ok := p.resolved(c.TID)
	if !ok {
		if flags&unix.O_CREAT != 0 {
			return inParent(c, p, abi.FSMakeReg)
		}
		return unseen(c, p, abi.FSReadFile)
	}
	var rights uint64
	if mode := flags & unix.O_ACCMODE; mode != unix.O_WRONLY {
		rights |= abi.FSReadFile
		if isDir {
			rights = abi.FSReadDir
		}
	}
	if mode := flags & unix.O_ACCMODE; mode == unix.O_WRONLY || mode == unix.O_RDWR {
		rights |= abi.FSWriteFile
	}
	if flags&unix.O_TRUNC != 0 {
		rights |= abi.FSTruncate
	}
	return []want{{path: real, rights: rights}}
}

func openat2(c *call) []want {
	var how [8]byte // struct open_how begins with its flags
	if c.Bytes(c.Args[2], how[:]) != nil {
		return nil
	}
	return opened(c, at(c, 0, 1), binary.NativeEndian.Uint64(how[:]))
}

// address reads the TCP address of connect and bind. Other families are the filter's business.
func address(c *call, bind bool) []want {
	var buf [28]byte // struct sockaddr_in6
	n := min(uint64(uint32(c.Args[2])), uint64(len(buf)))
	if n < 8 || c.Bytes(c.Args[1], buf[:n]) != nil {
		return nil
	}
	port := binary.BigEndian.Uint16(buf[2:])
	var host string
	switch binary.NativeEndian.Uint16(buf[:]) {
	case unix.AF_INET:
		host = fmt.Sprintf("%d.%d.%d.%d", buf[4], buf[5], buf[6], buf[7])
	case unix.AF_INET6:
		if n < 24 {
			return nil
		}
		host = ip6(buf[8:24])
	default:
		return nil
	}
	what := fmt.Sprintf("tcp %s:%d", host, port)
	return []want{{port: &port, bind: bind, what: what}}
}

// ip6 writes an address in full. Package net/netip would write it shorter, but its initialisation starts a goroutine
// in every executor.
func ip6(b []byte) string {
	var groups []string
	for i := 0; i < 16; i += 2 {
		groups = append(groups, fmt.Sprintf("%x", binary.BigEndian.Uint16(b[i:])))
	}
	return "[" + strings.Join(groups, ":") + "]"
}
