package confine

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

// What the Go runtime and package net call, what waits often first. All other calls fail with EPERM.
var (
	calls = []string{
		"futex", "epoll_pwait", "epoll_wait", "read", "write", "recvmsg", "recvfrom",
		"close", "getsockname", "getpeername", "getsockopt", "setsockopt", "shutdown", "epoll_ctl", "epoll_create1",
		"eventfd2", "fcntl", "nanosleep", "clock_nanosleep", "clock_gettime", "gettimeofday", "sched_yield", "getrandom", "mmap",
		"munmap", "mprotect", "madvise", "brk", "rt_sigreturn", "rt_sigprocmask", "rt_sigaction", "sigaltstack", "gettid", "getpid",
		"exit", "exit_group", "restart_syscall", "set_robust_list", "rseq", "sched_getaffinity", "uname", "poll", "ppoll",
		"timer_create", "timer_settime", "timer_delete",
	}
	// own are for those that make sockets, and read files: which, Landlock says.
	own = []string{
		"accept4", "connect", "bind", "openat", "newfstatat", "fstat", "lseek", "pread64", "readlinkat", "getdents64",
	}
	// given are for those whose sockets are given, and who pass bytes from one to another.
	given = []string{"writev", "splice", "pipe2"}
)

// filter installs the filter on every thread.
func filter(socketsGiven bool) error {
	arch, ok := abi.ParseArch(runtime.GOARCH)
	if !ok {
		return fmt.Errorf("no filter for %s", runtime.GOARCH)
	}
	program := bpf.Encode(program(arch, uint32(os.Getpid()), socketsGiven))
	if err := bpf.Verify(program, arch); err != nil {
		return err
	}
	f, err := kernel.FilterProgram(program)
	if err != nil {
		return err
	}
	return kernel.FilterProcess(f, 0)
}

func program(arch abi.Arch, pid uint32, socketsGiven bool) []bpf.Insn {
	ret := func(r bpf.Return) bpf.Insn { return bpf.Insn{Code: bpf.Ret, K: uint32(r)} }
	allow, refuse := ret(bpf.RetAllow), ret(bpf.RetErrno|bpf.Return(unix.EPERM))
	arg := func(i uint32) bpf.Insn { return bpf.Insn{Code: bpf.LdAbs, K: bpf.OffArgs + 8*i} }
	p := []bpf.Insn{
		{Code: bpf.LdAbs, K: bpf.OffArch}, {Code: bpf.Jeq, K: arch.Audit(), JT: 1}, ret(bpf.RetKillProcess),
		{Code: bpf.LdAbs, K: bpf.OffNr},
	}
	if arch == abi.AMD64 {
		p = append(p, bpf.Insn{Code: bpf.Jge, K: 0x40000000, JF: 1}, refuse) // x32
	}
	when := func(name string, then ...bpf.Insn) {
		if nr, ok := abi.SyscallNumber(arch, name); ok {
			p = append(append(p, bpf.Insn{Code: bpf.Jeq, K: nr, JF: uint8(len(then))}), then...)
		}
	}
	more := own
	if socketsGiven {
		more = given
	}
	for _, name := range slices.Concat(calls, more) {
		when(name, allow)
	}
	// TCP fast open connects by sending, past Landlock.
	fastOpen := bpf.Insn{Code: bpf.Jset, K: unix.MSG_FASTOPEN, JF: 1}
	when("sendto", arg(3), fastOpen, refuse, allow)
	when("sendmsg", arg(2), fastOpen, refuse, allow)
	when("clone", arg(0), bpf.Insn{Code: bpf.Jset, K: unix.CLONE_THREAD, JF: 1}, allow, refuse)
	when("tgkill", arg(0), bpf.Insn{Code: bpf.Jeq, K: pid, JF: 1}, allow, refuse) // how the runtime preempts
	if socketsGiven {
		return append(p, refuse)
	}
	when("socket",
		arg(0), bpf.Insn{Code: bpf.Jeq, K: unix.AF_INET, JT: 1}, bpf.Insn{Code: bpf.Jeq, K: unix.AF_INET6, JF: 9},
		arg(1), bpf.Insn{Code: bpf.And, K: 0xff},
		bpf.Insn{Code: bpf.Jeq, K: unix.SOCK_STREAM, JT: 1}, bpf.Insn{Code: bpf.Jeq, K: unix.SOCK_DGRAM, JF: 5},
		// MPTCP above all: Landlock knows TCP alone.
		arg(2), bpf.Insn{Code: bpf.Jeq, K: 0, JT: 2}, bpf.Insn{Code: bpf.Jeq, K: unix.IPPROTO_TCP, JT: 1},
		bpf.Insn{Code: bpf.Jeq, K: unix.IPPROTO_UDP, JF: 1}, allow, refuse)
	return append(p, refuse)
}
