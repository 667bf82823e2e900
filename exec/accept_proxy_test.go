package exec_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// While the helper does not read, the executor waits, and does not go round and round; then all goes on.
func Test_http_helper_that_does_not_read(t *testing.T) {
	py := python(t)
	exectest.Helper(t)
	l := keep(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		policy := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf(`http: {allow: ["GET 127.0.0.1/no"], ports: [%s]}`, port)}))
		script := `
import os, socket, sys, time
def wait(name):
    open(name, "w")
    while os.path.exists(name): time.sleep(0.01)
wait("begun")
all = [socket.socket() for _ in range(600)]
for s in all:
    s.setblocking(False)
    s.connect_ex(("127.0.0.1", int(sys.argv[1])))
wait("connected")
for s in all:
    s.setblocking(True)
    s.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
print({s.recv(12) for s in all})
`
		p := exectest.Start(t, b.Opts(policy, py, "-c", script, port))
		executor := p.Cmd.Process.Pid
		reached := func(name string) {
			name = filepath.Join(b.Work, name)
			exectest.Within(t, 20*time.Second, name, func() bool { _, err := os.Stat(name); return err == nil })
		}
		reached("begun")
		helpers := helpersOf(executor)
		if len(helpers) != 1 || unix.Kill(helpers[0], unix.SIGSTOP) != nil {
			t.Fatalf("the helpers are %v, want one", helpers)
		}
		defer unix.Kill(helpers[0], unix.SIGCONT)
		_ = os.Remove(filepath.Join(b.Work, "begun"))
		reached("connected")
		before := busy(t, executor)
		time.Sleep(time.Second)
		if spent := busy(t, executor) - before; spent > 300*time.Millisecond {
			t.Errorf("the executor was busy for %v of a second", spent)
		}
		_ = unix.Kill(helpers[0], unix.SIGCONT)
		_ = os.Remove(filepath.Join(b.Work, "connected"))
		wantRun(t, p.Wait(t), 0, "{b'HTTP/1.1 403'}")
	})
}

// busy is the processor time of a process.
func busy(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	var user, system int
	fields := strings.Fields(rest)
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
