package exec_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// keep accepts connections and keeps them until the test ends.
func keep(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var kept []net.Conn
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			kept = append(kept, conn)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		for _, conn := range kept {
			conn.Close()
		}
	})
	return l
}

// resources are the open descriptors and the resident memory, in KiB, of a process.
func resources(t *testing.T, pid int) (descriptors, resident int) {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &resident)
	}
	if resident == 0 {
		t.Fatalf("process %d has no VmRSS:\n%s", pid, status)
	}
	return len(entries), resident
}

// idleScript connects as often as it is told to and closes all but the last connection, then connects as often again and
// keeps all. Connections are reset, so that no port waits to be free.
const idleScript = `
import os, resource, socket, struct, sys, time
port, n = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
def connect():
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return s
def report(name):
    open(name, "w")
    while os.path.exists(name): time.sleep(0.01)
for _ in range(n): s = connect()
report("before")
connections = [connect() for _ in range(n)]
report("held")
for s in connections: s.send(b"x")
print(len({s.fileno() for s in connections}))
`

// Connections that were decided about cost the executor nothing as long as they are there, however many.
func Test_network_idle_connections(t *testing.T) {
	py := python(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		n := 10000
		if !u.Root() && exectest.Self().Root() {
			n = 2000 // nothing in it depends on the user
		}
		// The test itself holds the other ends of those that are closed meanwhile, too.
		n = min(n, (int(min(limit.Cur, 1<<20))-500)/2)
		if n < 1000 {
			exectest.Lacks(t, fmt.Sprintf("enough open files, %d are too few", limit.Cur))
		}
		l := keep(t)
		policy := b.Policy(b.Base(allowNet("tcp://" + l.Addr().String())))
		o := b.Opts(policy, py, "-c", idleScript, port(l), fmt.Sprint(n))
		o.Env = append(o.Env, "GOGC=5") // what is resident is what is held, not what has not been collected yet
		p := exectest.Start(t, o)
		measure := func(name string) (descriptors, resident int) {
			exectest.Within(t, 60*time.Second, "connected", func() bool { _, err := os.Stat(b.Work + "/" + name); return err == nil })
			defer os.Remove(b.Work + "/" + name)
			return resources(t, p.Cmd.Process.Pid)
		}
		descriptors, resident := measure("before")
		more, larger := measure("held")
		t.Logf("%d connections: %d descriptors before, %d with them; %d KiB before, %d KiB with them", n, descriptors, more, resident, larger)
		if more > descriptors+4 {
			t.Errorf("%d connections cost the executor %d descriptors", n, more-descriptors)
		}
		// The executor itself varies by half of that. Two hundred bytes for each of ten thousand connections show.
		if larger > resident+2048 {
			t.Errorf("%d connections cost the executor %d KiB", n, larger-resident)
		}
		wantRun(t, p.Wait(t), 0, fmt.Sprint(n))
	})
}
