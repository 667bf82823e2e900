package exec_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Each example policy runs the program that it is for, and refuses what it says it refuses.
func TestExamplePolicies(t *testing.T) {
	const (
		readShadow = "cat /etc/shadow"
		writeUsr   = "touch /usr/local/bin/planted"
		makeC      = `printf 'int puts(const char*);\nint main(void){puts("built");}\n' >a.c &&
printf 'a: a.c\n\tgcc -o a a.c\n' >Makefile && make -s a && ./a`
		pythonWrite = `import pathlib; pathlib.Path("x").write_text("x")`
		reach       = `import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)`
		// A database on a unix socket, and a service on a port that the host has as well.
		database = `
import os, socket, threading
db = socket.socket(socket.AF_UNIX)
db.bind(os.environ["TMPDIR"] + "/db")
db.listen()
client = socket.socket(socket.AF_UNIX)
client.connect(db.getsockname())
db.accept()[0].sendall(b"ran")
web = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
socket.create_connection(web.getsockname())
web.accept()
print(client.recv(3).decode())`
	)
	// Refused by the resolver or the rules, and by nobody else: the host serves the port.
	host := listen(t, "tcp4", "127.0.0.1:0")
	if taken, err := net.Listen("tcp4", "127.0.0.1:3000"); err == nil { // or somebody has it already
		defer taken.Close()
	}
	here := []string{"/usr/bin/python3", "-c", reach, "127.0.0.1", port(host)}
	tests := []struct {
		policy, needs string
		run           []string
		want          string
		refused       [][]string // commands that must fail of themselves
	}{
		{"minimal", "", []string{"/bin/echo", "ran"}, "ran", [][]string{{"/bin/sh", "-c", "cat /etc/passwd"}, {"/bin/sh", "-c", "chmod 600 ."}}},
		{"python", "/usr/bin/python3", []string{"/usr/bin/python3", "-c", "import json,ssl,sqlite3,threading,subprocess; print(subprocess.check_output(['echo','ran']).decode())"}, "ran",
			[][]string{{"/usr/bin/python3", "-c", `open("/etc/shadow")`}, {"/usr/bin/python3", "-c", pythonWrite}, {"/usr/bin/python3", "-c", `import socket; socket.create_connection(("127.0.0.1", 9))`}}},
		{"node", "/usr/bin/node", []string{"/usr/bin/node", "-e", "setTimeout(() => console.log(require('child_process').execSync('echo ran').toString()), 10)"}, "ran",
			[][]string{{"/usr/bin/node", "-e", `require("fs").readFileSync("/etc/shadow")`}, {"/usr/bin/node", "-e", `require("fs").writeFileSync("x", "x")`}}},
		{"build", "/usr/bin/gcc", []string{"/bin/sh", "-c", makeC}, "built", [][]string{{"/bin/sh", "-c", readShadow}, {"/bin/sh", "-c", writeUsr}}},
		{"agent", "/usr/bin/python3", []string{"/bin/sh", "-c", "echo ran >f && chmod 700 f && cp -p f g && cat g && rm f g"}, "ran", [][]string{here, {"/bin/sh", "-c", readShadow}, {"/bin/sh", "-c", writeUsr}, {"/bin/sh", "-c", "chmod 600 $OLDPWD"}}},
		{"fetch", "/usr/bin/python3", []string{"/bin/sh", "-c", "echo ran >f && cat f"}, "ran", [][]string{here, {"/bin/sh", "-c", readShadow}, {"/usr/bin/python3", "-c", reach, "example.com", "443"}}},
		{"public", "/usr/bin/python3", []string{"/usr/bin/python3", "-c", "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('9.9.9.9', 53)); print('ran')"}, "ran",
			[][]string{here, {"/usr/bin/python3", "-c", pythonWrite}, {"/bin/sh", "-c", readShadow}}},
		{"dev", "/usr/bin/python3", []string{"/usr/bin/python3", "-c", database}, "ran", [][]string{here, {"/bin/sh", "-c", readShadow}, {"/bin/sh", "-c", writeUsr}}},
		{"review", "", []string{"/bin/sh", "-c", "mkdir $TMPDIR/notes && echo ran >$TMPDIR/notes/1 && cat $TMPDIR/notes/1"}, "ran", [][]string{
			{"/bin/sh", "-c", "echo x >f"}, {"/bin/sh", "-c", "mkdir $TMPDIR/notes && echo x >$TMPDIR/notes/1 && rm $TMPDIR/notes/1"}, {"/bin/sh", "-c", "curl --version || exit 1"},
			{"/bin/sh", "-c", "/usr/bin/git --no-pager push || exit 1"}, {"/bin/sh", "-c", "mkdir $TMPDIR/notes && echo x >$TMPDIR/notes/1 && python3 -c 'import os; open(os.environ[\"TMPDIR\"]+\"/notes/1\")'"},
		}},
		{"deterministic", "/usr/bin/python3", []string{"/usr/bin/python3", "-c", "import time; print(open('/dev/urandom', 'rb').read(4).hex(), time.gmtime().tm_year)"}, "0c0e5447 2000", [][]string{{"/usr/bin/python3", "-c", pythonWrite}}},
		{"default", "", []string{"/bin/sh", "-c", "echo ran >f && cat f && echo x >$TMPDIR/x && rm f"}, "ran", [][]string{{"/bin/sh", "-c", readShadow}, {"/bin/sh", "-c", writeUsr}}},
	}
	exectest.Helper(t) // names in rules need it
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, tc := range tests {
			t.Run(tc.policy, func(t *testing.T) {
				if tc.needs != "" {
					exectest.Program(t, tc.needs)
				}
				b := b.In(t)
				artifact := example(t, b, tc.policy)
				wantRun(t, b.Run(artifact, tc.run...), 0, tc.want)
				for _, args := range tc.refused {
					if r := b.Run(artifact, args...); r.Code == 0 || r.Code >= 124 {
						t.Errorf("%q: exit %d, want the command's own failure\n%s%s", args, r.Code, r.Stdout, r.Stderr)
					}
				}
			})
		}
	})
}

// example compiles one of policies/ and returns the artifact, which lies where no example lets a command write.
func example(t *testing.T, b *exectest.Box, name string) string {
	t.Helper()
	source, err := filepath.Abs("../policies/" + name + ".cue")
	if err != nil {
		t.Fatal(err)
	}
	artifact := filepath.Join(b.Dir("artifact-"+name), name+".sbx")
	r := exectest.Run(t, exectest.Opts{User: exectest.Self(), Args: []string{exectest.Compiler(t), source, "-o", artifact}})
	if r.Code != 0 {
		t.Fatalf("compile %s: exit %d\n%s", name, r.Code, r.Stderr)
	}
	if err := os.Chmod(artifact, 0o644); err != nil {
		t.Fatal(err)
	}
	return artifact
}

// The server policy serves its port, no other, and reaches nobody.
func TestExampleServer(t *testing.T) {
	python := python(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := example(t, b, "server")
		port, other := freePort(t), freePort(t)
		b.File(filepath.Join(b.Work, "index.html"), "served")
		o := b.Opts(artifact, python, "-m", "http.server", "--bind", "127.0.0.1", port)
		o.Flags = append(o.Flags, "-p", "port="+port)
		exectest.Start(t, o)
		var page string
		exectest.Within(t, 20*time.Second, "the server answers", func() bool {
			c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
			if err != nil {
				return false
			}
			defer c.Close()
			fmt.Fprint(c, "GET /index.html HTTP/1.0\r\n\r\n")
			buf := make([]byte, 4096)
			for n := 0; ; {
				got, err := c.Read(buf[n:])
				if n += got; err != nil {
					page = string(buf[:n])
					return true
				}
			}
		})
		if !strings.Contains(page, "served") {
			t.Errorf("page %q, want the file", page)
		}
		o = b.Opts(artifact, python, "-c", "import socket; socket.create_server(('127.0.0.1', "+other+"))")
		o.Flags = append(o.Flags, "-p", "port="+port)
		wantFailure(t, exectest.Run(t, o), "Permission denied")
		o.Args = []string{python, "-c", "import socket; socket.create_connection(('127.0.0.1', " + port + "))"}
		wantFailure(t, exectest.Run(t, o), "Permission denied")
		o.Flags = []string{"-p", "port=0"}
		if r := exectest.Run(t, o); r.Code != 125 || !strings.Contains(r.Stderr, "port") {
			t.Errorf("port=0: exit %d, %q; want 125", r.Code, r.Stderr)
		}
	})
}
