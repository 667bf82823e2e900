package exec_test

import (
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func Test_supervisor_8_1_mount_from_a_shell(t *testing.T) {
	mount := exectest.Program(t, "/usr/bin/mount")
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := mount + " -t tmpfs none " + b.Work + " 2>/dev/null; echo status $?"
		artifact := b.Policy(b.Base(exectest.Grants{Write: []string{"/dev/null"}}))
		r := b.Sh(artifact, script)
		if r.Code != 0 || !strings.HasPrefix(r.Stdout, "status ") || strings.TrimSpace(r.Stdout) == "status 0" {
			t.Errorf("exit %d, printed %q, want exit 0 and a status that is not 0\n%s", r.Code, r.Stdout, r.Stderr)
		}
		if got := b.RootControl("call", "mount", "s:none", "s:"+b.Work, "s:tmpfs", "0", "0"); got != "ok" {
			t.Errorf("outside as root: %q, want ok", got)
		}
	})
}

func Test_supervisor_8_2_strace(t *testing.T) {
	strace := exectest.Program(t, "/usr/bin/strace")
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}))
		wantFailure(t, b.Run(artifact, strace, "-p", "1"), "strace")
		wantFailure(t, b.Run(artifact, strace, "/bin/true"), "strace")
		if r := exectest.Run(t, b.Opts("", strace, "/bin/true")); r.Code != 0 {
			t.Errorf("outside: strace /bin/true ended with %d, want 0\n%s", r.Code, r.Stderr)
		}
	})
}

func Test_supervisor_8_seccomp(t *testing.T) {
	suite{attempts: []attempt{
		{"supervisor_8_3_personality_query", []string{"query", "personality", "0xffffffff"}, eperm, works},
		{"supervisor_8_3_personality_set", []string{"query", "personality", "0x40000"}, eperm, works},
		{"supervisor_8_4_raw_socket", []string{"socket", "2", "3", "1"}, eperm, worksForRoot},
		{"supervisor_8_4_raw_socket_ipv6", []string{"socket", "10", "3", "58"}, eperm, worksForRoot},
		{"supervisor_8_8_udp_socket", []string{"socket", "2", "2", "0"}, eperm, works},
		{"supervisor_8_8_udp_socket_ipv6", []string{"socket", "10", "2", "17"}, eperm, works},
		{"supervisor_8_8_udp_socket_with_flags", []string{"socket", "2", "0x80802", "0"}, eperm, works},
		{"supervisor_8_9_shmget", []string{"call", "shmget", "0", "4096", "0x380"}, eperm, works},
	}}.run(t)
}

func Test_supervisor_8_seccomp_allowed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		checkAllowed(t, b, b.Policy(b.Base(exectest.Grants{})), []allowed{
			{"supervisor_8_11_tcp_socket", []string{"socket", "2", "1", "0"}, "ok"},
			{"supervisor_8_11_tcp_socket_ipv6", []string{"socket", "10", "1", "6"}, "ok"},
			{"socketpair", []string{"socketpair", "1", "1", "0"}, "ok"},
			{"descriptor_over_socketpair", []string{"fd-pass"}, "ok"},
			{"no_new_privs", []string{"nnp"}, "value 1"},
			{"filter_mode", []string{"seccomp"}, "value 2"},
			{"dumpable", []string{"dumpable"}, "value 1"},
		})
		ipc := b.Policy(b.Base(exectest.Grants{More: `syscalls: extra_allow: ["sysv_ipc"]`}))
		checkAllowed(t, b, ipc, []allowed{
			{"supervisor_8_10_shmget_by_group", []string{"call", "shmget", "0", "4096", "0x380"}, "ok"},
		})
	})
}

func Test_supervisor_8_100_shell_survives_a_denied_call(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}))
		r := b.Sh(artifact, b.Probe+" call mount s:none s:/ s:tmpfs 0 0; "+b.Probe+" x32 getpid; echo alive")
		if r.Code != 0 || !strings.HasPrefix(r.Stdout, "errno EPERM\n") || !strings.HasSuffix(r.Stdout, "alive\n") {
			t.Errorf("exit %d, printed %q, want the denial and then alive\n%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}
