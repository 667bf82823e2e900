package confine

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

func TestFilter(t *testing.T) {
	const pid = 42
	for _, arch := range abi.Arches {
		insns := program(arch, pid, false)
		if err := bpf.Verify(bpf.Encode(insns), arch); err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			call string
			args [6]uint64
			ok   bool
		}{
			{"read", [6]uint64{}, true},
			{"epoll_pwait", [6]uint64{}, true},
			{"openat", [6]uint64{}, true},
			{"sendto", [6]uint64{3, 0, 0, unix.MSG_NOSIGNAL}, true},
			{"sendto", [6]uint64{3, 0, 0, unix.MSG_FASTOPEN | unix.MSG_NOSIGNAL}, false},
			{"sendmsg", [6]uint64{3, 0, 0}, true},
			{"sendmsg", [6]uint64{3, 0, unix.MSG_FASTOPEN}, false},
			{"execve", [6]uint64{}, false},
			{"execveat", [6]uint64{}, false},
			{"ptrace", [6]uint64{}, false},
			{"kill", [6]uint64{pid, 9}, false},
			{"pidfd_open", [6]uint64{}, false},
			{"io_uring_setup", [6]uint64{}, false},
			{"clone", [6]uint64{unix.CLONE_VM | unix.CLONE_THREAD}, true},
			{"clone", [6]uint64{uint64(unix.SIGCHLD)}, false},
			{"clone3", [6]uint64{}, false},
			{"tgkill", [6]uint64{pid, pid, 23}, true},
			{"tgkill", [6]uint64{pid + 1, pid + 1, 23}, false},
			{"socket", [6]uint64{unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC, 0}, true},
			{"socket", [6]uint64{unix.AF_INET6, unix.SOCK_STREAM | unix.SOCK_NONBLOCK, 0}, true},
			{"socket", [6]uint64{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP}, true},
			{"socket", [6]uint64{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, true},
			{"socket", [6]uint64{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, false},
			{"socket", [6]uint64{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP}, false},
			{"socket", [6]uint64{unix.AF_INET, unix.SOCK_RAW, 1}, false},
			{"socket", [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0}, false},
			{"socket", [6]uint64{unix.AF_NETLINK, unix.SOCK_DGRAM, 0}, false},
		} {
			nr, ok := abi.SyscallNumber(arch, tc.call)
			if !ok {
				t.Fatalf("no call %s", tc.call)
			}
			got, err := bpf.NewMachine(insns).Run(&bpf.Data{Nr: nr, Arch: arch.Audit(), Args: tc.args})
			if err != nil || (got == bpf.RetAllow) != tc.ok {
				t.Errorf("%s %s%v: %v, %v; want allowed %t", arch, tc.call, tc.args, got, err, tc.ok)
			}
		}
	}
}

// A job whose sockets are given makes none, and touches no file.
func TestFilterOfGivenSockets(t *testing.T) {
	const pid = 42
	for _, arch := range abi.Arches {
		insns := program(arch, pid, true)
		if err := bpf.Verify(bpf.Encode(insns), arch); err != nil {
			t.Fatal(err)
		}
		for call, ok := range map[string]bool{
			"read": true, "write": true, "writev": true, "recvmsg": true, "recvfrom": true, "sendto": true, "sendmsg": true, "splice": true,
			"pipe2": true, "fcntl": true, "shutdown": true, "getsockopt": true, "setsockopt": true, "getpeername": true, "close": true,
			"epoll_pwait": true, "mmap": true,
			"socket": false, "socketpair": false, "connect": false, "bind": false, "listen": false, "accept": false, "accept4": false,
			"openat": false, "openat2": false, "newfstatat": false, "getdents64": false, "execve": false, "ptrace": false, "ioctl": false,
			"sendmmsg": false, "memfd_create": false, "io_uring_setup": false, "pidfd_getfd": false, "process_vm_readv": false,
		} {
			nr, known := abi.SyscallNumber(arch, call)
			if !known {
				t.Fatalf("no call %s", call)
			}
			got, err := bpf.NewMachine(insns).Run(&bpf.Data{Nr: nr, Arch: arch.Audit()})
			if err != nil || (got == bpf.RetAllow) != ok {
				t.Errorf("%s %s: %v, %v; want allowed %t", arch, call, got, err, ok)
			}
		}
	}
}
