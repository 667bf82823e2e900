package exectest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Place is a kind of host that tests can make out of this one: a test process that others started confined.
type Place struct {
	name   string
	attr   func(u User) *syscall.SysProcAttr
	settle func() error // makes the place, in the process that attr started; nil when there is no more to it
	init   bool         // the process that made the place stays, as its process 1
	within bool         // what is tested there needs user namespaces of its own
}

// The places.
var (
	// NoUserNamespaces has sysctl user.max_user_namespaces 0. Tests are an ordinary user there.
	NoUserNamespaces = Place{name: "no user namespaces", settle: forbidUserNamespaces, attr: func(u User) *syscall.SysProcAttr {
		return inUserNamespace(ordinary(u), ordinary(u), 0, unix.CAP_SYS_RESOURCE)
	}}
	// FilteredNamespaces is beneath a seccomp filter that refuses to make user namespaces, as containers have it. Tests are
	// an ordinary user there.
	FilteredNamespaces = Place{name: "filtered namespaces", settle: filterUserNamespaces, attr: func(u User) *syscall.SysProcAttr {
		a := &syscall.SysProcAttr{}
		if u.Root() {
			a.Credential = &syscall.Credential{Uid: Nobody, Gid: Nobody}
		}
		return a
	}}
	// MaskedProc has parts of its /proc covered, as containers have: user namespaces can be made, a new /proc cannot be
	// mounted in them. Tests are who they are outside; root may mount a new one without a user namespace.
	MaskedProc = Place{name: "masked proc", settle: maskProc, init: true, within: true, attr: func(u User) *syscall.SysProcAttr {
		if u.Root() {
			return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
		}
		return inUserNamespace(u, u, syscall.CLONE_NEWNS|syscall.CLONE_NEWPID, unix.CAP_SYS_ADMIN)
	}}
	// UnshareUr is a user and mount namespace in which an ordinary user is root, as "unshare -Urm" makes them. No other id
	// exists there: tests must not be [AsUsers].
	UnshareUr = Place{name: "unshare -Ur", within: true, attr: func(u User) *syscall.SysProcAttr {
		return inUserNamespace(ordinary(u), User{}, syscall.CLONE_NEWNS)
	}}
)

func ordinary(u User) User {
	if u.Root() {
		return User{Nobody, Nobody}
	}
	return u
}

// inUserNamespace has a user be another one, in a namespace where it can use capabilities even after its exec.
func inUserNamespace(outside, inside User, more uintptr, capabilities ...uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | more,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: inside.UID, HostID: outside.UID, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: inside.GID, HostID: outside.GID, Size: 1}},
		Credential:  &syscall.Credential{Uid: uint32(inside.UID), Gid: uint32(inside.GID), NoSetGroups: true},
		AmbientCaps: capabilities,
	}
}

// placeVariable names the place that a test process is in; with settlePrefix it has yet to be made.
const (
	placeVariable = "SANDLOCK_EXECTEST_PLACE"
	settlePrefix  = "make "
)

// In runs a test in a place: the whole test function that t belongs to runs once more, in a process there, where In calls
// test with a box for the user that the tests are there. A host that the place cannot be made on skips the test.
//
// Programs under test other than sandlock-compile, sandlock-exec and the probe must be asked for before.
func (p Place) In(t *testing.T, test func(t *testing.T, b *Box)) {
	t.Helper()
	if here := os.Getenv(placeVariable); here == p.name {
		t.Run(p.name, func(t *testing.T) { test(t, NewBox(t, Self())) })
		return
	} else if here != "" { // another place's turn
		return
	}
	t.Run(p.name, func(t *testing.T) { p.again(t) })
}

// WithoutNamespaces runs a test where user namespaces cannot be made, once for each usual cause, as an ordinary user.
func WithoutNamespaces(t *testing.T, test func(t *testing.T, b *Box)) {
	t.Helper()
	NoUserNamespaces.In(t, test)
	FilteredNamespaces.In(t, test)
}

// UserNamespaces skips a test where an ordinary user cannot make a user namespace and mount in it, as unshare(1) finds. As
// [Lacks], it fails the test instead if SANDLOCK_TEST_ALL is set.
func UserNamespaces(tb testing.TB) {
	tb.Helper()
	r := Run(tb, Opts{User: Ordinary(), Args: []string{Program(tb, "/usr/bin/unshare"), "-Urm", "/bin/true"}, Dir: "/"})
	if r.Code == 0 {
		return
	}
	if os.Getenv("SANDLOCK_TEST_ALL") != "" {
		tb.Fatalf("this host should allow user namespaces: %s", r.Stderr)
	}
	tb.Skipf("no user namespaces here: %s", r.Stderr)
}

// placeMissing is the exit code of a process that could not make its place.
const placeMissing = 77

func (p Place) again(t *testing.T) {
	t.Helper()
	if p.within {
		UserNamespaces(t)
	}
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
	place := p.name
	if p.settle != nil {
		place = settlePrefix + place
	}
	cmd.Env = append(os.Environ(), toolsVariable+"="+tools(), placeVariable+"="+place, "HOME="+scratch, "TMPDIR=/tmp")
	cmd.SysProcAttr = p.attr(Self())
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit), err != nil && exit.ExitCode() == placeMissing:
		p.missing(t, fmt.Errorf("%w\n%s", err, text))
	case err == nil && (strings.Contains(string(text), "--- SKIP: "+name+" ") || strings.Contains(string(text), "--- SKIP: "+t.Name()+" ")):
		t.Skipf("%s: %s", p.name, text)
	case err != nil || !strings.Contains(string(text), "--- PASS: "+t.Name()+" "): // the subtest of the same name, in the place
		t.Errorf("%s: %v\n%s", p.name, err, text)
	}
}

// missing is [Lacks] for what no package brings.
func (p Place) missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("SANDLOCK_TEST_ALL") != "" {
		t.Fatalf("this host should allow to make the place %q: %v", p.name, err)
	}
	t.Skipf("place %q cannot be made here: %v", p.name, err)
}

// settle makes the place that this process was started for, and then executes the tests in it. It returns where there is
// nothing to do.
func settle() error {
	name, ok := strings.CutPrefix(os.Getenv(placeVariable), settlePrefix)
	if !ok {
		return nil
	}
	runtime.LockOSThread() // what is set here, such as a filter, is this thread's, and stays with its exec
	for _, p := range []Place{NoUserNamespaces, FilteredNamespaces, MaskedProc} {
		if p.name != name {
			continue
		}
		if err := p.settle(); err != nil {
			return err
		}
		// No capability may be left: it would make namespaces without a user namespace.
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			return fmt.Errorf("clear ambient capabilities: %w", err)
		}
		if err := os.Setenv(placeVariable, name); err != nil {
			return err
		}
		if p.init {
			return beInit()
		}
		return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	return fmt.Errorf("no place %q", name)
}

func forbidUserNamespaces() error {
	return os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
}

// filterUserNamespaces refuses unshare and clone with CLONE_NEWUSER by EPERM, and clone3, whose flags a filter cannot see,
// by ENOSYS: the C library falls back to clone then.
func filterUserNamespaces() error {
	const (
		allow, errno      = 0x7fff0000, 0x00050000
		load, equal, bits = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret               = unix.BPF_RET | unix.BPF_K
		number, argument  = 0, 16 // offsets in struct seccomp_data; the low half of the first argument
	)
	var program []byte
	for _, i := range []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_CLONE3, Jf: 1},
		{Code: ret, K: errno | uint32(unix.ENOSYS)},
		{Code: equal, K: unix.SYS_CLONE, Jt: 1},
		{Code: equal, K: unix.SYS_UNSHARE, Jf: 3},
		{Code: load, K: argument},
		{Code: bits, K: unix.CLONE_NEWUSER, Jf: 1},
		{Code: ret, K: errno | uint32(unix.EPERM)},
		{Code: ret, K: allow},
	} {
		program = binary.NativeEndian.AppendUint16(program, i.Code)
		program = append(program, i.Jt, i.Jf)
		program = binary.NativeEndian.AppendUint32(program, i.K)
	}
	filter, err := kernel.FilterProgram(program)
	if err != nil {
		return err
	}
	if err := kernel.NoNewPrivs(); err != nil {
		return err
	}
	return kernel.FilterProcess(filter, 0)
}

// maskProc covers what container runtimes cover, as far as this kernel has it.
func maskProc() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	covered := 0
	for _, file := range []string{"kcore", "keys", "timer_list", "interrupts"} {
		switch err := unix.Mount("/dev/null", "/proc/"+file, "", unix.MS_BIND, ""); {
		case err == nil:
			covered++
		case !errors.Is(err, unix.ENOENT):
			return fmt.Errorf("cover /proc/%s: %w", file, err)
		}
	}
	for _, dir := range []string{"acpi", "scsi"} {
		switch err := unix.Mount("tmpfs", "/proc/"+dir, "tmpfs", unix.MS_RDONLY, ""); {
		case err == nil:
			covered++
		case !errors.Is(err, unix.ENOENT):
			return fmt.Errorf("cover /proc/%s: %w", dir, err)
		}
	}
	if covered == 0 {
		return errors.New("/proc has nothing to cover")
	}
	return nil
}

// beInit runs the tests beneath this process, which is the first of its PID namespace, and reaps what becomes an orphan.
func beInit() error {
	tests, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the tests, process %s: %w", strconv.Itoa(tests.Pid), err)
		case pid == tests.Pid && status.Signaled():
			os.Exit(128 + int(status.Signal()))
		case pid == tests.Pid:
			os.Exit(status.ExitStatus())
		}
	}
}
