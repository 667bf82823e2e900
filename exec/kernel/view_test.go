package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// viewVariable tells a test process that it is the init of a sandbox in this directory.
const viewVariable = "SANDLOCK_TEST_VIEW"

// TestInitOfView is no test, but the init of the sandbox of [inView]: it changes the mounts and starts a command.
func TestInitOfView(t *testing.T) {
	dir := os.Getenv(viewVariable)
	if dir == "" {
		t.Skip("only for TestView")
	}
	check := func(what string, err error) {
		if err != nil {
			fmt.Printf("fails %s: %v\n", what, err)
			os.Exit(0)
		}
	}
	check("private mounts", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	check("bind", unix.Mount("/", dir+"/new", "", unix.MS_BIND|unix.MS_REC, ""))
	check("mask", unix.Mount("tmpfs", dir+"/new"+dir+"/masked", "tmpfs", 0, ""))
	if os.Getenv("SANDLOCK_TEST_PROC") == "private" {
		check("proc", unix.Mount("proc", dir+"/new/proc", "proc", 0, ""))
	}
	check("chdir", os.Chdir(dir+"/new"))
	check("pivot_root", unix.PivotRoot(".", "."))
	check("umount", unix.Unmount(".", unix.MNT_DETACH))
	check("write", os.WriteFile(dir+"/masked/secret", []byte("view"), 0o644))
	cmd := exec.Command("sleep", "1000")
	cmd.Dir, cmd.ExtraFiles = dir+"/masked", []*os.File{os.NewFile(3, "host's")}
	check("start", cmd.Start())
	fmt.Println("ready", cmd.Process.Pid)
	_, _ = io.ReadAll(os.Stdin)
	os.Exit(0)
}

// inside is a sandbox with other mounts, and a PID namespace, than this process.
type inside struct {
	root          Root
	dir           string
	init, command int // by this process's numbers
	number        int // of the command in its own namespace
}

func inView(t *testing.T, flags uintptr, proc string) inside {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"/new", "/masked"} {
		if err := os.Mkdir(dir+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/masked/secret", []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"/masked/secret", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	hosts, err := os.Open(dir + "/masked")
	if err != nil {
		t.Fatal(err)
	}
	defer hosts.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestInitOfView$")
	cmd.Env = append(os.Environ(), viewVariable+"="+dir, "SANDLOCK_TEST_PROC="+proc)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{hosts}, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if flags&syscall.CLONE_NEWUSER != 0 {
		// Init keeps its capabilities over execve as root of its namespace.
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("this host has no namespaces for us: %v", err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	s := inside{dir: dir, init: cmd.Process.Pid}
	var word string
	if _, err := fmt.Fscan(out, &word, &s.number); err != nil || word != "ready" {
		rest, _ := io.ReadAll(out)
		t.Skipf("this host has no such view for us: %s %s", word, rest)
	}
	for range 100 { // until the command has executed its program
		children, err := Children(s.init)
		if err != nil || len(children) != 1 {
			t.Fatalf("children of init: %v, %v", children, err)
		}
		s.command = children[0]
		if strings.HasPrefix(CommandName(s.command), "sleep") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	fd, err := unix.Open(procPath(s.init, "root"), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	s.root = NewRoot(fd)
	return s
}

func TestView(t *testing.T) {
	for name, flags := range map[string]uintptr{"mount and PID namespace": 0, "and user namespace": syscall.CLONE_NEWUSER} {
		for _, proc := range []string{"private", "host"} {
			t.Run(name+", "+proc+" proc", func(t *testing.T) {
				if flags == 0 && os.Getuid() != 0 {
					t.Skip("not root")
				}
				s := inView(t, flags, proc)
				t.Run("paths", s.paths)
				t.Run("elsewhere", s.elsewhere)
				t.Run("procfs", func(t *testing.T) { s.procfs(t, proc == "private") })
				t.Run("numbers", s.numbers)
			})
		}
	}
}

// An ordinary user has no more of the kernel than its own user namespace.
func TestViewAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it is one already")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestView$", "-test.v")
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, text)
	} else {
		t.Logf("%s", text)
	}
}

func (s inside) resolve(dir int32, path string) (Pin, error) {
	return s.root.Resolve(Base{TID: s.command, DirFD: dir}, path, true, 0)
}

func (s inside) paths(t *testing.T) {
	secret := s.dir + "/masked/secret"
	for _, path := range []string{
		secret, s.dir + "/link", "secret", "./secret", "../link", "../masked/secret", "/proc/self/cwd/secret", "/proc/self/cwd/../link",
		"/proc/self/root" + secret, "/proc/thread-self/root/../.." + secret,
	} {
		p, err := s.resolve(AtCWD, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if p.Path != secret || content(t, p) != "view" {
			t.Errorf("%s leads to %s", path, p.Path)
		}
		p.Close()
	}
	if got, err := s.root.Real(s.dir + "/link"); err != nil || got != secret {
		t.Errorf("the link leads to %s, %v", got, err)
	}
	program, err := exec.LookPath("sleep")
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if p, err2 := s.root.PinProgram(s.command); err != nil || err2 != nil || p.Path != program {
		t.Errorf("the program is %+v, %v, %v; want %s", p, err, err2, program)
	} else {
		p.Close()
	}
}

// The command holds a directory of the host's, whose path means the mask to it.
func (s inside) elsewhere(t *testing.T) {
	for _, path := range []string{"secret", ".", "../masked/secret"} {
		if p, err := s.resolve(3, path); err == nil {
			t.Errorf("%s: %+v holds %s", path, p, content(t, p))
			p.Close()
		}
	}
	for _, path := range []string{"/proc/self/fd/3", "/proc/self/fd/3/secret", "/dev/fd/3/secret"} {
		if p, err := s.resolve(AtCWD, path); err == nil {
			t.Errorf("%s: %+v", path, p)
			p.Close()
		}
	}
	if p, err := s.root.PinDescriptor(s.command, 3); err == nil {
		t.Errorf("the descriptor: %+v", p)
		p.Close()
	}
	if p, err := s.root.PinPath(s.command, 3, "secret", true); err == nil {
		t.Errorf("beneath the descriptor: %+v", p)
		p.Close()
	}
}

func (s inside) procfs(t *testing.T, private bool) {
	pid, init, threads := s.command, s.init, []int{s.init}
	if private {
		pid, init, threads = s.number, 1, nil
	}
	for tid := range threadsOf(t, s.init) {
		n, err := numbersOf(tid)
		if err != nil {
			continue
		}
		if private {
			threads = append(threads, n.threads[1])
		} else {
			threads = append(threads, n.threads[0])
		}
	}
	for _, path := range []string{"/proc/self/status", "/proc/thread-self/status", "/proc/" + strconv.Itoa(pid) + "/status"} {
		p, err := s.resolve(AtCWD, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got := statusNumbers([]byte(content(t, p)), "Pid:"); !slices.Equal(got, []int{pid}) {
			t.Errorf("%s is of %v, want %d", path, got, pid)
		}
		p.Close()
	}
	refused := []string{
		"/proc/" + strconv.Itoa(init), "/proc/self/uid_map", "/proc/self/task/../gid_map", "/proc/sys/net/core/somaxconn", "/proc/sys/user/max_user_namespaces",
		"/proc/sys/kernel/shmmax", "/proc/" + strconv.Itoa(init) + "/root/etc", "/proc/" + strconv.Itoa(pid) + "/root/etc", "/proc/" + strconv.Itoa(pid) + "/cwd/secret",
		"/proc/" + strconv.Itoa(os.Getpid()) + "/status", "/proc/mounts",
	}
	for _, n := range threads {
		refused = append(refused, "/proc/"+strconv.Itoa(n)+"/environ")
	}
	for _, path := range refused {
		if p, err := s.resolve(AtCWD, path); err == nil {
			t.Errorf("%s: %+v", path, p)
			p.Close()
		}
	}
	if p, err := s.resolve(AtCWD, "/proc/sys/kernel/random/uuid"); err != nil {
		t.Errorf("about the system: %v", err)
	} else {
		p.Close()
	}
}

func threadsOf(t *testing.T, pid int) map[int]Stat {
	t.Helper()
	found := map[int]Stat{}
	for tid, st := range threads(pid) {
		found[tid] = st
	}
	if len(found) < 2 {
		t.Fatalf("process %d has %d threads", pid, len(found))
	}
	return found
}

func (s inside) numbers(t *testing.T) {
	if pid, err := s.root.OwnPID(s.command); err != nil || pid != s.number {
		t.Errorf("the command is %d, %v; want %d", pid, err, s.number)
	}
	want := map[int]int{s.number: s.command, 1: s.init}
	for tid := range threadsOf(t, s.init) {
		if n, err := numbersOf(tid); err == nil {
			want[n.threads[1]] = tid
			thread, err := s.root.OwnTID(tid)
			pid, err2 := s.root.OwnPID(tid)
			if err != nil || err2 != nil || thread != n.threads[1] || pid != 1 {
				t.Errorf("thread %d is %d of %d, %v, %v", tid, thread, pid, err, err2)
			}
		}
	}
	for _, caller := range []int{s.command, s.init} {
		for number, tid := range want {
			if got, err := s.root.HostPID(caller, number); err != nil || got != tid {
				t.Errorf("%d is %d to %d, %v; want %d", number, got, caller, err, tid)
			}
		}
		for _, number := range []int{-1, 0, 1 << 20, os.Getpid() + 1<<21, s.init} {
			if _, there := want[number]; there {
				continue
			}
			if got, err := s.root.HostPID(caller, number); !errors.Is(err, unix.ESRCH) {
				t.Errorf("%d is %d to %d, %v; want ESRCH", number, got, caller, err)
			}
		}
	}
	if got, err := (Root{}).HostPID(s.command, 4711); err != nil || got != 4711 {
		t.Errorf("in a direct start 4711 is %d, %v", got, err)
	}
}
