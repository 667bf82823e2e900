package ports

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/opens"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// The files in /proc that list the sockets of a network namespace (proc_pid_net(5)) list those of the sandbox instead, with the
// ports that it knows them by: lines whose local end is a socket that the sandbox has bound and not closed, connections that
// such a one has accepted among them. What is opened is a snapshot.

// list is one of the files.
type list struct {
	name     string
	protocol ir.Protocols
}

var lists = []list{{"tcp", ir.TCP}, {"tcp6", ir.TCP}, {"udp", ir.UDP}, {"udp6", ir.UDP}}

// showLists has opens of the files answered.
func (h *Handler) showLists(arch abi.Arch) {
	h.lists = map[uint64]list{}
	for _, l := range lists {
		// A network namespace's file has the same number in every directory of a process, and in every procfs. The command is
		// in this process's.
		if st, err := opens.Look("/proc/thread-self/net/"+l.name, true); err == nil {
			h.lists[st.Ino] = l
		}
	}
	h.opens = opens.Readers(arch)
	h.opened = opens.Files{Name: "sockets", Root: h.policy.Root, For: h.instead, Grants: h.policy.Granted, Journal: h.journal, Hides: true}
}

// Instead returns what a thread is to read in place of a pinned file, see [opens.Files.Instead].
func (h *Handler) Instead(pin kernel.Pin, flags, tid int) (content []byte, ok bool, err error) {
	return h.opened.Instead(pin, flags, tid)
}

// instead is what is read instead of a pinned file, nil for the file itself.
func (h *Handler) instead(pin kernel.Pin) *opens.Substitute {
	var fs unix.Statfs_t
	id, mode, err := pin.ID()
	if err != nil || mode&unix.S_IFMT != unix.S_IFREG || unix.Fstatfs(pin.FD, &fs) != nil || fs.Type != unix.PROC_SUPER_MAGIC {
		return nil
	}
	l, ours := h.lists[id.Ino]
	if !ours {
		// A process outside may be in another network namespace, where the sandbox has no sockets.
		if l = listAt(pin.Path); l.name == "" {
			return nil
		}
	}
	return &opens.Substitute{Path: "/proc/net/" + l.name, Content: func(pin kernel.Pin, _ int) ([]byte, error) {
		fd, err := unix.Open(pin.SelfPath(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		host := os.NewFile(uintptr(fd), l.name)
		defer host.Close()
		return h.sockets(host, l.protocol, ours)
	}}
}

// listAt tells which of the files a path of procfs names, by its last two elements.
func listAt(at string) list {
	dir, name := path.Split(at)
	if path.Base(dir) != "net" {
		return list{}
	}
	for _, l := range lists {
		if l.name == name {
			return l
		}
	}
	return list{}
}

// sockets writes a host's list anew, with none of its sockets unless it is of the sandbox's network namespace.
func (h *Handler) sockets(host io.Reader, protocol ir.Protocols, ours bool) ([]byte, error) {
	in := bufio.NewReader(host)
	out, err := in.ReadBytes('\n')
	if err == io.EOF && len(out) == 0 || err == nil && !ours {
		return out, nil
	}
	for n := 0; err == nil; {
		var text []byte
		if text, err = in.ReadBytes('\n'); len(text) == 0 {
			break
		}
		shown, ours, bad := h.socket(text, protocol, n)
		if bad != nil {
			return nil, bad
		}
		if ours {
			out = append(out, shown...)
			n++
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return out, nil
}

// Fields of a line, of those that white space separates: get_tcp4_sock in net/ipv4/tcp_ipv4.c, udp4_format_sock in
// net/ipv4/udp.c, and their fellows for IPv6.
const (
	lineNumber = iota
	lineLocal
	lineRemote
	lineUser    = 7
	linePointer = 11
)

// socket makes of a line of a socket of the sandbox what the sandbox is to see: counted among those that are shown, with virtual
// ports, users as it knows them, and no address of the kernel's memory. Columns stay where they are. All other sockets are not
// ours.
func (h *Handler) socket(text []byte, protocol ir.Protocols, number int) (shown []byte, ours bool, err error) {
	fields := bytes.Fields(text)
	if len(fields) <= linePointer || !bytes.HasSuffix(fields[lineNumber], []byte(":")) {
		return nil, false, fmt.Errorf("a line %q", bytes.TrimSpace(text))
	}
	local, ok := parseEnd(fields[lineLocal])
	remote, ok2 := parseEnd(fields[lineRemote])
	user, err := strconv.ParseUint(string(fields[lineUser]), 10, 32)
	if !ok || !ok2 || err != nil {
		return nil, false, fmt.Errorf("a line %q", bytes.TrimSpace(text))
	}
	port, ok := h.table.shows(protocol, local)
	if !ok {
		return nil, false, nil
	}
	change := map[int]string{
		lineNumber: strconv.Itoa(number) + ":", lineLocal: withPort(fields[lineLocal], port), linePointer: strings.Repeat("0", len(fields[linePointer])),
	}
	if remote.Addr().IsLoopback() {
		if port, ok := h.table.meant(protocol, remote); ok {
			change[lineRemote] = withPort(fields[lineRemote], port)
		}
	}
	if as := h.policy.IDs.ShownUser(uint32(user)); as != uint32(user) {
		change[lineUser] = strconv.Itoa(int(as))
	}
	return rewrite(text, change), true, nil
}

// rewrite replaces fields of a line by their numbers. One that is longer takes from the spaces before it, as in a column of
// numbers, one that is shorter leaves some.
func rewrite(text []byte, change map[int]string) (out []byte) {
	for n := 0; len(text) > 0; n++ {
		blanks := len(text) - len(bytes.TrimLeft(text, " "))
		width := bytes.IndexAny(text[blanks:], " \n")
		if width < 0 {
			width = len(text) - blanks
		}
		if width == 0 {
			break
		}
		field := string(text[blanks : blanks+width])
		if to, ok := change[n]; ok {
			field = to
		}
		text = text[blanks+width:]
		blanks = max(blanks+width-len(field), min(n, 1))
		out = fmt.Appendf(out, "%*s%s", blanks, "", field)
	}
	return append(out, text...)
}

// parseEnd reads an address and a port: the address's words are in the host's order of bytes, the port is a number.
func parseEnd(text []byte) (end netip.AddrPort, ok bool) {
	address, port, ok := bytes.Cut(text, []byte(":"))
	if !ok || len(port) != 4 || len(address) != 8 && len(address) != 32 {
		return end, false
	}
	b := make([]byte, len(address)/2)
	if _, err := hex.Decode(b, address); err != nil {
		return end, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	n, err := strconv.ParseUint(string(port), 16, 16)
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), err == nil
}

// withPort is an end with another port.
func withPort(end []byte, port uint16) string {
	return fmt.Sprintf("%s%04X", end[:len(end)-4], port)
}
