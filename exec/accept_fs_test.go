package exec_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func Test_network_6_24_read_and_write_grants(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		readable := b.Dir("readable")
		b.File(readable+"/file", "content")
		b.File(b.Outside+"/file", "secret")
		artifact := b.Policy(b.Base(exectest.Grants{Read: []string{readable}}))

		wantRun(t, b.Run(artifact, "/bin/cat", readable+"/file"), 0, "content")
		wantFailure(t, b.Run(artifact, "/bin/cat", b.Outside+"/file"), "Permission denied")
		wantFailure(t, b.Run(artifact, "/bin/ls", b.Outside), "Permission denied")
		wantRun(t, b.Sh(artifact, "echo new > file && cat file && mkdir d && mv file d && rm -r d"), 0, "new")
		wantFailure(t, b.Sh(artifact, "echo x > "+readable+"/file"), "Permission denied")
		wantFailure(t, b.Sh(artifact, "echo x > "+readable+"/new"), "Permission denied")
		wantFailure(t, b.Sh(artifact, "rm -f "+readable+"/file"), "Permission denied")
		if got := b.Control("openat", readable+"/file", "w"); got != "ok" {
			t.Errorf("outside: write the read-only file: %q, want ok", got)
		}
	})
}

func Test_supervisor_8_99_no_etc_grant(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		wantFailure(t, b.Run(b.Policy(withoutEtc), "/bin/cat", "/etc/group"), "Permission denied")
		r := b.Run(b.Policy(b.Base(exectest.Grants{})), "/bin/cat", "/etc/group")
		if r.Code != 0 || !strings.Contains(r.Stdout, "root:") {
			t.Errorf("with a grant: exit %d, printed %q, want the groups\n%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}

const withoutEtc = `filesystem: read: ["/usr", "/lib", {path: "/lib64", optional: true}, "/bin", "/dev"]`

func Test_supervisor_8_103_ls(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		r := b.Run(b.Policy(b.Base(exectest.Grants{})), "ls", "/bin/")
		if r.Code != 0 || !strings.Contains(r.Stdout, "\nls\n") {
			t.Errorf("exit %d, want 0 and a list with ls\n%s", r.Code, r.Stderr)
		}
	})
}

func Test_network_6_26_grants_of_special_files(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		file := b.File(b.Outside+"/file", "content")
		fifo := b.Outside + "/fifo"
		if err := syscall.Mkfifo(fifo, 0o666); err != nil {
			t.Fatal(err)
		}
		artifact := b.Policy(b.Base(exectest.Grants{Read: []string{file, fifo}, Write: []string{"/dev/null"}}))
		// Opening a FIFO to look at it would wait for a writer: the start must not.
		wantRun(t, b.Run(artifact, "/bin/cat", file), 0, "content")
		wantRun(t, b.Sh(artifact, "echo gone > /dev/null; echo $?"), 0, "0")
		wantFailure(t, b.Run(artifact, "/bin/ls", b.Outside), "Permission denied")
		wantFailure(t, b.Sh(artifact, "echo x > "+file), "Permission denied")
	})
}

func Test_required_path_must_exist(t *testing.T) {
	b := exectest.NewBox(t, exectest.Self())
	missing := b.Outside + "/missing"
	r := b.Run(b.Policy(b.Base(exectest.Grants{Read: []string{missing}})), "/bin/true")
	if r.Code != 125 || !strings.Contains(r.Stderr, missing) {
		t.Errorf("exit %d, want 125 and a message that names %s\n%s", r.Code, missing, r.Stderr)
	}
	optional := fmt.Sprintf("filesystem: read: [\"/usr\", \"/lib\", {path: \"/lib64\", optional: true}, {path: %q, optional: true}]", missing)
	wantRun(t, b.Run(b.Policy(optional), "/usr/bin/echo", "ok"), 0, "ok")
}

// Inside a write grant everything works that works outside: a sandbox that breaks builds would be turned off.
func Test_write_grant_is_whole(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}))
		wantRun(t, b.Sh(artifact, "echo a > a && chmod 600 a && touch -d @1000 a && stat -c '%a %Y' a"), 0, "600 1000")
		for _, script := range []string{
			"mkdir -p d/e && mv a d/e/ && ln d/e/a hard && ln -s d/e/a soft && cat hard soft",
			"mkfifo p && test -p p && truncate -s 10 hard && wc -c < hard",
			"cp -a d copy && tar -cf t.tar copy && mkdir x && tar -xpf t.tar -C x && rm -r x copy d hard soft p t.tar",
		} {
			if r := b.Sh(artifact, script); r.Code != 0 {
				t.Errorf("%q: exit %d\n%s", script, r.Code, r.Stderr)
			}
		}
		if left, err := os.ReadDir(b.Work); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}
