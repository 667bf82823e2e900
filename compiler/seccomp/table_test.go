package seccomp_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// Outcomes, as the tests write them.
var (
	allow        = ir.Allow
	notify       = ir.Notify
	kill         = ir.Kill
	eperm        = ir.Errno(abi.EPERM)
	eacces       = ir.Errno(abi.EACCES)
	enosys       = ir.Errno(abi.ENOSYS)
	noFamily     = ir.Errno(abi.EAFNOSUPPORT)
	noProtocol   = ir.Errno(abi.EPROTONOSUPPORT)
	notSupported = ir.Errno(abi.EOPNOTSUPP)
)

// call is a system call and its first arguments.
type call struct {
	name string
	args []uint64
}

func sys(name string, args ...uint64) call { return call{name, args} }

// expect checks one decision on every architecture that has the call.
func expect(t *testing.T, req seccomp.Request, c call, want ir.Action) query.Decision {
	t.Helper()
	var got query.Decision
	found := false
	for _, a := range abi.Arches {
		nr, ok := abi.SyscallNumber(a, c.name)
		if !ok {
			continue
		}
		found = true
		var args [6]uint64
		copy(args[:], c.args)
		got = query.Syscall(mustTable(t, a, req), nr, args)
		if got.Action != want {
			t.Errorf("%s: %s%#x: got %+v (%s), want %+v", a, c.name, c.args, got.Action, got.Reason, want)
		}
		if got.Action != ir.Allow && got.Reason == "" {
			t.Errorf("%s: %s%#x: %+v without a reason", a, c.name, c.args, got.Action)
		}
	}
	if !found {
		t.Errorf("no architecture has %s", c.name)
	}
	return got
}

const dirty = 0xdeadbeef << 32 // garbage in the upper half of a register

func TestDefaultDeny(t *testing.T) {
	const strict = `mount umount2 pivot_root swapon swapoff reboot sethostname setdomainname kexec_load init_module
		finit_module delete_module unshare setns perf_event_open bpf userfaultfd keyctl add_key request_key ptrace
		process_vm_readv process_vm_writev open_by_handle_at name_to_handle_at ioperm iopl quotactl acct lookup_dcookie
		nfsservctl io_uring_setup io_uring_enter io_uring_register personality
		open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr statmount listmount listns
		chroot kexec_file_load quotactl_fd pidfd_getfd process_madvise process_mrelease kcmp syslog vhangup
		clock_settime settimeofday adjtimex clock_adjtime fanotify_init fanotify_mark memfd_secret modify_ldt uselib
		_sysctl migrate_pages move_pages lsm_set_self_attr
		shmget shmat shmdt shmctl msgget msgsnd msgrcv msgctl semget semop semctl semtimedop
		mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
		chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat setxattr lsetxattr fsetxattr setxattrat removexattr
		lremovexattr fremovexattr removexattrat utime utimes futimesat utimensat file_setattr`
	for _, name := range strings.Fields(strict) {
		expect(t, seccomp.Request{}, sys(name), eperm)
		expect(t, seccomp.Request{OnDeny: seccomp.OnDenyKill}, sys(name), kill)
	}
	for _, name := range strings.Fields("clone3 pidfd_open create_module vserver ustat") {
		expect(t, seccomp.Request{}, sys(name), enosys)
		expect(t, seccomp.Request{OnDeny: seccomp.OnDenyKill}, sys(name), enosys)
	}

	const relaxed = `swapon swapoff reboot kexec_load init_module finit_module delete_module perf_event_open bpf ioperm iopl
		io_uring_setup io_uring_enter io_uring_register shmget semop msgsnd mq_open fchmod utimensat`
	alone := seccomp.Request{NoSupervisor: true, WriteGrants: true}
	for _, name := range strings.Fields(relaxed) {
		expect(t, alone, sys(name), eperm)
	}
	for _, name := range strings.Fields("mount unshare setns ptrace process_vm_readv personality keyctl pidfd_open pidfd_getfd") {
		expect(t, alone, sys(name), allow)
	}
	expect(t, alone, sys("clone3"), enosys)
}

func TestUnknownNumbersFailWithENOSYS(t *testing.T) {
	for _, kind := range []seccomp.OnDeny{seccomp.OnDenyErrno, seccomp.OnDenyKill} {
		for _, a := range abi.Arches {
			table := mustTable(t, a, seccomp.Request{OnDeny: kind})
			for nr := range uint32(2000) {
				if _, known := abi.SyscallName(a, nr); known {
					continue
				}
				if got := query.Syscall(table, nr, [6]uint64{}); got.Action != enosys {
					t.Errorf("%s: number %d: got %+v, want ENOSYS", a, nr, got)
				}
			}
			for _, nr := range []uint32{abi.X32Bit, abi.X32Bit | 1, abi.X32Bit | 512, 0x80000000, 0xffffffff} {
				want := enosys
				if a == abi.AMD64 && kind == seccomp.OnDenyKill {
					want = kill
				}
				if got := query.Syscall(table, nr, [6]uint64{}); got.Action != want {
					t.Errorf("%s: number %#x: got %+v, want %+v", a, nr, got, want)
				}
			}
		}
	}
}

// A newer table of system calls must not widen the filter unseen.
func TestEveryKnownCallIsReviewed(t *testing.T) {
	const newest = 471
	for a, want := range map[abi.Arch]int{abi.AMD64: 385, abi.ARM64: 327} {
		calls := abi.Syscalls(a)
		if last := calls[len(calls)-1]; last.Nr != newest || len(calls) != want {
			t.Errorf("%s: got %d calls up to %s (%d), want %d up to %d: decide about the new ones, then raise lastReviewed",
				a, len(calls), last.Name, last.Nr, want, newest)
		}
	}
}

func TestProcesses(t *testing.T) {
	const thread, vm, sigchld = 0x10000, 0x100, 17
	limited := seccomp.Request{ProcessLimit: true, ProcessOrigin: 7}
	for _, ns := range []uint64{0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000} {
		for _, req := range []seccomp.Request{{}, limited, {NoSupervisor: true}} {
			expect(t, req, sys("clone", ns|sigchld), eperm)
			expect(t, req, sys("clone", ns|thread), eperm)
			expect(t, req, sys("clone", ns|dirty), eperm)
		}
	}
	expect(t, limited, sys("clone", thread|vm), allow)
	if got := expect(t, limited, sys("clone", sigchld), notify); got.Reason != "limits.processes" || got.Origin != 7 {
		t.Errorf("clone: got %+v, want reason limits.processes and origin 7", got)
	}
	expect(t, limited, sys("clone", thread<<32|sigchld), notify)
	expect(t, limited, sys("fork"), notify)
	expect(t, limited, sys("vfork"), notify)
	for _, req := range []seccomp.Request{{}, {NoSupervisor: true, ProcessLimit: true}} {
		expect(t, req, sys("clone", sigchld), allow)
		expect(t, req, sys("clone", 0x80|sigchld), allow) // part of the exit signal, not CLONE_NEWTIME
		expect(t, req, sys("fork"), allow)
	}
}

func TestSockets(t *testing.T) {
	const (
		unix, inet, inet6        = 1, 2, 10
		stream, dgram, raw, seq  = 1, 2, 3, 5
		rdm, dccp, packet, flags = 4, 6, 10, 0x80800
	)
	type row struct {
		call                       call
		none, udp, icmp, unixAllow ir.Action
	}
	rows := []row{
		{sys("socket", unix, stream, 0), eperm, eperm, eperm, allow},
		{sys("socket", unix, dgram, 0), eperm, eperm, eperm, allow},
		{sys("socketpair", unix, stream, 0), allow, allow, allow, allow},
		{sys("socketpair", unix, stream|flags, 0), allow, allow, allow, allow},
		{sys("socketpair", unix, seq, 0), allow, allow, allow, allow},
		{sys("socketpair", unix, dgram, 0), eperm, eperm, eperm, allow},
		{sys("socketpair", unix, raw, 0), eperm, eperm, eperm, allow},
		{sys("socketpair", inet, stream, 0), noFamily, noFamily, noFamily, noFamily},
		{sys("socket", inet, dgram, 1), eperm, noProtocol, allow, eperm},
		{sys("socket", inet6, dgram, 58), eperm, noProtocol, allow, eperm},
		{sys("socket", inet, dgram, 58), eperm, noProtocol, noProtocol, eperm},
		{sys("socket", inet6, dgram, 1), eperm, noProtocol, noProtocol, eperm},
	}
	for _, family := range []uint64{inet, inet6} {
		same := func(want ir.Action, args ...uint64) {
			rows = append(rows, row{sys("socket", append([]uint64{family}, args...)...), want, want, want, want})
		}
		same(allow, stream, 0)
		same(allow, stream, 6)
		same(allow, stream|flags, 6)
		same(allow, stream|dirty, 6|dirty)
		same(noProtocol, stream, 262) // MPTCP
		same(noProtocol, stream, 132) // SCTP
		same(noProtocol, stream, 17)
		same(noProtocol, stream, 262|dirty)
		same(eperm, raw, 1)
		same(eperm, raw|flags, 255)
		same(noProtocol, seq, 132)
		same(noProtocol, dccp, 33)
		same(noProtocol, rdm, 0)
		same(noProtocol, packet, 0) // the old way to a packet socket
		for _, p := range []uint64{0, 17} {
			rows = append(rows, row{sys("socket", family, dgram|flags, p), eperm, allow, noProtocol, eperm})
		}
		rows = append(rows, row{sys("socket", family, dgram, 136), eperm, noProtocol, noProtocol, eperm}) // UDP-Lite
	}
	for _, family := range []uint64{0, 3, 9, 17, 21, 30, 38, 40, 44, 45, 0xffffffff} {
		rows = append(rows, row{sys("socket", family, raw, 0), noFamily, noFamily, noFamily, noFamily})
	}
	for _, r := range rows {
		for _, alone := range []bool{false, true} {
			expect(t, seccomp.Request{NoSupervisor: alone}, r.call, r.none)
			expect(t, seccomp.Request{NoSupervisor: alone, UDP: true}, r.call, r.udp)
			expect(t, seccomp.Request{NoSupervisor: alone, ICMP: true}, r.call, r.icmp)
			expect(t, seccomp.Request{NoSupervisor: alone, UnixSockets: true}, r.call, r.unixAllow)
		}
	}
	// A family is an int: garbage above it neither hides nor makes one.
	expect(t, seccomp.Request{}, sys("socket", dirty|17, raw, 0), noFamily)
	expect(t, seccomp.Request{}, sys("socket", dirty|inet, stream, 0), allow)
	expect(t, seccomp.Request{OnDeny: seccomp.OnDenyKill}, sys("socket", inet, raw, 0), kill)
	expect(t, seccomp.Request{OnDeny: seccomp.OnDenyKill}, sys("socket", 16, raw, 9), noFamily)
	expect(t, seccomp.Request{OnDeny: seccomp.OnDenyKill}, sys("socket", inet, stream, 262), noProtocol)
}

func TestFastOpen(t *testing.T) {
	const fastOpen = 0x20000000
	for _, req := range []seccomp.Request{{}, {NoSupervisor: true}, {OnDeny: seccomp.OnDenyKill}} {
		for _, flags := range []uint64{fastOpen, fastOpen | 0x4000, fastOpen | dirty} {
			expect(t, req, sys("sendto", 3, 0, 0, flags), notSupported)
			expect(t, req, sys("sendmsg", 3, 0, flags), notSupported)
			expect(t, req, sys("sendmmsg", 3, 0, 1, flags), notSupported)
		}
		expect(t, req, sys("sendto", 3, 0, fastOpen, 0x4000), allow)
		expect(t, req, sys("sendmsg", 3, 0, 0x4000, fastOpen), allow)
		expect(t, req, sys("sendmmsg", 3, 0, fastOpen, 0), allow)
		for _, option := range []uint64{23, 30, 30 | dirty} {
			expect(t, req, sys("setsockopt", 3, 6, option), notSupported)
			expect(t, req, sys("setsockopt", 3, 6|dirty, option), notSupported)
			expect(t, req, sys("setsockopt", 3, 1, option), allow)
		}
		expect(t, req, sys("setsockopt", 3, 6, 1), allow)
	}
}

func TestSourceRoutes(t *testing.T) {
	for _, option := range [][2]uint64{{0, 4}, {41, 6}, {41, 32}, {41, 54}, {41, 55}, {41, 57}, {41, 59}, {dirty | 41, dirty | 57}} {
		expect(t, seccomp.Request{}, sys("setsockopt", 3, option[0], option[1]), allow)
		expect(t, seccomp.Request{Destinations: true}, sys("setsockopt", 3, option[0], option[1]), eperm)
		expect(t, seccomp.Request{Destinations: true, OnDeny: seccomp.OnDenyKill}, sys("setsockopt", 3, option[0], option[1]), kill)
		expect(t, seccomp.Request{Destinations: true}, sys("setsockopt", 3, option[0]^1, option[1]), allow)
	}
}

func TestListen(t *testing.T) {
	for _, tc := range []struct {
		ports             seccomp.BindPorts
		supervised, alone ir.Action
	}{
		{seccomp.BindNone, eacces, eacces},
		{seccomp.BindListed, notify, eacces},
		{seccomp.BindAny, allow, allow},
	} {
		expect(t, seccomp.Request{BindPorts: tc.ports}, sys("listen", 3, 128), tc.supervised)
		expect(t, seccomp.Request{BindPorts: tc.ports, NoSupervisor: true}, sys("listen", 3, 128), tc.alone)
	}
	expect(t, seccomp.Request{OnDeny: seccomp.OnDenyKill}, sys("listen", 3, 128), kill)
}

func TestIoctl(t *testing.T) {
	denied := map[string]uint64{
		"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C, "TIOCCONS": 0x541D,
		"SIOCADDRT": 0x890B, "SIOCGIFNAME": 0x8910, "SIOCGIFCONF": 0x8912, "SIOCGIFFLAGS": 0x8913, "SIOCGIFADDR": 0x8915,
		"SIOCGIFDSTADDR": 0x8917, "SIOCGIFBRDADDR": 0x8919, "SIOCGIFNETMASK": 0x891B, "SIOCGIFMETRIC": 0x891D,
		"SIOCGIFMEM": 0x891F, "SIOCGIFMTU": 0x8921, "SIOCGIFENCAP": 0x8925, "SIOCGIFHWADDR": 0x8927,
		"SIOCGIFSLAVE": 0x8929, "SIOCGIFINDEX": 0x8933, "SIOCGIFPFLAGS": 0x8935, "SIOCGIFCOUNT": 0x8938,
		"SIOCGIFBR": 0x8940, "SIOCGIFTXQLEN": 0x8942, "SIOCETHTOOL": 0x8946, "SIOCGMIIPHY": 0x8947, "SIOCGSKNS": 0x894C,
		"SIOCGARP": 0x8954, "SIOCGIFMAP": 0x8970, "SIOCGIFVLAN": 0x8982, "SIOCBONDINFOQUERY": 0x8994,
		"SIOCGHWTSTAMP": 0x89B1, "SIOCDEVPRIVATE": 0x89F0, "SIOCGIWNAME": 0x8B01, "SIOCGIWESSID": 0x8B1B,
	}
	metadata := map[string]uint64{
		"FS_IOC_SETFLAGS": 0x40086602, "FS_IOC32_SETFLAGS": 0x40046602, "FS_IOC_FSSETXATTR": 0x401c5820,
		"FS_IOC_SETVERSION": 0x40087602, "FS_IOC_ENABLE_VERITY": 0x40806685, "FS_IOC_SET_ENCRYPTION_POLICY": 0x800c6613,
	}
	harmless := map[string]uint64{
		"TCGETS": 0x5401, "TIOCGWINSZ": 0x5413, "FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIOCLEX": 0x5451, "SIOCATMARK": 0x8905,
		"SIOCGSTAMP": 0x8906, "SIOCOUTQNSD": 0x894B, "SIOCGSTAMP_NEW": 0x80108906, "FS_IOC_GETFLAGS": 0x80086601,
		"FICLONE": 0x40049409,
	}
	for _, req := range []seccomp.Request{{}, {NoSupervisor: true}, {WriteGrants: true}} {
		for _, value := range denied {
			expect(t, req, sys("ioctl", 0, value), eperm)
			expect(t, req, sys("ioctl", 0, value|dirty), eperm)
		}
		for _, value := range metadata {
			expect(t, req, sys("ioctl", 0, value|dirty), eperm)
		}
		for _, value := range harmless {
			expect(t, req, sys("ioctl", 0, value), allow)
		}
	}
	for _, value := range []uint64{0x80806200, 0x6201, 0x6202} { // BranchFS
		expect(t, seccomp.Request{}, sys("ioctl", 0, value), allow)
		expect(t, seccomp.Request{BranchFS: true}, sys("ioctl", 0, value), eperm)
		expect(t, seccomp.Request{BranchFS: true}, sys("ioctl", 0, value|dirty), eperm)
	}
	lifted := seccomp.Request{AllowGroups: []seccomp.Named{{Name: "file_metadata"}}}
	for _, value := range metadata {
		expect(t, lifted, sys("ioctl", 0, value), allow)
	}
	expect(t, lifted, sys("ioctl", 0, denied["TIOCSTI"]), eperm)
}

func TestPrctl(t *testing.T) {
	for _, req := range []seccomp.Request{{}, {NoSupervisor: true}} {
		for _, op := range []uint64{4, 28, 35, 0x59616d61} {
			expect(t, req, sys("prctl", op, 1), eperm)
			expect(t, req, sys("prctl", op|dirty, 1), eperm)
		}
		expect(t, req, sys("prctl", 1, 9), allow)
		deathSignal := notify
		if req.NoSupervisor {
			deathSignal = eperm
		}
		expect(t, req, sys("prctl", 1, 0), deathSignal)
		expect(t, req, sys("prctl", 1|dirty, 15), deathSignal)
		expect(t, req, sys("prctl", 1, 9|dirty), deathSignal)
		expect(t, req, sys("prctl", 2), allow)      // PR_GET_PDEATHSIG
		expect(t, req, sys("prctl", 15), allow)     // PR_SET_NAME
		expect(t, req, sys("prctl", 38, 1), allow)  // PR_SET_NO_NEW_PRIVS
		expect(t, req, sys("prctl", 36, 1), allow)  // PR_SET_CHILD_SUBREAPER
		expect(t, req, sys("prctl", 157, 0), allow) // unknown
	}
}

func TestOnlyANestedSupervisorMayHide(t *testing.T) {
	expect(t, seccomp.Request{}, sys("prctl", 4, 0), eperm)
	expect(t, seccomp.Request{NoSupervisor: true}, sys("prctl", 4, 0), allow)
	expect(t, seccomp.Request{NoSupervisor: true}, sys("prctl", 4, dirty), eperm)
}

func TestOtherProcessesCannotBeNamed(t *testing.T) {
	for _, req := range []seccomp.Request{{}, {NoSupervisor: true}} {
		for _, name := range []string{"prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"} {
			expect(t, req, sys(name, 0), allow)
			expect(t, req, sys(name, dirty), allow) // a pid is an int
			expect(t, req, sys(name, 1), eperm)
			expect(t, req, sys(name, 4711|dirty), eperm)
			expect(t, req, sys(name, 0xffffffff), eperm)
		}
		for name, first := range map[string]uint64{"setpriority": 0, "ioprio_set": 1} {
			process, group, user := first, first+1, first+2
			expect(t, req, sys(name, process, 0), allow)
			expect(t, req, sys(name, group, 0), eperm) // the caller may have joined the supervisor's group
			expect(t, req, sys(name, process|dirty, dirty), allow)
			expect(t, req, sys(name, process, 4711), eperm)
			expect(t, req, sys(name, group, 4711|dirty), eperm)
			expect(t, req, sys(name, user, 0), eperm)
			expect(t, req, sys(name, first+3, 0), eperm)
		}
		for _, name := range []string{"kill", "tkill", "tgkill", "pidfd_send_signal", "sched_getaffinity", "getpriority"} {
			expect(t, req, sys(name, 4711, 4711), allow)
		}
	}
}

func TestGroups(t *testing.T) {
	for _, g := range seccomp.Groups() {
		if !slices.IsSorted(g.Members) {
			t.Errorf("group %s is not sorted: %q", g.Name, g.Members)
		}
		for _, name := range g.Members {
			c := sys(name)
			allowed := seccomp.Request{AllowGroups: []seccomp.Named{{Name: g.Name, Origin: 3}}}
			if got := expect(t, allowed, c, allow); got.Origin != 3 {
				t.Errorf("%s: got origin %d, want 3", name, got.Origin)
			}
			denied := seccomp.Request{
				AllowGroups: allowed.AllowGroups, WriteGrants: true, Deny: []seccomp.Named{{Name: g.Name, Origin: 4}},
				Traps: []seccomp.Trap{{Names: []string{name}, Reason: "a feature"}},
			}
			if got := expect(t, denied, c, eperm); got.Origin != 4 {
				t.Errorf("%s: got origin %d, want 4", name, got.Origin)
			}
			member := seccomp.Request{AllowGroups: allowed.AllowGroups, Deny: []seccomp.Named{{Name: name}}}
			expect(t, member, c, eperm)

			writable := eperm
			if g.Name == "file_metadata" {
				writable = notify
			}
			expect(t, seccomp.Request{WriteGrants: true}, c, writable)
			expect(t, seccomp.Request{WriteGrants: true, NoSupervisor: true}, c, eperm)
		}
	}
}

func TestDenyWins(t *testing.T) {
	for _, name := range []string{"openat", "read", "clone", "fork", "socket", "listen", "clone3", "fchmod", "newfstatat", "fstatat"} {
		req := seccomp.Request{
			Deny: []seccomp.Named{{Name: name, Origin: 9}}, ProcessLimit: true, WriteGrants: true,
			BindPorts: seccomp.BindListed, Traps: []seccomp.Trap{{Names: []string{name}, Reason: "a feature"}},
		}
		if got := expect(t, req, sys(name, 2, 1), eperm); got.Origin != 9 || got.Reason != "syscalls.extra_deny" {
			t.Errorf("%s: got %+v, want reason syscalls.extra_deny and origin 9", name, got)
		}
		req.OnDeny = seccomp.OnDenyKill
		expect(t, req, sys(name, 2, 1), kill)
	}
}

// The supervisor answers what asks for interfaces, and no more of netlink.
func TestNetlink(t *testing.T) {
	const netlink, raw, dgram, stream, flags = 16, 3, 2, 1, 0x80800
	supervised := seccomp.Request{UDP: true, UnixSockets: true, UsesNetwork: true}
	alone := seccomp.Request{UDP: true, UnixSockets: true, UsesNetwork: true, NoSupervisor: true}
	for _, row := range []struct {
		call
		want, alone ir.Action
	}{
		{sys("socket", netlink, raw, 0), notify, noFamily},
		{sys("socket", netlink, dgram|flags, 0), notify, noFamily},
		{sys("socket", netlink|dirty, raw|dirty, 0|dirty), notify, noFamily},
		{sys("socket", netlink, stream, 0), noFamily, noFamily},
		{sys("socket", netlink, raw, 4), noFamily, noFamily},  // NETLINK_SOCK_DIAG
		{sys("socket", netlink, raw, 9), noFamily, noFamily},  // NETLINK_AUDIT
		{sys("socket", netlink, raw, 12), noFamily, noFamily}, // NETLINK_NETFILTER
		{sys("socketpair", netlink, raw, 0), noFamily, noFamily},
		{sys("bind", 3, 0, 12), notify, allow},
		{sys("bind", 3, 0, 12|dirty), notify, allow},
		{sys("bind", 3, 0, 16), allow, allow}, // sockaddr_in
		{sys("bind", 3, 0, 28), allow, allow}, // sockaddr_in6
		{sys("getsockname", 3), notify, allow},
	} {
		expect(t, supervised, row.call, row.want)
		expect(t, alone, row.call, row.alone)
	}
	denied := seccomp.Request{Deny: []seccomp.Named{{Name: "socket"}}}
	expect(t, denied, sys("bind", 3, 0, 12), allow)
	expect(t, denied, sys("getsockname", 3), allow)
	expect(t, seccomp.Request{}, sys("getsockname", 3), allow)
	expect(t, seccomp.Request{}, sys("socket", netlink, raw, 0), notify)
}

func TestTraps(t *testing.T) {
	req := seccomp.Request{Traps: traps}
	expect(t, req, sys("openat"), notify)
	expect(t, req, sys("open"), notify)
	expect(t, req, sys("mount"), eperm) // a trap never lifts a denial
	expect(t, req, sys("socket", 2, 1, 0), notify)
	expect(t, req, sys("socket", 17, 3, 0), noFamily)
	expect(t, req, sys("clone", 17), notify)
	expect(t, req, sys("clone", 0x10000000), eperm)
	expect(t, req, sys("sendto", 3, 0, 0, 0, 0), allow)
	expect(t, req, sys("sendto", 3, 0, 0, 0, 1<<40), notify)
	expect(t, req, sys("sendto", 3, 0, 0, 0x20000000, 0), notSupported)
	// The clauses of one trap do not open what another one watches.
	expect(t, req, sys("openat", 0, 0, 0, 0, 0), notify)
}

func TestTrapOfOneArchitecture(t *testing.T) {
	req := seccomp.Request{Traps: []seccomp.Trap{{Arch: abi.ARM64, Names: []string{"set_tid_address"}, Reason: "a feature"}}}
	for arch, want := range map[abi.Arch]ir.Action{abi.AMD64: ir.Allow, abi.ARM64: ir.Notify} {
		table, err := seccomp.Table(arch, req)
		if err != nil {
			t.Fatal(err)
		}
		nr, _ := abi.SyscallNumber(arch, "set_tid_address")
		if got := query.Syscall(table, nr, [6]uint64{}).Action; got != want {
			t.Errorf("%v: got %v, want %v", arch, got, want)
		}
	}
}

func TestArgumentRules(t *testing.T) {
	rule := func(name string, arg uint8, op ir.Op, value uint64, then seccomp.Then) seccomp.ArgRule {
		return seccomp.ArgRule{Syscall: name, Arg: arg, Op: op, Value: value, Then: then, Origin: 5}
	}
	req := seccomp.Request{Args: []seccomp.ArgRule{
		rule("madvise", 2, ir.OpEq, 12, seccomp.ThenDeny),
		rule("socket", 0, ir.OpEq, 2, seccomp.ThenAllow),
		rule("socket", 0, ir.OpEq, 17, seccomp.ThenAllow),
		rule("socket", 2, ir.OpEq, 6, seccomp.ThenDeny),
		rule("fstatat", 3, ir.OpSet, 0x100, seccomp.ThenDeny),
		rule("mount", 0, ir.OpEq, 0, seccomp.ThenDeny),
		{Syscall: "lseek", Arg: 0, Op: ir.OpEq, Value: 10, Then: seccomp.ThenDeny, And: []ir.Cond{{Arg: 1, Op: ir.OpNe, Mask: math.MaxUint64, Value: 0}}},
	}}
	expect(t, req, sys("lseek", 10, 1), eperm)
	expect(t, req, sys("lseek", 10, 1<<40), eperm)
	expect(t, req, sys("lseek", 10, 0), allow) // all conditions must hold
	expect(t, req, sys("lseek", 9, 1), allow)
	expect(t, req, sys("madvise", 0, 0, 11), allow)
	if got := expect(t, req, sys("madvise", 0, 0, 12), eperm); got.Origin != 5 {
		t.Errorf("madvise: got origin %d, want 5", got.Origin)
	}
	expect(t, req, sys("madvise", 0, 0, 12|dirty), allow) // a rule without a mask compares all bits
	expect(t, req, sys("socket", 2, 1, 0), allow)
	expect(t, req, sys("socket", 10, 1, 0), eperm)    // no rule allows it
	expect(t, req, sys("socket", 17, 3, 0), noFamily) // a rule allows it, the gate behind does not
	expect(t, req, sys("socket", 2, 1, 6), eperm)     // one rule allows it, another denies it
	expect(t, req, sys("socket", 2, 1, 262), noProtocol)
	expect(t, req, sys("newfstatat", 0, 0, 0, 0x1100), eperm)
	expect(t, req, sys("newfstatat", 0, 0, 0, 0x1000), allow)
	expect(t, req, sys("mount", 1), eperm)

	req.OnDeny = seccomp.OnDenyKill
	expect(t, req, sys("madvise", 0, 0, 12), kill)
	expect(t, req, sys("socket", 10, 1, 0), kill)
}

func TestRequestErrors(t *testing.T) {
	allowArg := func(name string) []seccomp.ArgRule {
		return []seccomp.ArgRule{{Syscall: name, Op: ir.OpEq, Then: seccomp.ThenAllow, Origin: 8}}
	}
	for _, tc := range []struct {
		req  seccomp.Request
		name string
		want string
	}{
		{seccomp.Request{AllowGroups: []seccomp.Named{{Name: "mount", Origin: 8}}}, "mount", "no such group"},
		{seccomp.Request{Args: []seccomp.ArgRule{{Syscall: "lseek", Op: ir.OpEq, Then: seccomp.ThenAllow, And: []ir.Cond{{}}, Origin: 8}}}, "lseek", "a rule that allows has one condition"},
		{seccomp.Request{Deny: []seccomp.Named{{Name: "opnat", Origin: 8}}}, "opnat", "no such system call or group"},
		{seccomp.Request{Args: []seccomp.ArgRule{{Syscall: "sysv_ipc", Op: ir.OpEq, Then: seccomp.ThenDeny, Origin: 8}}}, "sysv_ipc", "no such system call"},
		{seccomp.Request{Args: []seccomp.ArgRule{{Syscall: "read", Arg: 6, Op: ir.OpEq, Then: seccomp.ThenDeny, Origin: 8}}}, "read", "argument 6"},
		{seccomp.Request{Args: []seccomp.ArgRule{{Syscall: "read", Op: 8, Then: seccomp.ThenDeny, Origin: 8}}}, "read", "comparison 8"},
		{seccomp.Request{Args: []seccomp.ArgRule{{Syscall: "read", Op: ir.OpEq, Origin: 8}}}, "read", "effect 0"},
		{seccomp.Request{Traps: []seccomp.Trap{{Names: []string{"opn"}, Origin: 8}}}, "opn", "no such system call"},
		{seccomp.Request{Args: allowArg("mount")}, "mount", "refused (default deny: mounts)"},
		{seccomp.Request{Args: allowArg("clone3")}, "clone3", "refused"},
		{seccomp.Request{Args: allowArg("shmget")}, "shmget", "group sysv_ipc"},
		{seccomp.Request{Args: allowArg("listen")}, "listen", "without a bind grant"},
	} {
		_, err := seccomp.Table(abi.ARM64, tc.req)
		var re *seccomp.RequestError
		if !errors.As(err, &re) || re.Name != tc.name || re.Origin != 8 || !strings.Contains(re.Message, tc.want) {
			t.Errorf("%+v: got error %v, want one about %s from origin 8 with %q", tc.req, err, tc.name, tc.want)
		}
	}
	if _, err := seccomp.Table(abi.Arch(9), seccomp.Request{}); err == nil {
		t.Error("unknown architecture: got no error")
	}
	both := seccomp.Request{Deny: []seccomp.Named{{Name: "a"}, {Name: "b"}}}
	if _, err := seccomp.Table(abi.AMD64, both); err == nil || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("two unknown names: got error %v, want both", err)
	}
}
