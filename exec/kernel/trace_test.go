package kernel

import (
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A seized process stops when it has executed a program, before that runs, and shows it then.
func TestSeizedProcessStopsAtExec(t *testing.T) {
	runtime.LockOSThread() // all ptrace calls come from one thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/bin/sh", "-c", "echo ready; read x; exec /bin/echo one two")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The shell's own execve must be over.
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if err := Seize(pid); err != nil {
		t.Skipf("cannot trace here: %v", err)
	}
	if _, stopped, err := Stopped(pid); stopped || err != nil || Exited(pid) {
		t.Fatalf("a seized process: stopped %v, %v; exited %v", stopped, err, Exited(pid))
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if Exited(pid) {
			t.Fatal("the program ran to its end")
		}
		stop, stopped, err := Stopped(pid)
		if err != nil || time.Now().After(end) {
			t.Fatalf("no stop: %v", err)
		}
		if !stopped {
			continue
		}
		if !stop.Exec() {
			_ = Detach(pid, stop.Signal)
			t.Fatalf("stop %+v, want that of an exec", stop)
		}
		break
	}
	argv, err := Arguments(pid)
	if err != nil || len(argv) != 3 || argv[2] != "two" {
		t.Errorf("arguments %q, %v", argv, err)
	}
	pin, err := (Root{}).PinProgram(pid)
	if err != nil || pin.Path == "" {
		t.Errorf("program %+v, %v", pin, err)
	}
	pin.Close()
	if err := Detach(pid, 0); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, _, err := Stopped(pid); err != unix.ECHILD {
		t.Errorf("a process that is gone: %v, want ErrNotTraced", err)
	}
}

func TestResolve(t *testing.T) {
	self := unix.Gettid()
	for path, want := range map[string]string{
		"/proc/self/exe":             "", // this program, wherever it is
		"/etc/../etc/passwd":         "/etc/passwd",
		"/proc/self/root/etc/passwd": "/etc/passwd",
		"/proc/cpuinfo":              "/proc/cpuinfo",
	} {
		p, err := (Root{}).Resolve(Base{TID: self, DirFD: AtCWD}, path, true, 0)
		if err != nil || want != "" && p.Path != want {
			t.Errorf("%s: %+v, %v; want %s", path, p, err, want)
			continue
		}
		p.Close()
	}
	// What belongs to this process itself is not for a caller, by whatever way it is named.
	for _, path := range []string{"/proc/self/maps", "/proc/self/environ", "/proc/self", "/proc/thread-self/maps", "/etc/mtab"} {
		p, err := (Root{}).Resolve(Base{TID: self, DirFD: AtCWD}, path, true, 0)
		if err == nil {
			t.Errorf("%s: %+v, want a refusal", path, p)
			p.Close()
		}
	}
	for _, path := range []string{"/proc/self/fd/0/x", "/proc/1/root/etc", "", "/proc/self/fd/99999"} {
		if p, err := (Root{}).Resolve(Base{TID: self, DirFD: AtCWD}, path, true, 0); err == nil {
			t.Errorf("%q: %+v, want an error", path, p)
			p.Close()
		}
	}
	dir, name, slash, err := (Root{}).ResolveParent(Base{TID: self, DirFD: AtCWD}, "/etc//new///")
	if err != nil || dir.Path != "/etc" || name != "new" || !slash {
		t.Errorf("parent %+v, %q, %v, %v", dir, name, slash, err)
	}
	dir.Close()
}
