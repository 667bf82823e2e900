package exec_test

import (
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Attacks on the kernel by calls that no sandboxed program needs.
func Test_escape_08_kernel_attack_surface(t *testing.T) {
	suite{
		setup: func(t *testing.T, b *exectest.Box) []string {
			b.File(b.Work+"/file", "x")
			return nil
		},
		attempts: []attempt{
			{"escape_08_set_dumpable", []string{"call", "prctl", "4", "0", "0", "0", "0"}, eperm, works},
			{"escape_08_set_dumpable_high_bits", []string{"call", "prctl", "0x100000004", "0", "0", "0", "0"}, eperm, works},
			{"escape_08_set_securebits", []string{"call", "prctl", "28", "0", "0", "0", "0"}, eperm, worksForRoot},
			{"escape_08_set_ptracer", []string{"call", "prctl", "0x59616d61", "0xffffffffffffffff", "0", "0", "0"}, eperm, mayRefuse},
			{"escape_08_kcmp", []string{"call", "kcmp", "self", "self", "2", "0", "0"}, absent, works},
			{"escape_08_perf_event_open", []string{"perf-event", "0"}, absent, worksForRoot},
			{"escape_08_bpf", []string{"bpf-map"}, absent, worksForRoot},
			{"escape_08_userfaultfd", []string{"call", "userfaultfd", "1"}, absent, worksForRoot},
			{"escape_08_add_key", []string{"call", "add_key", "s:user", "s:sandlock", "s:x", "1", "-3"}, absent, works},
			{"escape_08_keyctl", []string{"call", "keyctl", "0", "-3", "1"}, absent, works},
			{"escape_08_request_key", []string{"call", "request_key", "s:user", "s:sandlock-none", "0", "0"}, absent, notRefused},
			{"escape_08_kexec_load", []string{"call", "kexec_load", "0", "0", "0", "0xffff"}, absent, notRefused},
			{"escape_08_kexec_file_load", []string{"call", "kexec_file_load", "-1", "-1", "0", "0", "0"}, absent, notRefused},
			{"escape_08_init_module", []string{"call", "init_module", "b:8", "8", "s:"}, absent, mayRefuse},
			{"escape_08_finit_module", []string{"call", "finit_module", "-1", "s:", "0"}, absent, mayRefuse},
			{"escape_08_delete_module", []string{"call", "delete_module", "s:sandlock_none", "0x800"}, absent, mayRefuse},
			{"escape_08_reboot", []string{"call", "reboot", "0", "0", "0", "0"}, absent, notRefused},
			{"escape_08_swapon", []string{"call", "swapon", "s:/nonexistent", "0"}, absent, notRefused},
			{"escape_08_acct", []string{"call", "acct", "s:/nonexistent"}, absent, notRefused},
			{"escape_08_quotactl", []string{"call", "quotactl", "0x80000100", "0", "0", "0"}, absent, notRefused},
			{"escape_08_syslog", []string{"call", "syslog", "10", "0", "0"}, absent, worksForRoot},
			{"escape_08_fanotify", []string{"call", "fanotify_init", "0", "0"}, absent, worksForRoot},
			{"escape_08_clock_settime", []string{"call", "clock_settime", "-1", "b:16"}, absent, notRefused},
			{"escape_08_process_madvise", []string{"call", "process_madvise", "-1", "b:16", "1", "20", "0"}, absent, notRefused},
			{"escape_08_sethostname", []string{"call", "sethostname", "s:", "-1"}, absent, notRefused},
			{"escape_08_modify_ldt", []string{"call", "modify_ldt", "0", "b:16", "16"}, absent, notRefused},
			{"escape_08_mq_open", []string{"call", "mq_open", "s:sandlock-none", "0"}, absent, notRefused},
			{"escape_08_mlock_secret", []string{"call", "memfd_secret", "0"}, absent, notRefused},
		},
	}.run(t)
}

// Mounts and namespaces: whoever makes a namespace has every capability in it, and the kernel code behind those.
func Test_escape_17_mounts_and_namespaces(t *testing.T) {
	suite{attempts: []attempt{
		{"escape_17_mount_tmpfs", []string{"call", "mount", "s:none", "s:$WORK", "s:tmpfs", "0", "0"}, absent, worksForRoot},
		{"escape_17_mount_bind", []string{"call", "mount", "s:/", "s:$WORK", "0", "0x1000", "0"}, absent, worksForRoot},
		{"escape_17_mount_remount", []string{"call", "mount", "0", "s:/proc", "0", "0x1020", "0"}, absent, notRefused},
		{"escape_17_umount2", []string{"call", "umount2", "s:$WORK", "2"}, absent, notRefused},
		{"escape_17_pivot_root", []string{"call", "pivot_root", "s:$WORK", "s:$WORK"}, absent, notRefused},
		{"escape_17_chroot", []string{"call", "chroot", "s:$WORK"}, absent, worksForRoot},
		{"escape_17_fsopen", []string{"call", "fsopen", "s:tmpfs", "0"}, absent, worksForRoot},
		{"escape_17_fsmount", []string{"fsmount", "tmpfs"}, absent, worksForRoot},
		{"escape_17_fspick", []string{"call", "fspick", "-100", "s:/", "0"}, absent, worksForRoot},
		{"escape_17_open_tree", []string{"call", "open_tree", "-100", "s:/", "1"}, absent, worksForRoot},
		{"escape_17_open_tree_without_clone", []string{"call", "open_tree", "-100", "s:/", "0"}, absent, works},
		{"escape_17_open_tree_and_move_mount", []string{"open-tree-move", "/usr", "$WORK"}, absent, worksForRoot},
		{"escape_17_move_mount", []string{"call", "move_mount", "-100", "s:/nonexistent", "-100", "s:$WORK", "0"}, absent, notRefused},
		{"escape_17_mount_setattr", []string{"call", "mount_setattr", "-100", "s:/nonexistent", "0", "b:32", "32"}, absent, notRefused},
		{"escape_17_statmount", []string{"call", "statmount", "b:24", "b:512", "512", "0"}, absent, notRefused},
		{"escape_17_unshare_newns", []string{"call", "unshare", "0x20000"}, absent, worksForRoot},
		// The probe has threads, for which the kernel answers EINVAL; clone with the same flag is below.
		{"escape_17_unshare_newuser", []string{"call", "unshare", "0x10000000"}, absent, notRefused},
		{"escape_17_unshare_newnet", []string{"call", "unshare", "0x40000000"}, absent, worksForRoot},
		{"escape_17_unshare_files", []string{"call", "unshare", "0x400"}, absent, works},
		{"escape_17_setns", []string{"call", "setns", "-1", "0"}, absent, notRefused},
		{"escape_17_clone_newuser", []string{"clone", "0x10000000"}, absent, works},
		{"escape_17_clone_newns", []string{"clone", "0x20000"}, absent, worksForRoot},
		{"escape_17_clone_newcgroup", []string{"clone", "0x02000000"}, absent, worksForRoot},
		{"escape_17_clone_newuts", []string{"clone", "0x04000000"}, absent, worksForRoot},
		{"escape_17_clone_newipc", []string{"clone", "0x08000000"}, absent, worksForRoot},
		{"escape_17_clone_newpid", []string{"clone", "0x20000000"}, absent, worksForRoot},
		{"escape_17_clone_newnet", []string{"clone", "0x40000000"}, absent, worksForRoot},
		{"escape_17_clone_newuser_and_others", []string{"clone", "0x7e020000"}, absent, works},
		{"escape_17_clone3_newuser", []string{"clone3", "0x10000000"}, []string{"errno ENOSYS"}, works},
		{"escape_17_clone3_newtime", []string{"clone3", "0x80"}, []string{"errno ENOSYS"}, worksForRoot},
		// Plain clone3 too: its flags are in memory, and C libraries fall back to clone on ENOSYS alone.
		{"escape_17_clone3_plain", []string{"clone3", "0"}, []string{"errno ENOSYS"}, works},
	}}.run(t)
}

// Other doors into the kernel, whose numbers mean other calls.
func Test_escape_38_foreign_abi(t *testing.T) {
	suite{attempts: []attempt{
		{"escape_38_int80_getpid", []string{"int80", "20"}, killed, works},
		{"escape_38_int80_umount", []string{"int80", "22"}, killed, notRefused},
		{"escape_38_int80_ptrace", []string{"int80", "26"}, killed, harmful},
		// Kernels without the x32 ABI have nothing to show as control; the filter's proof covers the numbers.
		{"escape_38_x32_getpid", []string{"x32", "getpid"}, killed, harmful},
		{"escape_38_x32_mount", []string{"x32", "mount"}, killed, harmful},
		{"escape_38_x32_ptrace_number", []string{"x32", "521"}, killed, harmful},
		{"escape_38_unknown_number", []string{"call", "1000"}, []string{"errno ENOSYS"}, harmful},
		{"escape_38_negative_number", []string{"call", "0xffffffff"}, killed, harmful},
	}}.run(t)
}

// A ring runs operations that the filter never sees.
func Test_escape_39_io_uring(t *testing.T) {
	suite{attempts: []attempt{
		{"escape_39_setup", []string{"io-uring"}, absent, mayRefuse},
		{"escape_39_enter", []string{"call", "io_uring_enter", "-1", "1", "0", "0", "0", "0"}, absent, notRefused},
		{"escape_39_register", []string{"call", "io_uring_register", "-1", "0", "0", "0"}, absent, notRefused},
	}}.run(t)
}

// A filter of the program's own must not take the supervisor's calls away from it.
func Test_escape_37_own_listener(t *testing.T) {
	busy := []string{"errno EBUSY", "errno EPERM"}
	suite{attempts: []attempt{
		{"escape_37_new_listener", []string{"seccomp-listener"}, busy, works},
		{"escape_37_notify_all", []string{"seccomp-mask"}, busy, harmful},
	}}.run(t)
}
