//go:build linux && (amd64 || arm64)

package seccomp_test

import (
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
	"github.com/sandlock-go/sandlock/ir/query"
)

// probes are calls whose outcome on the real kernel is compared with the table. Those that the table allows are made
// so that they fail or do nothing; only their errno must differ from a denial.
var probes = []call{
	sys("getpid"), sys("getppid"), sys("sched_yield"),
	sys("mount"), sys("umount2"), sys("unshare"), sys("setns"), sys("bpf", 99), sys("ptrace", 99), sys("keyctl", 99),
	sys("io_uring_setup", 0, 0), sys("open_tree", dirty), sys("personality", 0xffffffff), sys("process_vm_readv", 0),
	sys("clone3"), sys("pidfd_open", 1), sys("fchmod", 1<<30), sys("mq_unlink"), sys("shmget", 0, 0, 0),
	sys("clone", 0x10000000|17), sys("clone", 0x20000),
	sys("socket", 16, 3, 9), sys("socket", 17, 3, 0), sys("socket", 38, 5, 0), sys("socket", 40, 1, 0), sys("socket", 1, 1, 0),
	sys("socket", 2, 3, 1), sys("socket", 2, 2, 0), sys("socket", 10, 2, 0), sys("socket", 2, 2, 1),
	sys("socket", 2, 1, 262), sys("socket", 2, 1, 132), sys("socket", 2, 1|dirty, 262|dirty), sys("socket", 2, 10, 0),
	sys("socket", 2, 1, 0), sys("socket", 10, 1|0x80000, 6), sys("socketpair", 1, 2, 0), sys("socketpair", 2, 1, 0),
	sys("listen", 1<<30, 1), sys("sendto", 1<<30, 0, 0, 0x20000000), sys("sendto", 1<<30, 0, 0, 0),
	sys("sendmsg", 1<<30, 0, 0x20000000), sys("sendmmsg", 1<<30, 0, 1, 0x20000000), sys("setsockopt", 1<<30, 6, 30),
	sys("setsockopt", 1<<30, 6, 1),
	sys("ioctl", 1<<30, 0x5412), sys("ioctl", 1<<30, 0x5412|dirty), sys("ioctl", 1<<30, 0x8912), sys("ioctl", 1<<30, 0x8946|dirty),
	sys("ioctl", 1<<30, 0x40086602), sys("ioctl", 1<<30, 0x5401), sys("ioctl", 1<<30, 0x894b),
	sys("prctl", 4, 1), sys("prctl", 1, 9), sys("prctl", 28|dirty), sys("prctl", 0x59616d61), sys("prctl", 2, 0), sys("prctl", 3),
	sys("prlimit64", 1, 7), sys("prlimit64", 0, 7), sys("prlimit64", dirty, 7), sys("setpriority", 2, 0, 0),
	sys("setpriority", 0, 1, 0), sys("sched_setaffinity", 1, 0, 0), sys("sched_setaffinity", 0, 0, 0), sys("ioprio_set", 3, 0),
	sys("madvise", 0, 0, 99), sys("madvise", 0, 0, 12), sys("tee", 1<<30, 1<<30, 1<<40), sys("tee", 1<<30, 1<<30, 1),
}

// kernelRequest has no notification, since the test installs the filter without a listener.
var kernelRequest = seccomp.Request{Args: []seccomp.ArgRule{
	{Syscall: "madvise", Arg: 2, Op: ir.OpEq, Value: 12, Then: seccomp.ThenDeny},
	{Syscall: "tee", Arg: 2, Op: ir.OpGe, Value: 1 << 33, Then: seccomp.ThenDeny},
}}

const probeEnv = "SECCOMP_TEST_PROBE"

// TestKernel installs a filter in a process of its own and compares what the kernel answers with the table.
func TestKernel(t *testing.T) {
	if os.Getenv(probeEnv) != "" {
		probeKernel()
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKernel$")
	cmd.Env = append(os.Environ(), probeEnv+"=1")
	out, err := cmd.CombinedOutput()
	switch {
	case strings.Contains(string(out), "SKIP"):
		t.Skipf("the kernel takes no filter here: %s", out)
	case err != nil || !strings.Contains(string(out), "probed"):
		t.Fatalf("probe: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// probeKernel runs in the child process and exits it.
func probeKernel() {
	arch, _ := abi.ParseArch(runtime.GOARCH)
	table, err := seccomp.Table(arch, kernelRequest)
	if err != nil {
		fail(1, err)
	}
	prog, err := seccomp.Assemble(arch, table, seccomp.Hot(arch))
	if err != nil {
		fail(1, err)
	}
	runtime.LockOSThread() // a filter belongs to a thread
	if err := install(prog); err != nil {
		fmt.Println("SKIP:", err)
		os.Exit(0)
	}
	wrong := 0
	check := func(what string, nr uint32, args [6]uint64) {
		want := query.Syscall(table, nr, args).Action
		_, _, errno := unix.RawSyscall6(uintptr(nr), uintptr(args[0]), uintptr(args[1]), uintptr(args[2]),
			uintptr(args[3]), uintptr(args[4]), uintptr(args[5]))
		denied := want.Kind == ir.ActErrno && errno == unix.Errno(want.Errno)
		// An allowed call may fail in any way but those that the filter would answer with.
		passed := want == ir.Allow && errno != unix.EPERM && errno != unix.ENOSYS
		if !denied && !passed {
			wrong++
			fmt.Printf("%s%#x: the kernel says %v, the table %+v\n", what, args, errno, want)
		}
	}
	count := 0
	for _, p := range probes {
		nr, ok := abi.SyscallNumber(arch, p.name)
		if !ok {
			continue
		}
		var args [6]uint64
		copy(args[:], p.args)
		check(p.name, nr, args)
		count++
	}
	for _, nr := range []uint32{472, 600, 1023, abi.X32Bit, abi.X32Bit | 39, 0x80000000} {
		check(fmt.Sprint("number ", nr), nr, [6]uint64{})
		count++
	}
	if wrong > 0 {
		fail(1, fmt.Errorf("%d of %d probes differ", wrong, count))
	}
	fmt.Println("probed", count, "calls")
	os.Exit(0)
}

func install(prog []byte) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	insns, err := bpf.Decode(prog)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(insns))
	for i, in := range insns {
		filter[i] = unix.SockFilter{Code: in.Code, Jt: in.JT, Jf: in.JF, K: in.K}
	}
	fprog := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	const setModeFilter = 1
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, setModeFilter, 0, reflect.ValueOf(fprog).Pointer())
	runtime.KeepAlive(fprog)
	if errno != 0 {
		return errno
	}
	return nil
}

func fail(code int, err error) {
	fmt.Println(err)
	os.Exit(code)
}
