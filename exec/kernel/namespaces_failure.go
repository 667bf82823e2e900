package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What a namespaced start does, as far as a host can forbid it.
const (
	StepNamespaces = "make namespaces"   // clone(2), unshare(2)
	StepMapIDs     = "map ids"           // uid_map, gid_map, setgroups
	StepMount      = "mount"             // any mount but the next
	StepMountProc  = "mount a new /proc" // a procfs that was never mounted before
)

// NamespaceFailure says why this host refused a step of a namespaced start, and what to type against it. It looks at
// the host's settings and thus belongs to the time after a failure, and into the executor: what a child sees in its own
// namespaces are other settings (namespaces(7), "The /proc/sys/user directory").
func NamespaceFailure(err unix.Errno, step string) string {
	exe, e := os.Executable()
	if e != nil {
		exe = "/path/to/sandlock-exec"
	}
	return settings{root: "/", exe: exe}.explain(err, step)
}

// settings reads what this host says about namespaces, beneath root: tests have files of their own there.
type settings struct{ root, exe string }

func (s settings) explain(err unix.Errno, step string) string {
	var reasons []string
	switch {
	case step == StepNamespaces && (err == unix.ENOSPC || err == unix.EUSERS):
		reasons = s.usedUp()
	case step == StepNamespaces && (err == unix.EINVAL || err == unix.ENOSYS):
		reasons = append(s.unbuilt(), s.filter()...)
	case step == StepMountProc && err == unix.EPERM:
		reasons = slices.Concat(s.overmounted(), s.restricted(), s.confined(), s.filter())
	case step == StepMapIDs && err == unix.EACCES:
		reasons = append(s.restricted(), "the process is not dumpable (prctl PR_SET_DUMPABLE), so its id maps are root's")
	case step == StepMount && err == unix.EINVAL:
		reasons = s.chrooted()
	case err == unix.EPERM || err == unix.EACCES:
		reasons = slices.Concat(s.restricted(), s.filter(), s.confined())
		switch step {
		case StepNamespaces:
			reasons = append(reasons, s.chrooted()...)
		case StepMapIDs:
			reasons = append(reasons, "an id that is to be mapped is not mapped in the namespace that we are in (cat /proc/self/uid_map /proc/self/gid_map)")
		}
	}
	if len(reasons) == 0 {
		return s.unknown()
	}
	return strings.Join(reasons, "; or: ")
}

func (s settings) read(path string) string {
	b, err := os.ReadFile(filepath.Join(s.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// status returns a field of /proc/self/status.
func (s settings) status(key string) string {
	for line := range strings.Lines(s.read("proc/self/status")) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// privileged reports CAP_SYS_ADMIN, which the restrictions of user namespaces spare.
func (s settings) privileged() bool {
	caps, err := strconv.ParseUint(s.status("CapEff"), 16, 64)
	return err == nil && caps>>unix.CAP_SYS_ADMIN&1 == 1
}

// namespaceKinds are the names of /proc/self/ns; those of limits are nearly the same.
var namespaceKinds = []struct{ ns, limit string }{
	{"user", "user.max_user_namespaces"}, {"mnt", "user.max_mnt_namespaces"}, {"pid", "user.max_pid_namespaces"},
	{"uts", "user.max_uts_namespaces"}, {"ipc", "user.max_ipc_namespaces"}, {"net", "user.max_net_namespaces"},
}

func (s settings) sysctl(name string) string {
	return s.read("proc/sys/" + strings.ReplaceAll(name, ".", "/"))
}

// enough is far more namespaces than a machine has sandboxes.
const enough = 10000

func (s settings) usedUp() (reasons []string) {
	var limits []string
	for _, kind := range namespaceKinds {
		switch value := s.sysctl(kind.limit); value {
		case "", "2147483647": // a nested user namespace's, which is no limit
		case "0":
			reasons = append(reasons, fmt.Sprintf("sysctl %s is 0; as root type: sysctl -w %[1]s=%d", kind.limit, enough))
		default:
			limits = append(limits, kind.limit+"="+value)
		}
	}
	if len(reasons) > 0 {
		return reasons
	}
	if len(limits) > 0 {
		reasons = append(reasons, "this user has as many namespaces as it may have (sysctl "+strings.Join(limits, " ")+"; raise the one that is used up by sysctl -w)")
	}
	return append(reasons, "a user namespace around this one, such as a container's, has a lower limit (bwrap --disable-userns sets one)",
		"user or PID namespaces are nested 32 deep already, and the kernel allows no more")
}

func (s settings) unbuilt() (reasons []string) {
	for _, kind := range namespaceKinds {
		if _, err := os.Lstat(filepath.Join(s.root, "proc/self/ns", kind.ns)); errors.Is(err, os.ErrNotExist) {
			reasons = append(reasons, fmt.Sprintf("this kernel was built without %s namespaces (CONFIG_%s_NS)", kind.ns, strings.ToUpper(kind.ns)))
		}
	}
	return reasons
}

// restricted names the settings that keep user namespaces from programs without privileges. AppArmor's lets the
// namespace be made, and refuses everything in it.
func (s settings) restricted() (reasons []string) {
	if s.privileged() {
		return nil
	}
	if s.sysctl("kernel.unprivileged_userns_clone") == "0" {
		reasons = append(reasons, "sysctl kernel.unprivileged_userns_clone is 0; as root type: sysctl -w kernel.unprivileged_userns_clone=1")
	}
	if s.sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1" {
		reasons = append(reasons, fmt.Sprintf("sysctl kernel.apparmor_restrict_unprivileged_userns is 1: AppArmor wants a profile for "+
			"programs that make user namespaces; as root type: "+
			"echo 'abi <abi/4.0>, profile sandlock %s flags=(unconfined) { userns, }' > /etc/apparmor.d/sandlock && apparmor_parser -r /etc/apparmor.d/sandlock, "+
			"or for all programs: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0", s.exe))
	}
	return reasons
}

func (s settings) filter() []string {
	if s.status("Seccomp") != "2" {
		return nil
	}
	return []string{"an outer sandbox or container refuses it, e.g. by its seccomp profile; " +
		"start it so that it does not (docker run --security-opt seccomp=unconfined, or a profile that allows clone, unshare and mount)"}
}

// confined tells of an AppArmor or SELinux label of our own, such as containers have.
func (s settings) confined() []string {
	label := s.read("proc/self/attr/apparmor/current")
	if label == "" {
		label = s.read("proc/self/attr/current")
	}
	label = strings.TrimRight(label, "\x00")
	// "unconfined" is AppArmor's, with a mode in newer kernels; "kernel" and "unconfined_t" are SELinux's.
	if label == "" || label == "kernel" || strings.HasPrefix(label, "unconfined") || strings.Contains(label, ":unconfined_t:") {
		return nil
	}
	if strings.Count(label, ":") >= 2 {
		return []string{"SELinux confines this process as " + label + " (in a container: --security-opt label=disable)"}
	}
	return []string{"AppArmor confines this process by profile " + label + " (in a container: --security-opt apparmor=unconfined)"}
}

// chrooted is sure where no mount begins at our root; chroot(2) to where one does cannot be told from a container.
func (s settings) chrooted() []string {
	text := s.read("proc/self/mountinfo")
	if text == "" {
		return nil
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			return nil
		}
	}
	return []string{`this process is in a chroot, where the kernel makes no user namespaces (user_namespaces(7)); ` +
		`start it outside, and let the policy have filesystem.chroot, or enter by pivot_root(2)`}
}

// overmounted lists what is mounted over parts of /proc: a new one would show what it hides (mount_too_revealing).
func (s settings) overmounted() []string {
	covered := coveredProc(s.read("proc/self/mountinfo"))
	if len(covered) == 0 {
		return nil
	}
	const most = 3
	names := strings.Join(covered[:min(most, len(covered))], ", ")
	if len(covered) > most {
		names += ", …"
	}
	return []string{"/proc is covered in part here (" + names + "), so the kernel refuses another one that is not; " +
		`let the policy say filesystem.proc "auto", which shows this one instead, or start the container with ` +
		"--security-opt systempaths=unconfined (podman: unmask=ALL, Kubernetes: procMount: Unmasked)"}
}

// coveredProc returns the paths beneath /proc that mountinfo has other mounts at, or "/proc" for one that shows only a
// part of itself or is read-only. Those that the kernel itself mounts at are left out: its directories are empty.
func coveredProc(mountinfo string) (paths []string) {
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		at := f[4]
		switch {
		case at == "/proc" && (f[3] != "/" || slices.Contains(strings.Split(f[5], ","), "ro")):
			paths = append(paths, at)
		case strings.HasPrefix(at, "/proc/") && at != "/proc/sys/fs/binfmt_misc" && at != "/proc/fs/nfsd" && at != "/proc/openprom":
			paths = append(paths, at)
		}
	}
	return paths
}

func (s settings) unknown() string {
	if lsm := s.read("sys/kernel/security/lsm"); lsm != "" {
		return "neither a sysctl nor a seccomp filter of ours forbids it; see what the security modules of this kernel say (" + lsm + "; journalctl -k, dmesg)"
	}
	return "neither a sysctl nor a seccomp filter of ours forbids it; ask what contains this process: a container, a virtual machine's kernel (gVisor), a security module (dmesg)"
}
