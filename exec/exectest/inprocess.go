package exectest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// toolsVariable names the folder of the programs under test for a test process that cannot build them: one that runs as an
// ordinary user, or on a machine without Go, to which somebody brought them. Each is in a folder of its own there
// (bin-probe/probe); sandlock-proxy lies beside sandlock-exec.
const toolsVariable = "SANDLOCK_EXECTEST_TOOLS"

// tools is the folder of the programs under test.
func tools() string {
	if given := os.Getenv(toolsVariable); given != "" {
		return given
	}
	return scratch
}

// InProcess runs a test of the Go API, which starts its commands from the test's own process: as the current user, and
// where that is root, in a second test process as an ordinary user, too.
func InProcess(t *testing.T, test func(t *testing.T, b *Box)) {
	t.Helper()
	t.Run(fmt.Sprintf("uid%d", os.Getuid()), func(t *testing.T) { test(t, NewBox(t, Self())) })
	if Self().Root() {
		t.Run(fmt.Sprintf("uid%d", Nobody), func(t *testing.T) { again(t) })
	}
}

// again runs the test that t belongs to in another process, as an ordinary user.
func again(t *testing.T) {
	t.Helper()
	Compiler(t)
	Executor(t)
	Probe(t)
	self, err := copySelf()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command(self, "-test.run", "^"+name+"$", "-test.v", "-test.timeout", "2m")
	cmd.Dir = scratch
	cmd.Env = append(os.Environ(), toolsVariable+"="+tools(), "HOME="+scratch, "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: Nobody, Gid: Nobody}, Pdeathsig: syscall.SIGKILL}
	text, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(text), "--- PASS: "+name) {
		t.Errorf("as uid %d: %v\n%s", Nobody, err, text)
	}
}

// copySelf puts the test program where an ordinary user may execute it.
func copySelf() (string, error) {
	path := filepath.Join(scratch, "self.test")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(out, in); err != nil {
		return "", err
	}
	if err := out.Chmod(0o755); err != nil {
		return "", err
	}
	return path, out.Close()
}
