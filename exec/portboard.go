package exec

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/handler/ports"
)

// RunningPorts is what one running sandlock-exec has bound under network.port_remap.
type RunningPorts struct {
	PID    int         `json:"pid"` // of sandlock-exec
	Policy string      `json:"policy"`
	Ports  []BoundPort `json:"ports"` // by protocol, virtual port and address
}

// BoundPort is a [Port] as it is shown.
type BoundPort struct {
	Protocol string     `json:"protocol"` // "tcp" or "udp"
	Address  netip.Addr `json:"address"`
	Virtual  uint16     `json:"virtual"`
	Real     uint16     `json:"real"`
}

// board answers whoever of the same user asks for the ports: on a socket in the abstract namespace, which needs no folder,
// leaves nothing behind, and is, like the ports, of the network namespace. It is made before the executor is confined: the
// abstract-socket scope then keeps the sandbox from it, and the executor in its place.
type board struct{ fd int }

// boardName is followed by the user's id, the process's, and what nobody else can have taken: abstract names belong to
// the network namespace, which can hold several PID namespaces.
const boardName = "@sandlock-ports/"

const (
	boardPatience = 2 * time.Second // with one asker, and with one answerer
	maxBoard      = 8 << 20         // bytes of an answer
)

func newBoard() (*board, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket of the port list: %w", err)
	}
	b := &board{fd}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("%s%d/%d/%s", boardName, os.Getuid(), os.Getpid(), rand.Text())})
	if err == nil {
		err = unix.Listen(fd, 4)
	}
	if err != nil {
		b.close()
		return nil, fmt.Errorf("socket of the port list: %w", err)
	}
	return b, nil
}

// openBoard makes the board where there is something to be shown, and somebody may see it.
func (s *sandbox) openBoard() (err error) {
	if !s.options.ShowPorts || !s.net.PortRemap {
		return nil
	}
	if s.board, err = newBoard(); err != nil {
		return &SetupError{[]string{err.Error()}}
	}
	return nil
}

// close ends serve.
func (b *board) close() {
	if b != nil {
		_ = unix.Shutdown(b.fd, unix.SHUT_RDWR)
	}
}

// serve answers until close, one asker at a time.
func (b *board) serve(policy string, list func() []Port) {
	defer unix.Close(b.fd)
	for {
		conn, _, err := unix.Accept4(b.fd, unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBADF):
			return
		case err != nil:
			time.Sleep(boardPatience / 20) // no descriptors, as a rule
			continue
		}
		if peerUID(conn, os.Getuid()) {
			b.answer(conn, policy, list())
		}
		_ = unix.Close(conn)
	}
}

// peerUID reports whether the other end is the superuser's or uid's.
func peerUID(fd, uid int) bool {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && (cred.Uid == 0 || int(cred.Uid) == uid)
}

func (b *board) answer(conn int, policy string, list []Port) {
	a := RunningPorts{PID: os.Getpid(), Policy: policy, Ports: []BoundPort{}}
	for _, p := range list {
		a.Ports = append(a.Ports, BoundPort{p.Protocol.String(), p.Address, p.Virtual, p.Real})
	}
	text, err := json.Marshal(a)
	if err != nil {
		return
	}
	timeout := unix.NsecToTimeval(int64(boardPatience))
	_ = unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout)
	for len(text) > 0 {
		n, err := unix.SendmsgN(conn, text, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil {
			return
		}
		text = text[n:]
	}
}

// ListPorts asks every sandlock-exec of the caller's user, or of all users for the superuser, for the ports that it has
// bound under network.port_remap. Those that do not answer are left out.
func ListPorts() ([]RunningPorts, error) {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []RunningPorts
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := append(strings.Fields(lines.Text()), "")
		name := fields[min(7, len(fields)-1)]
		owner, _, ok := strings.Cut(strings.TrimPrefix(name, boardName), "/")
		uid, err := strconv.Atoi(owner)
		if len(fields) < 9 || fields[3] != acceptsConnections || !ok || err != nil || !strings.HasPrefix(name, boardName) || os.Getuid() != 0 && os.Getuid() != uid {
			continue
		}
		if a, err := askBoard(name, uid); err == nil {
			list = append(list, a)
		}
	}
	return list, lines.Err()
}

// acceptsConnections are the flags of a listening socket in /proc/net/unix: __SO_ACCEPTCON.
const acceptsConnections = "00010000"

func askBoard(name string, uid int) (a RunningPorts, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return a, err
	}
	conn := os.NewFile(uintptr(fd), name)
	defer conn.Close()
	timeout := unix.NsecToTimeval(int64(boardPatience))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &timeout); err != nil {
			return a, err
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return a, err
	}
	if !peerUID(fd, uid) {
		return a, fmt.Errorf("%s is not of user %d", name, uid)
	}
	text, err := io.ReadAll(io.LimitReader(conn, maxBoard))
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(text, &a)
}

// showPorts has the board, if there is one, answer with a handler's ports.
func (s *sandbox) showPorts(h *ports.Handler) {
	if s.board != nil {
		go s.board.serve(s.program.Name, h.Ports)
	}
}
