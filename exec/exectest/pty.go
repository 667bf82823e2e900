package exectest

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// PTY is a pseudo-terminal whose other side this process holds.
type PTY struct {
	Slave  *os.File
	master *os.File

	mu     sync.Mutex
	output bytes.Buffer
	found  int // how much of it Expect has seen
}

// NewPTY opens a pseudo-terminal for a user and collects what is written to it.
func NewPTY(tb testing.TB, u User) *PTY {
	tb.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		tb.Skipf("no pseudo-terminals here: %v", err)
	}
	raw := int(master.Fd())
	if err := unix.IoctlSetPointerInt(raw, unix.TIOCSPTLCK, 0); err != nil {
		tb.Fatalf("unlock %s: %v", master.Name(), err)
	}
	number, err := unix.IoctlGetInt(raw, unix.TIOCGPTN)
	if err != nil {
		tb.Fatalf("name of %s: %v", master.Name(), err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	if u != Self() {
		if err := slave.Chown(u.UID, u.GID); err != nil {
			tb.Fatal(err)
		}
	}
	p := &PTY{Slave: slave, master: master}
	go p.collect()
	tb.Cleanup(func() {
		slave.Close()
		master.Close()
	})
	return p
}

func (p *PTY) collect() {
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		p.mu.Lock()
		p.output.Write(buf[:n])
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Output returns what was written to the terminal, with plain line ends. It waits until nothing more comes for a
// moment, since the kernel hands terminal output on asynchronously.
func (p *PTY) Output() string {
	for last, quiet := -1, 0; ; quiet++ {
		p.mu.Lock()
		text := p.output.String()
		p.mu.Unlock()
		if len(text) != last {
			last, quiet = len(text), 0
		}
		if quiet == 4 {
			return strings.ReplaceAll(text, "\r\n", "\n")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Typed is the number of input bytes that wait on the terminal to be read: more than were typed on the other side
// means that a program pushed some (TIOCSTI).
func (p *PTY) Typed(tb testing.TB) int {
	tb.Helper()
	n, err := unix.IoctlGetInt(int(p.Slave.Fd()), unix.TIOCINQ)
	if err != nil {
		tb.Fatalf("TIOCINQ: %v", err)
	}
	return n
}

// Type writes to the terminal what a person types, control characters too.
func (p *PTY) Type(tb testing.TB, text string) {
	tb.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		tb.Fatalf("type %q: %v", text, err)
	}
}

// Expect waits until the terminal shows a text, after what an earlier Expect has found.
func (p *PTY) Expect(tb testing.TB, text string) {
	tb.Helper()
	defer func() {
		if tb.Failed() {
			tb.Logf("the terminal shows %q", p.Output())
		}
	}()
	Within(tb, 20*time.Second, "the terminal shows "+strconv.Quote(text), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		all := p.output.String()
		i := strings.Index(all[p.found:], text)
		if i >= 0 {
			p.found += i + len(text)
		}
		return i >= 0
	})
}
