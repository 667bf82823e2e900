package exec_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// A set-user-id program, whether found or made, must not change who runs.
func Test_escape_18_29_setuid_has_no_effect(t *testing.T) {
	if !exectest.Self().Root() {
		t.Skip("a set-user-id program of root needs root to make it")
	}
	b := exectest.NewBox(t, exectest.User{UID: exectest.Nobody, GID: exectest.Nobody})
	dir := b.Dir("suid")
	tool := dir + "/probe"
	data, err := os.ReadFile(b.Probe)
	if err != nil {
		t.Fatal(err)
	}
	b.File(tool, string(data))
	if err := errors.Join(os.Lchown(tool, 0, 0), os.Chmod(tool, 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	if got := exectest.Run(t, b.Opts("", tool, "ids")); got.Stdout != "value uid=65534 euid=0 gid=65534 groups=0\n" {
		t.Skipf("set-user-id has no effect outside either: %q", got.Stdout)
	}
	artifact := b.Policy(b.Base(exectest.Grants{Read: []string{dir}}))
	wantRun(t, b.Run(artifact, tool, "ids"), 0, "value uid=65534 euid=65534 gid=65534 groups=0")
	wantRun(t, b.Run(artifact, b.Probe, "exec", tool, "ids"), 0, "value uid=65534 euid=65534 gid=65534 groups=0")
}

func Test_escape_20_exec_bypass(t *testing.T) {
	toolSetup := func(t *testing.T, b *exectest.Box) []string {
		secretSetup(t, b)
		tool := b.Outside + "/tool"
		copyFile(t, b, "/usr/bin/true", tool)
		b.File(b.Work+"/script", "#!"+tool+"\n")
		if err := os.Chmod(b.Work+"/script", 0o755); err != nil {
			t.Fatal(err)
		}
		b.Link(tool, b.Work+"/toollink")
		return []string{"$TOOL", tool, "$LOADER", loader(t)}
	}
	outside := []attempt{
		{"escape_20_exec", []string{"exec", "$TOOL"}, eacces, harmful},
		{"escape_20_exec_by_symlink", []string{"exec", "$WORK/toollink"}, eacces, harmful},
		{"escape_20_exec_by_descriptor", []string{"exec-fd", "$TOOL"}, eacces, harmful},
		{"escape_20_exec_by_interpreter_line", []string{"exec", "$WORK/script"}, eacces, harmful},
	}
	copies := []attempt{
		{"escape_20_exec_copy", []string{"exec-copy", "$TOOL", "$WORK/copy"}, eacces, harmful},
		{"escape_20_exec_memfd", []string{"exec-memfd", "$TOOL"}, eacces, harmful},
		{"escape_20_read_for_loader", []string{"openat", "$TOOL", "r"}, eacces, works},
	}
	t.Run("no_grant", func(t *testing.T) {
		suite{setup: toolSetup, attempts: append(outside, copies...)}.run(t)
	})
	// A file that may be read but not executed can still be copied; starting it as it is must fail by every way.
	t.Run("read_without_execute", func(t *testing.T) {
		suite{
			grants: func(b *exectest.Box) exectest.Grants {
				return exectest.Grants{More: `filesystem: rules: [{path: "` + b.Outside + `", access: ["read_file", "read_dir"]}]`}
			},
			setup: toolSetup, attempts: outside,
		}.run(t)
	})
	t.Run("loader", func(t *testing.T) {
		exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
			b := exectest.NewBox(t, u)
			toolSetup(t, b)
			r := b.Run(b.Policy(b.Base(exectest.Grants{})), loader(t), b.Outside+"/tool")
			wantFailure0(t, r)
			if r := exectest.Run(t, b.Opts("", loader(t), b.Outside+"/tool")); r.Code != 0 {
				t.Errorf("outside: exit %d, want 0\n%s", r.Code, r.Stderr)
			}
		})
	})
	t.Run("granted", func(t *testing.T) {
		exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
			b := exectest.NewBox(t, u)
			toolSetup(t, b)
			artifact := b.Policy(b.Base(exectest.Grants{Read: []string{b.Outside}}))
			for _, args := range [][]string{
				{"exec", b.Outside + "/tool"}, {"exec-fd", b.Outside + "/tool"}, {"exec", b.Work + "/script"},
				{"exec-copy", b.Outside + "/tool", b.Work + "/copy"},
			} {
				if r := b.Run(artifact, append([]string{b.Probe}, args...)...); r.Code != 0 || r.Stdout != "" {
					t.Errorf("probe %q: exit %d, printed %q, want the program to run\n%s", args, r.Code, r.Stdout, r.Stderr)
				}
			}
		})
	})
}

// wantFailure0 wants any failure: the loader says 127 itself when it cannot open its program.
func wantFailure0(t *testing.T, r exectest.Result) {
	t.Helper()
	if r.Code == 0 {
		t.Errorf("exit 0, want a failure\nstdout: %s", r.Stdout)
	}
}

func loader(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("no dynamic loader where it is looked for")
	return ""
}

func copyFile(t *testing.T, b *exectest.Box, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	b.File(to, string(data))
	if err := os.Chmod(to, 0o755); err != nil {
		t.Fatal(err)
	}
}

// Inherited descriptors reach past every path rule, since rules are asked when a file is opened.
func Test_escape_13_26_inherited_descriptors(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		secret := b.File(b.Outside+"/secret", "S")
		var files []*os.File
		for _, path := range []string{secret, b.Outside} {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files = append(files, f)
		}
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range pair {
			f := os.NewFile(uintptr(fd), "socket")
			defer f.Close()
			files = append(files, f)
		}
		o := b.Opts(b.Policy(b.Base(exectest.Grants{})), b.Probe, "fds")
		o.Files = files
		wantRun(t, exectest.Run(t, o), 0, "value 0 1 2")
		o.Policy = ""
		if got := exectest.Run(t, o).Stdout; !strings.HasPrefix(got, "value 0 1 2 3 4 5 6") {
			t.Errorf("outside: %q, want the four descriptors too", got)
		}
	})
}
