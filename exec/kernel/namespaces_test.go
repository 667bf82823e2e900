package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What hosts say of themselves, for the table.
const (
	ordinary  = "CapEff:\t0000000000000000\nSeccomp:\t0\n"
	filtered  = "CapEff:\t0000000000000000\nSeccomp:\t2\n"
	superuser = "CapEff:\t000001ffffffffff\nSeccomp:\t0\n"

	plainMounts  = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n22 27 0:21 / /proc rw,relatime - proc proc rw\n31 22 0:30 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw\n"
	dockerMounts = plainMounts + "40 22 0:40 / /proc/acpi ro - tmpfs tmpfs ro\n41 22 0:5 /null /proc/kcore rw - devtmpfs devtmpfs rw\n" +
		"42 22 0:21 /sys /proc/sys ro - proc proc rw\n43 22 0:21 /bus /proc/bus ro - proc proc rw\n"
	chrootMounts = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
)

func TestNamespaceFailure(t *testing.T) {
	type files map[string]string
	status, mounts := "proc/self/status", "proc/self/mountinfo"
	for _, tc := range []struct {
		name  string
		step  string
		err   unix.Errno
		files files
		want  []string // in the text
		not   []string
	}{
		{
			"user namespaces are limited to none", StepNamespaces, unix.ENOSPC,
			files{"proc/sys/user/max_user_namespaces": "0\n", "proc/sys/user/max_pid_namespaces": "100\n"},
			[]string{"sysctl user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces="}, []string{"32", "max_pid"},
		},
		{
			"mount namespaces are", StepNamespaces, unix.ENOSPC,
			files{"proc/sys/user/max_user_namespaces": "100\n", "proc/sys/user/max_mnt_namespaces": "0\n"},
			[]string{"sysctl -w user.max_mnt_namespaces="}, []string{"max_user"},
		},
		{
			"used up", StepNamespaces, unix.ENOSPC,
			files{"proc/sys/user/max_user_namespaces": "100\n", "proc/sys/user/max_net_namespaces": "7\n"},
			[]string{"user.max_user_namespaces=100 user.max_net_namespaces=7", "32 deep"}, nil,
		},
		{
			"an outer limit, seen from a namespace with none", StepNamespaces, unix.ENOSPC,
			files{"proc/sys/user/max_user_namespaces": "2147483647\n"}, []string{"around this one", "32 deep"}, []string{"2147483647"},
		},
		{"nested too deep, as old kernels say it", StepNamespaces, unix.EUSERS, nil, []string{"32 deep"}, nil},
		{
			"Debian's switch", StepNamespaces, unix.EPERM, files{status: ordinary, "proc/sys/kernel/unprivileged_userns_clone": "0\n"},
			[]string{"sysctl -w kernel.unprivileged_userns_clone=1"}, []string{"seccomp"},
		},
		{
			"Debian's switch spares root", StepNamespaces, unix.EPERM,
			files{status: superuser, "proc/sys/kernel/unprivileged_userns_clone": "0\n", "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
			[]string{"neither a sysctl"}, []string{"userns"},
		},
		{
			"Ubuntu's AppArmor at the map", StepMapIDs, unix.EPERM, files{status: ordinary, "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
			[]string{"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0", "profile sandlock /opt/sandlock-exec flags=(unconfined) { userns, }"}, nil,
		},
		{
			"Ubuntu's AppArmor at a mount", StepMount, unix.EACCES, files{status: ordinary, "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
			[]string{"apparmor_restrict_unprivileged_userns is 1"}, nil,
		},
		{
			"Ubuntu's AppArmor at /proc, which nothing covers", StepMountProc, unix.EPERM,
			files{status: ordinary, mounts: plainMounts, "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
			[]string{"apparmor_restrict_unprivileged_userns is 1"}, []string{"covered"},
		},
		{
			"a container's filter", StepNamespaces, unix.EPERM, files{status: filtered, mounts: plainMounts},
			[]string{"seccomp profile", "--security-opt seccomp=unconfined"}, []string{"chroot"},
		},
		{"a filter that knows no such call", StepNamespaces, unix.ENOSYS, files{status: filtered, "proc/self/ns/user": ""}, []string{"seccomp profile"}, nil},
		{
			"a container's profile", StepMount, unix.EACCES, files{status: ordinary, "proc/self/attr/current": "docker-default (enforce)\n"},
			[]string{"docker-default (enforce)", "apparmor=unconfined"}, nil,
		},
		{
			"a container's label", StepMount, unix.EACCES, files{status: ordinary, "proc/self/attr/current": "system_u:system_r:container_t:s0:c1,c2\x00"},
			[]string{"SELinux", "container_t", "label=disable"}, []string{"AppArmor"},
		},
		{
			"no profile and no label", StepMount, unix.EACCES, files{status: ordinary, "proc/self/attr/current": "unconfined\n"},
			[]string{"neither a sysctl"}, []string{"AppArmor"},
		},
		{"a chroot", StepNamespaces, unix.EPERM, files{status: ordinary, mounts: chrootMounts}, []string{"chroot"}, nil},
		{"a chroot, as root", StepMount, unix.EINVAL, files{status: superuser, mounts: chrootMounts}, []string{"chroot"}, nil},
		{
			"a kernel without", StepNamespaces, unix.EINVAL, files{"proc/self/ns/mnt": "", "proc/self/ns/pid": "", "proc/self/ns/uts": "", "proc/self/ns/ipc": "", "proc/self/ns/net": ""},
			[]string{"CONFIG_USER_NS"}, []string{"CONFIG_PID_NS"},
		},
		{
			"a container that covers /proc", StepMountProc, unix.EPERM, files{status: ordinary, mounts: dockerMounts},
			[]string{"/proc/acpi, /proc/kcore, /proc/sys, …", `"auto"`, "systempaths=unconfined"}, []string{"binfmt"},
		},
		{"the process hides itself", StepMapIDs, unix.EACCES, files{status: ordinary}, []string{"dumpable"}, nil},
		{"an id that is not there", StepMapIDs, unix.EPERM, files{status: ordinary}, []string{"uid_map"}, nil},
		{"a module that we know nothing of", StepNamespaces, unix.EPERM, files{status: ordinary, "sys/kernel/security/lsm": "capability,tomoyo"}, []string{"tomoyo"}, nil},
		{"no /proc at all", StepNamespaces, unix.EPERM, nil, []string{"container"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tc.files {
				path := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got := settings{root, "/opt/sandlock-exec"}.explain(tc.err, tc.step)
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("%s: %v: %q lacks %q", tc.step, tc.err, got, want)
				}
			}
			for _, not := range tc.not {
				if strings.Contains(got, not) {
					t.Errorf("%s: %v: %q has %q", tc.step, tc.err, got, not)
				}
			}
		})
	}
}

func TestCoveredProc(t *testing.T) {
	for _, tc := range []struct {
		name, mounts string
		want         []string
	}{
		{"a machine", plainMounts, nil},
		{"docker", dockerMounts, []string{"/proc/acpi", "/proc/kcore", "/proc/sys", "/proc/bus"}},
		{"read-only", "22 27 0:21 / /proc ro,nosuid - proc proc rw\n", []string{"/proc"}},
		{"a part", "22 27 0:21 /1 /proc rw - proc proc rw\n", []string{"/proc"}},
		{"hostile", "x\n\n1 2 3\n", nil},
	} {
		if got := coveredProc(tc.mounts); !slices.Equal(got, tc.want) {
			t.Errorf("%s: covered %q, want %q", tc.name, got, tc.want)
		}
	}
}

// Whatever this host allows, the probe says so in words, leaves no child, and blocks no signal.
func TestProbeNamespaces(t *testing.T) {
	var h Host
	h.probeNamespaces()
	for _, offer := range []struct {
		name string
		ok   bool
		why  string
	}{
		{"namespaces", h.Namespaces, h.NamespacesReason}, {"user namespaces", h.UserNamespaces, h.UserNSReason},
		{"new /proc", h.FreshProc, h.FreshProcReason}, {"new /proc with ids mapped", h.MappedProc, h.MappedProcReason},
	} {
		t.Logf("%s: %v %s", offer.name, offer.ok, offer.why)
		if offer.ok != (offer.why == "") {
			t.Errorf("%s: %v, and the reason against it is %q", offer.name, offer.ok, offer.why)
		}
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait for children: %v, want ECHILD", err)
	}
	var blocked unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &blocked); err != nil || blocked.Val[0]&(1<<(unix.SIGTERM-1)) != 0 {
		t.Errorf("signals blocked afterwards: %x, %v", blocked.Val, err)
	}
}

// A step that is refused must be told as that step, with the errno of the call.
func TestForkAndCallTellsTheStep(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	pid, errno := forkAndCall(uintptr(unix.SIGCHLD), []rawCall{{nr: unix.SYS_GETPID}, {nr: unix.SYS_CLOSE, args: [5]uintptr{1 << 20}, step: 2}, {nr: unix.SYS_GETPID, step: 3}}, pipe[1])
	_ = unix.Close(pipe[1])
	if errno != 0 {
		t.Fatal(errno)
	}
	var report [8]byte
	n, err := readFull(pipe[0], report[:])
	if _, e := unix.Wait4(pid, nil, 0, nil); e != nil {
		t.Error(e)
	}
	if want := [8]byte{0: 2, 4: byte(unix.EBADF)}; n != 8 || err != nil || report != want {
		t.Errorf("report % x (%d, %v), want % x", report, n, err, want)
	}
}
